"""A decision as a fold of events: made, checked by the whole pool, upheld or overturned."""

from dataclasses import replace

import pytest

from protocol.ballot import MiniRound
from protocol.course import Course, compute_course_hash
from protocol.events import (
    AppealOpened,
    AppealResolved,
    CourseChanged,
    DecisionOverturned,
    DecisionUpheld,
    FinalDecided,
    PoolCalled,
    RoundDecided,
    TrainingEnded,
)
from protocol.hashing import keccak
from protocol.job import JobPhase, JobState
from protocol.sortition import BallotKind, encode_mini
from protocol.types import NO_DIGEST, Address, BlockNumber, Wei
from tests.support.decided import open_second_round
from tests.support.job import JOB
from tests.support.settled_job import make_course
from tests.support.votes import (
    DIGEST,
    OTHER,
    OTHER_TRACE,
    TRACE,
    ballot_of,
    commit,
    first_round,
    fold,
    open_votes,
    vote,
)

FINAL_BLOCK = BlockNumber(40)
DECIDED = RoundDecided(
    job=JOB,
    round_index=0,
    ballot_number=1,
    digest=DIGEST,
    votes=2,
    voters=0b00011,
    wrong=0b00100,
    unopened=0b01000,
    appeal_end=BlockNumber(27),
    header=b"header",
)
CALLED = PoolCalled(
    job=JOB,
    ballot_number=1,
    mini=encode_mini(BallotKind.ROUND, 0, 1),
    is_audit=False,
    seed_block=BlockNumber(28),
    commit_end=BlockNumber(32),
    open_end=BlockNumber(36),
)
UPHELD = DecisionUpheld(
    job=JOB, ballot_number=1, digest=DIGEST, votes=4, voters=0b10011, wrong=0b00100, unopened=0
)
SECOND = open_second_round(27)
ENDED = TrainingEnded(
    job=JOB,
    outcome=1,
    rounds_done=1,
    initial_utility=0,
    last_utility=1,
    model_digest=NO_DIGEST,
    credit_root=NO_DIGEST,
    credit_sum=0,
    final_block=FINAL_BLOCK,
)


@pytest.fixture
def job() -> JobState:
    return first_round()


# --- decisions


def vote_and_decide(job: JobState) -> JobState:
    """Let nodes 0 and 1 decide the first round, and the second one be open."""
    voted = fold(job, commit([0, 1, 3], 0), open_votes(0, (DIGEST, TRACE, 0b11)))
    return fold(voted, DECIDED, SECOND, block=23)


def test_a_decision_keeps_the_ballot_that_led_to_it(job: JobState) -> None:
    after = vote_and_decide(job)
    (decided,) = after.decided
    assert (decided.decision, decided.block_number) == (DECIDED, 23)
    assert decided.ballot.openings == (vote(0), vote(1))
    assert ballot_of(after).openings == ()
    assert after.decided_rounds == (DECIDED,)


def test_a_final_decision_is_a_decision_of_no_round(job: JobState) -> None:
    final = FinalDecided(
        job=JOB, round_index=0, ballot_number=1, digest=DIGEST, votes=2, voters=3, wrong=0,
        unopened=0, appeal_end=BlockNumber(27), initial_utility=1, utility=2,
    )  # fmt: skip
    after = fold(job, final)
    assert [one.decision for one in after.decided] == [final]
    assert after.decided_rounds == ()


def test_a_call_opens_the_decided_ballot_again_with_all_its_votes(job: JobState) -> None:
    before = vote_and_decide(job)
    after = fold(before, CALLED, block=26, log_index=4)
    ballot, decided = ballot_of(after), before.decided[0].ballot
    assert ballot == replace(
        decided,
        mini_rounds=(
            *decided.mini_rounds,
            MiniRound(mini_round_index=1, seed_block=28, commit_end=32, open_end=36),
        ),
        opened_at=(BlockNumber(26), 4),
        is_pool_called=True,
    )
    assert ballot.opened_at > ballot_of(before).opened_at > decided.opened_at
    assert after.decided == before.decided


def test_whoever_is_called_is_recorded_beside_those_who_voted(job: JobState) -> None:
    called = fold(vote_and_decide(job), CALLED, block=26)
    after = fold(
        called, commit([2, 4], 1, 1), open_votes(1, (DIGEST, OTHER_TRACE, 0b10100)), block=33
    )
    ballot = ballot_of(after)
    assert (ballot.committed, ballot.opened) == ({0, 1, 2, 3, 4}, {0, 1, 2, 4})
    assert [one.mini_round_index for one in ballot.openings] == [0, 0, 1, 1]
    assert after.decided[0].ballot.opened == {0, 1}


def test_a_decision_that_stands_has_the_counts_of_the_whole_pool(job: JobState) -> None:
    called = fold(vote_and_decide(job), CALLED, block=26)
    voted = fold(called, open_votes(1, (DIGEST, TRACE, 0b10000)), block=33)
    after = fold(voted, UPHELD, SECOND, block=37)
    (decided,) = after.decided
    assert decided.decision == replace(DECIDED, votes=4, voters=0b10011, wrong=0b00100, unopened=0)
    assert decided.ballot.opened == {0, 1, 4}
    assert decided.block_number == 23
    assert after.decided_rounds == (decided.decision,)


def test_a_call_that_nobody_counted_leaves_the_decision_as_it_was(job: JobState) -> None:
    before = vote_and_decide(job)
    called = fold(before, CALLED, block=26)
    voted = fold(called, open_votes(1, (OTHER, TRACE, 0b10000)), block=33)
    expired = replace(UPHELD, votes=0, voters=0, wrong=0, unopened=0)
    assert fold(voted, expired, block=41).decided == before.decided


def test_a_decision_that_is_overturned_is_gone_and_the_new_one_is_there(job: JobState) -> None:
    called = fold(vote_and_decide(job), CALLED, block=26)
    voted = fold(called, open_votes(1, (OTHER, TRACE, 0b11100)), block=33)
    overturned = DecisionOverturned(job=JOB, ballot_number=1, digest=DIGEST)
    instead = replace(DECIDED, digest=OTHER, votes=3, voters=0b11100, wrong=0b00011)
    after = fold(voted, overturned, instead, SECOND, block=37)
    (decided,) = after.decided
    assert (decided.decision, decided.block_number) == (instead, 37)
    assert decided.ballot.opened == {0, 1, 2, 3, 4}
    assert decided.ballot.is_pool_called
    assert fold(voted, overturned).decided == ()


def test_only_the_last_decision_is_overturned(job: JobState) -> None:
    first = vote_and_decide(job)
    second = replace(DECIDED, round_index=1, ballot_number=2)
    both = fold(first, second, block=50)
    called = fold(both, replace(CALLED, ballot_number=2), block=51)
    assert ballot_of(called).round_index == 1
    overturned = DecisionOverturned(job=JOB, ballot_number=2, digest=DIGEST)
    assert fold(called, overturned, block=60).decided == first.decided


def test_a_ballot_that_is_opened_again_has_its_number_and_another_name(job: JobState) -> None:
    before = vote_and_decide(job)
    again = open_second_round(37)
    after = fold(fold(before, CALLED, block=26), UPHELD, again, block=37)
    ballot = ballot_of(after)
    assert ballot.ballot_number == ballot_of(before).ballot_number
    assert ballot.opened_at > ballot_of(before).opened_at
    assert ballot.seller_seed_block > ballot_of(before).seller_seed_block
    assert not ballot.is_pool_called


# --- the job around its ballot


def test_training_is_over_when_its_last_decision_can_be_checked_no_more(job: JobState) -> None:
    assert not job.is_training_over(BlockNumber(10**6))
    ended = fold(job, DECIDED, ENDED, block=23)
    assert ended.phase is JobPhase.SETTLING
    assert not ended.is_training_over(BlockNumber(FINAL_BLOCK - 1))
    assert ended.is_training_over(FINAL_BLOCK)


def test_a_call_takes_a_job_back_to_training_and_an_answer_ends_it_again(job: JobState) -> None:
    ended = fold(job, DECIDED, ENDED, block=23)
    called = fold(ended, CALLED, block=26)
    assert (called.phase, called.ended) == (JobPhase.TRAINING, None)
    assert not called.is_training_over(BlockNumber(10**6))
    later = replace(ENDED, final_block=BlockNumber(37))
    again = fold(called, UPHELD, later, block=37)
    assert (again.phase, again.ended) == (JobPhase.SETTLING, later)
    assert again.is_training_over(BlockNumber(37))


def test_an_appeal_is_open_until_it_is_resolved(job: JobState) -> None:
    opened = AppealOpened(job=JOB, appellant=Address(b"\x01" * 20), bond_wei=Wei(9))
    appealed = fold(vote_and_decide(job), CALLED, opened, block=26)
    assert appealed.appeal == opened
    resolved = AppealResolved(
        job=JOB, is_overturned=False, bond_wei=Wei(9), reward_each_wei=Wei(3), burned_wei=Wei(0),
        beneficiaries=(),
    )  # fmt: skip
    assert fold(appealed, UPHELD, resolved, block=37).appeal is None


# --- the course before the last decision


def change(job: JobState, course: Course) -> JobState:
    return fold(job, CourseChanged(job=JOB, course=course))


START = make_course(())
AFTER = replace(START, parent=compute_course_hash(START), decision=DIGEST)


def test_the_course_before_a_decision_is_kept_with_it(job: JobState) -> None:
    after = change(change(job, START), AFTER)
    assert (after.course, after.parent_course) == (AFTER, START)
    assert change(job, START).parent_course is None


def test_it_is_kept_while_the_pool_is_called_and_dropped_after_it(job: JobState) -> None:
    decided = change(change(job, START), AFTER)
    called = change(decided, replace(AFTER, progress=7, resumed_ballot=8))
    assert called.parent_course == START
    closed = change(called, replace(AFTER, parent=NO_DIGEST))
    assert closed.parent_course is None


def test_the_next_decision_has_the_course_before_it(job: JobState) -> None:
    decided = change(change(job, START), AFTER)
    # The contract closes the decision before, without an event, and hashes what callers brought.
    following = replace(AFTER, parent=compute_course_hash(AFTER), decision=OTHER)
    after = change(decided, following)
    assert (after.course, after.parent_course) == (following, AFTER)


def test_a_parent_that_was_never_seen_is_not_made_up(job: JobState) -> None:
    unknown = replace(AFTER, parent=keccak(b"unseen"))
    assert change(change(job, START), unknown).parent_course is None
