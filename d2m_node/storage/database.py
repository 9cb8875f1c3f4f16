"""One data directory: its lock, its SQLite file, and the store that they carry.

The file is in WAL mode with ``synchronous = FULL``: what a write returned from is on disk.
"""

import fcntl
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import trio

from d2m_node.errors import FatalError, StoreCorrupted, StoreInUse
from d2m_node.settings import StorageSettings
from d2m_node.storage.blob_files import BlobFiles
from d2m_node.storage.blobs import Blobs
from d2m_node.storage.journal import Journal, RunInTransaction
from d2m_node.storage.schema import MIGRATIONS
from d2m_node.storage.transactions import Transactions

T = TypeVar("T")

DATABASE_NAME: Final = "store.sqlite"
LOCK_NAME: Final = "lock"
BLOB_FOLDER: Final = "blobs"
DEFAULTS: Final = StorageSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """`StorePort`, and what the chain adapter keeps."""

    journal: Journal
    blobs: Blobs
    transactions: Transactions
    run: RunInTransaction
    """Works on all of them at once."""


class Database:
    """One SQLite connection, used by one worker thread at a time."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in one transaction, durable on return, undone if it raises.

        Raises
        ------
        StoreCorrupted
            If the file is no longer the database that the node wrote.
        FatalError
            If it cannot be written, for want of space for instance.
        """
        return await trio.to_thread.run_sync(self._run_sync, work, limiter=self._limiter)

    def _run_sync(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with _translated_errors(self._path), _transaction(self._connection):
            return work(self._connection)


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
        connection = await trio.to_thread.run_sync(_connect, path)
        try:
            database = Database(connection, path)
            files = BlobFiles(folder / BLOB_FOLDER, reserve_bytes=settings.reserve_bytes)
            blobs = Blobs(files, database.run, quota_bytes=settings.blob_bytes)
            await blobs.prepare()
            yield Store(
                journal=Journal(database.run),
                blobs=blobs,
                transactions=Transactions(database.run),
                run=database.run,
            )
        finally:
            connection.close()


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the directory's lock. The kernel drops it when the process ends, however it ends.

    Raises StoreInUse, and FatalError if the lock cannot be made.
    """
    path = folder / LOCK_NAME
    with _translated_errors(path):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            raise StoreInUse(f"{folder} is in use by another d2m-node (pid {owner})") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _connect(path: Path) -> sqlite3.Connection:
    with _translated_errors(path):
        # Threads take turns under the limiter, so SQLite's check for one thread is in the way.
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            path.chmod(0o600)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the schema up to date, one transaction per step."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise FatalError(
            f"{path}: schema {version} is of a newer d2m-node; this one knows {len(MIGRATIONS)}"
        )
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    """Turn failures of the disk into errors that say whose they are."""
    try:
        yield
    except OSError as exc:
        raise FatalError(f"{path}: {exc.strerror}") from exc
    except sqlite3.OperationalError as exc:  # no space, no permission, no such directory
        raise FatalError(f"{path}: {exc}") from exc
    except sqlite3.DatabaseError as exc:
        raise StoreCorrupted(f"{path}: {exc}; restore it from a backup") from exc
