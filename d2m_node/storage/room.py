"""Who may use how much of the blob folder.

Running jobs are never refused: what they need was set aside when they were entered. New jobs are.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

from d2m_node.ports import Purpose
from protocol.types import JobId

INPUTS: Final = (Purpose.UPDATE, Purpose.OWN_UPDATE, Purpose.VALIDATION)
"""What is collected first: nobody needs the inputs of a job that is over, but for an audit."""
RESULTS: Final = (Purpose.STATE, Purpose.REQUEST)
"""What is collected next: a buyer may still be on its way to its model."""

_KEPT_BYTES: Final = """
    SELECT coalesce(sum(size_bytes), 0) FROM blobs WHERE EXISTS (
        SELECT 1 FROM blob_references AS r
        WHERE r.digest = blobs.digest AND (
            r.purpose NOT IN ({collectable}) OR r.job_id NOT IN (SELECT job_id FROM jobs_over)
        )
    )
"""

_PROMISED_BYTES: Final = """
    SELECT coalesce(sum(max(0, c.size_bytes - (
        SELECT coalesce(sum(size_bytes), 0) FROM blobs WHERE digest IN (
            SELECT digest FROM blob_references WHERE job_id = c.job_id
        )
    ))), 0) FROM room_claims AS c
    WHERE c.job_id != ? AND c.job_id NOT IN (SELECT job_id FROM jobs_over)
"""

_BYTES_OF_JOB: Final = """
    SELECT coalesce(sum(size_bytes), 0) FROM blobs WHERE digest IN (
        SELECT digest FROM blob_references WHERE job_id = ?
    )
"""


def count_used(connection: sqlite3.Connection) -> int:
    """Return the bytes of all blobs."""
    return _read_sum(connection, "SELECT coalesce(sum(size_bytes), 0) FROM blobs")


def count_kept(connection: sqlite3.Connection) -> int:
    """Return the bytes that no collection would free."""
    names = ", ".join(f"'{one.value}'" for one in (*INPUTS, *RESULTS))
    return _read_sum(connection, _KEPT_BYTES.format(collectable=names))


def count_promised(connection: sqlite3.Connection, *, but: JobId = JobId(0)) -> int:
    """Return what jobs may still use of what was set aside for them, all but one."""
    return _read_sum(connection, _PROMISED_BYTES, (but,))


def claim(
    connection: sqlite3.Connection,
    job_id: JobId,
    size_bytes: int,
    *,
    quota_bytes: int,
    free_bytes: int,
) -> str | None:
    """Set room aside for a job and return None, or say why it cannot have it.

    ``free_bytes`` is what the disk would still take.
    """
    kept = count_kept(connection)
    promised = count_promised(connection, but=job_id)
    collectable = count_used(connection) - kept
    missing = max(0, size_bytes - _read_sum(connection, _BYTES_OF_JOB, (job_id,)))
    if kept + promised + missing > quota_bytes:
        return (
            f"the job may need {size_bytes} bytes of the blob store, and {kept + promised} of"
            f" storage.blob_bytes ({quota_bytes}) are in use by jobs that are not over, or"
            " promised to them"
        )
    if promised + missing > free_bytes + collectable:
        return (
            f"the job may need {size_bytes} bytes of the disk, and"
            f" {max(0, free_bytes + collectable - promised)} are left"
        )
    connection.execute(
        "INSERT INTO room_claims (job_id, size_bytes) VALUES (?, ?)"
        " ON CONFLICT DO UPDATE SET size_bytes = max(size_bytes, excluded.size_bytes)",
        (job_id, size_bytes),
    )
    return None


def _read_sum(connection: sqlite3.Connection, query: str, arguments: Sequence[int] = ()) -> int:
    (total,) = connection.execute(query, arguments).fetchone()
    assert isinstance(total, int)
    return total
