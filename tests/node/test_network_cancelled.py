"""A task that is cancelled while it writes to a peer costs its stream, never the connection."""

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.id import ID
from trio.testing import wait_all_tasks_blocked

from d2m_node.errors import PeerUnreachable
from d2m_node.network import muxing
from d2m_node.network.adapter import Libp2pNetwork
from protocol.hashing import keccak
from protocol.wire.topics import BLOB_PROTOCOL
from tests.support.network import (
    PATIENCE_SECONDS,
    Shelf,
    Watch,
    connect,
    open_raw_stream,
    start_network,
    start_networks,
)
from tests.support.stock import Unpatched

BLOB = b"weights"
ALL_PLACES = 256
"""Streams that a connection has open at once."""


class Cancelled:
    """A scope that is cancelled when bytes are encrypted, and so numbered, but not sent yet."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        write_sealed = TrioTCPStream.write

        async def write(stream: TrioTCPStream, sealed: bytes) -> None:
            self.scope.cancel()
            await write_sealed(stream, sealed)

        self._patch.setattr(TrioTCPStream, "write", write)
        self.scope.__enter__()

    def __exit__(self, *exc: Any) -> bool:
        self._patch.undo()
        return bool(self.scope.__exit__(*exc))


async def write_and_cancel(sender: Libp2pNetwork, peer_id: bytes) -> None:
    stream = await open_raw_stream(sender, peer_id, BLOB_PROTOCOL)
    with Cancelled():
        await stream.write(b"half a request")
        pytest.fail("the write was not cancelled")
    await stream.reset()


async def fetch(network: Libp2pNetwork, peer_id: bytes) -> bytes:
    return await network.fetch_blob(keccak(BLOB), sources=[peer_id], max_bytes=100)


async def test_a_cancelled_write_costs_no_connection(tmp_path: Path) -> None:
    library = Shelf()
    library.blobs[keccak(BLOB)] = BLOB
    async with (
        start_network(tmp_path / "seller") as seller,
        start_network(tmp_path / "cone", library) as cone,
    ):
        await connect(seller, cone)
        gone = Watch(cone, seller.peer_id)
        await write_and_cancel(seller, cone.peer_id)
        assert await fetch(seller, cone.peer_id) == BLOB
        assert not gone.disconnected_event.is_set()


async def test_stock_loses_the_connection_with_a_cancelled_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Unpatched(monkeypatch).restore("_write_frame")
    async with start_networks(tmp_path, ["seller", "cone"]) as (seller, cone):
        gone = Watch(cone, seller.peer_id)
        await write_and_cancel(seller, cone.peer_id)
        with pytest.raises(PeerUnreachable):
            await fetch(seller, cone.peer_id)
        with trio.fail_after(PATIENCE_SECONDS):
            await gone.disconnected_event.wait()


async def count_places(opener: Libp2pNetwork, peer_id: bytes, cancelled: int) -> int:
    """Cancel the opening of streams; return for how many the connection has a place then."""
    muxed = find_muxed(opener, peer_id)
    for _ in range(cancelled):
        with Cancelled():
            await open_raw_stream(opener, peer_id, BLOB_PROTOCOL)
            pytest.fail("the opening was not cancelled")
    return int(muxed.stream_backlog_semaphore.value)


async def test_streams_whose_opening_is_cancelled_give_their_places_back(tmp_path: Path) -> None:
    library = Shelf()
    library.blobs[keccak(BLOB)] = BLOB
    async with (
        start_network(tmp_path / "seller") as seller,
        start_network(tmp_path / "cone", library, max_penalty=1e9) as cone,
    ):
        await connect(seller, cone)
        left = await count_places(seller, cone.peer_id, ALL_PLACES)
        assert left >= ALL_PLACES - 2, "one is for gossip"
        assert await fetch(seller, cone.peer_id) == BLOB


async def test_stock_has_a_place_less_for_each_opening_that_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Unpatched(monkeypatch).restore("new_stream")
    async with start_networks(tmp_path, ["seller", "cone"]) as (seller, cone):
        assert await count_places(seller, cone.peer_id, 10) <= ALL_PLACES - 10


async def test_a_connection_that_breaks_says_so_to_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_off(_frame: bytes) -> None:
        raise ConnectionClosedError("reset by the test")

    async with start_networks(tmp_path, ["seller", "cone"]) as (seller, cone):
        stream = await open_raw_stream(seller, cone.peer_id, BLOB_PROTOCOL)
        with monkeypatch.context() as patch:
            patch.setattr(stream.muxed_conn.secured_conn, "write", break_off)
            with pytest.raises(StreamError, match="reset by the test"):
                await stream.write(b"a request")


def find_muxed(network: Libp2pNetwork, peer_id: bytes) -> Any:
    (connection,) = network.stack.host.get_network().connections[ID(peer_id)]
    return connection.muxed_conn


@asynccontextmanager
async def start_stalled(folder: Path) -> AsyncIterator[tuple[Callable[[], Awaitable[None]], Watch]]:
    """Yield what writes to a peer that reads nothing, for ever, and a watch over that peer."""
    async with start_networks(folder, ["cone", "stalling_seller"]) as (cone, stalling_seller):
        muxed = find_muxed(cone, stalling_seller.peer_id)

        async def read_nothing(_count: int) -> bytes:
            await trio.sleep_forever()
            raise AssertionError

        async def write_for_ever() -> None:
            while True:  # frames of a stream that nobody has opened
                await muxed._write_frame(struct.pack("!BBHII", 0, 0, 0, 999, 60000) + bytes(60000))

        find_muxed(stalling_seller, cone.peer_id).secured_conn.read = read_nothing
        yield write_for_ever, Watch(cone, stalling_seller.peer_id)


async def test_a_peer_that_takes_nothing_is_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start_stalled(tmp_path) as (write_for_ever, gone):
        monkeypatch.setattr(muxing, "FRAME_SECONDS", 0.5)
        with trio.fail_after(PATIENCE_SECONDS):
            with pytest.raises(ConnectionClosedError, match="takes nothing"):
                await write_for_ever()
            await gone.disconnected_event.wait()


async def test_who_is_cancelled_waits_for_no_peer_that_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muxing, "HURRY_SECONDS", 0.01)
    async with start_stalled(tmp_path) as (write_for_ever, gone):
        monkeypatch.setattr(muxing, "FRAME_SECONDS", 1e9)
        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write_for_ever)
                await wait_all_tasks_blocked(cushion=0.1)
                nursery.cancel_scope.cancel()
            await gone.disconnected_event.wait()
