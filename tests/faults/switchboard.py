"""Stands between the nodes and their chain, and between the nodes: a network that can be cut.

Every node has a port here for its chain endpoint, and announces one for its peers. A connection to
a peer's port belongs to two nodes: the one that listens, and the one whose process connects. So one
node can be cut from everything, without root.

What is cut goes silent, as a cable does: bytes wait, and connections are reset once it is mended.
"""

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

import psutil
import trio

HOST = "127.0.0.1"
CHUNK_BYTES = 1 << 16
SENT = re.compile(rb'"eth_sendRawTransaction","params":\["(0x[0-9a-f]+)"')

PidOf = Callable[[str], int]
OnSent = Callable[[str, bytes], Awaitable[None]]
"""Called with a node and the raw transaction that has just left it, before it has an answer."""


class Wire(Enum):
    """What connects a node with the world."""

    CHAIN = "chain"
    PEERS = "peers"


@dataclass(eq=False)
class Line:
    """One connection through the switchboard."""

    listener: str
    """The node whose port it came to; of the chain's wire the node that asks."""
    wire: Wire
    client_port: int
    server_port: int = 0
    dead: trio.CancelScope = field(default_factory=trio.CancelScope)
    may_answer: trio.Event = field(default_factory=trio.Event)


class Switchboard:
    """All lines of a market."""

    def __init__(self, nursery: trio.Nursery, pid_of: PidOf, on_sent: OnSent) -> None:
        self._nursery = nursery
        self._pid_of = pid_of
        self._on_sent = on_sent
        self._lines: set[Line] = set()
        self._cut: dict[Wire, set[str]] = {Wire.CHAIN: set(), Wire.PEERS: set()}
        self._mended = trio.Event()

    async def open_port(self, node: str, wire: Wire, target_port: int) -> int:
        """Listen for a node's wire; return the port."""
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        port: int = listeners[0].socket.getsockname()[1]

        async def accept(stream: trio.SocketStream) -> None:
            await self._serve(Line(node, wire, stream.socket.getpeername()[1]), stream, target_port)

        await self._nursery.start(trio.serve_listeners, accept, listeners)
        return port

    def cut(self, node: str, wires: frozenset[Wire]) -> None:
        """Silence a node's wires."""
        for wire in wires:
            self._cut[wire].add(node)

    def mend(self, node: str, wires: frozenset[Wire]) -> None:
        """Reset the connections that were silent, and let new ones through."""
        for line in list(self._lines):
            if line.wire in wires and self._touches(line, node):
                line.dead.cancel()
        for wire in wires:
            self._cut[wire].discard(node)
        self._mended.set()
        self._mended = trio.Event()

    def _touches(self, line: Line, node: str) -> bool:
        if line.listener == node:
            return True
        return line.wire is Wire.PEERS and line.client_port in self._local_ports(node)

    def _local_ports(self, node: str) -> set[int]:
        with suppress(psutil.Error, KeyError):
            connections = psutil.Process(self._pid_of(node)).net_connections("tcp")
            return {one.laddr.port for one in connections if one.laddr}
        return set()

    def _is_cut(self, line: Line) -> bool:
        return any(self._touches(line, node) for node in self._cut[line.wire])

    async def _pass(self, line: Line) -> None:
        """Return at once, or once the line is not cut any more."""
        while self._cut[line.wire] and self._is_cut(line):
            await self._mended.wait()

    async def _serve(self, line: Line, client: trio.SocketStream, target_port: int) -> None:
        self._lines.add(line)
        line.may_answer.set()
        try:
            with line.dead, suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                await self._pass(line)
                server = await trio.open_tcp_stream(HOST, target_port)
                async with server, trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, line, client, server, True)
                    await self._pump(line, server, client, False)
                    nursery.cancel_scope.cancel()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # whoever closed a connection is none of ours
        finally:
            self._lines.discard(line)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(client)

    async def _pump(
        self, line: Line, source: trio.SocketStream, sink: trio.SocketStream, is_request: bool
    ) -> None:
        while data := await source.receive_some(CHUNK_BYTES):
            await self._pass(line)
            sent = SENT.search(data) if is_request and line.wire is Wire.CHAIN else None
            if not is_request:
                await line.may_answer.wait()
            if sent is None:
                await sink.send_all(data)
                continue
            # The chain has it; its sender does not know yet.
            line.may_answer = trio.Event()
            await sink.send_all(data)
            await self._on_sent(line.listener, bytes.fromhex(sent[1][2:].decode()))
            line.may_answer.set()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await sink.send_eof()
