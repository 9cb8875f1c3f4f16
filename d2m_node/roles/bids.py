"""Sealed bids: journaled before their commitment is on the chain, and found again by it."""

from collections.abc import Collection

import msgspec

from d2m_node.errors import JobFailed
from d2m_node.ports import Ports
from d2m_node.roles.jobs import bid_in
from protocol.auction import BidOpening, compute_bid_commitment
from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.terms import JobTerms, compute_request_hash
from protocol.types import Digest, JobId, Wei

KIND = "bid"
MIN_BLOCKS_TO_JOIN = 2
"""An auction that closes sooner is not joined: the commitment might come too late."""


class SealedBid(msgspec.Struct, frozen=True, kw_only=True):
    """A bid as the journal holds it."""

    amount_wei: int
    salt: bytes
    body_hash: bytes
    terms: JobTerms
    dataset_path: str


def commit_to(ports: Ports, job_id: JobId, bid: SealedBid) -> Digest:
    """Return the commitment of this account's bid in one auction."""
    opening = BidOpening(
        auction=job_id,
        bidder=ports.signer.address,
        amount_wei=Wei(bid.amount_wei),
        request_hash=compute_request_hash(bid.terms, Digest(bid.body_hash)),
        salt=bid.salt,
    )
    return compute_bid_commitment(ports.chain.domain, opening)


def bid_key(job_id: JobId, body_hash: bytes) -> str:
    """Name a bid in the journal."""
    return f"{job_id}/{body_hash.hex()}"


async def remember_bid(ports: Ports, job_id: JobId, bid: SealedBid) -> SealedBid:
    """Journal a bid; return what is journaled, the first one if there was one before."""
    stored = await ports.store.journal.remember(
        KIND, bid_key(job_id, bid.body_hash), msgspec.msgpack.encode(bid)
    )
    return msgspec.msgpack.decode(stored, type=SealedBid)


async def recall_bid(ports: Ports, job: JobState) -> SealedBid:
    """Return the journaled bid whose commitment is on the chain.

    Raises JobFailed if there is none, and TransientError if the chain has no bid any more.
    """
    committed = bid_in(job, ports.signer.address).commitment
    for stored in (await ports.store.journal.recall_all(KIND, f"{job.job_id}/")).values():
        bid = msgspec.msgpack.decode(stored, type=SealedBid)
        if commit_to(ports, job.job_id, bid) == committed:
            return bid
    raise JobFailed(job.job_id, "the bid on chain was not made with this data directory")


async def find_earlier_bid(
    ports: Ports, body_hash: Digest, refused: Collection[JobId]
) -> tuple[JobId, bool] | None:
    """Return where a request was bid for before, and whether that bid is on the chain.

    One that is not on the chain may still be on its way there, unless its auction takes no more
    commitments or the market ``refused`` it.
    """
    state, me = ports.chain.state, ports.signer.address
    on_its_way: JobId | None = None
    for key, stored in (await ports.store.journal.recall_all(KIND, "")).items():
        bid = msgspec.msgpack.decode(stored, type=SealedBid)
        if bid.body_hash != body_hash:
            continue
        job_id = JobId(int(key.split("/")[0]))
        job = state.jobs.get(job_id)
        own = None if job is None else job.bids.get(me)
        if own is not None and own.commitment == commit_to(ports, job_id, bid):
            return job_id, True
        if own is None and job_id not in refused and _takes_commitments(state, job):
            on_its_way = job_id
    return None if on_its_way is None else (on_its_way, False)


def _takes_commitments(state: MarketState, job: JobState | None) -> bool:
    if job is None:
        return True
    return job.phase is JobPhase.AUCTION and state.block_number < job.commit_end


def find_open_auction(state: MarketState, tags: tuple[Digest, ...]) -> JobState | None:
    """Return the oldest auction for these tags that can still be joined."""
    for job in state.jobs.values():
        is_open = state.block_number + MIN_BLOCKS_TO_JOIN <= job.commit_end
        if job.phase is JobPhase.AUCTION and job.tags == tags and is_open:
            return job
    return None
