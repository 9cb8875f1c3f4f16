"""What we are about to say, written before it is said. The first value of a key stays."""

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class RunInTransaction(Protocol):
    """The shape of `Database.run`."""

    def __call__(self, work: Callable[[sqlite3.Connection], T], /) -> Awaitable[T]:
        """Work on the connection in one transaction, durable on return."""


class Journal:
    """`JournalPort` on SQLite. Methods raise StoreCorrupted and FatalError."""

    def __init__(self, run: RunInTransaction) -> None:
        self._run = run

    async def remember(self, kind: str, key: str, value: bytes) -> bytes:
        """Store a value once; return what is stored, the first value if there was one."""

        def work(connection: sqlite3.Connection) -> bytes:
            connection.execute(
                "INSERT OR IGNORE INTO journal (kind, key, value) VALUES (?, ?, ?)",
                (kind, key, value),
            )
            stored = _select_value(connection, kind, key)
            assert stored is not None
            return stored

        return await self._run(work)

    async def recall(self, kind: str, key: str) -> bytes | None:
        """Return a stored value."""
        return await self._run(lambda connection: _select_value(connection, kind, key))

    async def recall_all(self, kind: str, prefix: str = "") -> dict[str, bytes]:
        """Return all values of a kind whose key begins with ``prefix``, by ascending key."""

        def work(connection: sqlite3.Connection) -> dict[str, bytes]:
            # The first comparison lets the index skip; the second makes the answer exact.
            rows = connection.execute(
                "SELECT key, value FROM journal"
                " WHERE kind = ? AND key >= ? AND substr(key, 1, ?) = ? ORDER BY key",
                (kind, prefix, len(prefix), prefix),
            )
            return dict(rows.fetchall())

        return await self._run(work)


def _select_value(connection: sqlite3.Connection, kind: str, key: str) -> bytes | None:
    row = connection.execute(
        "SELECT value FROM journal WHERE kind = ? AND key = ?", (kind, key)
    ).fetchone()
    if row is None:
        return None
    (value,) = row
    assert isinstance(value, bytes)
    return value
