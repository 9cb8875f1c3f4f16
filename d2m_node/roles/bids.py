"""A buyer's bids: journaled before the chain hears of them, and found again by what it heard."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import msgspec

from d2m_node.errors import JobFailed, UserError
from d2m_node.lookup import find_job
from d2m_node.past_jobs import Tie
from d2m_node.ports import Ports
from d2m_node.roles.jobs import bid_in
from protocol.auction import (
    AuctionMode,
    BidOpening,
    compute_bid_commitment,
    compute_least_bid,
)
from protocol.deposits import compute_deposit_range
from protocol.job import Bid, JobPhase, JobState
from protocol.market import MarketState
from protocol.params import ProtocolParams
from protocol.terms import JobTerms, compute_request_hash
from protocol.types import Address, Digest, JobId, Wei
from protocol.windows import compute_least_reveal_blocks

KIND = "bid"
MIN_BLOCKS_TO_JOIN = 2
"""An auction that closes sooner is not joined: the bid might come too late."""


class PlannedBid(msgspec.Struct, frozen=True, kw_only=True):
    """A bid as the journal holds it, of all that is bid for one request in one auction."""

    amount_wei: int
    """Of a sealed bid. In the clear it is what the bid is raised to at most."""
    salt: bytes
    """Of a sealed bid."""
    body_hash: bytes
    terms: JobTerms
    dataset_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a request asks of an auction that it would join."""

    tags: tuple[Digest, ...]
    mode: AuctionMode
    currency: Address
    amount_wei: Wei
    terms: JobTerms
    bidder: Address
    lag_blocks: int = 0
    """How far behind the chain's tip the bidder acts."""


def commit_to(ports: Ports, job_id: JobId, bid: PlannedBid) -> Digest:
    """Return the commitment of this account's sealed bid in one auction."""
    opening = BidOpening(
        auction=job_id,
        bidder=ports.signer.address,
        amount_wei=Wei(bid.amount_wei),
        request_hash=compute_request_hash(bid.terms, Digest(bid.body_hash)),
        salt=bid.salt,
    )
    return compute_bid_commitment(ports.chain.domain, opening)


def fit_terms(terms: JobTerms, amount_wei: Wei, params: ProtocolParams) -> JobTerms:
    """Return the terms of a bid in the clear.

    The contract ties the sellers' deposit to the amount. As long as the bid is low, the deposit is
    the nearest one that the amount allows to what the request asks for.
    """
    least_wei, most_wei = compute_deposit_range(amount_wei, terms.sellers_min, params)
    deposit_wei = min(max(terms.seller_deposit_wei, least_wei), most_wei)
    return replace(terms, seller_deposit_wei=deposit_wei)


def bid_key(job_id: JobId, body_hash: bytes) -> str:
    """Name a bid in the journal."""
    return f"{job_id}/{body_hash.hex()}"


async def remember_bid(ports: Ports, job_id: JobId, bid: PlannedBid) -> PlannedBid:
    """Journal a bid; return what is journaled, the first one if there was one before."""
    stored = await ports.store.journal.remember(
        KIND, bid_key(job_id, bid.body_hash), msgspec.json.encode(bid)
    )
    return msgspec.json.decode(stored, type=PlannedBid)


async def recall_bid(ports: Ports, job: JobState) -> PlannedBid:
    """Return the journaled bid that is on the chain.

    Raises JobFailed if there is none, and TransientError if the chain has no bid any more.
    """
    own = bid_in(job, ports.signer.address)
    for stored in (await ports.store.journal.recall_all(KIND, f"{job.job_id}/")).values():
        bid = msgspec.json.decode(stored, type=PlannedBid)
        if _is_made_of(ports, job, own, bid):
            return bid
    raise JobFailed(job.job_id, "the bid on chain was not made with this data directory")


def _is_made_of(ports: Ports, job: JobState, own: Bid, planned: PlannedBid) -> bool:
    """Tell whether what the chain has of a bid follows from what was planned."""
    if job.mode is not AuctionMode.OPEN:
        return own.commitment == commit_to(ports, job.job_id, planned)
    if own.amount_wei is None:
        return False
    terms = fit_terms(planned.terms, own.amount_wei, ports.chain.params)
    return own.commitment == compute_request_hash(terms, Digest(planned.body_hash))


async def find_earlier_bid(
    ports: Ports, wish: Wish, body_hash: Digest, refused: Collection[JobId]
) -> tuple[JobId, bool] | None:
    """Return where a request was bid for before, and whether that bid is on the chain.

    One that is not on the chain may still be on its way there, unless its auction takes it no more
    or the market ``refused`` it. If a stranger's auction for something else has the number that
    was planned, `place_bid` sees that one refused.
    """
    state, me = ports.chain.state, ports.signer.address
    on_its_way: JobId | None = None
    for key, stored in (await ports.store.journal.recall_all(KIND, "")).items():
        bid = msgspec.json.decode(stored, type=PlannedBid)
        if bid.body_hash != body_hash:
            continue
        job_id = JobId(int(key.split("/")[0]))
        job = await find_job(ports.chain, ports.store, job_id)
        own = None if job is None else job.bids.get(me)
        if job is not None and own is not None and _is_made_of(ports, job, own, bid):
            return job_id, True
        if own is None and job_id not in refused and _takes_bid(state, job, wish):
            on_its_way = job_id
    return None if on_its_way is None else (on_its_way, False)


async def refuse_unknown_bids(ports: Ports, known: Collection[int]) -> None:
    """Raise UserError if the chain has a bid of this account that the journal does not know.

    The journal is of an old copy of the data directory then, and a request whose idempotency key it
    has forgotten would be paid twice. An account bids once in an auction, so any record of the
    auction is one of the bid.
    """
    me, journal = ports.signer.address, ports.store.journal
    past = await ports.store.past.list_kept(ties=(Tie.BUYER, Tie.BIDDER))
    jobs = ports.chain.state.jobs
    own = {one.job_id for one in past} | {job.job_id for job in jobs.values() if me in job.bids}
    for job_id in sorted(own - set(known)):
        if not await journal.recall_all(KIND, f"{job_id}/"):
            raise UserError(
                f"auction {job_id} has a bid of this account that this data directory does not"
                " know: it is an old copy, or another node uses the account. Submitted again, a"
                f" request may be paid twice; if this one is new, add {job_id} to"
                " roles.buyer.known_bids"
            )


def _takes_bid(state: MarketState, job: JobState | None, wish: Wish) -> bool:
    if job is None or not is_wished(job, wish):
        return True
    is_open = job.phase is JobPhase.AUCTION and state.block_number < job.commit_end
    return is_open and find_least_bid(job) <= wish.amount_wei


def is_wished(job: JobState, wish: Wish) -> bool:
    """Tell whether an auction is of the kind that a request asks for."""
    return (job.tags, job.mode, job.currency) == (wish.tags, wish.mode, wish.currency)


def find_least_bid(job: JobState) -> Wei:
    """Return the smallest amount that is of use in an auction, as far as that can be known."""
    best = job.best_bid if job.mode is AuctionMode.OPEN else None
    best_wei = Wei(0) if best is None or best.amount_wei is None else best.amount_wei
    return compute_least_bid(job.reserve_wei, best_wei)


def find_missing_wei(job: JobState, bidder: Address, amount_wei: Wei) -> Wei:
    """Return what a bidder has to add to what it has in an open auction, for a bid of an amount."""
    own = job.bids.get(bidder)
    held_wei = 0 if own is None or own.reclaimed else own.deposit_wei
    return Wei(amount_wei - held_wei)


def find_open_auction(state: MarketState, wish: Wish) -> JobState | None:
    """Return the oldest auction that this request can join, and where it can win.

    One account bids once in an auction, so that a second request opens another one. Where this node
    might be too late to reveal, it does not bid.
    """
    least_reveal = compute_least_reveal_blocks(wish.lag_blocks)
    for job in state.jobs.values():
        is_open = (
            job.phase is JobPhase.AUCTION
            and state.block_number + wish.lag_blocks + MIN_BLOCKS_TO_JOIN <= job.commit_end
            and (job.mode is AuctionMode.OPEN or job.reveal_end - job.commit_end >= least_reveal)
            and wish.bidder not in job.bids
        )
        can_win = (
            find_least_bid(job) <= wish.amount_wei
            and wish.terms.sellers_min <= job.datasets
            and wish.terms.cones_min <= job.stakers
        )
        if is_wished(job, wish) and is_open and can_win:
            return job
    return None
