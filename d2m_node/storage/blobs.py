"""Updates, models, requests and validation sets, each in a file named by its Keccak-256.

A file and its rows in the database belong together, and a crash may come between them. So the file
comes first and goes last: a file that nothing refers to is dropped at the next start, and a row
never stands for a file that was not written.

A row also holds a check of the bytes, so that reading a blob costs a fraction of its Keccak.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, TypeVarTuple

import structlog
import trio

from d2m_node.measures import StoreReading
from d2m_node.ports import Purpose, Reference
from d2m_node.storage import room
from d2m_node.storage.blob_files import BlobFiles, compute_check, is_intact
from d2m_node.storage.journal import RunInTransaction
from protocol.hashing import keccak
from protocol.types import Digest, JobId

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

MAX_PARALLEL_FILES: Final = 2
"""Enough to keep a disk busy; more would only hold more blobs in memory."""

ONLY_COPIES: Final = {
    Purpose.OWN_UPDATE: "the update that this node signed for; only CONE nodes that fetched it"
    " have it now",
    Purpose.OWN_REQUEST: "the body of this node's request; only nodes that fetched it have it now",
    Purpose.MODEL: "the delivered model; a restart fetches it again while a CONE node serves it",
}
"""What is gone if a blob of this purpose is; all else can be had from peers."""

log = structlog.get_logger(__name__)


class Blobs:
    """`BlobPort` on a folder and the database."""

    def __init__(self, files: BlobFiles, run: RunInTransaction, *, quota_bytes: int) -> None:
        self.files = files
        self.run = run
        self._quota_bytes = quota_bytes
        self._limiter = trio.CapacityLimiter(MAX_PARALLEL_FILES)
        self._used: set[Digest] = set()
        self.lock = trio.Lock()
        """Held while a file gets or loses its name together with its rows."""

    async def prepare(self) -> None:
        """Make files and rows agree, and say what is missing or damaged.

        Raises FatalError.
        """
        await self._in_thread(self.files.prepare)
        sizes = await self._in_thread(self.files.list_sizes)
        found = await self.run(lambda connection: _compare(connection, sizes))
        for digest in found.orphans:
            await self._in_thread(self.files.delete, digest)
        for digest in found.torn:
            await self._set_aside(digest)
        for digest in found.missing:
            await self._forget(digest, "blob_missing")
        if found.orphans:
            log.info("orphans_dropped", count=len(found.orphans))

    async def put(
        self, data: bytes, reference: Reference, *, digest: Digest | None = None
    ) -> Digest:
        """Store bytes durably, and why they are kept; return their Keccak-256.

        A ``digest`` is believed: whoever gives it has computed or checked it.

        Raises DiskFull if the disk takes no more; nothing has changed then. FatalError else.
        """
        if digest is None:
            digest = await trio.to_thread.run_sync(keccak, data, limiter=self._limiter)
        with trio.CancelScope(shield=True):  # or a file would be left without its rows
            await self._store(digest, data, reference)
        return digest

    async def _store(self, digest: Digest, data: bytes, reference: Reference) -> None:
        draft = None
        check = await self._in_thread(compute_check, data)
        if not await self._in_thread(self.files.holds, digest, len(data)):
            draft = await self._in_thread(self.files.write_draft, data)
        async with self.lock:
            if draft is None and not await self._in_thread(self.files.holds, digest, len(data)):
                draft = await self._in_thread(self.files.write_draft, data)  # it was collected
            if draft is not None:
                await self._in_thread(self.files.adopt, draft, digest)
            await self.run(
                lambda connection: _insert(connection, digest, len(data), check, reference)
            )

    async def get(self, digest: Digest) -> bytes | None:
        """Return the bytes, checked; None if they are not there.

        What is damaged is set aside and reported, so that it can be fetched again. Raises
        FatalError if the file cannot be read.
        """
        data = await self._in_thread(self.files.read, digest)
        if data is None:
            return None
        if not await self._agrees(digest, data):
            await self._set_aside(digest)
            return None
        self._used.add(digest)
        return data

    async def _agrees(self, digest: Digest, data: bytes) -> bool:
        """Tell whether bytes are those that were put. Where checks differ, the Keccak decides."""
        check = await self._in_thread(compute_check, data)
        if check == await self.run(lambda connection: _select_check(connection, digest)):
            return True
        if not await self._in_thread(is_intact, data, digest):
            return False
        await self.run(lambda connection: _note_check(connection, digest, check))
        return True

    async def references(self, digest: Digest) -> frozenset[Reference]:
        """Return why a blob is kept."""
        return await self.run(lambda connection: _select_references(connection, digest))

    async def find_refusal(self, job_id: JobId, size_bytes: int) -> str | None:
        """Set room aside for a new job, or say why it cannot have it; see `BlobPort`."""
        free = await self._in_thread(self.files.measure_free)
        return await self.run(
            lambda connection: room.claim(
                connection, job_id, size_bytes, quota_bytes=self._quota_bytes, free_bytes=free
            )
        )

    async def check_room(self, size_bytes: int) -> None:
        """Raise DiskFull if the disk could not take so many bytes now."""
        await self._in_thread(self.files.check_room, size_bytes)

    async def measure(self) -> StoreReading:
        """Return how full the folder and the disk are. Raises FatalError."""
        free = await self._in_thread(self.files.measure_free)

        def work(connection: sqlite3.Connection) -> StoreReading:
            return StoreReading(
                blob_bytes=room.count_used(connection),
                quota_bytes=self._quota_bytes,
                kept_bytes=room.count_kept(connection) + room.count_promised(connection),
                free_bytes=max(free, 0),
            )

        return await self.run(work)

    async def note_uses(self) -> None:
        """Write down which blobs were read since this was last called."""
        used, self._used = self._used, set()
        now = int(time.time())

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE blobs SET last_use = ? WHERE digest = ?", [(now, one) for one in used]
            )

        if used:
            await self.run(work)

    async def delete_files(self, digests: Iterable[Digest]) -> None:
        """Delete the files of blobs whose rows are gone; the caller holds the lock."""
        for digest in digests:
            await self._in_thread(self.files.delete, digest)

    async def _set_aside(self, digest: Digest) -> None:
        async with self.lock:
            data = await self._in_thread(self.files.read, digest)
            if data is None or is_intact(data, digest):
                return  # put again meanwhile
            path = await self._in_thread(self.files.set_aside, digest)
            await self._forget(digest, "blob_damaged", moved_to=str(path))

    async def _forget(self, digest: Digest, event: str, **fields: str) -> None:
        """Drop the rows of a blob whose bytes are gone, and say what that means."""

        def work(connection: sqlite3.Connection) -> frozenset[Reference]:
            references = _select_references(connection, digest)
            for table in ("blobs", "blob_references"):
                connection.execute(f"DELETE FROM {table} WHERE digest = ?", (digest,))  # noqa: S608
            return references

        for reference in await self.run(work):
            lost = ONLY_COPIES.get(reference.purpose)
            fields["lost"] = lost or "nothing: it is fetched again when it is needed"
            report = log.warning if lost is None else log.error
            report(
                event,
                digest=digest.hex(),
                job=reference.job_id,
                purpose=reference.purpose.value,
                **fields,
            )

    async def _in_thread(
        self, work: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result:
        return await trio.to_thread.run_sync(work, *arguments, limiter=self._limiter)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Where files and rows do not agree."""

    orphans: Sequence[Digest]
    """Files that nothing refers to."""
    torn: Sequence[Digest]
    """Files that are longer or shorter than their blob."""
    missing: Sequence[Digest]
    """Blobs without a file."""


def _compare(connection: sqlite3.Connection, sizes: dict[Digest, int]) -> _Comparison:
    """Compare the files with the rows; adopt files that only a row of their size is missing for."""
    known = dict(connection.execute("SELECT digest, size_bytes FROM blobs").fetchall())
    referred = {one for (one,) in connection.execute("SELECT digest FROM blob_references")}
    now = int(time.time())
    connection.executemany(
        "INSERT INTO blobs (digest, size_bytes, last_use) VALUES (?, ?, ?)",
        [(one, sizes[one], now) for one in sizes.keys() & referred - known.keys()],
    )
    return _Comparison(
        orphans=sorted(sizes.keys() - known.keys() - referred),
        torn=sorted(one for one in sizes.keys() & known.keys() if sizes[one] != known[one]),
        missing=sorted((known.keys() | referred) - sizes.keys()),
    )


def _insert(
    connection: sqlite3.Connection,
    digest: Digest,
    size_bytes: int,
    check: bytes,
    reference: Reference,
) -> None:
    connection.execute(
        "INSERT INTO blobs (digest, size_bytes, last_use, quick_check) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET last_use = excluded.last_use,"
        " quick_check = excluded.quick_check",
        (digest, size_bytes, int(time.time()), check),
    )
    connection.execute(
        "INSERT OR IGNORE INTO blob_references (digest, job_id, purpose) VALUES (?, ?, ?)",
        (digest, reference.job_id, reference.purpose.value),
    )


def _select_references(connection: sqlite3.Connection, digest: Digest) -> frozenset[Reference]:
    rows = connection.execute(
        "SELECT purpose, job_id FROM blob_references WHERE digest = ?", (digest,)
    )
    return frozenset(Reference(Purpose(purpose), JobId(job)) for purpose, job in rows)


def _select_check(connection: sqlite3.Connection, digest: Digest) -> bytes | None:
    found = connection.execute("SELECT quick_check FROM blobs WHERE digest = ?", (digest,))
    row: tuple[bytes | None] | None = found.fetchone()
    return None if row is None else row[0]


def _note_check(connection: sqlite3.Connection, digest: Digest, check: bytes) -> None:
    connection.execute("UPDATE blobs SET quick_check = ? WHERE digest = ?", (check, digest))
