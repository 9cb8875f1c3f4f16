"""Updates, models, requests and validation sets, each in a file named by its Keccak-256."""

import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Final

import trio

from d2m_node.errors import FatalError, StoreCorrupted
from d2m_node.ports import Access, Audience
from d2m_node.storage.journal import RunInTransaction
from protocol.hashing import keccak
from protocol.types import Digest, JobId

MAX_PARALLEL_FILES: Final = 2
"""Enough to keep a disk busy; more would only hold more blobs in memory."""

_UNFINISHED: Final = "unfinished"


class Blobs:
    """`BlobPort` on a folder: ``ab/ab12…``, two digits to keep directories small."""

    def __init__(self, folder: Path, run: RunInTransaction) -> None:
        self._folder = folder
        self._run = run
        self._limiter = trio.CapacityLimiter(MAX_PARALLEL_FILES)

    async def prepare(self) -> None:
        """Make the folder, and drop what a crash left half written. Raises FatalError."""
        await trio.to_thread.run_sync(self._prepare_sync, limiter=self._limiter)

    async def put(self, data: bytes, access: Access | None = None) -> Digest:
        """Store bytes durably, and allow an audience to fetch them; return their Keccak-256.

        Raises FatalError if the disk takes no more.
        """
        digest = await trio.to_thread.run_sync(self._write_sync, data, limiter=self._limiter)
        if access is not None:
            await self._allow(digest, access)
        return digest

    async def get(self, digest: Digest) -> bytes | None:
        """Return the bytes, checked against their hash.

        Raises StoreCorrupted if the file holds something else, FatalError if it cannot be read.
        """
        return await trio.to_thread.run_sync(self._read_sync, digest, limiter=self._limiter)

    async def access(self, digest: Digest) -> frozenset[Access]:
        """Return the audiences that may fetch a blob."""

        def work(connection: sqlite3.Connection) -> frozenset[Access]:
            rows = connection.execute(
                "SELECT audience, job_id FROM blob_access WHERE digest = ?", (digest,)
            )
            return frozenset(Access(Audience(audience), JobId(job)) for audience, job in rows)

        return await self._run(work)

    async def _allow(self, digest: Digest, access: Access) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR IGNORE INTO blob_access (digest, audience, job_id) VALUES (?, ?, ?)",
                (digest, access.audience.value, access.job_id),
            )

        await self._run(work)

    def _prepare_sync(self) -> None:
        unfinished = self._folder / _UNFINISHED
        try:
            unfinished.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in unfinished.iterdir():
                path.unlink()
        except OSError as exc:
            raise FatalError(f"{self._folder}: {exc.strerror}") from exc

    def _write_sync(self, data: bytes) -> Digest:
        digest = keccak(data)
        path = self._path_of(digest)
        if path.exists():
            return digest
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._folder / _UNFINISHED)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # A rename is atomic: the final name never stands for half a blob.
            Path(name).rename(path)
            _sync_folder(path.parent)
            _sync_folder(self._folder)
        except OSError as exc:
            raise FatalError(f"{path}: {exc.strerror}") from exc
        return digest

    def _read_sync(self, digest: Digest) -> bytes | None:
        path = self._path_of(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise FatalError(f"{path}: {exc.strerror}") from exc
        if keccak(data) != digest:
            raise StoreCorrupted(f"{path}: its bytes do not hash to its name; delete the file")
        return data

    def _path_of(self, digest: Digest) -> Path:
        name = digest.hex()
        return self._folder / name[:2] / name


def _sync_folder(folder: Path) -> None:
    """Make a rename durable: the entry lives in the directory, not in the file."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
