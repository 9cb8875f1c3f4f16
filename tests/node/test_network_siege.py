"""Peers that take all there is of places, connections and time: the others are served as ever."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from d2m_node.network import doorway
from d2m_node.network.adapter import Libp2pNetwork
from d2m_node.network.peers import Peers
from protocol.hashing import keccak
from protocol.types import Digest
from protocol.wire.codec import encode_message
from protocol.wire.messages import BlobRequest
from protocol.wire.topics import BLOB_PROTOCOL
from tests.support.network import (
    PATIENCE_SECONDS,
    Shelf,
    connect,
    open_raw_stream,
    start_network,
    wait_gossiping,
)

BLOBS = [bytes([number]) * 4_000_000 for number in range(5)]
"""The last one is for the honest peer."""


def build_library() -> Shelf:
    library = Shelf()
    library.blobs = {keccak(blob): blob for blob in BLOBS}
    return library


async def take_slowly(
    asker: Libp2pNetwork, peer_id: bytes, digest: Digest, holding: trio.Semaphore
) -> None:
    """Ask for a blob again and again, and take hardly anything of it."""
    request = encode_message(BlobRequest(digest=digest, offset=0))
    while True:
        stream: Any = await open_raw_stream(asker, peer_id, BLOB_PROTOCOL)
        with suppress(Exception):
            await stream.write(len(request).to_bytes(4, "big") + request)
            await stream.read(1000)
            holding.release()
            while True:
                await trio.sleep(0.02)
                await stream.read(1000)


@asynccontextmanager
async def start_besieged(folder: Path, holders: int, **limits: Any) -> AsyncIterator[Libp2pNetwork]:
    """Start a server, ``holders`` of whose places two slow readers take for four blobs."""
    holding = trio.Semaphore(0)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            start_network(folder / "server", build_library(), max_penalty=1e9, **limits)
        )
        nursery = await stack.enter_async_context(trio.open_nursery())
        for number in range(2):
            slow = await stack.enter_async_context(start_network(folder / f"slow_{number}"))
            await connect(slow, server)
            for blob in BLOBS[2 * number : 2 * number + 2]:
                nursery.start_soon(take_slowly, slow, server.peer_id, keccak(blob), holding)
        with trio.fail_after(PATIENCE_SECONDS):
            for _ in range(holders):
                await holding.acquire()
        yield server
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("holders", "limits"),
    [(4, {"max_serving_count": 4}), (1, {"max_open_blob_bytes": 1})],
    ids=["places", "memory"],
)
async def test_slow_readers_cannot_keep_the_others_from_their_blobs(
    tmp_path: Path, holders: int, limits: dict[str, int]
) -> None:
    async with (
        start_besieged(tmp_path, holders, serving_turn_seconds=0.3, **limits) as server,
        start_network(tmp_path / "honest_cone") as honest_cone,
    ):
        await connect(honest_cone, server)
        with trio.fail_after(PATIENCE_SECONDS):
            got = await honest_cone.fetch_blob(
                keccak(BLOBS[-1]), sources=[server.peer_id], max_bytes=len(BLOBS[-1])
            )
        assert got == BLOBS[-1]
        slow = [peer.turned_away.get("slow", 0) for peer in server.peers()]
        assert sum(slow) == server.measure().refusals["slow"] > 0


async def test_a_thousand_connections_that_say_nothing_leave_room_for_peers(tmp_path: Path) -> None:
    """A hundred of them stay open all the time: more than may shake hands at once."""
    async with start_network(tmp_path / "node", max_connections=32) as node:
        port = int(node.listening[0].rpartition("/")[2])
        held: deque[trio.SocketStream] = deque()
        for number in range(1000):
            held.append(await trio.open_tcp_stream("127.0.0.1", port))
            if number >= 100:
                await held.popleft().aclose()
        assert len(held) > doorway.MAX_HANDSHAKES
        async with start_network(tmp_path / "peer") as peer:
            await connect(peer, node)
        assert node.measure().restarts == 0
        assert node.measure().refusals["handshakes"] > 0
        for stream in held:
            await stream.aclose()


async def test_strangers_make_room_for_each_other_but_not_for_those_we_know(tmp_path: Path) -> None:
    async with (
        start_network(tmp_path / "node", max_strangers=2) as node,
        start_network(tmp_path / "known") as known,
        AsyncExitStack() as strangers,
    ):
        await connect(node, known)
        for number in range(4):
            stranger = await strangers.enter_async_context(
                start_network(tmp_path / f"stranger_{number}")
            )
            await connect(stranger, node)
        with trio.fail_after(PATIENCE_SECONDS):
            while sum(peer.connected for peer in node.peers()) > 3:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert node.stack.peers.is_connected(known.peer_id)
        assert node.measure().refusals["strangers"] >= 2


async def test_one_who_takes_long_to_leave_makes_room_but_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the goodbyes held up, each of the strangers over the number is another's loss."""
    leaving: list[bytes] = []

    async def take_long(_peers: Peers, peer_id: bytes) -> None:
        leaving.append(peer_id)

    monkeypatch.setattr(Peers, "_disconnect", take_long)
    async with (
        start_network(tmp_path / "node", max_strangers=2) as node,
        AsyncExitStack() as strangers,
    ):
        for number in range(8):
            stranger = await strangers.enter_async_context(
                start_network(tmp_path / f"stranger_{number}")
            )
            await connect(stranger, node)
        assert node.measure().refusals["strangers"] == len(set(leaving)) == len(leaving) == 6


async def test_strangers_may_fill_no_more_than_their_share(tmp_path: Path) -> None:
    """A peer of the address book comes in although all places for strangers are taken."""
    async with (
        start_network(tmp_path / "node", max_connections=3, max_strangers=2) as node,
        start_network(tmp_path / "a") as first,
        start_network(tmp_path / "b") as second,
        start_network(tmp_path / "known") as known,
    ):
        await connect(first, node)
        await connect(second, node)
        node.set_address_book({known.peer_id: known.listening[0]})
        await wait_gossiping(node, known)
