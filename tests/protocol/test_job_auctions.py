"""An auction folded from its events, in all modes."""

from dataclasses import replace

from protocol.auction import AuctionMode
from protocol.events import (
    AuctionClosed,
    AuctionExtended,
    AuctionOpened,
    BidCommitted,
    BidReclaimed,
    BidRevealed,
    DatasetRegistered,
    Event,
    RecordedEvent,
    StakeDeposited,
)
from protocol.job import JobPhase, JobState
from protocol.market import Dataset, MarketState, apply_event
from protocol.types import NO_ACCOUNT, NO_DIGEST, Address, BlockNumber, Digest, JobId, Wei
from tests.protocol.test_terms import TERMS

JOB = JobId(1)
BUYER, RIVAL = Address(b"\x01" * 20), Address(b"\x02" * 20)
TOKEN = Address(b"\x70" * 20)
A, B, C = (Digest(bytes([value]) * 32) for value in (1, 2, 3))
OPENED = AuctionOpened(
    auction=JOB,
    opener=BUYER,
    tags=(A, B),
    mode=2,
    currency=TOKEN,
    deposit_wei=Wei(0),
    reserve_wei=Wei(5),
    commit_end=BlockNumber(20),
    reveal_end=BlockNumber(20),
)


def fold(*events: Event, state: MarketState | None = None) -> MarketState:
    state = state or MarketState()
    for index, event in enumerate(events):
        recorded = RecordedEvent(
            block_number=BlockNumber(10), log_index=index, transaction_hash=bytes(32), event=event
        )
        state = apply_event(state, recorded)
    return state


def bid(bidder: Address, amount: int) -> tuple[Event, Event]:
    """What the market logs of a bid in the clear."""
    return (
        BidCommitted(
            auction=JOB, bidder=bidder, commitment=Digest(b"\x0c" * 32), deposit_wei=Wei(amount)
        ),
        BidRevealed(
            auction=JOB, bidder=bidder, amount_wei=Wei(amount), terms=TERMS, body_hash=NO_DIGEST
        ),
    )


def register(dataset_id: int, *tags: Digest) -> DatasetRegistered:
    return DatasetRegistered(
        dataset_id=dataset_id,
        seller=RIVAL,
        tags=tags,
        metadata_hash=NO_DIGEST,
        min_price_wei=Wei(3),
        min_price_token=Wei(4),
    )


def stake(account: Address) -> StakeDeposited:
    return StakeDeposited(
        account=account, amount_wei=Wei(1), free_wei=Wei(1), since_block=BlockNumber(1)
    )


def job_of(*events: Event) -> JobState:
    return fold(OPENED, *events).jobs[JOB]


def test_mode_currency_and_windows_are_those_of_the_opening() -> None:
    job = job_of()
    assert (job.mode, job.currency, job.opened_block) == (AuctionMode.OPEN, TOKEN, 10)
    assert (job.commit_end, job.reveal_end, job.reserve_wei) == (20, 20, 5)
    assert job.best_bid is None


def test_the_highest_bid_is_the_best_one_however_often_it_is_raised() -> None:
    job = job_of(*bid(BUYER, 5), *bid(RIVAL, 6), *bid(BUYER, 8))
    assert job.best_bid is not None
    assert (job.best_bid.bidder, job.best_bid.deposit_wei) == (BUYER, 8)
    assert job.bids[RIVAL].amount_wei == 6


def test_a_sealed_bid_is_not_the_best_one_before_it_is_revealed() -> None:
    committed, revealed = bid(BUYER, 9)
    sealed = replace(OPENED, mode=0)
    assert fold(sealed, committed).jobs[JOB].best_bid is None
    best = fold(sealed, committed, revealed).jobs[JOB].best_bid
    assert best is not None
    assert best.amount_wei == 9


def test_a_late_bid_moves_the_end() -> None:
    job = job_of(AuctionExtended(auction=JOB, commit_end=BlockNumber(22)), *bid(RIVAL, 6))
    assert (job.commit_end, job.reveal_end) == (22, 22)


def test_who_took_its_money_back_may_bid_again() -> None:
    taken = BidReclaimed(auction=JOB, bidder=BUYER, amount_wei=Wei(5), forfeited_wei=Wei(0))
    job = job_of(*bid(BUYER, 5), *bid(RIVAL, 6), taken)
    assert job.bids[BUYER].reclaimed
    job = job_of(*bid(BUYER, 5), *bid(RIVAL, 6), taken, *bid(BUYER, 7))
    assert not job.bids[BUYER].reclaimed
    assert job.best_bid == job.bids[BUYER]


def test_the_price_is_what_the_market_says() -> None:
    closed = AuctionClosed(
        auction=JOB, buyer=BUYER, price_wei=Wei(6), terms_hash=NO_DIGEST, request_hash=NO_DIGEST,
        body_hash=NO_DIGEST, enrolment_end=BlockNumber(30),
    )  # fmt: skip
    job = job_of(*bid(BUYER, 8), closed)
    assert (job.phase, job.buyer, job.price_wei) == (JobPhase.ENROLMENT, BUYER, 6)
    assert job.terms == TERMS


def test_what_is_registered_later_does_not_count() -> None:
    state = fold(register(1, A), register(2, A, B), register(3, A, B, C), stake(BUYER), OPENED)
    state = fold(register(4, A, B), stake(RIVAL), state=state)
    assert (state.jobs[JOB].datasets, state.jobs[JOB].stakers) == (2, 1)
    assert state.count_datasets((A, B)) == 3


def test_data_sets_are_counted_by_the_rarest_tag() -> None:
    state = fold(register(1, A), register(2, A, B), register(3, A, C))
    assert state.count_datasets((A,)) == 3
    assert state.count_datasets((B, C)) == 1, "an upper bound: none carries both"
    assert state.count_datasets((Digest(b"\x09" * 32),)) == 0
    assert state.count_datasets(()) == 0


def test_each_currency_has_its_least_price() -> None:
    dataset: Dataset = fold(register(1, A)).datasets[1]
    assert (dataset.min_price(NO_ACCOUNT), dataset.min_price(TOKEN)) == (3, 4)
