"""A node of a pool may be silent only where others have shown that they decide without it."""

from dataclasses import replace

import pytest

from protocol.ballot import Ballot, DecidedBallot, MiniRound, RecordedOpening
from protocol.enrolment import EnrolledCone
from protocol.events import AttemptUndecided, RoundDecided
from protocol.job import JobPhase, JobState
from protocol.leaving import is_vote_needed
from protocol.sortition import BallotKind
from protocol.types import (
    NO_DIGEST,
    Address,
    BlockNumber,
    ConeIndex,
    Digest,
    JobId,
    RoundIndex,
    Wei,
)
from tests.protocol.test_terms import TERMS

POOL = tuple(Address(bytes([index]) * 20) for index in range(7))
DIGEST, OTHER = Digest(b"\x01" * 32), Digest(b"\x02" * 32)
LEAD = TERMS.lead
ZERO = BlockNumber(0)


def decided_by(votes: dict[int, Digest]) -> DecidedBallot:
    """A decided round, with what each node voted for."""
    ballot = Ballot(
        ballot_number=1,
        round_index=RoundIndex(0),
        kind=BallotKind.ROUND,
        attempt=0,
        seller_seed_block=ZERO,
        update_commit_end=ZERO,
        update_open_end=ZERO,
        availability_end=ZERO,
        mini_rounds=(
            MiniRound(mini_round_index=0, seed_block=ZERO, commit_end=ZERO, open_end=ZERO),
        ),
        opened_at=(ZERO, 0),
        openings=tuple(
            RecordedOpening(
                mini_round_index=0, cone_index=ConeIndex(index), digest=digest, trace=NO_DIGEST
            )
            for index, digest in votes.items()
        ),
    )
    decision = RoundDecided(
        job=JobId(1), round_index=0, ballot_number=1, digest=DIGEST, votes=len(votes), voters=0,
        wrong=0, unopened=0, appeal_end=ZERO, header=b"",
    )  # fmt: skip
    return DecidedBallot(ballot=ballot, decision=decision, block_number=ZERO)


def job_after(*decided: DecidedBallot) -> JobState:
    return JobState(
        job_id=JobId(1),
        phase=JobPhase.TRAINING,
        opened_block=ZERO,
        tags=(),
        deposit_wei=Wei(0),
        reserve_wei=Wei(0),
        commit_end=ZERO,
        reveal_end=ZERO,
        terms=TERMS,
        cones=tuple(EnrolledCone(account, NO_DIGEST) for account in POOL),
        decided=decided,
    )


def agreeing(count: int, first: int = 0) -> dict[int, Digest]:
    return dict.fromkeys(range(first, first + count), DIGEST)


def test_before_the_first_decision_every_vote_is_needed() -> None:
    assert is_vote_needed(job_after(), POOL[0])


@pytest.mark.parametrize(("others", "is_needed"), [(LEAD - 1, True), (LEAD, False)])
def test_who_did_not_vote_is_missed_unless_a_lead_agreed(others: int, is_needed: bool) -> None:
    job = job_after(decided_by(agreeing(others, first=1)))
    assert is_vote_needed(job, POOL[0]) is is_needed


@pytest.mark.parametrize(("voters", "is_needed"), [(LEAD, True), (LEAD + 1, False)])
def test_a_voter_is_missed_unless_a_lead_agreed_beside_it(voters: int, is_needed: bool) -> None:
    assert is_vote_needed(job_after(decided_by(agreeing(voters))), POOL[0]) is is_needed


def test_votes_for_another_digest_do_not_count() -> None:
    votes = {**agreeing(LEAD - 1, first=1), 5: OTHER, 6: OTHER}
    assert is_vote_needed(job_after(decided_by(votes)), POOL[0])


@pytest.mark.parametrize(("others", "is_needed"), [(LEAD, True), (LEAD + 1, False)])
def test_who_votes_against_the_rest_takes_from_their_lead(others: int, is_needed: bool) -> None:
    """One adversary that always votes must not make the attempt fail once this node is gone."""
    votes = {**agreeing(others, first=1), 6: OTHER}
    assert is_vote_needed(job_after(decided_by(votes)), POOL[0]) is is_needed


def test_only_the_last_decision_counts() -> None:
    strong, weak = decided_by(agreeing(6, first=1)), decided_by(agreeing(1, first=1))
    assert is_vote_needed(job_after(strong, weak), POOL[0])
    assert not is_vote_needed(job_after(weak, strong), POOL[0])


def test_more_than_half_of_the_pool_decides_where_the_lead_is_larger() -> None:
    job = job_after(decided_by(agreeing(4, first=1)))
    assert not is_vote_needed(replace(job, terms=replace(TERMS, lead=6)), POOL[0])
    fewer = job_after(decided_by(agreeing(3, first=1)))
    assert is_vote_needed(replace(fewer, terms=replace(TERMS, lead=6)), POOL[0])


def test_a_failed_attempt_or_a_void_round_calls_everybody_back() -> None:
    job = job_after(decided_by(agreeing(6, first=1)))
    failed = AttemptUndecided(job=JobId(1), round_index=1, ballot_number=2, unopened=0)
    assert is_vote_needed(replace(job, undecided=(failed,)), POOL[0])
    assert is_vote_needed(replace(job, voided=(RoundIndex(1),)), POOL[0])
