"""Nodes on a simulated network: what each has heard, and what it serves."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from d2m_node.ports import Verdict
from d2m_node.simulation.network.courier import Outgoing
from d2m_node.simulation.network.fabric import Fabric, open_fabric
from d2m_node.simulation.network.links import FabricOptions
from d2m_node.simulation.network.port import FabricPort
from protocol.wire.messages import GossipMessage
from tests.support.network import Shelf

TOPIC = "d2m/1/31337/market/1/votes"


@dataclass
class Listener:
    """A node that listens to the topic, and notes when it hears what."""

    name: bytes
    fabric: Fabric
    port: FabricPort = None  # type: ignore[assignment]
    shelf: Shelf = field(default_factory=Shelf)
    heard: list[tuple[float, int]] = field(default_factory=list)
    """Times, and numbers of bitmaps."""
    judge: Callable[[int], Verdict] = lambda _: Verdict.ACCEPT
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def numbers(self) -> list[int]:
        return [number for _, number in self.heard]

    def validate(self, message: GossipMessage) -> Verdict:
        number = message.round_index  # type: ignore[union-attr]
        self.heard.append((trio.current_time(), number))
        return self.judge(number)

    async def run(
        self,
        outgoing: Outgoing | None = None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen until crashed or cancelled."""
        with self.scope:
            async with (
                self.fabric.open_port(self.name, self.shelf, outgoing=outgoing) as self.port,
                self.port.join_topic(TOPIC, self.validate),
            ):
                task_status.started()
                await trio.sleep_forever()

    def crash(self) -> None:
        """End as a process does."""
        self.scope.cancel()


@asynccontextmanager
async def open_listeners(
    names: str, *, hostile: Outgoing | None = None, **options: Any
) -> AsyncIterator[tuple[Fabric, list[Listener]]]:
    """Start nodes, each named by a letter; the first may be hostile."""
    fields = {"seed": 1, "delay_seconds": (0.02, 0.2)} | options
    async with open_fabric(FabricOptions(**fields)) as fabric, trio.open_nursery() as nursery:
        listeners = [Listener(name.encode(), fabric) for name in names]
        for listener in listeners:
            await nursery.start(listener.run, hostile if listener is listeners[0] else None)
        yield fabric, listeners
        nursery.cancel_scope.cancel()
