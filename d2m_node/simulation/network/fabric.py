"""The network of a simulation: every node's `NetworkPort` in one process, in virtual time.

What gossip does is in `courier`, what a node sees of it all in `fabric_port`, and what delays and
cuts it in `links`.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import trio

from d2m_node.ports import Library
from d2m_node.simulation.network.courier import Courier, Outgoing, Traffic
from d2m_node.simulation.network.links import FabricOptions, Links, LinkSettings
from d2m_node.simulation.network.port import FabricPort, Ground


class Fabric:
    """Connects all nodes whose ports are open."""

    def __init__(self, options: FabricOptions) -> None:
        links, traffic = Links(options), Traffic()
        self._ports: dict[bytes, FabricPort] = {}
        self._ground = Ground(
            options=options,
            links=links,
            traffic=traffic,
            courier=Courier(options, links, traffic),
            ports=self._ports,
        )

    async def run(self) -> None:
        """Deliver gossip until cancelled. Raises what the rules of a receiver raise."""
        await self._ground.courier.run()

    @asynccontextmanager
    async def open_port(
        self, peer_id: bytes, library: Library, *, outgoing: Outgoing | None = None
    ) -> AsyncIterator[FabricPort]:
        """Connect a node while the context is open; afterwards it may come back.

        What it was sent meanwhile is gone, and so is what it had queued. ``outgoing`` makes it
        hostile.
        """
        if peer_id in self._ports:
            raise ValueError(f"peer {peer_id.hex()} is connected already")
        port = self._ports[peer_id] = FabricPort(self._ground, peer_id, library, outgoing)
        try:
            yield port
        finally:
            del self._ports[peer_id]
            port.close()

    @property
    def traffic(self) -> Traffic:
        """What was sent since the start, counted as it goes on."""
        return self._ground.traffic

    def partition(self, groups: Sequence[Collection[bytes]]) -> None:
        """Let peers speak within their group only, instead of any partition before.

        Those that are in none are one group more.
        """
        self._ground.links.partition(groups)

    def heal(self) -> None:
        """End the partition. What was gossiped during it is not said again."""
        self._ground.links.heal()

    def set_link(
        self,
        first: bytes,
        second: bytes,
        *,
        delay_seconds: float | None = None,
        loss: float | None = None,
        is_cut: bool = False,
    ) -> None:
        """Let one pair of nodes differ from all others, or without any word be like them again."""
        settings = LinkSettings(delay_seconds=delay_seconds, loss=loss, is_cut=is_cut)
        self._ground.links.set_link(first, second, settings)


@asynccontextmanager
async def open_fabric(options: FabricOptions) -> AsyncIterator[Fabric]:
    """Let a network deliver while the context is open."""
    fabric = Fabric(options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fabric.run)
        yield fabric
        nursery.cancel_scope.cancel()
