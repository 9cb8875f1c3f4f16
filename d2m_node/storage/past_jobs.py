"""Jobs that are long over, in a SQLite file of their own.

All of it can be read from the chain again, so it has no part in backups, is not synced to the disk,
and is made anew by each process that opens the data directory.
"""

import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from d2m_node.errors import StoreCorrupted
from d2m_node.past_jobs import KeptJob, Tie
from d2m_node.storage.connection import translated_errors
from d2m_node.storage.job_codec import decode_job, encode_job
from d2m_node.storage.journal import RunInTransaction
from protocol.job import JobState
from protocol.types import JobId

PAST_NAME: Final = "past-jobs.sqlite"

_SIDE_FILES: Final = ("", "-journal", "-wal", "-shm")
_SCHEMA: Final = """
    CREATE TABLE past_jobs (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        job_id INTEGER NOT NULL UNIQUE,
        tie TEXT NOT NULL,
        record BLOB NOT NULL
    ) STRICT
"""


def make_file(path: Path) -> sqlite3.Connection:
    """Put an empty file in the place of what another process left. Raises FatalError."""
    with translated_errors(path):
        for side in _SIDE_FILES:
            path.with_name(path.name + side).unlink(missing_ok=True)
        path.touch(mode=0o600)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection


class PastJobsFile:
    """`PastJobs` on SQLite."""

    def __init__(self, run: RunInTransaction) -> None:
        self._run = run
        self._generation = 0
        self._newest = 0

    @property
    def generation(self) -> int:
        """Goes up when everything is dropped."""
        return self._generation

    @property
    def newest(self) -> int:
        """The place of the job that was kept last, 0 before the first."""
        return self._newest

    async def keep(self, jobs: Sequence[tuple[JobState, Tie]]) -> None:
        """Keep jobs, in the place of what is kept of the same ones."""

        def work(connection: sqlite3.Connection) -> int:
            for job, tie in jobs:
                connection.execute(
                    "INSERT OR REPLACE INTO past_jobs (job_id, tie, record) VALUES (?, ?, ?)",
                    (job.job_id, tie.value, encode_job(job)),
                )
            (newest,) = connection.execute("SELECT max(place) FROM past_jobs").fetchone()
            return int(newest)

        if jobs:
            self._newest = await self._run(work)

    async def find(self, job_id: JobId) -> JobState | None:
        """Return a job, or None if it is not kept."""

        def work(connection: sqlite3.Connection) -> JobState | None:
            query = "SELECT record FROM past_jobs WHERE job_id = ?"
            found = connection.execute(query, (job_id,)).fetchone()
            return None if found is None else _decode(job_id, found[0])

        return await self._run(work)

    async def list_kept(
        self, *, after: int = 0, ties: Collection[Tie] = frozenset(Tie)
    ) -> Sequence[KeptJob]:
        """List the jobs of these ties, those with a place ``after`` a number, by place."""

        def work(connection: sqlite3.Connection) -> Sequence[KeptJob]:
            rows = connection.execute(
                "SELECT place, job_id, tie FROM past_jobs WHERE place > ? ORDER BY place", (after,)
            )
            return [
                KeptJob(place=place, job_id=JobId(job_id), tie=Tie(tie))
                for place, job_id, tie in rows
                if Tie(tie) in ties
            ]

        return await self._run(work)

    async def drop_all(self) -> None:
        """Forget everything: the chain is followed from the beginning."""
        self._generation += 1
        await self._run(lambda connection: connection.execute("DELETE FROM past_jobs"))


def _decode(job_id: JobId, record: bytes) -> JobState:
    try:
        return decode_job(record)
    except ValueError as exc:
        raise StoreCorrupted(
            f"{PAST_NAME}: job {job_id}: {exc}; restart the node, it reads the chain again"
        ) from exc
