"""A settled job whose payments were computed by hand."""

from collections.abc import Sequence

from protocol.ballot import Ballot, DecidedBallot, MiniRound, RecordedOpening
from protocol.bitmap import encode_bitmap
from protocol.consensus import OpenedVote
from protocol.course import REFUND_UNIT_WEI, Course
from protocol.digest import FinalResult, RoundHeader, add_credits, compute_credit_root
from protocol.enrolment import EnrolledCone, EnrolledSeller
from protocol.events import (
    AuctionClosed,
    BidRevealed,
    ConeEnrolled,
    CourseChanged,
    Event,
    FinalDecided,
    JobSettled,
    PayoutCredited,
    RecordedEvent,
    RoundDecided,
    SellerEnrolled,
    TrainingEnded,
)
from protocol.hashing import Domain, keccak
from protocol.job import JobPhase, JobState
from protocol.payment_audit import CountedBallot, SettledJob
from protocol.settlement import Outcome, PayeeRole
from protocol.sortition import BallotKind
from protocol.terms import WINDOW_FIELDS, JobTerms, Metric
from protocol.types import (
    NO_DIGEST,
    Address,
    BlockNumber,
    ConeIndex,
    Digest,
    JobId,
    RoundIndex,
    UtilityQ20,
    Wei,
)
from tests.support.params import PARAMS

DOMAIN = Domain(1337, Address(b"\x11" * 20))
JOB = JobId(7)
CONES = tuple(Address(bytes([0xC0 + index]) * 20) for index in range(5))
SELLERS = tuple(Address(bytes([0x50 + index]) * 20) for index in range(4))
BUYER = Address(b"\xbb" * 20)
PRICE = Wei(10_007)
TARGET = UtilityQ20(1_000_000)
TRACE, COPIED = keccak(b"trace"), keccak(b"copied")
MODEL = keccak(b"model")


def pay(role: int, index: int, payee: Address, weight: int, amount: int) -> PayoutCredited:
    return PayoutCredited(
        job=JOB, payee=payee, role=role, index=index, weight=weight, amount_wei=Wei(amount)
    )


SETTLED = JobSettled(
    job=JOB,
    buyer=BUYER,
    price_wei=PRICE,
    cone_pool_wei=Wei(1501),
    seller_pool_wei=Wei(3502),
    refund_wei=Wei(10_007 - 1499 - 3501),
    rounds_done=2,
    initial_utility=100_000,
    last_utility=550_000,
    model_digest=MODEL,
)

PAYOUTS = (
    # 3002 // 2 = 1501 wei for eleven votes: 3, 3, 3 and 2.
    *(pay(PayeeRole.CONE, index, CONES[index], 3, 409) for index in range(3)),
    pay(PayeeRole.CONE, 3, CONES[3], 2, 272),
    # 7005 half of the way: 3502 for 2, 1, 1.
    pay(PayeeRole.SELLER, 0, SELLERS[0], 2, 1751),
    pay(PayeeRole.SELLER, 1, SELLERS[1], 1, 875),
    pay(PayeeRole.SELLER, 2, SELLERS[2], 1, 875),
    pay(PayeeRole.BUYER, 0, BUYER, 0, 10_007 - 1499 - 3501),
)


def make_header(
    index: int, accepted: Sequence[int], credits: tuple[int, ...], previous: Digest
) -> RoundHeader:
    return RoundHeader(
        job=JOB,
        round_index=RoundIndex(index),
        model_digest=MODEL,
        sampler_digest=keccak(b"sampler"),
        sampled=0b1111,
        available=0b1111,
        accepted=encode_bitmap(accepted),
        utility_before=UtilityQ20(100_000),
        utility_after=UtilityQ20(400_000),
        utilities=(UtilityQ20(1),) * 4,
        domain=DOMAIN,
        previous_digest=previous,
        credit_root=compute_credit_root(SELLERS, credits),
        credit_sum=sum(credits),
    )


def vote(node: int, digest: Digest, trace: Digest = TRACE) -> OpenedVote:
    return OpenedVote(node_index=node, mini_round_index=0, digest=digest, trace=trace)


def make_settled_job() -> SettledJob:
    """Two of four rounds and a final half of the way: by hand, half of every pool is paid."""
    ballots, credits, previous = [], (0,) * 4, NO_DIGEST
    # Node 4 votes for something else; node 3 copies the digest in round 0.
    for index, (accepted, honest) in enumerate([([0, 1], 3), ([0, 2], 4)]):
        credits = add_credits(credits, encode_bitmap(accepted))
        header = make_header(index, accepted, credits, previous).encode()
        previous = keccak(header)
        votes = [vote(node, previous) for node in range(honest)]
        votes += [vote(node, previous, COPIED) for node in range(honest, 4)]
        votes.append(vote(4, keccak(b"wrong")))
        ballots.append(
            CountedBallot(
                kind=BallotKind.ROUND,
                round_index=index,
                digest=previous,
                voters=encode_bitmap(range(honest)),
                openings=tuple(votes),
                pool_mini_round=None,
                pays_newcomers=True,
                header=header,
                initial_utility=UtilityQ20(0),
                utility=UtilityQ20(0),
            )
        )
    ballots.append(make_final(UtilityQ20(550_000)))
    ended = TrainingEnded(
        job=JOB,
        outcome=Outcome.ENDED,
        rounds_done=2,
        initial_utility=100_000,
        last_utility=550_000,
        model_digest=MODEL,
        credit_root=compute_credit_root(SELLERS, credits),
        credit_sum=4,
        final_block=BlockNumber(100),
    )
    return SettledJob(
        cone_bps=3000,
        floor_bps=5000,
        refund_cap_bps=PARAMS.refund_cap_bps,
        rounds_max=4,
        sellers_per_round=4,
        target=TARGET,
        lead=3,
        price_wei=PRICE,
        buyer=BUYER,
        sellers=SELLERS,
        cones=CONES,
        final_receipts=0b11111,
        ballots=tuple(ballots),
        ended=ended,
        settled=SETTLED,
        payouts=PAYOUTS,
        spent_wei=(Wei(0),) * len(CONES),
        shares=None,
    )


def make_final(utility: UtilityQ20) -> CountedBallot:
    result = FinalResult(
        domain=DOMAIN,
        job=JOB,
        round_index=RoundIndex(1),
        model_digest=MODEL,
        initial_utility=UtilityQ20(100_000),
        utility=utility,
    )
    return CountedBallot(
        kind=BallotKind.FINAL,
        round_index=1,
        digest=result.digest,
        voters=0b1111,
        openings=tuple(vote(node, result.digest) for node in range(4)),
        pool_mini_round=None,
        pays_newcomers=True,
        header=b"",
        initial_utility=UtilityQ20(100_000),
        utility=utility,
    )


TERMS = {
    "rounds_max": 4,
    "target": TARGET,
    "metric": Metric.ACC,
    "sellers_per_round": 4,
    "lead": 3,
    "first_set_size": 5,
    "growth_numerator": 3,
    "growth_denominator": 2,
    "sellers_min": 4,
    "sellers_max": 4,
    "cones_min": 5,
    "cones_max": 5,
    "stake_wei": Wei(1),
    "seller_deposit_wei": Wei(1),
} | dict.fromkeys(WINDOW_FIELDS, 3)


def _record(ballot: CountedBallot, number: int) -> DecidedBallot:
    """A decided ballot as the fold of events holds it."""
    common = {
        "job": JOB,
        "round_index": ballot.round_index,
        "ballot_number": number,
        "digest": ballot.digest,
        "votes": 3,
        "voters": ballot.voters,
        "wrong": 0,
        "unopened": 0,
        "appeal_end": BlockNumber(2),
    }
    decision = (
        RoundDecided(**common, header=ballot.header)
        if ballot.kind is BallotKind.ROUND
        else FinalDecided(**common, initial_utility=ballot.initial_utility, utility=ballot.utility)
    )
    block = BlockNumber(1)
    return DecidedBallot(
        ballot=Ballot(
            ballot_number=number,
            round_index=RoundIndex(ballot.round_index),
            kind=ballot.kind,
            attempt=0,
            seller_seed_block=block,
            update_commit_end=block,
            update_open_end=block,
            availability_end=block,
            opened_at=(block, number),
            is_pool_called=ballot.pool_mini_round is not None,
            mini_rounds=(
                MiniRound(mini_round_index=0, seed_block=block, commit_end=block, open_end=block),
            ),
            openings=tuple(
                RecordedOpening(
                    mini_round_index=one.mini_round_index,
                    cone_index=ConeIndex(one.node_index),
                    digest=one.digest,
                    trace=one.trace,
                )
                for one in ballot.openings
            ),
        ),
        decision=decision,
        block_number=block,
    )


def make_job_state(settled: SettledJob) -> JobState:
    """The same job as the fold of its events, each of them in a block of its own."""
    block = BlockNumber(1)
    decided = tuple(_record(one, i) for i, one in enumerate(settled.ballots, 1))
    course = make_course(settled.spent_wei)
    shares = () if settled.shares is None else (settled.shares,)
    events: list[Event] = [
        BidRevealed(
            auction=JOB,
            bidder=BUYER,
            amount_wei=PRICE,
            terms=JobTerms(**TERMS),
            body_hash=NO_DIGEST,
        ),
        AuctionClosed(
            auction=JOB,
            buyer=BUYER,
            price_wei=PRICE,
            terms_hash=NO_DIGEST,
            request_hash=NO_DIGEST,
            body_hash=NO_DIGEST,
            enrolment_end=block,
        ),
        *(
            SellerEnrolled(job=JOB, index=index, seller=account, dataset_id=1)
            for index, account in enumerate(SELLERS)
        ),
        *(
            ConeEnrolled(job=JOB, index=index, node=account, ticket_root=NO_DIGEST)
            for index, account in enumerate(CONES)
        ),
        *(one.decision for one in decided),
        CourseChanged(job=JOB, course=course),
        settled.ended,
        *shares,
        *settled.payouts,
        settled.settled,
    ]
    return JobState(
        job_id=JOB,
        phase=JobPhase.SETTLED,
        opened_block=block,
        tags=(),
        deposit_wei=PRICE,
        reserve_wei=Wei(0),
        commit_end=block,
        reveal_end=block,
        buyer=BUYER,
        price_wei=PRICE,
        terms=JobTerms(**TERMS),
        sellers=tuple(EnrolledSeller(account, 1) for account in SELLERS),
        cones=tuple(EnrolledCone(account, NO_DIGEST) for account in CONES),
        receipts={0: 0b11111, 1: 0b11111},
        decided=decided,
        course=course,
        ended=settled.ended,
        settled=settled.settled,
        shares=settled.shares,
        payouts=settled.payouts,
        trail=tuple(_locate(event, number) for number, event in enumerate(events)),
    )


def make_course(spent_wei: Sequence[Wei]) -> Course:
    """The last course of a job with at most eight CONE nodes."""
    units = [spent // REFUND_UNIT_WEI for spent in spent_wei]
    refunds = sum(unit << (32 * index) for index, unit in enumerate(units))
    digests = (NO_DIGEST,) * 6
    names = ("terms_hash", "parent", "decision", "digest", "model_digest", "credit_root")
    return Course(
        **dict(zip(names, digests, strict=True)),
        utilities=0,
        progress=0,
        decided_ballot=0,
        resumed_ballot=0,
        slashes=0,
        participation=(0,) * 4,
        refunds=(refunds, *(0,) * 7),
    )


def _locate(event: Event, number: int) -> RecordedEvent:
    return RecordedEvent(
        block_number=BlockNumber(100 + number),
        log_index=number % 3,
        transaction_hash=keccak(b"transaction" + bytes([number])),
        event=event,
    )
