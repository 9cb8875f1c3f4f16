"""A ballot as a fold of events: opened, retried, grown, voted in."""

from dataclasses import replace

import pytest

from protocol.ballot import Ballot, CommitBatch, MiniRound
from protocol.bitmap import list_statements
from protocol.events import AttemptUndecided, BitmapsLogged, MiniRoundOpened, RoundVoided
from protocol.hashing import keccak
from protocol.job import JobPhase, JobState
from protocol.sortition import BallotKind, encode_mini
from protocol.types import BlockNumber
from tests.support.decided import open_second_round
from tests.support.job import JOB, OPENED, retried
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

SECOND = open_second_round(27)


@pytest.fixture
def job() -> JobState:
    return first_round()


# --- attempts


def test_an_attempt_opens_an_empty_ballot_with_one_mini_round(job: JobState) -> None:
    opened = fold(job, OPENED, block=7, log_index=3)
    assert opened.phase is JobPhase.TRAINING
    assert opened.ballot == Ballot(
        ballot_number=1,
        round_index=0,
        kind=BallotKind.ROUND,
        attempt=0,
        seller_seed_block=BlockNumber(2),
        update_commit_end=BlockNumber(6),
        update_open_end=BlockNumber(8),
        availability_end=BlockNumber(12),
        mini_rounds=(
            MiniRound(mini_round_index=0, seed_block=13, commit_end=18, open_end=22),
        ),
        opened_at=(BlockNumber(7), 3),
    )  # fmt: skip
    assert opened.ballot.seed_delay_blocks == 1
    assert not opened.ballot.is_pool_called


def test_a_retry_keeps_the_sellers_deadlines_and_forgets_the_votes(job: JobState) -> None:
    voted = fold(job, commit([0, 1], 0), open_votes(0, (DIGEST, TRACE, 0b11)))
    ballot = ballot_of(fold(voted, retried(), block=23))
    assert (ballot.ballot_number, ballot.attempt) == (2, 1)
    assert ballot.seller_seed_block == OPENED.seller_seed_block
    assert ballot.update_commit_end == OPENED.update_commit_end
    assert ballot.update_open_end == OPENED.update_open_end
    assert ballot.availability_end == retried().availability_end
    assert [one.seed_block for one in ballot.mini_rounds] == [retried().seed_block]
    assert (ballot.batches, ballot.openings, ballot.bitmaps) == ((), (), ())


def test_a_retry_of_a_retry_keeps_those_of_the_first_attempt(job: JobState) -> None:
    twice = replace(retried(), ballot_number=3, attempt=2)
    ballot = ballot_of(fold(job, retried(), twice))
    assert ballot.update_commit_end == OPENED.update_commit_end


def test_the_next_round_has_deadlines_of_its_own(job: JobState) -> None:
    ballot = ballot_of(fold(job, SECOND))
    assert ballot.seller_seed_block == SECOND.seller_seed_block == 28
    assert ballot.update_open_end == SECOND.update_open_end == 36


def test_attempts_without_a_decision_and_void_rounds_are_noted(job: JobState) -> None:
    undecided = AttemptUndecided(job=JOB, round_index=0, ballot_number=1, unopened=0b1)
    voided = RoundVoided(job=JOB, round_index=0)
    after = fold(job, undecided, voided, SECOND)
    assert (after.undecided, after.voided) == ((undecided,), (0,))
    assert after.decided == ()


# --- votes


def test_commitments_belong_to_the_members_of_their_batch_in_order(job: JobState) -> None:
    ballot = ballot_of(fold(job, commit([4, 1], 0), commit([0], 1)))
    assert ballot.batches == (
        CommitBatch(
            mini_round_index=0,
            batch_index=0,
            members=0b10010,
            entries=((1, keccak(b"\x01")), (4, keccak(b"\x04"))),
        ),
        CommitBatch(
            mini_round_index=0, batch_index=1, members=0b1, entries=((0, keccak(b"\x00")),)
        ),
    )
    assert ballot.committed == {0, 1, 4}
    assert ballot.opened == frozenset()


def test_a_batch_with_more_members_than_commitments_is_no_event_of_the_contract(
    job: JobState,
) -> None:
    short = replace(commit([0, 1], 0), commitments=(keccak(b"\x00"),))
    with pytest.raises(ValueError, match="shorter"):
        fold(job, short)


def test_openings_come_as_groups_of_equal_votes(job: JobState) -> None:
    ballot = ballot_of(
        fold(job, open_votes(0, (DIGEST, TRACE, 0b10001), (OTHER, OTHER_TRACE, 0b00100)))
    )
    hostile = replace(vote(2), digest=OTHER, trace=OTHER_TRACE)
    assert ballot.openings == (vote(0), vote(4), hostile)
    assert ballot.opened == {0, 2, 4}


def test_a_mini_round_is_added_and_the_votes_stay(job: JobState) -> None:
    grown = MiniRoundOpened(
        job=JOB, ballot_number=1, mini=encode_mini(BallotKind.ROUND, 0, 1),
        seed_block=BlockNumber(23), commit_end=BlockNumber(27), open_end=BlockNumber(31),
    )  # fmt: skip
    votes = (open_votes(0, (DIGEST, TRACE, 0b1)), grown, open_votes(1, (DIGEST, TRACE, 0b10)))
    after = fold(job, *votes)
    ballot = ballot_of(after)
    assert ballot.current == MiniRound(
        mini_round_index=1, seed_block=23, commit_end=27, open_end=31
    )
    assert len(ballot.mini_rounds) == 2
    assert ballot.openings == (vote(0), vote(1, mini_round_index=1))
    # The same ballot: nobody starts anew.
    assert ballot.opened_at == ballot_of(job).opened_at


@pytest.mark.parametrize("mini_round_index", [0, 1, 0xFFFF])
def test_the_mini_round_is_read_out_of_a_vote_of_a_final_retry(
    job: JobState, mini_round_index: int
) -> None:
    mini = encode_mini(BallotKind.FINAL, 3, mini_round_index)
    after = fold(job, replace(commit([0], 0), mini=mini), replace(
        open_votes(0, (DIGEST, TRACE, 0b1)), mini=mini
    ))  # fmt: skip
    (batch,), (opening,) = ballot_of(after).batches, ballot_of(after).openings
    assert batch.mini_round_index == opening.mini_round_index == mini_round_index


# --- bitmaps


def log_bitmap(ballot_number: int, bitmap: int) -> BitmapsLogged:
    return BitmapsLogged(
        job=JOB,
        ballot_number=ballot_number,
        groups=((0b101, bitmap),),
        signatures=((b"r" * 32, b"s" * 32), (b"R" * 32, b"S" * 32)),
    )


def test_bitmaps_count_until_the_last_block_of_their_window(job: JobState) -> None:
    first, last = log_bitmap(1, 0b1), log_bitmap(1, 0b10)
    after = fold(fold(job, first), last, block=OPENED.availability_end)
    logged = ballot_of(after).bitmaps
    assert [(one.cone_index, one.bitmap) for one in logged] == [(0, 1), (2, 1), (0, 2), (2, 2)]
    assert logged[:2] == list_statements(first.groups, first.signatures)


@pytest.mark.parametrize(
    ("number", "block"), [(1, OPENED.availability_end + 1), (0, 5), (2, 5)],
    ids=["late", "of the ballot before", "of the next ballot"],
)  # fmt: skip
def test_bitmaps_that_are_late_or_of_another_ballot_change_nothing(
    job: JobState, number: int, block: int
) -> None:
    assert fold(job, log_bitmap(number, 0b1), block=block) == job


def test_bitmaps_before_any_ballot_change_nothing(job: JobState) -> None:
    before = replace(job, ballot=None)
    assert fold(before, log_bitmap(1, 0b1)) == before
