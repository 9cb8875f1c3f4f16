"""The latest facts of this node; older ones give way."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from d2m_node.ports import NodeFact
from d2m_node.storage.journal import RunInTransaction
from protocol.types import JobId

FACTS_KEPT: Final = 1000


class Facts:
    """`FactPort` on SQLite. Methods raise StoreCorrupted and FatalError."""

    def __init__(self, run: RunInTransaction, kept: int = FACTS_KEPT) -> None:
        self._run = run
        self._limit = kept

    async def add(self, kind: str, details: Mapping[str, str], job_id: JobId | None) -> NodeFact:
        """Keep a fact; the oldest one gives way if there are many."""

        def work(connection: sqlite3.Connection) -> int:
            added = connection.execute(
                "INSERT INTO facts (kind, job_id, details) VALUES (?, ?, ?)",
                (kind, job_id, msgspec.json.encode(details)),
            )
            number = added.lastrowid
            assert number is not None
            connection.execute("DELETE FROM facts WHERE number <= ?", (number - self._limit,))
            return number

        number = await self._run(work)
        return NodeFact(number=number, kind=kind, job_id=job_id, details=dict(details))

    async def latest(self) -> Sequence[NodeFact]:
        """Return the facts that are kept, oldest first."""

        def work(connection: sqlite3.Connection) -> Sequence[NodeFact]:
            rows = connection.execute(
                "SELECT number, kind, job_id, details FROM facts ORDER BY number"
            )
            return [
                NodeFact(
                    number=number,
                    kind=kind,
                    job_id=None if job is None else JobId(job),
                    details=msgspec.json.decode(details, type=dict[str, str]),
                )
                for number, kind, job, details in rows
            ]

        return await self._run(work)
