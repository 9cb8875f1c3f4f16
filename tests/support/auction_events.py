"""The events that the market logs for a bidder's call, for the market in memory."""

from collections.abc import Sequence

from d2m_node.calls import (
    CloseAuction,
    CommitBid,
    ContractCall,
    OpenAuction,
    OpenClearAuction,
    PlaceBid,
    ReclaimBid,
    RevealBid,
)
from d2m_node.errors import TransactionReverted
from protocol.auction import (
    AuctionMode,
    BiddingWindow,
    RevealedBid,
    compute_extension,
    compute_least_bid,
    compute_price,
    select_winner,
)
from protocol.events import (
    AuctionCancelled,
    AuctionClosed,
    AuctionExtended,
    AuctionOpened,
    BidCommitted,
    BidReclaimed,
    BidRevealed,
    Event,
)
from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.terms import compute_request_hash, compute_terms_hash
from protocol.types import Address, BlockNumber, Wei
from tests.support.params import PARAMS


def refuse_late(state: MarketState, call: ContractCall) -> None:
    """Refuse what the market refuses because another bid or auction came first."""
    match call:
        case OpenAuction() | OpenClearAuction() if call.auction in state.jobs:
            raise TransactionReverted(f"Market.{call.function}", "market: number taken")
        case PlaceBid() if call.amount_wei < find_least_bid(state.jobs[call.auction]):
            raise TransactionReverted("Market.bid", "market: raise too small")


def find_least_bid(job: JobState) -> Wei:
    best = job.best_bid
    return compute_least_bid(job.reserve_wei, Wei((best.amount_wei if best else None) or 0))


def events_of_opening(
    state: MarketState, sender: Address, call: OpenAuction | OpenClearAuction
) -> Sequence[Event]:
    """Return the events of a new auction; none if its number is taken."""
    if call.auction in state.jobs:
        return ()
    is_clear = isinstance(call, OpenClearAuction)
    blocks = call.bid_blocks if is_clear else call.commit_blocks
    commit_end = BlockNumber(state.block_number + blocks)
    opened = AuctionOpened(
        auction=call.auction,
        opener=sender,
        tags=call.tags,
        mode=AuctionMode.OPEN if is_clear else call.mode,
        currency=call.currency,
        deposit_wei=Wei(0) if is_clear else call.deposit_wei,
        reserve_wei=call.reserve_wei,
        commit_end=commit_end,
        reveal_end=BlockNumber(commit_end + (0 if is_clear else call.reveal_blocks)),
    )
    if is_clear:
        return opened, *_events_of_clear_bid(sender, call)
    return opened, _event_of_commitment(sender, call)


def events_of_bidder(
    state: MarketState, sender: Address, call: ContractCall
) -> Sequence[Event] | None:
    """Return the events of a call to an auction; None for another call."""
    match call:
        case CommitBid():
            return (_event_of_commitment(sender, call),)
        case PlaceBid():
            return _events_of_raise(state, sender, call)
        case RevealBid():
            revealed = BidRevealed(
                auction=call.auction,
                bidder=sender,
                amount_wei=call.amount_wei,
                terms=call.terms,
                body_hash=call.body_hash,
            )
            return (revealed,)
        case CloseAuction():
            return _events_of_close(state, state.jobs[call.auction])
        case ReclaimBid():
            left_wei = state.jobs[call.auction].bids[sender].deposit_wei
            reclaimed = BidReclaimed(
                auction=call.auction, bidder=sender, amount_wei=left_wei, forfeited_wei=Wei(0)
            )
            return (reclaimed,)
        case _:
            return None


def _event_of_commitment(sender: Address, call: OpenAuction | CommitBid) -> Event:
    return BidCommitted(
        auction=call.auction,
        bidder=sender,
        commitment=call.commitment,
        deposit_wei=call.bond_wei,
    )


def _events_of_clear_bid(sender: Address, call: OpenClearAuction | PlaceBid) -> tuple[Event, Event]:
    committed = BidCommitted(
        auction=call.auction,
        bidder=sender,
        commitment=compute_request_hash(call.terms, call.body_hash),
        deposit_wei=call.amount_wei,
    )
    revealed = BidRevealed(
        auction=call.auction,
        bidder=sender,
        amount_wei=call.amount_wei,
        terms=call.terms,
        body_hash=call.body_hash,
    )
    return committed, revealed


def _events_of_raise(state: MarketState, sender: Address, call: PlaceBid) -> Sequence[Event]:
    job = state.jobs[call.auction]
    if state.block_number > job.commit_end or call.amount_wei < find_least_bid(job):
        return ()  # reverted when mined
    window = BiddingWindow(opened_block=job.opened_block, commit_end=job.commit_end)
    blocks = compute_extension(window, state.block_number, PARAMS.max_window_blocks)
    bid = _events_of_clear_bid(sender, call)
    if blocks == 0:
        return bid
    end = BlockNumber(job.commit_end + blocks)
    return AuctionExtended(auction=call.auction, commit_end=end), *bid


def _events_of_close(state: MarketState, job: JobState) -> Sequence[Event]:
    """Fix the winner; a second close of one auction is reverted."""
    if job.phase is not JobPhase.AUCTION or state.block_number <= job.reveal_end:
        return ()
    revealed = [
        RevealedBid(bid.bidder, bid.amount_wei, index)
        for index, bid in enumerate(job.bids.values())
        if bid.amount_wei is not None
    ]
    winner = select_winner(revealed)
    if winner is None:
        return (AuctionCancelled(auction=job.job_id),)
    bid = job.bids[winner.bidder]
    assert bid.terms is not None
    assert bid.body_hash is not None
    closed = AuctionClosed(
        auction=job.job_id,
        buyer=winner.bidder,
        price_wei=compute_price(job.mode, job.reserve_wei, revealed),
        terms_hash=compute_terms_hash(bid.terms),
        request_hash=compute_request_hash(bid.terms, bid.body_hash),
        body_hash=bid.body_hash,
        enrolment_end=BlockNumber(state.block_number + bid.terms.enrolment_blocks),
    )
    return (closed,)
