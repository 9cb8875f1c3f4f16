"""Numbers that only grow, across restarts and whatever the clock says."""

import sqlite3
import time
from typing import Final

from d2m_node.storage.journal import RunInTransaction
from protocol.types import BlockNumber

RESERVED: Final = 2**32
"""Sequence numbers that one run may use: more than it could gossip in years."""
LARGEST: Final = 2**62
"""SQLite keeps signed numbers of 64 bits."""

RESTORED: Final = "restored"
"""One in a backup, and in what was restored from it until a node has started on it."""

_TRUSTED_FROM: Final = "trusted-from"
_SEQUENCE: Final = "gossip-sequence"


class Marks:
    """High-water marks in the database. Methods raise StoreCorrupted and FatalError."""

    def __init__(self, run: RunInTransaction) -> None:
        self._run = run
        self.trusted_from = BlockNumber(0)
        """See `StorePort.trusted_from`; known once `trust_from` was called."""

    async def trust_from(self, head: BlockNumber) -> None:
        """Learn from which block on the journal knows all: of a restored backup from now on."""

        def work(connection: sqlite3.Connection) -> int:
            if _read(connection, RESTORED):
                _write(connection, RESTORED, 0)
                _write(connection, _TRUSTED_FROM, head + 1)
            return _read(connection, _TRUSTED_FROM)

        self.trusted_from = BlockNumber(await self._run(work))

    async def reserve_sequence(self) -> int:
        """Return the first sequence number of this run, above all of the runs before.

        Peers take a message whose number they have seen for a copy. The clock alone would do as
        long as it never goes back.
        """

        def work(connection: sqlite3.Connection) -> int:
            first = max(_read(connection, _SEQUENCE), min(time.time_ns(), LARGEST))
            _write(connection, _SEQUENCE, first + RESERVED)
            return first

        return await self._run(work)


def _read(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else int(row[0])


def _write(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute(
        "INSERT INTO marks (name, value) VALUES (?, ?)"
        " ON CONFLICT DO UPDATE SET value = excluded.value",
        (name, value),
    )
