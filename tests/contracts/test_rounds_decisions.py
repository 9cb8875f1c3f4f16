"""Rounds: decisions, growing execution sets, void rounds, slashes."""

from typing import Any

import boa
import pytest
from eth_utils.crypto import keccak

from tests.contracts.scenarios import (
    WRONG,
    decide_against,
    event,
    execute_slashes,
    expire,
    honest,
    locked,
    make_job,
    split,
)
from tests.contracts.world import HONEST_TRACE, NO_DATA, ONE_ETHER, Ballot, Job, World

ABORTED = 3


def test_an_agreed_digest_decides_the_round_and_opens_the_next(world: World) -> None:
    job = make_job(world)
    header, vote = honest(job)
    job.vote(dict.fromkeys(range(5), vote))
    open_end = job.ballot.open_end
    job.tally([(0, vote)], header)

    decided = event(world.rounds, "RoundDecided")
    assert (decided.round_index, decided.ballot_number) == (0, 1)
    assert (decided.digest, decided.votes, decided.header) == (vote.digest, 5, header)
    assert (decided.voters, decided.wrong, decided.unopened) == (0b11111, 0, 0)
    assert decided.appeal_end == world.blocks.number + 2
    assert job.result.participation == [1] * 5
    assert (job.result.model_digest, job.result.rounds_done) == (job.model_digest(0), 1)
    opened = event(world.rounds, "AttemptOpened")
    assert (opened.round_index, opened.ballot_number) == (1, 2)
    # Counted from the decision window, whoever called when; then the appeal window.
    assert opened.seller_seed_block == open_end + 1 + 2 + 1
    assert opened.update_commit_end == opened.seller_seed_block + 4


def test_ballots_are_counted_in_their_window_only(world: World) -> None:
    job = make_job(world)
    header, vote = honest(job)
    job.open({0: vote}, job.commit({0: vote}))
    with boa.reverts("rounds: openings still open"):
        job.tally([(0, vote)], header)
    with boa.reverts("rounds: header deadline not passed"):
        world.rounds.expire(1, job.terms_list, job.course)
    world.blocks.mine_to(job.ballot.open_end + 20)
    with boa.reverts("rounds: header deadline not passed"):
        world.rounds.expire(1, job.terms_list, job.course)
    world.blocks.mine()
    with boa.reverts("rounds: header deadline passed"):
        job.tally([(0, vote)], header)


def test_a_count_must_hold_every_vote(world: World) -> None:
    job = make_job(world)
    header, vote = honest(job)
    job.vote({0: vote, 1: vote, 2: vote, 3: WRONG})
    with boa.reverts("ballots: votes missing"):
        job.tally([(0, vote)], header)
    with boa.reverts("ballots: votes missing"):
        job.tally([], header)
    with boa.reverts("rounds: wrong terms"):
        world.rounds.tally(1, (7, *job.terms_list[1:]), job.course, [], b"")


def test_a_decision_needs_the_bytes_behind_its_digest(world: World) -> None:
    job = make_job(world)
    header, vote = honest(job)
    job.vote(dict.fromkeys(range(5), vote))
    for wrong in (b"", header + b"\x00", job.round_header(utility_after=1)):
        with boa.reverts("rounds: header does not open the digest"):
            job.tally([(0, vote)], wrong)


@pytest.mark.parametrize(
    "change",
    [{"round_index": 1}, {"job": 2}, {"chain": 1}, {"previous_digest": keccak(b"other")}],
)
def test_a_decided_header_of_something_else_is_refused(
    world: World, change: dict[str, Any]
) -> None:
    job = make_job(world)
    header = job.round_header(**change)
    vote = Ballot(keccak(header), HONEST_TRACE)
    job.vote(dict.fromkeys(range(5), vote))
    with boa.reverts():
        job.tally([(0, vote)], header)


def test_the_next_round_continues_from_the_decided_digest(world: World) -> None:
    job = make_job(world)
    job.decide_round()
    stale, vote = honest(job, previous_digest=bytes(32))
    job.vote(dict.fromkeys(range(5), vote))
    with boa.reverts("header: not of this chain of rounds"):
        job.tally([(0, vote)], stale)


def test_sets_grow_until_the_lead_is_reached(world: World) -> None:
    job = Job(world, cone_count=8, changes={"first_set_size": 2, "lead": 4}).train()
    header, vote = honest(job)
    drawn: list[list[int]] = []
    groups = []
    for m in range(8):
        assert job.ballot.m == m
        drawn.append(job.drawn())
        if drawn[-1]:
            groups.append((m, vote))
        job.vote(dict.fromkeys(drawn[-1], vote))
        job.tally(groups, header)
        if job.ballot.round_index == 1:
            break
        grown = event(world.rounds, "MiniRoundOpened")
        assert grown.mini == m + 1
        assert grown.commit_end == max(world.blocks.number, grown.seed_block) + 3
    votes = [index for members in drawn for index in members]
    assert len(drawn) > 1, "another seed is needed for this test"
    assert len(votes) == len(set(votes)) >= 4
    decided = event(world.rounds, "RoundDecided")
    assert decided.voters == sum(1 << index for index in votes)


def test_no_data_votes_end_an_attempt_that_they_lead(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    votes = {0: vote, **dict.fromkeys(range(1, 5), NO_DATA)}
    job.vote(votes)
    job.tally([(0, vote), (0, NO_DATA)])
    undecided = event(world.rounds, "AttemptUndecided")
    assert (undecided.round_index, undecided.ballot_number, undecided.unopened) == (0, 1, 0)
    retry = event(world.rounds, "AttemptOpened")
    assert (retry.attempt, retry.ballot_number, retry.round_index) == (1, 2, 0)
    assert (retry.seller_seed_block, retry.update_commit_end, retry.update_open_end) == (0, 0, 0)
    assert retry.availability_end == world.blocks.number + 3


def test_an_attempt_in_which_nobody_has_the_data_is_counted(world: World) -> None:
    job = make_job(world)
    job.vote(dict.fromkeys(range(5), NO_DATA))
    job.tally([(0, NO_DATA)])
    assert event(world.rounds, "AttemptUndecided").unopened == 0
    assert event(world.rounds, "AttemptOpened").attempt == 1


def test_no_data_voters_are_neither_paid_nor_slashed(world: World) -> None:
    job = make_job(world)
    header, vote = honest(job)
    job.vote({**dict.fromkeys(range(4), vote), 4: NO_DATA})
    job.tally([(0, vote), (0, NO_DATA)], header)
    decided = event(world.rounds, "RoundDecided")
    assert (decided.votes, decided.voters, decided.wrong) == (4, 0b1111, 0)


def test_a_copied_digest_with_a_foreign_trace_is_not_paid(world: World) -> None:
    job = make_job(world)
    header, vote = honest(job)
    copied = Ballot(vote.digest, keccak(b"no work"))
    job.vote({**dict.fromkeys(range(4), vote), 4: copied})
    job.tally([(0, vote), (0, copied)], header)
    decided = event(world.rounds, "RoundDecided")
    assert (decided.votes, decided.voters, decided.wrong) == (4, 0b1111, 0)
    assert job.result.participation == [1, 1, 1, 1, 0]


def test_two_undecided_attempts_void_the_round_and_two_void_rounds_the_job(world: World) -> None:
    job = make_job(world)
    split(job)
    split(job)
    assert event(world.rounds, "RoundVoided").round_index == 0
    opened = event(world.rounds, "AttemptOpened")
    assert (opened.round_index, opened.attempt, opened.ballot_number) == (1, 0, 3)
    split(job)
    split(job)
    ended = event(world.rounds, "TrainingEnded")
    assert (ended.outcome, ended.rounds_done) == (ABORTED, 0)
    # Nothing was decided that anybody could appeal against.
    assert ended.final_block == world.blocks.number
    with boa.reverts("rounds: not in training"):
        job.tally([])


def test_a_decided_round_forgives_a_void_one(world: World) -> None:
    job = make_job(world)
    split(job)
    split(job)
    job.decide_round()
    split(job)
    split(job)
    assert job.outcome == 0
    assert job.ballot.round_index == 3


def test_nobody_is_slashed_for_a_digest_of_an_undecided_attempt(world: World) -> None:
    job = make_job(world)
    split(job)
    world.blocks.mine(50)
    with boa.reverts("rounds: nobody to slash"):
        execute_slashes(job)
    assert all(locked(job, index) == 4 * ONE_ETHER for index in range(5))


def test_a_silent_ballot_goes_through_larger_sets_to_a_retry(world: World) -> None:
    job = Job(world, changes={"first_set_size": 4}).train()
    job.vote({})
    job.tally([])
    assert event(world.rounds, "MiniRoundOpened").mini == 1
    job.vote({})
    job.tally([])
    assert event(world.rounds, "AttemptOpened").attempt == 1


def test_a_ballot_that_nobody_counts_expires(world: World) -> None:
    job = make_job(world)
    deadline = job.ballot.open_end + 20
    expire(job)
    assert event(world.rounds, "RoundVoided").round_index == 0
    # Nothing was decided: there is no appeal to wait for.
    assert event(world.rounds, "AttemptOpened").seller_seed_block == deadline + 1
    expire(job)
    assert job.outcome == ABORTED


def test_a_decision_whose_header_nobody_brings_expires(world: World) -> None:
    job = make_job(world)
    withheld = Ballot(keccak(b"bytes that nobody knows"), HONEST_TRACE)
    job.vote(dict.fromkeys(range(5), withheld))
    with boa.reverts("rounds: header does not open the digest"):
        job.world.blocks.mine_past(job.ballot.open_end)
        job.tally([(0, withheld)], job.round_header())
    expire(job)
    assert event(world.rounds, "RoundVoided").round_index == 0


def test_wrong_and_unopened_votes_are_slashed_after_the_appeal_window(world: World) -> None:
    job = make_job(world, cones=7)
    decide_against(job, hostile=5, silent=6)
    decided = event(world.rounds, "RoundDecided")
    assert (decided.wrong, decided.unopened, decided.voters) == (1 << 5, 1 << 6, 0b11111)
    world.blocks.mine(2)
    with boa.reverts("rounds: nobody to slash"):
        execute_slashes(job)
    assert (locked(job, 5), locked(job, 6)) == (4 * ONE_ETHER, 4 * ONE_ETHER)

    world.blocks.mine()
    burned_wei = world.burned_wei
    execute_slashes(job)
    assert (locked(job, 5), locked(job, 6)) == (2 * ONE_ETHER, 2 * ONE_ETHER)
    assert world.burned_wei - burned_wei == 2 * ONE_ETHER
    for index in range(5):
        reward_wei = world.stakes.holding_of(job.cones[index].address).reward_wei
        assert reward_wei == 2 * ONE_ETHER // 5
    with boa.reverts("rounds: nobody to slash"):
        execute_slashes(job)
    assert locked(job, 5) == 2 * ONE_ETHER


def test_the_next_count_executes_what_is_due(world: World) -> None:
    job = make_job(world, cones=7)
    decide_against(job, hostile=5, silent=6)
    decide_against(job, hostile=4, silent=6)
    assert (locked(job, 4), locked(job, 5), locked(job, 6)) == (
        4 * ONE_ETHER,
        2 * ONE_ETHER,
        2 * ONE_ETHER,
    )


def test_who_cannot_pay_another_slash_votes_no_more(world: World) -> None:
    job = make_job(world, cones=7)
    decide_against(job, hostile=5, silent=6)
    decide_against(job, hostile=5, silent=6)
    world.blocks.mine(3)
    execute_slashes(job)
    assert (locked(job, 5), locked(job, 6)) == (0, 0)
    world.blocks.mine_past(job.ballot.seed_block)
    with boa.reverts("ballots: nothing recorded"):
        job.commit({5: WRONG, 6: WRONG})
    assert world.ballots.pool_of(1)[2] == 0b1100000


def test_not_opening_in_an_undecided_attempt_burns_stake_at_once(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    votes = {0: vote, 1: vote, 2: WRONG, 3: WRONG, 4: vote}
    job.vote(votes, silent=[4])
    burned_wei = world.burned_wei
    job.tally([(0, vote), (0, WRONG)])
    assert event(world.rounds, "AttemptUndecided").unopened == 1 << 4
    assert locked(job, 4) == 2 * ONE_ETHER
    assert world.burned_wei - burned_wei == 2 * ONE_ETHER
