"""What the store keeps of jobs that are over, and what goes: one transaction per question.

Kept whatever happens are all blobs of jobs that are not over, the bodies of own requests, delivered
models, and every row of the journal that stands between this node and a second signature or a
second payment. See `JOB_RECORDS` and `STEP_CALLS` for what may go, and why.
"""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from d2m_node.ports import Purpose
from d2m_node.storage.room import INPUTS, RESULTS, count_promised, count_used
from protocol.types import BlockNumber, Digest, JobId

PROVABLE_BLOCKS: Final = 8191
"""Contracts prove a seed by the hash of its block, and reach no further back. A vote for a seed
that is older can never be counted, even if a reorganisation brought its ballot back."""

JOB_RECORDS: Final = (
    "ticket-secret",
    "update",
    "availability",
    "vote",
    "equivocation",
    "round-record",
    "decision",
    "settlement-record",
)
"""Kinds of the journal that speak of one job, which their keys begin with.

The first five stand for signatures. They go with a job that is over, for the contracts take no
statement of it any more, and only once none could be proved there (`PROVABLE_BLOCKS`). The others
are for audits. Bids stay, for a request that is repeated under its idempotency key must find its
bid; so do kinds that are not named here.
"""

STEP_CALLS: Final = (
    "receipts",
    "start-training",
    "bitmaps",
    "commits",
    "openings",
    "Tally",
    "TallyPool",
    "ExpireBallot",
    "slashes",
)
"""Keys of calls that move a job on: kind, job, and the block in which they were made.

Such a key is never used again, because the block has passed. All other keys stay: a call with a
confirmed key is not sent again, and that is what keeps money from being paid twice.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepRules:
    """How long what is kept of a job."""

    blob_bytes: int
    keep_jobs: int
    keep_blocks: int
    serve_blocks: int
    final_blocks: int
    """After so many blocks no reorganisation brings a job back."""


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that is over, and the block in which this node saw it first."""

    job_id: JobId
    block_number: BlockNumber


def note_ended_jobs(
    connection: sqlite3.Connection, over: Collection[JobId], head: BlockNumber
) -> Sequence[EndedJob]:
    """Write down which jobs are over; one that a reorganisation brought back is not any more.

    Return all of them, the newest first.
    """
    known = {job for (job,) in connection.execute("SELECT job_id FROM jobs_over")}
    connection.executemany(
        "INSERT INTO jobs_over (job_id, block_number) VALUES (?, ?)",
        [(job, head) for job in over if job not in known],
    )
    connection.executemany(
        "DELETE FROM jobs_over WHERE job_id = ?", [(job,) for job in known - set(over)]
    )
    connection.execute("DELETE FROM room_claims WHERE job_id IN (SELECT job_id FROM jobs_over)")
    rows = connection.execute(
        "SELECT job_id, block_number FROM jobs_over ORDER BY block_number DESC, job_id DESC"
    )
    return [EndedJob(JobId(job), BlockNumber(block)) for job, block in rows]


def select_expired(
    ended: Sequence[EndedJob], head: BlockNumber, rules: KeepRules
) -> Sequence[EndedJob]:
    """Return the jobs that are older than the operator wants to keep; ``ended`` newest first."""
    return [
        one
        for place, one in enumerate(ended)
        if head - one.block_number >= rules.final_blocks
        and (place >= rules.keep_jobs or head - one.block_number >= rules.keep_blocks)
    ]


def drop_references(
    connection: sqlite3.Connection,
    expired: Iterable[EndedJob],
    head: BlockNumber,
    rules: KeepRules,
) -> None:
    """Let go of the blobs of expired jobs; of models only when no buyer comes for them."""
    for job in expired:
        is_served = head - job.block_number < rules.serve_blocks
        for purpose in INPUTS if is_served else (*INPUTS, *RESULTS):
            connection.execute(
                "DELETE FROM blob_references WHERE job_id = ? AND purpose = ?",
                (job.job_id, purpose.value),
            )


def take_unneeded(
    connection: sqlite3.Connection, head: BlockNumber, rules: KeepRules, *, most: int
) -> Sequence[Digest]:
    """Drop the rows of blobs that are not needed, at most so many; their files go next.

    First those that nothing refers to. Then, while the quota is exceeded, inputs of jobs that are
    over, then results, each from the one that was not used for longest.
    """
    unneeded = _select_digests(connection, _UNREFERENCED, (most,))
    excess = count_used(connection) + count_promised(connection) - rules.blob_bytes
    for purposes, age in (
        (INPUTS, rules.final_blocks),
        ((*INPUTS, *RESULTS), max(rules.final_blocks, rules.serve_blocks)),
    ):
        if unneeded or excess <= 0:
            break
        for digest, size in _select_collectable(connection, purposes, head - age, most):
            if excess > 0:
                unneeded.append(digest)
                excess -= size
    for table in ("blobs", "blob_references"):
        connection.executemany(
            f"DELETE FROM {table} WHERE digest = ?",  # noqa: S608 - one of two names
            [(one,) for one in unneeded],
        )
    return unneeded


_UNREFERENCED: Final = """
    SELECT digest FROM blobs
    WHERE digest NOT IN (SELECT digest FROM blob_references) LIMIT ?
"""

_COLLECTABLE: Final = """
    SELECT digest, size_bytes FROM blobs WHERE NOT EXISTS (
        SELECT 1 FROM blob_references AS r
        LEFT JOIN jobs_over AS o ON o.job_id = r.job_id AND o.block_number <= ?
        WHERE r.digest = blobs.digest AND (o.job_id IS NULL OR r.purpose NOT IN ({purposes}))
    ) ORDER BY last_use, digest LIMIT ?
"""


def _select_digests(
    connection: sqlite3.Connection, query: str, arguments: Sequence[int]
) -> list[Digest]:
    return [Digest(digest) for (digest,) in connection.execute(query, arguments)]


def _select_collectable(
    connection: sqlite3.Connection, purposes: Iterable[Purpose], last_block: int, most: int
) -> list[tuple[Digest, int]]:
    names = ", ".join(f"'{one.value}'" for one in purposes)
    rows = connection.execute(_COLLECTABLE.format(purposes=names), (last_block, most))
    return [(Digest(digest), size) for digest, size in rows]


def trim_records(
    connection: sqlite3.Connection, expired: Iterable[EndedJob], head: BlockNumber
) -> None:
    """Drop the records of expired jobs, once they can matter to nobody."""
    for job in expired:
        if head - job.block_number <= PROVABLE_BLOCKS:
            continue
        for kind in JOB_RECORDS:
            # From "7" and "7/" up to "70": all keys of job 7, and of no other.
            connection.execute(
                "DELETE FROM journal WHERE kind = ? AND (key = ? OR key >= ? AND key < ?)",
                (kind, str(job.job_id), f"{job.job_id}/", f"{job.job_id}0"),
            )
        for call in STEP_CALLS:
            prefix = f"{call}/{job.job_id}"
            connection.execute(
                "DELETE FROM transactions WHERE key >= ? AND key < ?"
                " AND state != 'open' AND block_hash IS NULL"
                " AND nonce < (SELECT max(nonce) FROM transactions)",
                (f"{prefix}/", f"{prefix}0"),
            )


def trim_transactions(connection: sqlite3.Connection) -> None:
    """Drop what can never be sent again of transactions that no reorganisation can touch.

    Of a confirmed one the key stays, and not its bytes. One that is not confirmed has no effect;
    it goes, unless its nonce is the highest that was ever used.
    """
    final = "state != 'open' AND block_hash IS NULL"
    connection.execute(
        f"UPDATE transactions SET raw = x'' WHERE {final} AND raw != x''"  # noqa: S608
    )
    connection.execute(
        f"DELETE FROM transactions WHERE {final} AND state != 'confirmed'"  # noqa: S608
        " AND nonce < (SELECT max(nonce) FROM transactions)"
    )
