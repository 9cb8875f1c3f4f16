"""A job as the operator reads it: what the chain says, in words and numbers."""

from d2m_node.rpc.views import summarise_job, to_hex, view_job
from protocol.digest import RoundHeader
from protocol.events import (
    AttemptOpened,
    AuctionOpened,
    ConeEnrolled,
    ConesDrawn,
    DepositForfeited,
    EnrolmentClosed,
    Event,
    OpeningsRecorded,
    PayoutCredited,
    RecordedEvent,
    RoundDecided,
    RoundVoided,
    SellerDeposited,
    SellerEnrolled,
    StakeSlashed,
    TrainingEnded,
)
from protocol.hashing import Domain
from protocol.job import JobState
from protocol.market import MarketState, apply_event
from protocol.types import (
    NO_ACCOUNT,
    NO_DIGEST,
    Address,
    BlockNumber,
    Digest,
    JobId,
    RoundIndex,
    UtilityQ20,
    Wei,
)
from tests.support.job import Cast

JOB = JobId(1)
BUYER = Address(b"\x01" * 20)
DIGEST = Digest(b"\xd1" * 32)
OTHER_DIGEST = Digest(b"\xd2" * 32)
HEADER = RoundHeader(
    job=JOB,
    round_index=RoundIndex(0),
    model_digest=Digest(b"\x0a" * 32),
    sampler_digest=Digest(b"\x0b" * 32),
    sampled=0b11,
    available=0b11,
    accepted=0b01,
    utility_before=UtilityQ20(0),
    utility_after=UtilityQ20(3 << 18),
    utilities=(UtilityQ20(1), UtilityQ20(2)),
    domain=Domain(31337, Address(bytes(20))),
    previous_digest=NO_DIGEST,
    credit_root=NO_DIGEST,
    credit_sum=1,
).encode()


def fold(*events: Event) -> JobState:
    state = MarketState()
    for number, event in enumerate(events):
        recorded = RecordedEvent(
            block_number=BlockNumber(number),
            log_index=0,
            transaction_hash=bytes(32),
            event=event,
        )
        state = apply_event(state, recorded)
    return state.jobs[JOB]


def opened_auction() -> AuctionOpened:
    return AuctionOpened(
        auction=JOB,
        opener=BUYER,
        tags=(Digest(b"\x05" * 32),),
        mode=0,
        currency=NO_ACCOUNT,
        deposit_wei=Wei(4),
        reserve_wei=Wei(1),
        commit_end=BlockNumber(9),
        reveal_end=BlockNumber(12),
    )


def opened_attempt() -> AttemptOpened:
    return AttemptOpened(
        job=JOB,
        ballot_number=1,
        round_index=0,
        kind=0,
        attempt=0,
        seller_seed_block=BlockNumber(1),
        update_commit_end=BlockNumber(2),
        update_open_end=BlockNumber(3),
        availability_end=BlockNumber(4),
        seed_block=BlockNumber(5),
        commit_end=BlockNumber(6),
        open_end=BlockNumber(7),
    )


def decided_round() -> tuple[Event, ...]:
    openings = OpeningsRecorded(
        job=JOB,
        ballot_number=1,
        mini=0,
        groups=((DIGEST, DIGEST, 0b0011), (OTHER_DIGEST, DIGEST, 0b1000)),
    )
    decided = RoundDecided(
        job=JOB,
        round_index=0,
        ballot_number=1,
        digest=DIGEST,
        votes=2,
        voters=0b0011,
        wrong=0b1000,
        unopened=0b0100,
        appeal_end=BlockNumber(9),
        header=HEADER,
    )
    return opened_auction(), opened_attempt(), openings, decided


def test_a_decided_round_shows_its_votes_and_who_was_wrong() -> None:
    (one,) = view_job(fold(*decided_round())).rounds
    assert (one.kind, one.votes, one.votes_cast, one.mini_rounds) == ("round", 2, 3, 1)
    assert (one.wrong, one.unopened) == ([3], [2])
    assert one.digest == "0x" + "d1" * 32
    assert one.utility == 0.75


def test_the_summary_carries_the_last_utility() -> None:
    summary = summarise_job(fold(*decided_round()))
    assert (summary.rounds_done, summary.utility, summary.phase) == (1, 0.75, "training")


def test_a_job_without_decisions_claims_none() -> None:
    view = view_job(fold(opened_auction(), opened_attempt(), RoundVoided(job=JOB, round_index=0)))
    assert view.rounds == []
    assert view.rounds_void == [0]
    assert (view.summary.utility, view.outcome, view.refund_wei) == (None, None, None)


def test_money_is_told_with_its_reason() -> None:
    view = view_job(
        fold(
            *decided_round(),
            TrainingEnded(
                job=JOB,
                outcome=1,
                rounds_done=1,
                initial_utility=0,
                last_utility=3 << 18,
                model_digest=Digest(b"\x0a" * 32),
                credit_root=NO_DIGEST,
                credit_sum=1,
                final_block=BlockNumber(20),
            ),
            StakeSlashed(job=JOB, account=BUYER, amount_wei=Wei(5), reason=1),
            PayoutCredited(job=JOB, payee=BUYER, role=2, index=0, weight=1, amount_wei=Wei(10**30)),
            PayoutCredited(job=JOB, payee=BUYER, role=4, index=0, weight=3, amount_wei=Wei(3)),
        )
    )
    assert view.outcome == "target"
    assert view.model_digest == "0x" + "0a" * 32
    payouts = [(one.role, one.amount_wei) for one in view.payouts]
    assert payouts == [("seller", 10**30), ("batcher", 3)]
    assert [(one.reason, one.amount_wei) for one in view.slashes] == [("wrong digest", 5)]


def test_deposits_are_told_with_what_became_of_them() -> None:
    kept, lost = Address(b"\x02" * 20), Address(b"\x03" * 20)
    view = view_job(
        fold(
            opened_auction(),
            SellerDeposited(job=JOB, seller=kept, amount_wei=Wei(7)),
            SellerDeposited(job=JOB, seller=lost, amount_wei=Wei(8)),
            DepositForfeited(job=JOB, seller=lost, amount_wei=Wei(8)),
        )
    )
    assert [(one.account, one.amount_wei, one.status) for one in view.deposits] == [
        ("0x" + "02" * 20, 7, "held"),
        ("0x" + "03" * 20, 8, "forfeited"),
    ]


def test_a_job_lists_who_applied_and_then_its_members_and_who_was_left_out() -> None:
    cast = Cast()
    cast.open_enrolment()
    seller, node, further = (one.signer.address for one in (*cast.sellers[:1], *cast.cones[:2]))
    applications: list[Event] = [
        SellerEnrolled(job=JOB, index=0, seller=seller, dataset_id=0),
        ConeEnrolled(job=JOB, index=0, node=node, ticket_root=NO_DIGEST),
        ConeEnrolled(job=JOB, index=1, node=further, ticket_root=NO_DIGEST),
    ]
    cast.market.apply(*applications)
    enrolling = view_job(cast.market.state.jobs[JOB])
    assert (enrolling.summary.sellers, enrolling.summary.cones) == (1, 2)
    assert enrolling.cones == [to_hex(node), to_hex(further)]
    assert enrolling.left_out == []
    cast.market.apply(
        ConesDrawn(job=JOB, indices=(1,)),
        EnrolmentClosed(
            job=JOB, sellers=1, cones=1, enrolment_end=BlockNumber(2), validation_end=BlockNumber(9)
        ),
    )
    started = view_job(cast.market.state.jobs[JOB])
    assert (started.summary.sellers, started.summary.cones) == (1, 1)
    assert (started.sellers, started.cones) == ([to_hex(seller)], [to_hex(further)])
    assert started.left_out == [to_hex(node)]
