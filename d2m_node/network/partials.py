"""Parts of large blobs on the disk, so that a restart does not begin them anew.

Nothing here is believed. Chunks are checked against the list of whoever serves the rest, and a
beginning is part of the hash of the whole. So nothing is synced either, and what a crash tears is
fetched again. A disk that takes no more ends the keeping, not the fetch.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog
import trio

from protocol.types import Digest
from protocol.wire.chunks import CHUNK_BYTES, HASH_BYTES, count_chunks, hash_chunk
from protocol.wire.messages import ChunkList

log = structlog.get_logger(__name__)

MIN_KEPT_BYTES: Final = 4 * 1024 * 1024
"""Of smaller blobs nothing is kept: they are fetched again in no time."""
MAX_AGE_SECONDS: Final = 3 * 24 * 3600
"""A job that still wants its blob after so long has other worries."""
BEGINNING, CHUNKS = "beginning", "chunks"


class Partials:
    """A folder of unfinished blobs, the newest within a quota. Without a folder nothing is kept."""

    def __init__(self, folder: Path | None, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    async def tidy(self) -> None:
        """Drop what is old, and the oldest beyond the quota."""
        try:
            await trio.to_thread.run_sync(self._tidy, 0)
        except OSError as exc:
            log.warning("partials_not_tidied", error=str(exc))

    async def drop(self, digest: Digest) -> None:
        """Forget a blob: it is whole, or what is kept is of no use."""
        await trio.to_thread.run_sync(self._drop, digest)

    def measure_beginning(self, digest: Digest) -> int:
        """Return how many of the first bytes of a blob are kept, which may be wrong ones."""
        if self._folder is None:
            return 0
        try:
            return self._path(self._folder, digest, BEGINNING).stat().st_size
        except OSError:
            return 0

    async def read_beginning(self, digest: Digest, into: memoryview) -> bool:
        """Fill a buffer with the first bytes of a blob; tell whether there were so many."""
        return await trio.to_thread.run_sync(self._read_beginning, digest, into)

    async def restore_chunks(self, digest: Digest, chunks: ChunkList, data: memoryview) -> set[int]:
        """Put chunks that are kept and belong to a list in their places; return which."""
        return await trio.to_thread.run_sync(self._restore_chunks, digest, chunks, data)

    async def keep_beginning(
        self, digest: Digest, offset: int, data: bytes | memoryview, size: int
    ) -> None:
        """Keep what follows on the first ``offset`` bytes of a blob of ``size`` bytes."""
        await trio.to_thread.run_sync(self._write, digest, BEGINNING, offset, data, size)

    def write_chunk(self, digest: Digest, index: int, chunk: memoryview, size: int) -> None:
        """Keep a chunk of a blob of ``size`` bytes. Belongs into a thread."""
        self._write(digest, CHUNKS, index * CHUNK_BYTES, chunk, size)

    def _path(self, folder: Path, digest: Digest, kind: str) -> Path:
        return folder / f"{digest.hex()}.{kind}"

    def _paths(self, digest: Digest) -> Iterator[Path]:
        if self._folder is not None:
            for kind in (CHUNKS, BEGINNING):
                yield self._path(self._folder, digest, kind)

    def _write(
        self, digest: Digest, kind: str, offset: int, data: bytes | memoryview, size: int
    ) -> None:
        if self._folder is None or not MIN_KEPT_BYTES <= size <= self._max_bytes:
            return
        path = self._path(self._folder, digest, kind)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists():
                self._tidy(size)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(descriptor, data, offset)
            finally:
                os.close(descriptor)
        except OSError as exc:
            log.warning("partial_not_kept", digest=digest.hex(), error=str(exc))

    def _read_beginning(self, digest: Digest, into: memoryview) -> bool:
        if self._folder is None:
            return False
        try:
            with self._path(self._folder, digest, BEGINNING).open("rb", buffering=0) as file:
                filled = 0
                while count := file.readinto(into[filled:]):
                    filled += count
        except OSError:
            return False
        return filled == len(into)

    def _restore_chunks(self, digest: Digest, chunks: ChunkList, data: memoryview) -> set[int]:
        found: set[int] = set()
        for path in self._paths(digest):
            try:
                with path.open("rb") as file:
                    found |= _read_chunks(file.fileno(), chunks, data, found)
            except OSError:
                continue
        return found

    def _drop(self, digest: Digest) -> None:
        for path in self._paths(digest):
            try:
                path.unlink(missing_ok=True)
            except OSError as exc:
                log.warning("partial_not_dropped", path=str(path), error=str(exc))

    def _tidy(self, needed_bytes: int) -> None:
        """Drop what is old, and the oldest until so many bytes more fit."""
        if self._folder is None or not self._folder.is_dir():
            return
        left = self._max_bytes - needed_bytes
        files = [(path.stat(), path) for path in self._folder.iterdir()]
        for stat, path in sorted(files, key=lambda one: one[0].st_mtime_ns, reverse=True):
            left -= stat.st_blocks * 512  # holes take nothing
            if left < 0 or time.time() - stat.st_mtime > MAX_AGE_SECONDS:
                path.unlink(missing_ok=True)


def _read_chunks(descriptor: int, chunks: ChunkList, data: memoryview, known: set[int]) -> set[int]:
    found = set()
    for index in set(range(count_chunks(chunks.size_bytes))) - known:
        start = index * CHUNK_BYTES
        chunk = os.pread(descriptor, min(CHUNK_BYTES, chunks.size_bytes - start), start)
        expected = chunks.hashes[HASH_BYTES * index : HASH_BYTES * (index + 1)]
        if hash_chunk(chunk) == expected:
            data[start : start + len(chunk)] = chunk
            found.add(index)
    return found
