"""What this node serves to its peers, and to whom."""

from collections.abc import Mapping, Sequence

from d2m_node.lookup import find_job
from d2m_node.ports import ChainPort, Purpose, Reference, StorePort
from d2m_node.roles.room import Room
from protocol.job import JobState
from protocol.types import Address, Digest, JobId
from protocol.wire.messages import GossipMessage, MessagesRequest


class NodeLibrary:
    """Serves blobs under their access rules, and the gossip kept in the rooms.

    All enrolled CONE nodes of a job are served alike, so that a request betrays no committee.
    """

    def __init__(self, store: StorePort, chain: ChainPort, rooms: Mapping[JobId, Room]) -> None:
        self._store = store
        self._chain = chain
        self._rooms = rooms

    async def admits(self, peer_id: bytes, digest: Digest) -> bool:
        """Say whether a blob is kept for a job and a purpose that admit the peer."""
        for reference in await self._store.blobs.references(digest):
            if await self._admits(reference, peer_id):
                return True
        return False

    async def read_blob(self, peer_id: bytes, digest: Digest) -> bytes | None:
        """Return a blob if this peer may have it, else None."""
        if not await self.admits(peer_id, digest):
            return None
        return await self._store.blobs.get(digest)

    async def read_messages(
        self, peer_id: bytes, request: MessagesRequest
    ) -> Sequence[GossipMessage]:
        """Return kept gossip of a job to those who take part in it."""
        job_id = JobId(request.job_id)
        room, job = self._rooms.get(job_id), self._chain.state.jobs.get(job_id)
        if room is None or job is None or not self._is_any(participants(job), peer_id):
            return []
        return room.serve(request)

    async def _admits(self, reference: Reference, peer_id: bytes) -> bool:
        match reference.purpose:
            case Purpose.REQUEST | Purpose.OWN_REQUEST:
                return True
            case Purpose.UPDATE | Purpose.OWN_UPDATE | Purpose.VALIDATION:
                job = await find_job(self._chain, self._store, reference.job_id)
                return job is not None and self._is_any(cones(job), peer_id)
            case Purpose.STATE:
                job = await find_job(self._chain, self._store, reference.job_id)
                return job is not None and self._is_any(participants(job), peer_id)
            case Purpose.MODEL:
                return False

    def _is_any(self, accounts: frozenset[Address], peer_id: bytes) -> bool:
        return not accounts.isdisjoint(self._chain.state.accounts_of_peer(peer_id))


def cones(job: JobState) -> frozenset[Address]:
    """Return the accounts of the job's pool."""
    return frozenset(cone.account for cone in job.cones)


def participants(job: JobState) -> frozenset[Address]:
    """Return the accounts of everybody who takes part in the job."""
    sellers = frozenset(seller.account for seller in job.sellers)
    buyer = frozenset() if job.buyer is None else frozenset({job.buyer})
    return cones(job) | sellers | buyer
