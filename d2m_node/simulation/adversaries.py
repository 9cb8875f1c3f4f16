"""Nodes that cheat, for tests and devnets: an entry point of its own.

An ordinary node cannot be configured to do any of this. Run as
``python -m d2m_node.simulation.adversaries DATA_DIR ATTACK``.
"""

import secrets
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from d2m_node.logs import configure_logs
from d2m_node.node import Behaviour, main
from d2m_node.ports import Int32Array, PrivateTraining, TrainerPort, TrainingTask
from d2m_node.roles.executor import Executor
from d2m_node.settings import Device, load_settings
from d2m_node.training.runner import open_trainer
from protocol.digest import FinalResult, RoundHeader
from protocol.hashing import hash_domain
from protocol.round import BallotResult, FinalWork, RoundWork, compute_final, compute_round
from protocol.types import Digest, UtilityQ20
from protocol.update import MAX_UPDATE

CONE_ATTACKS = ("stale", "random", "collude")
SELLER_ATTACKS = ("sign-flip",)
BOOST = -2
"""A reversed update is also made larger, as in MECHANISM 13.1."""


class StaleExecutor:
    """Votes for the digest of the round before, as if nothing had been done since."""

    def compute_round(self, work: RoundWork) -> BallotResult:
        """Give the digest that was accepted last."""
        return replace(compute_round(work), digest=work.before.previous_digest, opening=b"")

    def compute_final(self, work: FinalWork) -> BallotResult:
        """Claim that nothing was learned."""
        stale = replace(work, parameters=work.initial)
        return compute_final(stale)


class RandomExecutor:
    """Votes for noise."""

    def compute_round(self, work: RoundWork) -> BallotResult:
        """Give a random digest."""
        return replace(compute_round(work), digest=Digest(secrets.token_bytes(32)), opening=b"")

    def compute_final(self, work: FinalWork) -> BallotResult:
        """Give a random digest."""
        return replace(compute_final(work), digest=Digest(secrets.token_bytes(32)), opening=b"")


class ColludingExecutor:
    """Votes, with all its kind, for one wrong result that they could open if it won."""

    def compute_round(self, work: RoundWork) -> BallotResult:
        """Credit seller 0 alone, and put another model in the place of the honest one."""
        honest = compute_round(work)
        header = RoundHeader.decode(honest.opening)
        wrong = replace(
            header,
            accepted=1,
            model_digest=hash_domain("collusion", header.model_digest),
        )
        return replace(honest, digest=wrong.digest, opening=wrong.encode(), blobs=())

    def compute_final(self, work: FinalWork) -> BallotResult:
        """Claim a perfect model."""
        honest = compute_final(work)
        wrong = replace(FinalResult.decode(honest.opening), utility=UtilityQ20(1 << 20))
        return replace(honest, digest=wrong.digest, opening=wrong.encode())


class SignFlipTrainer:
    """Trains like an honest seller, then sends the opposite."""

    def __init__(self, honest: TrainerPort) -> None:
        self._honest = honest

    async def train(self, task: TrainingTask) -> Int32Array:
        """Return the honest update reversed and boosted, within the protocol's bound."""
        update = await self._honest.train(task)
        return np.clip(BOOST * update, -MAX_UPDATE, MAX_UPDATE).astype(np.int32)

    async def compute_epsilon(
        self, history: Sequence[tuple[PrivateTraining, int]], delta: float
    ) -> float:
        """Cheat with updates alone."""
        return await self._honest.compute_epsilon(history, delta)

    async def choose_noise(
        self, *, epsilon: float, delta: float, sample_rate: float, steps: int
    ) -> float:
        """Cheat with updates alone."""
        return await self._honest.choose_noise(
            epsilon=epsilon, delta=delta, sample_rate=sample_rate, steps=steps
        )


@asynccontextmanager
async def open_sign_flip_trainer(device: Device) -> AsyncGenerator[TrainerPort, None]:
    """Give a trainer whose updates undo what the others learn."""
    async with open_trainer(device) as honest:
        yield SignFlipTrainer(honest)


EXECUTORS: dict[str, Callable[[], Executor]] = {
    "stale": StaleExecutor,
    "random": RandomExecutor,
    "collude": ColludingExecutor,
}


def make_behaviour(attack: str) -> Behaviour:
    """Return what a hostile node does instead of the honest thing."""
    if attack in SELLER_ATTACKS:
        return Behaviour(open_trainer=open_sign_flip_trainer)

    async def make_executor(_: Device) -> Executor:
        return EXECUTORS[attack]()

    return Behaviour(make_executor=make_executor)


if __name__ == "__main__":
    settings = load_settings(Path(sys.argv[1]), flags={})
    configure_logs(settings.logs)
    main(settings, make_behaviour(sys.argv[2]))
