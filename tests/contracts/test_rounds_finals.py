"""Rounds: final evaluations and the end of a training."""

from collections.abc import Callable

import boa
import pytest
from eth_utils.crypto import keccak

from tests.contracts.scenarios import (
    REACHED,
    event,
    expire,
    make_job,
    reach,
    split,
)
from tests.contracts.world import Job, World

TARGET, ENDED = 1, 2


def test_two_rounds_at_the_target_open_a_final(world: World) -> None:
    job = make_job(world)
    job.decide_round(REACHED)
    job.decide_round(1)
    job.decide_round(REACHED)
    base = job.ballot.open_end + 1
    job.decide_round(REACHED)
    opened = event(world.rounds, "AttemptOpened")
    assert (opened.kind, opened.round_index, opened.seller_seed_block) == (1, 3, 0)
    # The decision window, then the appeal window, then the one for the final data.
    assert opened.availability_end == world.blocks.number + 2 + 7
    assert world.blocks.number == base
    assert job.mini == 1 << 32


def test_rounds_with_a_void_one_between_them_are_not_in_a_row(world: World) -> None:
    job = make_job(world)
    job.decide_round(REACHED)
    split(job)
    split(job)
    job.decide_round(REACHED)
    assert (job.ballot.kind, job.ballot.round_index) == (0, 3)
    job.decide_round(REACHED)
    assert job.ballot.kind == 1


def test_a_final_at_the_target_ends_the_job(world: World) -> None:
    job = reach(make_job(world))
    header = job.final_vote(REACHED)
    job.submit_receipts(1)
    job.decide(header)
    decided = event(world.rounds, "FinalDecided")
    assert (decided.round_index, decided.digest) == (1, keccak(header))
    assert (decided.initial_utility, decided.utility) == (90_000, REACHED)
    ended = event(world.rounds, "TrainingEnded")
    assert (ended.outcome, ended.rounds_done) == (TARGET, 2)
    assert (ended.initial_utility, ended.last_utility) == (90_000, REACHED)
    assert ended.model_digest == job.model_digest(1)
    assert ended.credit_sum == 4
    assert ended.final_block == world.blocks.number + 2
    assert job.result.participation == [3] * 5
    assert job.result.is_final_evaluated


def test_a_final_below_the_target_sends_the_job_on(world: World) -> None:
    job = reach(make_job(world))
    job.decide_final(REACHED - 1)
    assert (job.ballot.kind, job.ballot.round_index) == (0, 2)
    job.decide_round(REACHED)
    assert job.ballot.kind == 0


def test_after_the_last_round_a_final_below_the_target_ends_the_job(world: World) -> None:
    job = make_job(world, rounds_max=1)
    job.decide_round()
    assert job.ballot.kind == 1
    job.decide_final(500_000)
    ended = event(world.rounds, "TrainingEnded")
    assert (ended.outcome, ended.initial_utility, ended.last_utility) == (ENDED, 90_000, 500_000)


def test_finals_are_limited_but_for_the_last(world: World) -> None:
    job = make_job(world, rounds_max=10)
    for _ in range(3):
        reach(job)
        assert job.ballot.kind == 1
        job.decide_final(0)
    job.decide_round(REACHED)
    job.decide_round(REACHED)
    assert (job.ballot.kind, job.ballot.round_index) == (0, 8)
    job.decide_round(REACHED)
    job.decide_round(REACHED)
    assert (job.ballot.kind, job.ballot.round_index) == (1, 9)


def count_final(job: Job) -> None:
    job.world.blocks.mine_past(job.ballot.open_end)
    job.tally([])


@pytest.mark.parametrize("close", [count_final, expire])
def test_final_data_that_the_buyer_does_not_serve_count_as_reached(
    world: World, close: Callable[[Job], None]
) -> None:
    job = reach(make_job(world))
    job.submit_receipts(1, [0, 1])
    close(job)
    ended = event(world.rounds, "TrainingEnded")
    assert (ended.outcome, ended.initial_utility, ended.last_utility) == (
        TARGET,
        100_000,
        REACHED,
    )


def test_receipts_of_the_final_data_are_taken_until_availability_ends(world: World) -> None:
    job = reach(make_job(world))
    job.submit_receipts(1, [0])
    world.blocks.mine_past(job.ballot.availability_end)
    with boa.reverts("statements: receipts not open"):
        job.submit_receipts(1, [1])


def test_an_undecided_final_is_retried_and_then_not_reached(world: World) -> None:
    job = reach(make_job(world))
    job.submit_receipts(1)
    job.vote({})
    job.tally([])
    assert (job.ballot.kind, job.ballot.attempt, job.ballot.round_index) == (1, 1, 1)
    job.vote({})
    job.tally([])
    assert (job.ballot.kind, job.ballot.round_index) == (0, 2)


def test_an_expired_final_after_the_last_round_ends_with_the_rounds_evidence(world: World) -> None:
    job = make_job(world, rounds_max=2)
    job.decide_round(300_000)
    job.decide_round(400_000)
    job.submit_receipts(1)
    expire(job)
    ended = event(world.rounds, "TrainingEnded")
    assert (ended.outcome, ended.initial_utility, ended.last_utility) == (ENDED, 100_000, 400_000)


def test_a_void_last_round_leads_to_a_final_of_the_last_decided_model(world: World) -> None:
    job = make_job(world, rounds_max=2)
    job.decide_round(300_000)
    split(job)
    split(job)
    assert (job.ballot.kind, job.ballot.round_index) == (1, 0)
    job.decide_final(350_000)
    ended = event(world.rounds, "TrainingEnded")
    assert (ended.outcome, ended.rounds_done, ended.last_utility) == (ENDED, 1, 350_000)


def test_a_model_is_not_evaluated_twice(world: World) -> None:
    job = reach(make_job(world, rounds_max=3))
    job.decide_final(700_000)
    split(job)
    split(job)
    ended = event(world.rounds, "TrainingEnded")
    assert (ended.outcome, ended.initial_utility, ended.last_utility) == (ENDED, 90_000, 700_000)


def test_void_rounds_alone_end_without_a_model(world: World) -> None:
    job = make_job(world, rounds_max=1)
    split(job)
    split(job)
    ended = event(world.rounds, "TrainingEnded")
    assert (ended.outcome, ended.rounds_done, ended.model_digest) == (ENDED, 0, bytes(32))


def test_a_final_of_another_model_is_refused(world: World) -> None:
    job = reach(make_job(world))
    job.submit_receipts(1)
    header = job.final_vote(REACHED).replace(job.model_digest(1), job.model_digest(0))
    with boa.reverts("header: not of this final"):
        job.decide(header)


def test_a_final_that_failed_does_not_speak_with_the_numbers_of_an_earlier_one(
    world: World,
) -> None:
    job = reach(make_job(world, rounds_max=3))
    job.decide_final(700_000)
    job.decide_round(800_000)
    assert (job.ballot.kind, job.ballot.round_index) == (1, 2)
    assert not job.result.is_final_evaluated
    expire(job)
    ended = event(world.rounds, "TrainingEnded")
    assert (ended.outcome, ended.initial_utility, ended.last_utility) == (ENDED, 100_000, 800_000)
    assert not job.result.is_final_evaluated
