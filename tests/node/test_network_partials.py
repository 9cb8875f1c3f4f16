"""What there is of a large blob when a node ends is there when it asks again."""

import errno
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.custom_types import TProtocol

from d2m_node.network.adapter import Libp2pNetwork
from d2m_node.network.partials import BEGINNING, MAX_AGE_SECONDS, Partials
from protocol.hashing import keccak
from protocol.types import Digest
from protocol.wire.chunks import CHUNK_BYTES, list_chunks
from protocol.wire.messages import BlobHeader, BlobRequest
from protocol.wire.topics import BLOB_PROTOCOL, CHUNKS_PROTOCOL
from tests.node.test_network_chunks import frame, read_request, serve
from tests.support.network import PATIENCE_SECONDS, Shelf, connect, start_network

BLOB = random.Random(2).randbytes(12 * CHUNK_BYTES + 777)
DIGEST = keccak(BLOB)
SIZE = len(BLOB)
HALF = 6 * CHUNK_BYTES

Serve = Callable[[Any], Awaitable[None]]


def serve_until(end: int, offsets: list[int]) -> Serve:
    """Serve a blob up to some byte, then say nothing any more; note from where it was asked for."""

    async def handle(stream: Any) -> None:
        request = await read_request(stream)
        assert isinstance(request, BlobRequest)
        offsets.append(request.offset)
        await stream.write(frame(BlobHeader(available=True, size_bytes=SIZE)))
        await stream.write(BLOB[request.offset : end])
        if end < SIZE:
            await trio.sleep_forever()
        await stream.close()

    return handle


async def fetch_until(
    asker: Libp2pNetwork, sources: list[bytes], is_enough: Callable[[], bool]
) -> None:
    """Fetch until there is enough, then end as a node does that is stopped."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, asker, sources)
            while not is_enough():  # noqa: ASYNC110 - files have no events
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()


async def fetch(asker: Libp2pNetwork, sources: list[bytes]) -> bytes:
    with trio.fail_after(PATIENCE_SECONDS):
        return await asker.fetch_blob(DIGEST, sources=sources, max_bytes=SIZE)


def count_kept(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.glob("*"))


def list_files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def make_older(path: Path, seconds: float) -> None:
    os.utime(path, (0, path.stat().st_mtime - seconds))


async def test_a_beginning_is_not_fetched_again_after_a_restart(tmp_path: Path) -> None:
    folder, offsets = tmp_path / "partials", []
    async with start_network(tmp_path / "cone") as cone:
        cone.stack.host.set_stream_handler(TProtocol(BLOB_PROTOCOL), serve_until(HALF, offsets))
        async with start_network(tmp_path / "asker", partial_folder=folder) as asker:
            await connect(asker, cone)
            await fetch_until(asker, [cone.peer_id], lambda: count_kept(folder) >= 4 * CHUNK_BYTES)
        kept = (folder / f"{DIGEST.hex()}.{BEGINNING}").stat().st_size
        cone.stack.host.set_stream_handler(TProtocol(BLOB_PROTOCOL), serve_until(SIZE, offsets))
        async with start_network(tmp_path / "asker", partial_folder=folder) as asker:
            await connect(asker, cone)
            assert await fetch(asker, [cone.peer_id]) == BLOB
    assert offsets == [0, kept]
    assert list_files(folder) == []


async def test_chunks_are_not_fetched_again_after_a_restart(tmp_path: Path) -> None:
    folder, true_list = tmp_path / "partials", list_chunks(BLOB)
    asked_first: list[int] = []
    asked_later: list[int] = []
    async with (
        start_network(tmp_path / "a") as first,
        start_network(tmp_path / "b") as second,
    ):
        sources = [first.peer_id, second.peer_id]
        for asked, is_enough in (
            (asked_first, lambda: count_kept(folder) >= 3 * CHUNK_BYTES),
            (asked_later, None),
        ):
            for server in (first, second):
                handle = serve(true_list, BLOB, asked=asked)
                server.stack.host.set_stream_handler(TProtocol(CHUNKS_PROTOCOL), handle)
            async with start_network(tmp_path / "asker", partial_folder=folder) as asker:
                await connect(asker, first)
                await connect(asker, second)
                if is_enough is not None:
                    await fetch_until(asker, sources, is_enough)
                else:
                    assert await fetch(asker, sources) == BLOB
                    assert asker.measure().faults == 0
    assert len(set(asked_later)) <= 10, "three of thirteen were there"
    assert list_files(folder) == []


@pytest.mark.parametrize("length", [HALF, SIZE, SIZE + 5 * CHUNK_BYTES])
async def test_wrong_bytes_on_the_disk_cost_a_transfer_and_blame_nobody(
    tmp_path: Path, length: int
) -> None:
    folder, library = tmp_path / "partials", Shelf()
    library.blobs[DIGEST] = BLOB
    folder.mkdir()
    (folder / f"{DIGEST.hex()}.{BEGINNING}").write_bytes(bytes(length))
    async with (
        start_network(tmp_path / "cone", library) as cone,
        start_network(tmp_path / "asker", partial_folder=folder) as asker,
    ):
        await connect(asker, cone)
        assert await fetch(asker, [cone.peer_id]) == BLOB
        assert asker.measure().faults == 0
    assert list_files(folder) == []


async def test_a_full_disk_ends_the_keeping_and_not_the_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fill)
    library = Shelf()
    library.blobs[DIGEST] = BLOB
    async with (
        start_network(tmp_path / "cone", library) as cone,
        start_network(tmp_path / "asker", partial_folder=tmp_path / "partials") as asker,
    ):
        await connect(asker, cone)
        assert await fetch(asker, [cone.peer_id]) == BLOB


async def test_the_oldest_parts_go_when_the_quota_is_full(tmp_path: Path) -> None:
    partials = Partials(tmp_path, 10 * CHUNK_BYTES)
    digests = [Digest(bytes([number]) * 32) for number in range(3)]
    for age, digest in enumerate(reversed(digests)):
        await partials.keep_beginning(digest, 0, bytes(4 * CHUNK_BYTES), 4 * CHUNK_BYTES)
        make_older(tmp_path / f"{digest.hex()}.{BEGINNING}", 100 - age)
    left = {path.name.partition(".")[0] for path in list_files(tmp_path)}
    assert left == {digests[0].hex(), digests[1].hex()}


async def test_what_is_old_goes_and_what_is_small_or_too_large_is_not_kept(tmp_path: Path) -> None:
    partials = Partials(tmp_path, 10 * CHUNK_BYTES)
    await partials.keep_beginning(DIGEST, 0, b"x", CHUNK_BYTES)
    await partials.keep_beginning(DIGEST, 0, b"x", 20 * CHUNK_BYTES)
    assert list_files(tmp_path) == []
    await partials.keep_beginning(DIGEST, 0, b"x", 5 * CHUNK_BYTES)
    (path,) = list_files(tmp_path)
    make_older(path, MAX_AGE_SECONDS + 10)
    await partials.tidy()
    assert list_files(tmp_path) == []


ASK = """
import sys
from contextlib import suppress
from pathlib import Path

import trio

from d2m_node.errors import TransientError
from protocol.types import Digest
from tests.support.network import start_network


async def ask(folder: Path, peer_id: bytes, address: str, digest: str, size: int) -> None:
    partials = folder / "partials"
    async with start_network(folder / "asker", partial_folder=partials) as network:
        network.set_address_book({peer_id: address})
        while True:  # as roles do
            with suppress(TransientError):
                blob = await network.fetch_blob(
                    Digest(bytes.fromhex(digest)), sources=[peer_id], max_bytes=size
                )
                break
            await trio.sleep(0.1)
        (folder / "blob").write_bytes(blob)


trio.run(ask, Path(sys.argv[1]), bytes.fromhex(sys.argv[2]), *sys.argv[3:5], int(sys.argv[5]))
"""


async def test_a_node_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    library = Shelf()
    library.blobs[DIGEST] = BLOB
    async with start_network(
        tmp_path / "cone", library, upload_bytes_per_second=4 * CHUNK_BYTES
    ) as cone:
        command = [sys.executable, "-c", ASK, str(tmp_path), cone.peer_id.hex()]
        command += [cone.listening[0], DIGEST.hex(), str(SIZE)]
        process = await trio.lowlevel.open_process(command)
        with trio.fail_after(6 * PATIENCE_SECONDS):
            while count_kept(tmp_path / "partials") < 4 * CHUNK_BYTES:  # noqa: ASYNC110
                await trio.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            await trio.run_process(command)
        assert (tmp_path / "blob").read_bytes() == BLOB
        # What was on its way when it was killed is lost, and the four that were kept are not.
        sent = cone.measure().sent_bytes["blobs"]
        assert sent < 2 * SIZE - 4 * CHUNK_BYTES + 100_000
