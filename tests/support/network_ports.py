"""The same few nodes on libp2p and on the simulated network, for tests of what both promise."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import trio

from d2m_node.measures import NetworkReading
from d2m_node.ports import NetworkPort
from d2m_node.simulation.network.fabric import open_fabric
from d2m_node.simulation.network.links import LIMITS, FabricOptions
from tests.support.network import (
    PATIENCE_SECONDS,
    Shelf,
    connect,
    start_network,
    wait_subscribed,
)


@dataclass
class Member:
    """One node: its port, what it serves, and how to end it."""

    port: NetworkPort
    shelf: Shelf
    stop: Callable[[], Awaitable[None]]
    measure: Callable[[], NetworkReading]


@dataclass
class Party:
    """Some nodes, of which every two are connected but those in ``cuts``."""

    members: list[Member]
    wait_ready: Callable[[str], Awaitable[None]]
    """Returns when all know who of them listens to a topic."""
    cuts: Collection[tuple[int, int]] = field(default=())

    @property
    def ports(self) -> list[NetworkPort]:
        return [one.port for one in self.members]


OpenParty = Callable[..., AbstractAsyncContextManager[Party]]
"""Takes the number of nodes, pairs in ``cuts``, and changes of the daemon's limits."""


@asynccontextmanager
async def open_libp2p_party(
    folder: Path, count: int, *, cuts: Collection[tuple[int, int]] = (), **limits: Any
) -> AsyncIterator[Party]:
    shelves = [Shelf() for _ in range(count)]
    networks = []
    async with AsyncExitStack() as all_of_them:
        members = []
        for number, shelf in enumerate(shelves):
            own = await all_of_them.enter_async_context(AsyncExitStack())
            network = await own.enter_async_context(
                start_network(folder / f"node_{number}", shelf, **limits)
            )
            networks.append(network)
            members.append(Member(network, shelf, own.aclose, network.measure))
        for first, second in combinations(range(count), 2):
            if (first, second) not in cuts:
                await connect(networks[first], networks[second])

        async def wait_ready(topic: str) -> None:
            for first, second in permutations(range(count), 2):
                if (min(first, second), max(first, second)) in cuts:
                    continue
                speaker, listener = networks[first], networks[second]
                if topic not in listener.stack.pubsub.topic_ids:
                    continue
                await wait_subscribed(speaker, listener, topic)
                if topic in speaker.stack.pubsub.topic_ids:
                    await speaker.stack.pubsub.wait_for_mesh(
                        listener.stack.host.get_id(), topic, PATIENCE_SECONDS
                    )

        yield Party(members, wait_ready, cuts)


@asynccontextmanager
async def open_simulated_party(
    _folder: Path, count: int, *, cuts: Collection[tuple[int, int]] = (), **limits: Any
) -> AsyncIterator[Party]:
    options = FabricOptions(seed=1, delay_seconds=(0.001, 0.003), limits=replace(LIMITS, **limits))
    names = [b"node %d" % number for number in range(count)]
    async with AsyncExitStack() as all_of_them:
        fabric = await all_of_them.enter_async_context(open_fabric(options))
        members = []
        for name in names:
            own = await all_of_them.enter_async_context(AsyncExitStack())
            shelf = Shelf()
            port = await own.enter_async_context(fabric.open_port(name, shelf))
            port.set_address_book(dict.fromkeys(names, "in memory"))
            members.append(Member(port, shelf, own.aclose, port.measure))
        for first, second in cuts:
            fabric.set_link(names[first], names[second], is_cut=True)
        yield Party(members, _know_already, cuts)


async def _know_already(_topic: str) -> None:
    await trio.lowlevel.checkpoint()
