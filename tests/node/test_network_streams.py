"""Blobs and message batches over real streams, from honest and from lying peers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.custom_types import TProtocol
from libp2p.host.exceptions import StreamFailure
from libp2p.network.stream.exceptions import StreamError

from d2m_node.errors import PeerUnreachable, StreamTimeout
from d2m_node.network.adapter import Libp2pNetwork
from protocol.hashing import keccak
from protocol.types import Digest
from protocol.wire.codec import decode_message, encode_message
from protocol.wire.messages import (
    BlobHeader,
    BlobRequest,
    MessageBatch,
    MessagesRequest,
    ValidationReceipt,
)
from protocol.wire.topics import BLOB_PROTOCOL, MESSAGES_PROTOCOL
from tests.support.network import (
    PATIENCE_SECONDS,
    Shelf,
    Watch,
    build_bitmap,
    connect,
    open_raw_stream,
    start_network,
)

BLOB = bytes(range(256)) * 1024
LIMIT = len(BLOB)
BITMAPS = MessagesRequest(job_id=1, kind=3, step=0)

Liar = Callable[[Any], Awaitable[None]]


def frame(encoded: bytes) -> bytes:
    return len(encoded).to_bytes(4, "big") + encoded


def header(size_bytes: int) -> bytes:
    return frame(encode_message(BlobHeader(available=True, size_bytes=size_bytes)))


@asynccontextmanager
async def start_asker(
    folder: Path, *, liars: tuple[Liar, ...] = (), **changes: Any
) -> AsyncIterator[tuple[Libp2pNetwork, list[bytes], Shelf]]:
    """Start an asker, liars that answer as told, and after them one honest server of BLOB."""
    library = Shelf()
    library.blobs[keccak(BLOB)] = BLOB
    async with (
        start_network(folder / "asker", **changes) as asker,
        start_network(folder / "honest_cone", library) as honest_cone,
        start_liars(folder, liars) as hostile,
    ):
        for server in [honest_cone, *hostile]:
            await connect(asker, server)
        yield asker, [liar.peer_id for liar in hostile] + [honest_cone.peer_id], library


@asynccontextmanager
async def start_liars(folder: Path, liars: tuple[Liar, ...]) -> AsyncIterator[list[Libp2pNetwork]]:
    if not liars:
        yield []
        return
    async with (
        start_network(folder / f"liar_{len(liars)}") as liar,
        start_liars(folder, liars[1:]) as others,
    ):
        for protocol in (BLOB_PROTOCOL, MESSAGES_PROTOCOL):
            liar.stack.host.set_stream_handler(TProtocol(protocol), liars[0])
        yield [liar, *others]


async def fetch(asker: Libp2pNetwork, sources: list[bytes]) -> bytes:
    with trio.fail_after(PATIENCE_SECONDS):
        return await asker.fetch_blob(keccak(BLOB), sources=sources, max_bytes=LIMIT)


def answer(data: bytes) -> Liar:
    """Answer every request with the same bytes, then close."""

    async def lie(stream: Any) -> None:
        await stream.read(64)
        await stream.write(data)
        await stream.close()

    return lie


def stall(data: bytes) -> Liar:
    """Answer with some bytes, then say nothing any more."""

    async def lie(stream: Any) -> None:
        await stream.read(64)
        await stream.write(data)
        await trio.sleep_forever()

    return lie


async def test_a_blob_arrives_whole(tmp_path: Path) -> None:
    async with start_asker(tmp_path) as (asker, sources, _):
        assert await fetch(asker, sources) == BLOB


async def test_both_ends_count_the_bytes_of_a_blob(tmp_path: Path) -> None:
    async with start_asker(tmp_path) as (asker, sources, _):
        await fetch(asker, sources)
        received = asker.measure().received_bytes
    assert received["blobs"] > len(BLOB)
    assert received["blobs"] < len(BLOB) + 200, "a header comes along, and little else"
    assert asker.measure().sent_bytes["blobs"] < 200
    assert "messages" not in received


async def test_ten_megabytes_arrive_whole(tmp_path: Path) -> None:
    big = BLOB * 40
    async with start_asker(tmp_path) as (asker, sources, library):
        library.blobs[keccak(big)] = big
        with trio.fail_after(PATIENCE_SECONDS):
            got = await asker.fetch_blob(keccak(big), sources=sources, max_bytes=len(big))
        assert got == big


async def test_an_empty_blob_arrives(tmp_path: Path) -> None:
    async with start_asker(tmp_path) as (asker, sources, library):
        library.blobs[keccak(b"")] = b""
        assert await asker.fetch_blob(keccak(b""), sources=sources, max_bytes=0) == b""


async def test_many_blobs_arrive_at_once(tmp_path: Path) -> None:
    async with start_asker(tmp_path) as (asker, sources, _), trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(fetch, asker, sources)


HALF = len(BLOB) // 2


@pytest.mark.parametrize(
    "liar",
    [
        answer(header(LIMIT) + bytes(LIMIT)),
        answer(header(LIMIT - 1) + BLOB[:-1]),
        answer(header(LIMIT + 1) + BLOB + b"x"),
        answer(header(2**31)),
        answer(header(LIMIT) + BLOB[:HALF]),
        answer(header(LIMIT) + bytes(HALF)),
        answer(header(HALF + 1) + BLOB[:HALF]),
        stall(header(LIMIT) + BLOB[:HALF]),
        stall(header(LIMIT)[:3]),
        stall(b""),
        answer(b""),
        answer(b"\xff\xff\xff\xff"),
        answer(frame(b"\xc1")),
        answer(frame(encode_message(BITMAPS))),
        answer(frame(encode_message(BlobHeader(available=False, size_bytes=0)))),
    ],
    ids=[
        "wrong bytes",
        "too small",
        "too large",
        "far too large",
        "ends early",
        "wrong bytes, ends early",
        "smaller size, ends early",
        "stalls in the bytes",
        "stalls in the header",
        "says nothing",
        "closes at once",
        "huge frame",
        "no message",
        "another message",
        "has nothing",
    ],
)
async def test_the_next_source_is_used_after_a_bad_one(tmp_path: Path, liar: Liar) -> None:
    async with start_asker(tmp_path, liars=(liar,), io_seconds=0.3) as (asker, sources, _):
        assert await fetch(asker, sources) == BLOB


async def test_the_next_source_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    offsets = []

    async def serve_rest(stream: Any) -> None:
        request = decode_message((await stream.read(64))[4:])
        assert isinstance(request, BlobRequest)
        offsets.append(request.offset)
        await stream.write(header(LIMIT) + BLOB[request.offset :])
        await stream.close()

    liars = (answer(header(LIMIT) + BLOB[:HALF]), serve_rest)
    async with start_asker(tmp_path, liars=liars) as (asker, sources, _):
        assert await fetch(asker, sources[:2]) == BLOB
    assert offsets == [HALF]


async def test_the_only_source_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    offsets = []

    async def break_off(stream: Any) -> None:
        request = decode_message((await stream.read(64))[4:])
        assert isinstance(request, BlobRequest)
        offsets.append(request.offset)
        await stream.write(header(LIMIT) + BLOB[request.offset : request.offset + HALF])
        await stream.close()

    async with start_asker(tmp_path, liars=(break_off,)) as (asker, sources, _):
        assert await fetch(asker, sources[:1]) == BLOB
    assert offsets == [0, HALF]


async def test_a_source_that_breaks_off_with_hardly_anything_is_not_asked_again(
    tmp_path: Path,
) -> None:
    asked = []

    async def give_a_little(stream: Any) -> None:
        asked.append(await stream.read(64))
        await stream.write(header(LIMIT) + BLOB[:1000])
        await stream.close()

    async with start_asker(tmp_path, liars=(give_a_little,)) as (asker, sources, _):
        assert await fetch(asker, sources) == BLOB
    assert len(asked) == 1


async def test_a_liar_among_several_partial_sources_cannot_spoil_the_blob(tmp_path: Path) -> None:
    """The first lies in its half; the second half is honest; nobody knows until the end."""
    liars = (answer(header(LIMIT) + bytes(HALF)),)
    async with start_asker(tmp_path, liars=liars) as (asker, sources, _):
        assert await fetch(asker, sources) == BLOB


async def test_a_source_of_wrong_bytes_is_banned(tmp_path: Path) -> None:
    liars = (answer(header(LIMIT) + bytes(LIMIT)),)
    async with start_asker(tmp_path, liars=liars, max_penalty=1.0) as (asker, sources, _):
        gone = Watch(asker, sources[0])
        assert await fetch(asker, sources) == BLOB
        with trio.fail_after(PATIENCE_SECONDS):
            await gone.disconnected_event.wait()


async def test_a_fetch_says_how_far_it_is(tmp_path: Path) -> None:
    liars = (stall(header(LIMIT) + BLOB[:HALF]),)
    async with start_asker(tmp_path, liars=liars) as (asker, sources, _):
        assert asker.transfers() == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, asker, sources[:1])
            with trio.fail_after(PATIENCE_SECONDS):
                while [t.received_bytes for t in asker.transfers()] != [HALF]:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            (transfer,) = asker.transfers()
            assert (transfer.digest, transfer.size_bytes) == (keccak(BLOB), LIMIT)
            assert transfer.source_count == 1
            nursery.cancel_scope.cancel()
        assert asker.transfers() == []


async def test_a_drip_is_too_slow(tmp_path: Path) -> None:
    async def drip(stream: Any) -> None:
        await stream.read(64)
        await stream.write(header(LIMIT))
        while True:
            await stream.write(b"x")
            await trio.sleep(0.05)

    limits = {"io_seconds": 0.3, "min_bytes_per_second": 10 * LIMIT}
    async with start_asker(tmp_path, liars=(drip,), **limits) as (asker, sources, _):
        assert await fetch(asker, sources) == BLOB


class StuckShelf(Shelf):
    """Never done with a blob, like one that is sent to a slow reader."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = trio.Event()

    async def read_blob(self, peer_id: bytes, digest: Digest) -> bytes | None:
        self.is_asked.set()
        return await trio.sleep_forever()


async def test_messages_are_pulled_although_blobs_take_all_places(tmp_path: Path) -> None:
    """A round waits for messages, and not for what a slow reader takes."""
    library = StuckShelf()
    library.blobs[keccak(BLOB)] = BLOB
    library.messages = [build_bitmap(0)]
    async with (
        start_network(tmp_path / "asker") as asker,
        start_network(tmp_path / "server", library, max_serving_count=1) as server,
        trio.open_nursery() as nursery,
    ):
        await connect(asker, server)
        for _ in range(8):  # more than one peer may have under way
            nursery.start_soon(fetch, asker, [server.peer_id])
        with trio.fail_after(PATIENCE_SECONDS):
            await library.is_asked.wait()
            assert await asker.fetch_messages(server.peer_id, BITMAPS) == library.messages
        nursery.cancel_scope.cancel()


RECEIPT = ValidationReceipt(job_id=1, part=0, cone_index=0, signature=bytes(65))


@pytest.mark.parametrize(
    "reply",
    [
        frame(encode_message(MessageBatch(messages=[b"\xc1"]))),
        frame(encode_message(MessageBatch(messages=[encode_message(BITMAPS)]))),
        frame(encode_message(MessageBatch(messages=[encode_message(RECEIPT)]))),
        frame(encode_message(BlobHeader(available=True, size_bytes=1))),
        b"\x00\x10\x00\x00",
        b"",
    ],
    ids=["garbage inside", "no gossip inside", "unasked inside", "no batch", "huge", "nothing"],
)
async def test_a_bad_batch_is_an_unreachable_peer(tmp_path: Path, reply: bytes) -> None:
    async with start_asker(tmp_path, liars=(answer(reply),)) as (asker, sources, _):
        with trio.fail_after(PATIENCE_SECONDS), pytest.raises(PeerUnreachable):
            await asker.fetch_messages(sources[0], BITMAPS)
        assert await fetch(asker, sources[1:]) == BLOB


async def test_a_silent_peer_is_a_timeout(tmp_path: Path) -> None:
    async with start_asker(tmp_path, liars=(stall(b""),), io_seconds=0.2) as (asker, sources, _):
        with pytest.raises(StreamTimeout):
            await asker.fetch_messages(sources[0], BITMAPS)


@pytest.mark.parametrize("protocol", [BLOB_PROTOCOL, MESSAGES_PROTOCOL, "/meshsub/1.1.0"])
@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x01\xc1",
        b"\x05hello" * 100,
        frame(encode_message(BlobHeader(available=True, size_bytes=1))),
        frame(encode_message(BlobRequest(digest=bytes(32), offset=2**31))),
    ],
    ids=["empty frame", "huge frame", "no MessagePack", "text", "wrong way", "far offset"],
)
async def test_malformed_bytes_harm_nobody_but_their_sender(
    tmp_path: Path, protocol: str, garbage: bytes
) -> None:
    async with start_asker(tmp_path, max_penalty=1e9) as (hostile_asker, (cone,), _):
        stream = await open_raw_stream(hostile_asker, cone, protocol)
        await stream.write(garbage)
        await stream.close()
        assert await fetch(hostile_asker, [cone]) == BLOB


async def test_a_request_that_is_never_finished_is_dropped(tmp_path: Path) -> None:
    library = Shelf()
    async with (
        start_network(tmp_path / "hostile_asker") as hostile_asker,
        start_network(tmp_path / "cone", library, io_seconds=0.2) as cone,
    ):
        await connect(hostile_asker, cone)
        stream = await open_raw_stream(hostile_asker, cone.peer_id, BLOB_PROTOCOL)
        await stream.write(b"\x00\x00")
        with trio.fail_after(PATIENCE_SECONDS), pytest.raises(StreamError):
            await stream.read(1)


async def test_more_streams_than_allowed_are_reset(tmp_path: Path) -> None:
    async with (
        start_network(tmp_path / "hostile_asker") as hostile_asker,
        start_network(tmp_path / "cone", max_streams_per_peer=8, max_penalty=1.0) as cone,
    ):
        await connect(hostile_asker, cone)
        gone = Watch(cone, hostile_asker.peer_id)
        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                for _ in range(16):
                    nursery.start_soon(_hold_stream, hostile_asker, cone.peer_id)
                await gone.disconnected_event.wait()
                nursery.cancel_scope.cancel()


async def _hold_stream(asker: Libp2pNetwork, peer_id: bytes) -> None:
    try:
        await open_raw_stream(asker, peer_id, BLOB_PROTOCOL)
    except StreamFailure:  # the one that is refused
        return
    await trio.sleep_forever()
