"""What this node serves to its peers, and to whom."""

from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from d2m_node.lookup import find_job
from d2m_node.ports import ChainPort, Purpose, Reference, StorePort, TopicPlace
from d2m_node.roles.access import (
    NEED_NO_JOB,
    Standing,
    find_matter,
    find_place,
    find_standings,
    may_pull,
    may_read,
)
from d2m_node.roles.room import Room
from d2m_node.roles.sealed_states import (
    STATE_KEY_TAG,
    SealedState,
    SealedStates,
    list_states,
)
from protocol.errors import ProtocolError
from protocol.job import JobState
from protocol.market import MarketState, Peer
from protocol.request import ModelAccess, decode_body
from protocol.types import Address, Digest, JobId
from protocol.wire.messages import MessagesRequest, PulledMessage
from protocol.wire.topics import Topic, parse_topic

log = structlog.get_logger(__name__)

MAX_CASTS: Final = 1024
"""Topics whose places are remembered; the one worked out longest ago is forgotten."""


class NodeLibrary:
    """Serves blobs, and the gossip kept in the rooms, under the rules of `access`.

    What is not for a peer looks to it like what is not here. What was refused is in the log of
    this node alone, at debug.
    """

    def __init__(self, store: StorePort, chain: ChainPort, rooms: Mapping[JobId, Room]) -> None:
        self._store = store
        self._chain = chain
        self._rooms = rooms
        self._accounts = _PeerAccounts()
        self._casts: dict[str, _Cast] = {}
        self._access: dict[Digest, ModelAccess] = {}
        self._sealed = SealedStates(store.blobs, chain.domain)

    def place_in(self, topic: str, peer_id: bytes) -> TopicPlace:
        """Say what a peer has to do with a topic of a job."""
        found = parse_topic(self._chain.domain, topic)
        state = self._chain.state
        job = None if found is None else state.jobs.get(found[0])
        if found is None or job is None:
            return TopicPlace.OUTSIDE
        cast = self._casts.get(topic)
        if cast is None or not cast.is_of(job, state.peers):
            self._forget_past(state)
            cast = self._casts[topic] = _Cast(found[1], job, state.peers)
        return cast.places.get(peer_id, TopicPlace.OUTSIDE)

    def _forget_past(self, state: MarketState) -> None:
        """Make room for a topic: those of past jobs go, or the one worked out longest ago."""
        kept = {topic: cast for topic, cast in self._casts.items() if cast.job_id in state.jobs}
        if len(kept) >= MAX_CASTS:
            del kept[next(iter(kept))]
        self._casts = kept

    async def admits(self, peer_id: bytes, digest: Digest) -> bool:
        """Say whether a blob is kept for a job and a purpose that admit the peer."""
        sealed = self._sealed.find(digest)
        if sealed is not None:
            return await self._admits_sealed(sealed, peer_id)
        kept_for = await self._store.blobs.references(digest)
        for reference in kept_for:
            if await self._admits(reference, digest, peer_id):
                return True
        if kept_for:
            log.debug("blob_refused", peer=peer_id, digest=digest.hex())
        return False

    async def read_blob(self, peer_id: bytes, digest: Digest) -> bytes | None:
        """Return a blob if this peer may have it, else None."""
        if not await self.admits(peer_id, digest):
            return None
        sealed = self._sealed.find(digest)
        if sealed is not None:
            return await self._sealed.read(sealed)
        return await self._store.blobs.get(digest)

    async def read_messages(
        self, peer_id: bytes, request: MessagesRequest
    ) -> Sequence[PulledMessage]:
        """Return of a job's kept gossip, or of the keys of its states, what this peer may have."""
        job_id = JobId(request.job_id)
        if request.kind == STATE_KEY_TAG:
            return await self._list_keys(peer_id, job_id, request.step)
        room, job = self._rooms.get(job_id), self._chain.state.jobs.get(job_id)
        if room is None or job is None:
            return []
        accounts = self._accounts.find(self._chain.state.peers, peer_id)
        kept = room.serve(request)
        allowed: list[PulledMessage] = [
            message for message in kept if may_pull(message, job, accounts)
        ]
        if len(allowed) < len(kept):
            log.debug("messages_refused", peer=peer_id, job=job_id, kind=request.kind)
        return allowed

    async def _admits(self, reference: Reference, digest: Digest, peer_id: bytes) -> bool:
        is_of_job = reference.purpose not in NEED_NO_JOB
        job = await find_job(self._chain, self._store, reference.job_id) if is_of_job else None
        matter = find_matter(reference, digest, job)
        if matter is None:
            return False
        standings = find_standings(job, self._accounts.find(self._chain.state.peers, peer_id))
        if job is None or reference.purpose is not Purpose.STATE:
            return may_read(matter, standings)
        access = await self._find_access(job)
        return access is not ModelAccess.BUYER_ONLY and may_read(matter, standings, access)

    async def _find_access(self, job: JobState) -> ModelAccess:
        """Return what a job's request says of its model; the least if it is not here."""
        if job.body_hash not in self._access:
            data = await self._store.blobs.get(job.body_hash)
            if data is None:
                return ModelAccess.BUYER_ONLY
            if len(self._access) >= MAX_CASTS:
                del self._access[next(iter(self._access))]
            try:
                self._access[job.body_hash] = decode_body(data).model_access
            except ProtocolError:  # no request: nobody trains for it
                self._access[job.body_hash] = ModelAccess.BUYER_ONLY
        return self._access[job.body_hash]

    async def _list_keys(
        self, peer_id: bytes, job_id: JobId, round_index: int
    ) -> list[PulledMessage]:
        """Return what opens the states of a round that this peer may have."""
        job = await find_job(self._chain, self._store, job_id)
        if job is None or await self._find_access(job) is not ModelAccess.BUYER_ONLY:
            return []
        found: list[PulledMessage] = []
        for digest in list_states(job, round_index):
            if not self._may_open(job, digest, peer_id):
                continue
            sealed = await self._sealed.seal(job_id, round_index, digest)
            if sealed is not None:
                found.append(self._sealed.write_key(sealed, peer_id))
        return found

    async def _admits_sealed(self, sealed: SealedState, peer_id: bytes) -> bool:
        job = await find_job(self._chain, self._store, sealed.job_id)
        is_admitted = job is not None and self._may_open(job, sealed.digest, peer_id)
        if not is_admitted:
            log.debug("sealed_state_refused", peer=peer_id, digest=sealed.digest.hex())
        return is_admitted

    def _may_open(self, job: JobState, digest: Digest, peer_id: bytes) -> bool:
        matter = find_matter(Reference(Purpose.STATE, job.job_id), digest, job)
        standings = find_standings(job, self._accounts.find(self._chain.state.peers, peer_id))
        return matter is not None and may_read(matter, standings, ModelAccess.BUYER_ONLY)


class _Cast:
    """Who has a place in one topic: worked out once, for it is asked for each message and peer."""

    def __init__(self, topic: Topic, job: JobState, registry: Mapping[Address, Peer]) -> None:
        self.job_id = job.job_id
        self._sources = (job.sellers, job.cones, registry)
        self._buyer = job.buyer
        accounts = [one.account for one in job.sellers] + [one.account for one in job.cones]
        accounts += [] if job.buyer is None else [job.buyer]
        standings: dict[bytes, frozenset[Standing]] = {}
        for account in accounts:
            if account in registry:
                peer_id = registry[account].peer_id
                found = find_standings(job, (account,))
                standings[peer_id] = standings.get(peer_id, frozenset()) | found
        self.places = {peer_id: find_place(topic, found) for peer_id, found in standings.items()}

    def is_of(self, job: JobState, registry: Mapping[Address, Peer]) -> bool:
        """Tell whether nobody has come or gone since."""
        now = (job.sellers, job.cones, registry)
        is_same = all(one is other for one, other in zip(self._sources, now, strict=True))
        return is_same and self._buyer == job.buyer


class _PeerAccounts:
    """Which accounts name a peer: the registry turned round, anew only when it has changed."""

    def __init__(self) -> None:
        self._registry: Mapping[Address, Peer] | None = None
        self._found: dict[bytes, frozenset[Address]] = {}

    def find(self, registry: Mapping[Address, Peer], peer_id: bytes) -> frozenset[Address]:
        """Return the accounts that name a peer; several may."""
        if registry is not self._registry:
            found: dict[bytes, set[Address]] = {}
            for account, peer in registry.items():
                found.setdefault(peer.peer_id, set()).add(account)
            self._found = {one: frozenset(accounts) for one, accounts in found.items()}
            self._registry = registry
        return self._found.get(peer_id, frozenset())
