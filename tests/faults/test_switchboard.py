"""The switchboard carries bytes, goes silent where it is cut, and resets what was silent."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.faults.switchboard import HOST, Switchboard, Wire

SENT = b'POST / HTTP/1.1\r\n\r\n[{"method":"eth_sendRawTransaction","params":["0x02ab"]}]'


@dataclass
class Exchange:
    """A switchboard before a server that echoes, and what was told to be sent."""

    board: Switchboard
    port: int
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    told: trio.Event = field(default_factory=trio.Event)


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


@asynccontextmanager
async def open_exchange(
    wire: Wire, node: str, pids: dict[str, int]
) -> AsyncGenerator[Exchange, None]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, echo, 0, host=HOST))
        target = listeners[0].socket.getsockname()[1]
        sent: list[tuple[str, bytes]] = []
        told = trio.Event()

        async def on_sent(name: str, raw: bytes) -> None:
            sent.append((name, raw))
            await told.wait()

        board = Switchboard(nursery, pids.__getitem__, on_sent)
        port = await board.open_port(node, wire, target)
        with trio.fail_after(10):
            yield Exchange(board, port, sent, told)
        nursery.cancel_scope.cancel()


async def ask(port: int, data: bytes) -> bytes:
    async with await trio.open_tcp_stream(HOST, port) as stream:
        await stream.send_all(data)
        return await stream.receive_some()


async def hears_end(stream: trio.SocketStream) -> bool:
    """Tell whether a connection has ended without another byte."""
    try:
        return await stream.receive_some() == b""
    except trio.BrokenResourceError:
        return True


async def test_bytes_go_through() -> None:
    async with open_exchange(Wire.PEERS, "cone-1", {}) as exchange:
        assert await ask(exchange.port, b"hello") == b"hello"


@pytest.mark.parametrize("cut", ["listener", "dialler"])
async def test_whoever_is_cut_hears_nothing_and_is_reset_in_the_end(cut: str) -> None:
    pids = {"dialler": os.getpid()}
    async with open_exchange(Wire.PEERS, "listener", pids) as exchange:
        async with await trio.open_tcp_stream(HOST, exchange.port) as stream:
            await stream.send_all(b"one")
            assert await stream.receive_some() == b"one"
            exchange.board.cut(cut, frozenset({Wire.PEERS}))
            await stream.send_all(b"two")
            with trio.move_on_after(0.2) as silence:
                await stream.receive_some()
            assert silence.cancelled_caught
            exchange.board.mend(cut, frozenset({Wire.PEERS}))
            assert await hears_end(stream)
        assert await ask(exchange.port, b"three") == b"three"


async def test_others_are_not_cut() -> None:
    async with open_exchange(Wire.PEERS, "cone-1", {"cone-2": 2**22 + 1}) as exchange:
        exchange.board.cut("cone-2", frozenset({Wire.PEERS, Wire.CHAIN}))
        assert await ask(exchange.port, b"hello") == b"hello"


async def test_the_answer_to_a_transaction_waits_until_the_harness_has_seen_it() -> None:
    async with (
        open_exchange(Wire.CHAIN, "cone-1", {}) as exchange,
        await trio.open_tcp_stream(HOST, exchange.port) as stream,
    ):
        await stream.send_all(SENT)
        await wait_all_tasks_blocked(0.1)
        assert exchange.sent == [("cone-1", b"\x02\xab")]
        with trio.move_on_after(0.2) as silence:
            await stream.receive_some()
        assert silence.cancelled_caught
        exchange.told.set()
        assert await stream.receive_some() == SENT
