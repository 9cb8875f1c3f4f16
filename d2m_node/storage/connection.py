"""The SQLite file: opened, checked, brought up to date, and its failures told in one line each.

The file is in WAL mode with ``synchronous = FULL``: what a write returned from is on disk.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import structlog
import trio

from d2m_node.errors import FatalError, StoreCorrupted
from d2m_node.storage.schema import MIGRATIONS

T = TypeVar("T")

CHECK_SECONDS: Final = 5.0
"""The check of a large file is cut off here, so that a start takes no longer for it."""
_CHECK_STEPS: Final = 10_000
"""Instructions of SQLite's machine between two looks at the clock."""

_HINTS: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space and start the node again, it goes on"
    " where it was",
    sqlite3.SQLITE_READONLY: "cannot be written; look at the owner, the mode and the mount",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; look at the owner, the mode and the mount",
    sqlite3.SQLITE_BUSY: "another program keeps it locked; close that",
    sqlite3.SQLITE_IOERR: "the disk fails; look at the system's log, and start the node again once"
    " it is mended, it goes on where it was",
}

log = structlog.get_logger(__name__)


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

    async def close(self) -> None:
        """Close the file once no thread works on it: SQLite does not survive else."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._connection.close, limiter=self._limiter)

    def _run_sync(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with translated_errors(self._path), _transaction(self._connection):
            return work(self._connection)


def rewrite_version(connection: sqlite3.Connection) -> None:
    """Change nothing, and have it written all the same: the file's first page, with a sync."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {int(version)}")


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, which is made if there is none, as the newest version has it.

    Raises StoreCorrupted, and FatalError if a newer version wrote it or it cannot be written.
    """
    with translated_errors(path):
        # Threads take turns under the limiter, so SQLite's check for one thread is in the way.
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            path.chmod(0o600)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            # The system keeps the file's pages too: a larger cache only takes memory for months.
            connection.execute("PRAGMA cache_size = -512")
            check_integrity(connection, path)
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def check_integrity(
    connection: sqlite3.Connection, path: Path, *, seconds: float = CHECK_SECONDS
) -> bool:
    """Read the whole file; return whether that was done in time.

    Raises StoreCorrupted if a page is not what SQLite wrote.
    """
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _CHECK_STEPS)
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        log.info("store_checked_in_part", path=str(path), seconds=seconds)
        return False
    finally:
        connection.set_progress_handler(None, 0)
    if found != "ok":
        raise _corrupted(path, found.splitlines()[0])
    return True


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
def translated_errors(path: Path) -> Iterator[None]:
    """Turn failures of the disk into errors that say whose they are, and what to do."""
    try:
        yield
    except OSError as exc:
        raise FatalError(f"{path}: {exc.strerror}") from exc
    except sqlite3.OperationalError as exc:
        # The low byte is the error; those above say in which of SQLite's functions.
        hint = _HINTS.get(exc.sqlite_errorcode & 0xFF)
        raise FatalError(f"{path}: {exc}" + (f": {hint}" if hint else "")) from exc
    except sqlite3.DatabaseError as exc:
        raise _corrupted(path, str(exc)) from exc


def _corrupted(path: Path, found: str) -> StoreCorrupted:
    return StoreCorrupted(
        f"{path}: {found}; put a backup in its place with d2m-node restore, or repair the disk"
    )
