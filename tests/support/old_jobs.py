"""Jobs from auction to the last claim, as the contracts log them: for markets that are old."""

from collections.abc import Sequence
from itertools import groupby

from protocol.bitmap import encode_bitmap
from protocol.digest import FinalResult, RoundHeader, add_credits, compute_credit_root
from protocol.events import (
    AttemptOpened,
    AuctionCancelled,
    AuctionClosed,
    AuctionOpened,
    BidCommitted,
    BidReclaimed,
    BidRevealed,
    CommitsRecorded,
    ConeEnrolled,
    CourseChanged,
    DepositReturned,
    EnrolmentClosed,
    Event,
    FinalDecided,
    JobSettled,
    OpeningsRecorded,
    PayoutClaimed,
    PayoutCredited,
    ReceiptsRecorded,
    RecordedEvent,
    RoundDecided,
    SellerDeposited,
    SellerEnrolled,
    StakeDeposited,
    StakeLocked,
    StakeReleased,
    TrainingEnded,
)
from protocol.hashing import Domain, keccak
from protocol.settlement import Outcome, PayeeRole
from protocol.sortition import BallotKind
from protocol.terms import WINDOW_FIELDS, JobTerms, Metric
from protocol.types import (
    NO_ACCOUNT,
    Address,
    BlockNumber,
    Digest,
    JobId,
    RoundIndex,
    UtilityQ20,
    Wei,
)
from tests.support.settled_job import make_course

DOMAIN = Domain(31337, Address(b"\x01" * 20))
BUYER, LOSER = Address(b"\xb1" * 20), Address(b"\xb2" * 20)
SELLERS = tuple(Address(bytes([0x50 + index]) * 20) for index in range(5))
CONES = tuple(Address(bytes([0xC0 + index]) * 20) for index in range(5))
PRICE, BID, DEPOSIT, STAKE = Wei(10**18), Wei(2 * 10**18), Wei(10**16), Wei(10**17)
BLOCKS = 13
"""From the first event of a job to the last one that does not come late."""

TERMS = JobTerms(
    **{
        "rounds_max": 1,
        "target": UtilityQ20(1_000_000),
        "metric": Metric.ACC,
        "sellers_per_round": 5,
        "lead": 3,
        "first_set_size": 5,
        "growth_numerator": 3,
        "growth_denominator": 2,
        "sellers_min": 4,
        "sellers_max": 5,
        "cones_min": 5,
        "cones_max": 5,
        "stake_wei": STAKE,
        "seller_deposit_wei": DEPOSIT,
    }
    | dict.fromkeys(WINDOW_FIELDS, 3)
)

Told = tuple[int, Event]
"""An event, and how many blocks after the auction opened it is logged."""


def stake_events() -> list[Event]:
    """What all CONE nodes log before their first job."""
    return [
        StakeDeposited(
            account=cone, amount_wei=Wei(10**21), free_wei=Wei(10**21), since_block=BlockNumber(0)
        )
        for cone in CONES
    ]


def life_of(number: int, base: int, *, is_bid_left: bool = False) -> list[Told]:
    """A settled job of ten members and one round; every digest in it is its own.

    ``base`` is the block in which its auction opens. With ``is_bid_left`` the loser of the auction
    does not ask for its bid.
    """
    job = JobId(number)

    def mark(name: str) -> Digest:
        return keccak(f"{number} {name}".encode())

    reclaimed = BidReclaimed(auction=job, bidder=LOSER, amount_wei=BID, forfeited_wei=Wei(0))
    told = [
        *_auction(job, base, mark("tag"), mark("bid")),
        *_enrolment(job, base, mark("root")),
        *_training(job, base, mark("model")),
        *_settlement(job, mark("model")),
    ]
    return told if is_bid_left else [*told, (BLOCKS, reclaimed)]


def cancelled_life_of(number: int, base: int) -> list[Told]:
    """An auction that nobody bid in."""
    opened = _auction(JobId(number), base, keccak(b"tag"), keccak(b"bid"))[0]
    return [opened, (5, AuctionCancelled(auction=JobId(number)))]


def late_reclaim(number: int) -> Event:
    """The loser comes for its bid after all."""
    return BidReclaimed(auction=JobId(number), bidder=LOSER, amount_wei=BID, forfeited_wei=Wei(0))


def record(told: Sequence[Told], base: int) -> list[RecordedEvent]:
    """Give each event its place on a chain."""
    ordered = sorted(told, key=lambda one: one[0])
    return [
        RecordedEvent(
            block_number=BlockNumber(base + blocks),
            log_index=index,
            transaction_hash=keccak(f"{base} {blocks} {index}".encode()),
            event=event,
        )
        for blocks, group in groupby(ordered, key=lambda one: one[0])
        for index, (_, event) in enumerate(group)
    ]


def _auction(job: JobId, base: int, tag: Digest, bid: Digest) -> list[Told]:
    opened = AuctionOpened(
        auction=job, opener=BUYER, tags=(tag,), mode=0, currency=NO_ACCOUNT, deposit_wei=PRICE,
        reserve_wei=Wei(0), commit_end=BlockNumber(base + 1), reveal_end=BlockNumber(base + 2),
    )  # fmt: skip
    bids = [
        BidCommitted(auction=job, bidder=one, commitment=keccak(bid + one), deposit_wei=BID)
        for one in (BUYER, LOSER)
    ]
    revealed = [
        BidRevealed(auction=job, bidder=one, amount_wei=PRICE, terms=TERMS, body_hash=bid)
        for one in (BUYER, LOSER)
    ]
    closed = AuctionClosed(
        auction=job, buyer=BUYER, price_wei=PRICE, terms_hash=bid, request_hash=bid,
        body_hash=bid, enrolment_end=BlockNumber(base + 4),
    )  # fmt: skip
    return [(0, opened), *((1, one) for one in bids), *((2, one) for one in revealed), (3, closed)]


def _enrolment(job: JobId, base: int, root: Digest) -> list[Told]:
    told: list[Event] = []
    for index, (seller, cone) in enumerate(zip(SELLERS, CONES, strict=True)):
        told += [
            SellerEnrolled(job=job, index=index, seller=seller, dataset_id=index),
            SellerDeposited(job=job, seller=seller, amount_wei=DEPOSIT),
            ConeEnrolled(job=job, index=index, node=cone, ticket_root=keccak(root + cone)),
            StakeLocked(job=job, account=cone, amount_wei=STAKE),
        ]
    closed = EnrolmentClosed(
        job=job, sellers=5, cones=5, enrolment_end=BlockNumber(base + 4),
        validation_end=BlockNumber(base + 5),
    )  # fmt: skip
    receipts = ReceiptsRecorded(job=job, part=0, bitmap=0b11111)
    return [*((4, one) for one in told), (5, closed), (5, receipts)]


def _training(job: JobId, base: int, model: Digest) -> list[Told]:
    credits = add_credits((0,) * 5, 0b11111)
    header = RoundHeader(
        job=job, round_index=RoundIndex(0), model_digest=model, sampler_digest=keccak(model),
        sampled=0b11111, available=0b11111, accepted=encode_bitmap(range(5)),
        utility_before=UtilityQ20(100_000), utility_after=UtilityQ20(400_000),
        utilities=(UtilityQ20(1),) * 5, domain=DOMAIN, previous_digest=Digest(bytes(32)),
        credit_root=compute_credit_root(SELLERS, credits), credit_sum=sum(credits),
    ).encode()  # fmt: skip
    result = FinalResult(
        domain=DOMAIN, job=job, round_index=RoundIndex(0), model_digest=model,
        initial_utility=UtilityQ20(100_000), utility=UtilityQ20(400_000),
    )  # fmt: skip
    decided = {
        "job": job, "round_index": 0, "votes": 5, "voters": 0b11111, "wrong": 0, "unopened": 0,
        "appeal_end": BlockNumber(base + 9),
    }  # fmt: skip
    utilities = {"initial_utility": 100_000}
    return [
        *_ballot(job, base, 1, keccak(header)),
        (8, RoundDecided(**decided, ballot_number=1, digest=keccak(header), header=header)),
        (8, CourseChanged(job=job, course=make_course(()))),
        *_ballot(job, base, 2, result.digest),
        (10, FinalDecided(
            **decided, **utilities, ballot_number=2, digest=result.digest, utility=400_000,
        )),
        (10, CourseChanged(job=job, course=make_course((Wei(10**13),) * 5))),
        (10, TrainingEnded(
            job=job, **utilities, outcome=Outcome.ENDED, rounds_done=1, last_utility=400_000,
            model_digest=model, credit_root=compute_credit_root(SELLERS, credits), credit_sum=5,
            final_block=BlockNumber(base + 10),
        )),
    ]  # fmt: skip


def _ballot(job: JobId, base: int, number: int, digest: Digest) -> list[Told]:
    kind, end = BallotKind(number - 1), BlockNumber(base + 5 + 2 * number)
    sellers = dict.fromkeys(("seller_seed_block", "update_commit_end", "update_open_end"), end)
    opened = AttemptOpened(
        job=job, ballot_number=number, round_index=0, kind=kind, attempt=0, **sellers,
        availability_end=end, seed_block=end, commit_end=end, open_end=end,
    )  # fmt: skip
    of_ballot = {"job": job, "ballot_number": number, "mini": 0}
    commitments = tuple(keccak(digest + cone) for cone in CONES)
    commits = CommitsRecorded(**of_ballot, batch_index=0, members=0b11111, commitments=commitments)
    openings = OpeningsRecorded(**of_ballot, groups=((digest, keccak(digest), 0b11111),))
    at = 4 + 2 * number
    return [(at, opened), (at + 1, commits), (at + 1, openings)]


def _settlement(job: JobId, model: Digest) -> list[Told]:
    parts = [
        *((PayeeRole.CONE, index, cone, 2) for index, cone in enumerate(CONES)),
        *((PayeeRole.SELLER, index, seller, 1) for index, seller in enumerate(SELLERS)),
        (PayeeRole.BUYER, 0, BUYER, 0),
    ]
    share = Wei(PRICE // len(parts))
    paid = [
        PayoutCredited(
            job=job, payee=payee, role=role, index=index, weight=weight, amount_wei=share
        )
        for role, index, payee, weight in parts
    ]
    settled = JobSettled(
        job=job, buyer=BUYER, price_wei=PRICE, cone_pool_wei=Wei(5 * share),
        seller_pool_wei=Wei(5 * share), refund_wei=share, rounds_done=1, initial_utility=100_000,
        last_utility=400_000, model_digest=model,
    )  # fmt: skip
    claimed = [
        PayoutClaimed(payee=payee, currency=NO_ACCOUNT, amount_wei=share) for *_, payee, _ in parts
    ]
    exits: list[Event] = [
        BidReclaimed(auction=job, bidder=BUYER, amount_wei=Wei(10**18), forfeited_wei=Wei(0))
    ]
    for seller, cone in zip(SELLERS, CONES, strict=True):
        exits += [
            DepositReturned(job=job, seller=seller, amount_wei=DEPOSIT),
            StakeReleased(job=job, account=cone, amount_wei=STAKE),
        ]
    last = [*claimed, *exits]
    return [*((11, one) for one in (*paid, settled)), *((12, one) for one in last)]
