"""How the events of an enrolment change a job: who applied, who takes part, who was left out."""

from functools import reduce

import pytest

from protocol.events import (
    BitmapsLogged,
    ConeEnrolled,
    ConesDrawn,
    EnrolmentClosed,
    Event,
    JobCancelled,
    RecordedEvent,
    SellerEnrolled,
    SellersDrawn,
)
from protocol.hashing import keccak
from protocol.job import JobPhase, JobState, apply_job_event
from protocol.types import Address, BlockNumber, JobId, Wei
from tests.support.job import JOB, OPENED, Cast

SELLERS = [Address(bytes([1, index]) * 10) for index in range(5)]
NODES = [Address(bytes([2, index]) * 10) for index in range(4)]
STRANGER = Address(b"\x07" * 20)
END = BlockNumber(2)


@pytest.fixture
def job() -> JobState:
    """A job in enrolment for which five sellers and four CONE nodes applied."""
    cast = Cast()
    cast.open_enrolment()
    applications: list[Event] = [
        SellerEnrolled(job=JOB, index=index, seller=account, dataset_id=10 + index)
        for index, account in enumerate(SELLERS)
    ]
    applications += [
        ConeEnrolled(job=JOB, index=index, node=account, ticket_root=keccak(account))
        for index, account in enumerate(NODES)
    ]
    return fold(cast.market.state.jobs[JOB], *applications)


def fold(job: JobState, *events: Event, block: int = 3) -> JobState:
    recorded = [
        RecordedEvent(
            block_number=BlockNumber(block), log_index=0, transaction_hash=b"", event=event
        )
        for event in events
    ]
    return reduce(apply_job_event, recorded, job)


def closed(sellers: int, cones: int) -> EnrolmentClosed:
    return EnrolmentClosed(
        job=JOB, sellers=sellers, cones=cones, enrolment_end=END, validation_end=BlockNumber(9)
    )


def test_who_applied_has_no_index_before_the_enrolment_closes(job: JobState) -> None:
    assert job.phase is JobPhase.ENROLMENT
    assert [one.account for one in job.seller_applications] == SELLERS
    assert [one.account for one in job.cone_applications] == NODES
    assert job.sellers == job.cones == ()
    assert job.has_seller_applied(SELLERS[0])
    assert job.has_cone_applied(NODES[0])
    assert not job.has_seller_applied(NODES[0])
    assert not job.has_cone_applied(SELLERS[0])
    assert job.seller_index(SELLERS[0]) is None
    assert job.cone_index(NODES[0]) is None
    assert not job.is_seller_left_out(SELLERS[0])
    assert not job.is_cone_left_out(NODES[0])


def test_without_a_draw_all_that_applied_are_members(job: JobState) -> None:
    job = fold(job, closed(5, 4))
    assert job.phase is JobPhase.VALIDATION
    assert job.sellers == job.seller_applications
    assert job.cones == job.cone_applications
    assert [job.seller_index(account) for account in SELLERS] == [0, 1, 2, 3, 4]
    assert not any(job.is_seller_left_out(account) for account in (*SELLERS, STRANGER))
    assert not any(job.is_cone_left_out(account) for account in (*NODES, STRANGER))


def test_indices_are_positions_among_those_that_were_drawn(job: JobState) -> None:
    drawn = SellersDrawn(job=JOB, indices=(0, 2, 4)), ConesDrawn(job=JOB, indices=(1, 3))
    job = fold(job, *drawn, closed(3, 2))
    assert [job.seller_index(account) for account in SELLERS] == [0, None, 1, None, 2]
    assert [job.cone_index(account) for account in NODES] == [None, 0, None, 1]
    assert [one.dataset_id for one in job.sellers] == [10, 12, 14]
    assert [one.ticket_root for one in job.cones] == [keccak(NODES[1]), keccak(NODES[3])]
    assert [job.is_seller_left_out(one) for one in SELLERS] == [False, True, False, True, False]
    assert [job.is_cone_left_out(one) for one in NODES] == [True, False, True, False]
    assert not job.is_seller_left_out(STRANGER)
    assert not job.is_cone_left_out(STRANGER)


def test_one_role_may_be_drawn_while_the_other_has_places_for_all(job: JobState) -> None:
    job = fold(job, ConesDrawn(job=JOB, indices=(0, 1, 2)), closed(5, 3))
    assert job.sellers == job.seller_applications
    assert job.cones == job.cone_applications[:3]


def test_a_cancelled_job_leaves_nobody_out(job: JobState) -> None:
    job = fold(job, JobCancelled(job=JOB, refund_wei=Wei(30)))
    assert job.phase is JobPhase.CANCELLED
    assert job.sellers == job.cones == ()
    assert not any(job.is_seller_left_out(account) for account in SELLERS)
    assert not any(job.is_cone_left_out(account) for account in NODES)


@pytest.mark.parametrize(
    ("ballot_number", "block", "counts"),
    [
        (OPENED.ballot_number, OPENED.availability_end, True),
        (OPENED.ballot_number, OPENED.availability_end + 1, False),
        (OPENED.ballot_number + 1, OPENED.availability_end, False),
        (0, OPENED.availability_end, False),
    ],
)
def test_bitmaps_count_for_their_ballot_up_to_its_deadline(
    job: JobState, ballot_number: int, block: int, counts: bool
) -> None:
    logged = BitmapsLogged(
        job=JobId(JOB),
        ballot_number=ballot_number,
        groups=((0b11, 0b101),),
        signatures=((bytes(32), bytes(32)),) * 2,
    )
    waiting = fold(job, closed(5, 4))
    assert fold(waiting, logged) == waiting
    open_job = fold(waiting, OPENED)
    later = fold(open_job, logged, block=block)
    assert later.ballot is not None
    told = [(one.cone_index, one.bitmap) for one in later.ballot.bitmaps]
    assert told == ([(0, 0b101), (1, 0b101)] if counts else [])
