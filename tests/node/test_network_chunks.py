"""One blob from several sources at once: faster sources, liars, and what a server keeps."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from libp2p.custom_types import TProtocol

from d2m_node.errors import PeerUnreachable
from d2m_node.network import open_blobs
from d2m_node.network.adapter import Libp2pNetwork
from d2m_node.network.fairness import Uplink
from protocol.hashing import keccak
from protocol.types import Digest
from protocol.wire.chunks import CHUNK_BYTES, list_chunks, validate_chunks
from protocol.wire.codec import decode_message, encode_message
from protocol.wire.messages import ChunkHeader, ChunkList, ChunkListRequest, ChunkRequest
from protocol.wire.topics import CHUNKS_PROTOCOL
from tests.support.network import (
    PATIENCE_SECONDS,
    Shelf,
    connect,
    open_raw_stream,
    start_network,
)

BLOB = random.Random(1).randbytes(12 * CHUNK_BYTES + 12345)
DIGEST = keccak(BLOB)
TRUE_LIST = list_chunks(BLOB)

Serve = Callable[[Any], Awaitable[None]]


def frame(message: msgspec.Struct) -> bytes:
    encoded = encode_message(message)  # type: ignore[arg-type]
    return len(encoded).to_bytes(4, "big") + encoded


async def read_request(stream: Any) -> Any:
    length = int.from_bytes(await read_exactly(stream, 4), "big")
    return decode_message(await read_exactly(stream, length))


async def read_exactly(stream: Any, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await stream.read(count - len(data))
    return data


def serve(chunks: ChunkList, blob: bytes, *, asked: list[int] | None = None) -> Serve:
    """Serve a list and the chunks of a blob, which may not belong together."""

    async def handle(stream: Any) -> None:
        while True:
            request = await read_request(stream)
            if isinstance(request, ChunkListRequest):
                await stream.write(frame(chunks))
                continue
            assert isinstance(request, ChunkRequest)
            if asked is not None:
                asked.extend(range(request.first, request.first + request.count))
            start = request.first * CHUNK_BYTES
            data = blob[start : start + request.count * CHUNK_BYTES]
            await stream.write(frame(ChunkHeader(available=True, size_bytes=len(data))))
            await stream.write(data)

    return handle


def stall_after_list(chunks: ChunkList) -> Serve:
    async def handle(stream: Any) -> None:
        if isinstance(await read_request(stream), ChunkListRequest):
            await stream.write(frame(chunks))
        await trio.sleep_forever()

    return handle


async def refuse_list(stream: Any) -> None:
    await read_request(stream)
    await stream.write(frame(ChunkList(available=False, size_bytes=0, hashes=b"")))


async def say_nothing(_stream: Any) -> None:
    await trio.sleep_forever()


@dataclass
class Market:
    asker: Libp2pNetwork
    servers: list[Libp2pNetwork]
    libraries: list[Shelf]

    @property
    def sources(self) -> list[bytes]:
        return [server.peer_id for server in self.servers]

    async def fetch(self) -> bytes:
        with trio.fail_after(PATIENCE_SECONDS):
            return await self.asker.fetch_blob(DIGEST, sources=self.sources, max_bytes=len(BLOB))

    def blamed(self) -> list[int]:
        """Say which servers have been blamed, by index."""
        penalties = self.asker.conduct._penalties
        return [i for i, server in enumerate(self.servers) if server.peer_id in penalties]


@asynccontextmanager
async def start_market(
    folder: Path, *behaviours: Serve | None, **changes: Any
) -> AsyncIterator[Market]:
    """Start an asker, and one server for each behaviour; None is honest."""
    async with AsyncExitStack() as stack:
        asker = await stack.enter_async_context(start_network(folder / "asker", **changes))
        market = Market(asker, [], [])
        for number, behaviour in enumerate(behaviours):
            library = Shelf()
            library.blobs[DIGEST] = BLOB
            server = await stack.enter_async_context(
                start_network(folder / f"server_{number}", library)
            )
            if behaviour is not None:
                server.stack.host.set_stream_handler(TProtocol(CHUNKS_PROTOCOL), behaviour)
            await connect(asker, server)
            market.servers.append(server)
            market.libraries.append(library)
        yield market


async def test_a_large_blob_comes_from_all_sources_at_once(tmp_path: Path) -> None:
    parts: list[list[int]] = [[], [], []]
    behaviours = [serve(TRUE_LIST, BLOB, asked=part) for part in parts]
    async with start_market(tmp_path, *behaviours) as market:
        assert await market.fetch() == BLOB
    assert all(parts), "nobody was left out"
    assert set().union(*parts) == set(range(13))


async def test_the_next_run_is_asked_for_before_the_last_has_come(tmp_path: Path) -> None:
    async def answer_later(stream: Any) -> None:
        """Answer a request for chunks when there is another, or none can come."""
        assert isinstance(await read_request(stream), ChunkListRequest)
        await stream.write(frame(TRUE_LIST))
        await serve_later(stream)

    async def serve_later(stream: Any) -> None:
        left, waiting = len(BLOB), []
        while left:
            waiting.append(await read_request(stream))
            asked = sum(one.count for one in waiting) * CHUNK_BYTES
            while len(waiting) > 1 or (waiting and asked >= left):
                request = waiting.pop(0)
                start = request.first * CHUNK_BYTES
                data = BLOB[start : start + request.count * CHUNK_BYTES]
                await stream.write(frame(ChunkHeader(available=True, size_bytes=len(data))))
                await stream.write(data)
                left -= len(data)

    streams: list[Any] = []

    async def handle(stream: Any) -> None:
        streams.append(stream)
        await (answer_later if len(streams) == 1 else serve_later)(stream)

    async with start_market(tmp_path, handle, refuse_list, io_seconds=600.0) as market:
        assert await market.fetch() == BLOB
        assert market.blamed() == []


async def test_honest_nodes_serve_chunks_and_load_the_blob_once(tmp_path: Path) -> None:
    async with start_market(tmp_path, None, None) as market:
        assert await market.fetch() == BLOB
        assert [library.reads for library in market.libraries] == [[DIGEST], [DIGEST]]
        assert market.blamed() == []


async def test_a_source_that_breaks_off_is_made_up_for(tmp_path: Path) -> None:
    async def break_off(stream: Any) -> None:
        request = await read_request(stream)
        if isinstance(request, ChunkListRequest):
            await stream.write(frame(TRUE_LIST))
            return
        size = min(len(BLOB) - request.first * CHUNK_BYTES, request.count * CHUNK_BYTES)
        await stream.write(frame(ChunkHeader(available=True, size_bytes=size)))
        await stream.write(BLOB[request.first * CHUNK_BYTES :][: CHUNK_BYTES // 2])
        await stream.reset()

    async with start_market(tmp_path, break_off, None) as market:
        assert await market.fetch() == BLOB
        assert market.blamed() == []


@pytest.mark.parametrize("silent", [say_nothing, stall_after_list(TRUE_LIST)])
async def test_a_silent_source_does_not_hold_the_others_up(tmp_path: Path, silent: Serve) -> None:
    async with start_market(tmp_path, silent, None, io_seconds=600.0) as market:
        assert await market.fetch() == BLOB


LIE = b"\x00" + BLOB[1:]


async def test_a_chunk_that_is_not_in_its_own_list_is_blamed_on_its_source(tmp_path: Path) -> None:
    async with start_market(tmp_path, serve(TRUE_LIST, LIE[::-1]), None) as market:
        assert await market.fetch() == BLOB
        assert market.blamed() == [0]


async def test_those_who_list_another_blob_are_blamed_even_if_they_are_many(tmp_path: Path) -> None:
    liar = serve(list_chunks(LIE), LIE)
    async with start_market(tmp_path, liar, None, liar) as market:
        assert await market.fetch() == BLOB
        assert market.blamed() == [0, 2]


async def test_a_liar_that_was_not_needed_is_blamed_as_well(tmp_path: Path) -> None:
    liar = serve(list_chunks(LIE), LIE)
    async with start_market(tmp_path, None, None, liar) as market:
        assert await market.fetch() == BLOB
        assert market.blamed() == [2]


@pytest.mark.parametrize(
    "wrong",
    [
        msgspec.structs.replace(TRUE_LIST, hashes=TRUE_LIST.hashes[32:]),
        msgspec.structs.replace(TRUE_LIST, size_bytes=2**31, hashes=bytes(65536)),
        ChunkHeader(available=True, size_bytes=1),
    ],
    ids=["too few hashes", "too large", "another message"],
)
async def test_a_malformed_list_is_blamed_on_its_source(
    tmp_path: Path, wrong: msgspec.Struct
) -> None:
    async def answer(stream: Any) -> None:
        await read_request(stream)
        await stream.write(frame(wrong))

    async with start_market(tmp_path, answer, None) as market:
        assert await market.fetch() == BLOB
        assert market.blamed() == [0]


async def test_sources_without_chunks_are_asked_by_turns(tmp_path: Path) -> None:
    async with start_market(tmp_path, None, None) as market:
        for server in market.servers:
            server.stack.host.remove_stream_handler(TProtocol(CHUNKS_PROTOCOL))
        assert await market.fetch() == BLOB


async def test_chunks_are_refused_to_whom_the_library_refuses_the_blob(tmp_path: Path) -> None:
    async with start_market(tmp_path, None, None) as market:
        for library in market.libraries:
            library.refused.add(market.asker.peer_id)
        with pytest.raises(PeerUnreachable, match="not for us"):
            await market.fetch()
        assert not any(library.reads for library in market.libraries)


async def test_who_says_truly_that_a_blob_is_too_large_is_not_blamed(tmp_path: Path) -> None:
    async with start_market(tmp_path, None, None) as market:
        with pytest.raises(PeerUnreachable, match="at most"):
            await market.asker.fetch_blob(
                DIGEST, sources=market.sources, max_bytes=len(BLOB) - CHUNK_BYTES
            )
        assert market.asker.measure().faults == 0


@pytest.mark.parametrize(("first", "count"), [(13, 1), (2048, 2048), (0, 0)])
async def test_chunks_that_do_not_exist_are_not_sent(
    tmp_path: Path, first: int, count: int
) -> None:
    async with start_market(tmp_path, None) as market:
        stream = await open_raw_stream(market.asker, market.sources[0], CHUNKS_PROTOCOL)
        await stream.write(frame(ChunkRequest(digest=DIGEST, first=first, count=count)))
        with trio.fail_after(PATIENCE_SECONDS):
            assert await read_request(stream) == ChunkHeader(available=False, size_bytes=0)
        await stream.reset()


async def test_one_copy_serves_all_who_take_a_blob_at_once(tmp_path: Path) -> None:
    async with start_market(tmp_path, None) as market, trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(market.fetch)
    assert market.libraries[0].reads == [DIGEST]


async def test_a_blob_is_let_go_after_its_last_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_blobs, "LINGER_SECONDS", 0.0)
    shelf = Shelf()
    shelf.blobs[DIGEST] = BLOB
    blobs = open_blobs.OpenBlobs(shelf, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(blobs.run)
        await trio.testing.wait_all_tasks_blocked()
        async with blobs.open(b"peer", DIGEST) as blob:
            assert blob is not None
            assert blob.data is BLOB
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not blobs._open
        nursery.cancel_scope.cancel()


async def test_blobs_beyond_the_budget_wait_until_others_are_closed() -> None:
    shelf = Shelf()
    other = Digest(bytes(32))
    shelf.blobs = {DIGEST: BLOB, other: b"other"}
    blobs = open_blobs.OpenBlobs(shelf, len(BLOB))
    opened = trio.Event()

    async def open_other() -> None:
        async with blobs.open(b"other peer", other):
            opened.set()

    async with trio.open_nursery() as nursery:
        async with blobs.open(b"peer", DIGEST):
            nursery.start_soon(open_other)
            await trio.testing.wait_all_tasks_blocked()
            assert not opened.is_set()
        with trio.fail_after(PATIENCE_SECONDS):
            await opened.wait()


async def test_who_takes_an_open_blob_does_not_wait_for_those_who_open_another() -> None:
    shelf = Shelf()
    other = Digest(bytes(32))
    shelf.blobs = {DIGEST: BLOB, other: b"other"}
    blobs = open_blobs.OpenBlobs(shelf, len(BLOB))

    async def open_other() -> None:
        async with blobs.open(b"other peer", other):
            pass

    async with trio.open_nursery() as nursery, blobs.open(b"slow peer", DIGEST):
        nursery.start_soon(open_other)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(PATIENCE_SECONDS):
            async with blobs.open(b"peer", DIGEST) as blob:
                assert blob is not None
                assert blob.data is BLOB


async def test_an_upload_limit_is_kept_and_shared_by_turns(
    autojump_clock: trio.testing.MockClock,
) -> None:
    uplink = Uplink(1000)
    sent: list[bytes] = []

    async def send(peer_id: bytes) -> None:
        for _ in range(5):
            await uplink.take_turn(peer_id, 100)
            sent.append(peer_id)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for peer_id in (b"greedy", b"greedy", b"greedy", b"modest"):
            nursery.start_soon(send, peer_id)
    assert trio.current_time() - began == pytest.approx(1.9)
    assert sent[:10].count(b"modest") >= 4, "one peer with many streams has one share"


async def test_a_blob_arrives_under_an_upload_limit(tmp_path: Path) -> None:
    library = Shelf()
    small = BLOB[:200_000]
    library.blobs[keccak(small)] = small
    async with (
        start_network(tmp_path / "asker") as asker,
        start_network(tmp_path / "cone", library, upload_bytes_per_second=1_000_000) as cone,
    ):
        await connect(asker, cone)
        with trio.fail_after(PATIENCE_SECONDS):
            got = await asker.fetch_blob(
                keccak(small), sources=[cone.peer_id], max_bytes=len(small)
            )
        assert got == small


def test_the_list_of_an_empty_blob_is_empty() -> None:
    chunks = list_chunks(b"")
    assert chunks == ChunkList(available=True, size_bytes=0, hashes=b"")
    validate_chunks(chunks)
