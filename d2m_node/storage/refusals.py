"""The latest refusals of this node's roles; older ones give way."""

import sqlite3
from typing import Final

from d2m_node.ports import Refusal
from d2m_node.storage.journal import RunInTransaction
from protocol.types import BlockNumber, JobId

REFUSALS_KEPT: Final = 1000


class Refusals:
    """`RefusalPort` on SQLite. Methods raise StoreCorrupted and FatalError."""

    def __init__(self, run: RunInTransaction, kept: int = REFUSALS_KEPT) -> None:
        self._run = run
        self._limit = kept

    async def add(self, refusal: Refusal) -> bool:
        """Keep a refusal; tell whether it is new. The oldest one gives way if there are many."""

        def work(connection: sqlite3.Connection) -> bool:
            added = connection.execute(
                "INSERT OR IGNORE INTO refusals (job_id, role, code, reason, block_number)"
                " VALUES (?, ?, ?, ?, ?)",
                (
                    refusal.job_id,
                    refusal.role,
                    refusal.code,
                    refusal.reason,
                    refusal.block_number,
                ),
            )
            is_new = added.rowcount == 1
            if is_new:
                connection.execute(
                    "DELETE FROM refusals WHERE position <="
                    " (SELECT MAX(position) FROM refusals) - ?",
                    (self._limit,),
                )
            return is_new

        return await self._run(work)

    async def latest(self, count: int, job_id: JobId | None = None) -> tuple[Refusal, ...]:
        """Return the latest refusals, of one job if it is named, newest first."""

        def work(connection: sqlite3.Connection) -> tuple[Refusal, ...]:
            rows = connection.execute(
                "SELECT job_id, role, code, reason, block_number FROM refusals"
                " WHERE ?1 IS NULL OR job_id = ?1 ORDER BY position DESC LIMIT ?2",
                (job_id, count),
            )
            return tuple(
                Refusal(
                    job_id=JobId(job),
                    role=role,
                    code=code,
                    reason=reason,
                    block_number=BlockNumber(block),
                )
                for job, role, code, reason, block in rows
            )

        return await self._run(work)
