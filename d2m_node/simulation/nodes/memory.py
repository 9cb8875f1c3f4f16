"""What a simulated node remembers: `StorePort` and `FactPort` without a disk.

A store belongs to whoever runs the simulation, not to the node. So it outlives a crash of its node,
as a data directory does. A write is there before it returns, and a node may be cancelled between
the two: that is a crash after the write of which the writer never heard.
"""

from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Final

import structlog
import trio

from d2m_node.errors import DiskFull
from d2m_node.past_jobs import KeptJob, Tie
from d2m_node.ports import NodeFact, Purpose, Reference, Refusal
from protocol.hashing import keccak
from protocol.job import JobState
from protocol.types import BlockNumber, Digest, JobId

KEPT_FOR_EVER: Final = (Purpose.OWN_REQUEST, Purpose.MODEL)
LATEST_KEPT: Final = 1000
"""Refusals, and facts."""
HASHES_KEPT: Final = 256
"""As many blobs as a round has, and more."""

log = structlog.get_logger(__name__)


@lru_cache(maxsize=HASHES_KEPT)
def hash_blob(data: bytes) -> Digest:
    """Return the Keccak-256 of a blob.

    Many nodes hash the same bytes: those of an update are one object in all stores of a process.
    Bytes never change, so neither does their hash.
    """
    return keccak(data)


class BlobPool:
    """The bytes of all stores of one simulation, each blob once."""

    def __init__(self) -> None:
        self._blobs: dict[Digest, bytes] = {}
        self._holders: Counter[Digest] = Counter()

    def hold(self, digest: Digest, data: bytes) -> None:
        """Keep a blob for one more store."""
        self._blobs.setdefault(digest, data)
        self._holders[digest] += 1

    def release(self, digest: Digest) -> None:
        """Let go of a blob for one store."""
        self._holders[digest] -= 1
        if self._holders[digest] == 0:
            del self._blobs[digest], self._holders[digest]

    def read(self, digest: Digest) -> bytes:
        """Return a blob that somebody holds."""
        return self._blobs[digest]

    def find(self, digest: Digest) -> bytes | None:
        """Return a blob, or None if nobody holds it."""
        return self._blobs.get(digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How much a node may store; without a limit if there is none."""

    quota_bytes: int | None = None
    """Of the blobs that jobs may need: who needs more is not entered."""
    disk_bytes: int | None = None
    """Of all blobs: what does not fit is not kept."""


UNLIMITED: Final = Room()


class MemoryJournal:
    """`JournalPort`."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, bytes]] = {}

    async def remember(self, kind: str, key: str, value: bytes) -> bytes:
        """Store a value once; return what is stored, the first value if there was one."""
        await trio.lowlevel.checkpoint()
        stored = self._values.setdefault(kind, {}).setdefault(key, value)
        await trio.lowlevel.checkpoint()
        return stored

    async def recall(self, kind: str, key: str) -> bytes | None:
        """Return a stored value."""
        await trio.lowlevel.checkpoint()
        return self._values.get(kind, {}).get(key)

    async def recall_all(self, kind: str, prefix: str = "") -> dict[str, bytes]:
        """Return all values of a kind whose key begins with ``prefix``, by ascending key."""
        await trio.lowlevel.checkpoint()
        values = self._values.get(kind, {})
        return {key: values[key] for key in sorted(values) if key.startswith(prefix)}


@dataclass(slots=True)
class _Blob:
    """What a store knows of one blob."""

    size_bytes: int
    kept_for: set[Reference] = field(default_factory=set)
    damaged: bytes | None = None
    """What the disk gives instead of the blob."""


class MemoryBlobs:
    """`BlobPort`."""

    def __init__(self, pool: BlobPool, room: Room = UNLIMITED) -> None:
        self._pool = pool
        self._room = room
        self._blobs: dict[Digest, _Blob] = {}
        self._claims: dict[JobId, int] = {}
        """Bytes that were set aside, by job."""

    async def put(
        self, data: bytes, reference: Reference, *, digest: Digest | None = None
    ) -> Digest:
        """Keep bytes, and why; return their Keccak-256. Raises DiskFull."""
        await trio.lowlevel.checkpoint()
        digest = hash_blob(data) if digest is None else digest
        blob = self._blobs.get(digest)
        if blob is None:
            self._check_room(len(data))
            self._pool.hold(digest, data)
            blob = self._blobs[digest] = _Blob(len(data))
        if blob.damaged is not None and len(blob.damaged) != len(data):
            blob.damaged = None  # a file of another length is written anew
        blob.kept_for.add(reference)
        await trio.lowlevel.checkpoint()
        return digest

    async def get(self, digest: Digest) -> bytes | None:
        """Return the bytes, checked against their hash; None if they are not there, or damaged."""
        await trio.lowlevel.checkpoint()
        blob = self._blobs.get(digest)
        if blob is None:
            return None
        if blob.damaged is None:  # hashed when it was put, and bytes do not change
            return self._pool.read(digest)
        if hash_blob(blob.damaged) != digest:
            log.warning("blob_damaged", digest=digest.hex())
            self._forget(digest)
            return None
        return blob.damaged

    async def references(self, digest: Digest) -> frozenset[Reference]:
        """Return why a blob is kept."""
        await trio.lowlevel.checkpoint()
        blob = self._blobs.get(digest)
        return frozenset() if blob is None else frozenset(blob.kept_for)

    async def find_refusal(self, job_id: JobId, size_bytes: int) -> str | None:
        """Say why a new job cannot have so much room, or set it aside and return None."""
        await trio.lowlevel.checkpoint()
        promised = sum(self._count_unused(one) for one in self._claims if one != job_id)
        missing = max(0, size_bytes - self._count_bytes(job_id))
        for limit in (self._room.quota_bytes, self._room.disk_bytes):
            left = None if limit is None else limit - self._count_bytes() - promised
            if left is not None and missing > left:
                return f"the job may need {size_bytes} bytes, and {max(0, left)} are left"
        self._claims[job_id] = max(size_bytes, self._claims.get(job_id, 0))
        return None

    async def check_room(self, size_bytes: int) -> None:
        """Raise DiskFull if so many bytes do not fit now."""
        await trio.lowlevel.checkpoint()
        self._check_room(size_bytes)

    def damage(self, digest: Digest, data: bytes) -> None:
        """Let the disk give other bytes for a blob; the next reader finds out."""
        self._blobs[digest].damaged = data

    def collect(self, over: Collection[JobId]) -> None:
        """Drop what only jobs that are over needed, but for what is kept for ever."""
        for job_id in over:
            self._claims.pop(job_id, None)
        for digest, blob in list(self._blobs.items()):
            blob.kept_for = {
                one
                for one in blob.kept_for
                if one.job_id not in over or one.purpose in KEPT_FOR_EVER
            }
            if not blob.kept_for:
                self._forget(digest)

    def _forget(self, digest: Digest) -> None:
        del self._blobs[digest]
        self._pool.release(digest)

    def _check_room(self, size_bytes: int) -> None:
        if self._room.disk_bytes is None:
            return
        free = self._room.disk_bytes - self._count_bytes()
        if size_bytes > free:
            raise DiskFull(f"{size_bytes} bytes do not fit on the disk: {free} are left")

    def _count_bytes(self, job_id: JobId | None = None) -> int:
        """Count the bytes of all blobs, or of those that one job needs."""
        return sum(
            blob.size_bytes
            for blob in self._blobs.values()
            if job_id is None or any(one.job_id == job_id for one in blob.kept_for)
        )

    def _count_unused(self, job_id: JobId) -> int:
        return max(0, self._claims[job_id] - self._count_bytes(job_id))


class MemoryRefusals:
    """`RefusalPort`."""

    def __init__(self) -> None:
        self._kept: dict[tuple[JobId, str, str], Refusal] = {}

    async def add(self, refusal: Refusal) -> bool:
        """Keep a refusal; tell whether it is new for its job, role and code."""
        await trio.lowlevel.checkpoint()
        name = (refusal.job_id, refusal.role, refusal.code)
        is_new = self._kept.setdefault(name, refusal) is refusal
        while len(self._kept) > LATEST_KEPT:
            del self._kept[next(iter(self._kept))]
        await trio.lowlevel.checkpoint()
        return is_new

    async def latest(self, count: int, job_id: JobId | None = None) -> tuple[Refusal, ...]:
        """Return the latest refusals, of one job if it is named, newest first."""
        await trio.lowlevel.checkpoint()
        found = (one for one in reversed(self._kept.values()) if job_id in (None, one.job_id))
        return tuple(islice(found, count))


class MemoryFacts:
    """`FactPort`."""

    def __init__(self) -> None:
        self._facts: deque[NodeFact] = deque(maxlen=LATEST_KEPT)

    async def add(self, kind: str, details: Mapping[str, str], job_id: JobId | None) -> NodeFact:
        """Keep a fact; the oldest one gives way if there are many."""
        await trio.lowlevel.checkpoint()
        number = self._facts[-1].number + 1 if self._facts else 1
        fact = NodeFact(number=number, kind=kind, job_id=job_id, details=dict(details))
        self._facts.append(fact)
        await trio.lowlevel.checkpoint()
        return fact

    async def latest(self) -> Sequence[NodeFact]:
        """Return the facts that are kept, oldest first."""
        await trio.lowlevel.checkpoint()
        return tuple(self._facts)


class MemoryPastJobs:
    """`PastJobs`. The simulated chain lets no job go; tests do."""

    def __init__(self) -> None:
        self.generation = 0
        self.newest = 0
        self._kept: dict[JobId, tuple[KeptJob, JobState]] = {}

    async def keep(self, jobs: Sequence[tuple[JobState, Tie]]) -> None:
        """Keep jobs, in the place of what is kept of the same ones."""
        await trio.lowlevel.checkpoint()
        for job, tie in jobs:
            self.newest += 1
            self._kept.pop(job.job_id, None)
            kept = KeptJob(place=self.newest, job_id=job.job_id, tie=tie)
            self._kept[job.job_id] = (kept, job)

    async def find(self, job_id: JobId) -> JobState | None:
        """Return a job, or None if it is not kept."""
        await trio.lowlevel.checkpoint()
        return self._kept[job_id][1] if job_id in self._kept else None

    async def list_kept(
        self, *, after: int = 0, ties: Collection[Tie] = frozenset(Tie)
    ) -> Sequence[KeptJob]:
        """List the jobs of these ties, those with a place ``after`` a number, by place."""
        await trio.lowlevel.checkpoint()
        return [one for one, _ in self._kept.values() if one.place > after and one.tie in ties]

    async def drop_all(self) -> None:
        """Forget everything."""
        await trio.lowlevel.checkpoint()
        self.generation += 1
        self._kept.clear()


class MemoryStore:
    """`StorePort`, and the facts behind a herald."""

    def __init__(self, pool: BlobPool | None = None, room: Room = UNLIMITED) -> None:
        """Begin empty. Stores of one simulation share a pool, so that each blob is there once."""
        self.journal = MemoryJournal()
        self.blobs = MemoryBlobs(pool or BlobPool(), room)
        self.refusals = MemoryRefusals()
        self.facts = MemoryFacts()
        self.past = MemoryPastJobs()
        self.trusted_from = BlockNumber(0)
        """Set by whoever puts an old copy in a store's place; see `StorePort`."""
