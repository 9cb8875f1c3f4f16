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
from typing import Any, cast

import msgspec
import numpy as np

from d2m_node.chain.adapter import open_chain
from d2m_node.logs import configure_logs
from d2m_node.measures import MeasuredChain
from d2m_node.network.adapter import Libp2pNetwork, open_network
from d2m_node.network.settings import NetworkSettings
from d2m_node.node import Behaviour, main
from d2m_node.ports import (
    Int32Array,
    Library,
    PrivateTraining,
    SignerPort,
    TrainerPort,
    TrainingTask,
)
from d2m_node.roles.executor import Executor
from d2m_node.roles.statements import UNSIGNED, signed_part
from d2m_node.settings import ChainSettings, Device, load_settings
from d2m_node.training.runner import open_trainer
from d2m_node.transaction_store import TransactionStore
from protocol.digest import FinalResult, RoundHeader
from protocol.hashing import Domain, hash_domain
from protocol.round import BallotResult, FinalWork, RoundWork, compute_final, compute_round
from protocol.types import Digest, UtilityQ20
from protocol.update import MAX_UPDATE
from protocol.wire.messages import GossipMessage, UpdateCommit

CONE_ATTACKS = ("stale", "random", "collude")
SELLER_ATTACKS = ("sign-flip", "noise", "equivocate")
NOISE = 1 << 12
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


class NoiseTrainer:
    """Sends small random numbers, and needs no torch for it."""

    async def train(self, task: TrainingTask) -> Int32Array:
        """Return noise."""
        noise = np.random.default_rng(task.seed).integers(-NOISE, NOISE, len(task.parameters))
        return noise.astype(np.int32)


@asynccontextmanager
async def open_noise_trainer(_: Device) -> AsyncGenerator[TrainerPort, None]:
    """Give a trainer that does not train."""
    yield cast("TrainerPort", NoiseTrainer())


class TwoFacedNetwork:
    """Says two things where a seller may say one: a second commitment follows the first."""

    def __init__(self, honest: Libp2pNetwork, signer: SignerPort, domain: Domain) -> None:
        self._honest = honest
        self._signer = signer
        self._domain = domain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._honest, name)

    async def publish(self, topic: str, message: GossipMessage) -> None:
        """Gossip a message; after a seller's commitment another one, signed as well."""
        await self._honest.publish(topic, message)
        if isinstance(message, UpdateCommit):
            other = hash_domain("equivocation", message.commitment)
            unsigned = msgspec.structs.replace(message, commitment=other, signature=UNSIGNED)
            digest = signed_part(unsigned).digest(self._domain)
            signature = self._signer.sign_digest(digest)
            signed = msgspec.structs.replace(unsigned, signature=signature)
            await self._honest.publish(topic, signed)


def make_equivocator() -> Behaviour:
    """Return a seller that signs two commitments in each round."""
    account: list[tuple[SignerPort, Domain]] = []

    @asynccontextmanager
    async def open_own_chain(
        settings: ChainSettings, signer: SignerPort, store: TransactionStore
    ) -> AsyncGenerator[MeasuredChain, None]:
        async with open_chain(settings, signer, store) as chain:
            account.append((signer, chain.domain))
            yield chain

    @asynccontextmanager
    async def open_own_network(
        settings: NetworkSettings, library: Library
    ) -> AsyncGenerator[Libp2pNetwork, None]:
        async with open_network(settings, library) as network:
            yield cast("Libp2pNetwork", TwoFacedNetwork(network, *account[-1]))

    return Behaviour(open_chain=open_own_chain, open_network=open_own_network)


EXECUTORS: dict[str, Callable[[], Executor]] = {
    "stale": StaleExecutor,
    "random": RandomExecutor,
    "collude": ColludingExecutor,
}


def make_behaviour(attack: str) -> Behaviour:
    """Return what a hostile node does instead of the honest thing."""
    match attack:
        case "sign-flip":
            return Behaviour(open_trainer=open_sign_flip_trainer)
        case "noise":
            return Behaviour(open_trainer=open_noise_trainer)
        case "equivocate":
            return make_equivocator()

    async def make_executor(_: Device) -> Executor:
        return EXECUTORS[attack]()

    return Behaviour(make_executor=make_executor)


if __name__ == "__main__":
    settings = load_settings(Path(sys.argv[1]), flags={})
    configure_logs(settings.logs)
    main(settings, make_behaviour(sys.argv[2]))
