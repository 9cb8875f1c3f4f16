"""Nodes that cheat, for tests and devnets: an entry point of its own.

An ordinary node cannot be configured to do any of this. Run as
``python -m d2m_node.simulation.adversaries DATA_DIR ATTACK``.
"""

import secrets
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import numpy as np

from d2m_node.address_store import AddressStore
from d2m_node.chain.adapter import open_chain
from d2m_node.logs import configure_logs
from d2m_node.measures import MeasuredChain
from d2m_node.network.adapter import Libp2pNetwork, open_network
from d2m_node.network.settings import NetworkSettings
from d2m_node.node import Behaviour, main
from d2m_node.past_jobs import PastJobs
from d2m_node.ports import (
    Int32Array,
    Library,
    PrivateTraining,
    SignerPort,
    TrainerPort,
    TrainingTask,
)
from d2m_node.roles.executor import Executor
from d2m_node.settings import ChainSettings, Device, load_settings
from d2m_node.simulation.hostile.executors import ForgingExecutor, StaleExecutor
from d2m_node.simulation.hostile.ports import SilentNetwork, TwoFacedNetwork
from d2m_node.training.runner import open_trainer
from d2m_node.transaction_store import TransactionStore
from protocol.hashing import Domain
from protocol.update import MAX_UPDATE

CONE_ATTACKS = ("stale", "random", "collude", "silent")
SELLER_ATTACKS = ("sign-flip", "noise", "equivocate")
NOISE = 1 << 12
BOOST = -2
"""A reversed update is also made larger, as in MECHANISM 13.1."""
COLLUSION = b"collusion"
"""What all that collude forge their results from."""


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


def make_equivocator() -> Behaviour:
    """Return a seller that signs two commitments in each round."""
    account: list[tuple[SignerPort, Domain]] = []

    @asynccontextmanager
    async def open_own_chain(
        settings: ChainSettings, signer: SignerPort, store: TransactionStore, past: PastJobs
    ) -> AsyncGenerator[MeasuredChain, None]:
        async with open_chain(settings, signer, store, past) as chain:
            account.append((signer, chain.domain))
            yield chain

    @asynccontextmanager
    async def open_own_network(
        settings: NetworkSettings, library: Library, addresses: AddressStore
    ) -> AsyncGenerator[Libp2pNetwork, None]:
        async with open_network(settings, library, addresses) as network:
            two_faced = TwoFacedNetwork(network, *account[-1])
            yield cast("Libp2pNetwork", two_faced)

    return Behaviour(open_chain=open_own_chain, open_network=open_own_network)


@asynccontextmanager
async def open_silent_network(
    settings: NetworkSettings, library: Library, addresses: AddressStore
) -> AsyncGenerator[Libp2pNetwork, None]:
    """Give a network without gossip."""
    async with open_network(settings, library, addresses) as network:
        yield cast("Libp2pNetwork", SilentNetwork(network))


EXECUTORS: dict[str, Callable[[], Executor]] = {
    "stale": StaleExecutor,
    "random": lambda: ForgingExecutor(secrets.token_bytes(32)),
    "collude": lambda: ForgingExecutor(COLLUSION),
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
        case "silent":
            return Behaviour(open_network=open_silent_network)

    async def make_executor(_: Device) -> Executor:
        return EXECUTORS[attack]()

    return Behaviour(make_executor=make_executor)


if __name__ == "__main__":
    settings = load_settings(Path(sys.argv[1]), flags={})
    configure_logs(settings.logs)
    main(settings, make_behaviour(sys.argv[2]))
