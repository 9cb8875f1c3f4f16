"""One data directory: its lock, its SQLite file, its blobs, and the store that they carry."""

import fcntl
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
import trio

from d2m_node.errors import FatalError, StoreCorrupted, StoreInUse
from d2m_node.measures import StoreReading
from d2m_node.settings import StorageSettings
from d2m_node.storage.addresses import Addresses
from d2m_node.storage.blob_files import BlobFiles
from d2m_node.storage.blobs import Blobs
from d2m_node.storage.connection import Database, connect, rewrite_version, translated_errors
from d2m_node.storage.facts import Facts
from d2m_node.storage.journal import Journal, RunInTransaction
from d2m_node.storage.marks import Marks
from d2m_node.storage.past_jobs import PAST_NAME, PastJobsFile, make_file
from d2m_node.storage.refusals import Refusals
from d2m_node.storage.transactions import Transactions
from protocol.types import BlockNumber

DATABASE_NAME: Final = "store.sqlite"
LOCK_NAME: Final = "lock"
BLOB_FOLDER: Final = "blobs"
SMALLEST_BYTES: Final = 100
"""The header of a SQLite file."""
DEFAULTS: Final = StorageSettings()

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """`StorePort`, and what the chain adapter keeps."""

    journal: Journal
    blobs: Blobs
    refusals: Refusals
    transactions: Transactions
    marks: Marks
    facts: Facts
    addresses: Addresses
    past: PastJobsFile
    run: RunInTransaction
    """Works on all of them at once, but for the past jobs."""

    async def measure(self) -> StoreReading:
        """See `MeasuredStore.measure`."""
        return await self.blobs.measure()

    async def check_writable(self) -> None:
        """See `MeasuredStore.check_writable`."""
        await self.run(rewrite_version)
        await self.blobs.check_room(1)

    @property
    def trusted_from(self) -> BlockNumber:
        """See `StorePort.trusted_from`."""
        return self.marks.trusted_from


@asynccontextmanager
async def open_store(
    folder: Path, settings: StorageSettings = DEFAULTS
) -> AsyncGenerator[Store, None]:
    """Open a data directory, for this process alone; it is made if it does not exist.

    Raises
    ------
    StoreInUse
        If another process has it open.
    StoreCorrupted
        If it does not hold what a node wrote.
    FatalError
        If it cannot be read or written, or a newer version of the node wrote it.
    """
    with lock_folder(folder):
        path = folder / DATABASE_NAME
        _check_not_lost(path, folder / BLOB_FOLDER)
        async with (
            _open_database(path, connect) as database,
            _open_database(folder / PAST_NAME, make_file) as past,
        ):
            files = BlobFiles(folder / BLOB_FOLDER, reserve_bytes=settings.reserve_bytes)
            blobs = Blobs(files, database.run, quota_bytes=settings.blob_bytes)
            await blobs.prepare()
            yield Store(
                journal=Journal(database.run),
                blobs=blobs,
                refusals=Refusals(database.run),
                transactions=Transactions(database.run),
                marks=Marks(database.run),
                facts=Facts(database.run),
                addresses=Addresses(database.run),
                past=PastJobsFile(past.run),
                run=database.run,
            )


@asynccontextmanager
async def _open_database(
    path: Path, open_file: Callable[[Path], sqlite3.Connection]
) -> AsyncGenerator[Database, None]:
    database = Database(await trio.to_thread.run_sync(open_file, path), path)
    try:
        yield database
    finally:
        await database.close()


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the directory's lock. The kernel drops it when the process ends, however it ends.

    Raises StoreInUse, and FatalError if the directory is another user's or cannot be locked.
    """
    path = folder / LOCK_NAME
    with translated_errors(path):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _keep_private(folder)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, folder)
        with translated_errors(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _check_not_lost(path: Path, blob_folder: Path) -> None:
    """Tell a journal that is gone from one that never was: SQLite takes both for a new file.

    Raises StoreCorrupted.
    """
    with translated_errors(path):
        size = path.stat().st_size if path.exists() else 0
        if size < SMALLEST_BYTES and (size or blob_folder.exists()):
            raise StoreCorrupted(
                f"{path}: missing or empty, and with it the record of what this node has signed;"
                " put a backup in its place with d2m-node restore, or move the folder"
                f" {blob_folder.name} away to start without"
            )


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
        raise StoreInUse(f"{folder} is in use by another d2m-node (pid {owner})") from None
    except OSError as exc:
        raise FatalError(
            f"{folder}: its file system has no locks ({exc.strerror}); two nodes could sign at"
            " once, so put the data directory on a local disk"
        ) from exc


def _keep_private(folder: Path) -> None:
    """See that nobody but this user may look into the directory. Raises FatalError."""
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise FatalError(
            f"{folder} belongs to user {status.st_uid}, and the node runs as user {os.geteuid()};"
            " run it as that user, or change the owner with chown -R"
        )
    if status.st_mode & 0o077:
        folder.chmod(0o700)
        log.warning("permissions_tightened", folder=str(folder))
