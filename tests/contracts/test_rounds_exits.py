"""Rounds: block numbers alone end every job, whatever its members and its buyer do."""

from collections.abc import Callable

import pytest

from tests.contracts.scenarios import (
    REACHED,
    WRONG,
    appeal,
    contested,
    decide_by,
    expire,
    hostile,
    make_job,
    reach,
    split,
)
from tests.contracts.world import ETHER, Job, World


def in_validation(world: World) -> Job:
    return Job(world).prepare().open_auction().close_auction().enrol().close_enrolment()


def in_served_validation(world: World) -> Job:
    return in_validation(world).submit_receipts(0)


def in_a_round(world: World) -> Job:
    return make_job(world)


def with_commitments(world: World) -> Job:
    job = make_job(world)
    job.commit(dict.fromkeys(range(4), WRONG))
    return job


def with_openings(world: World) -> Job:
    job = make_job(world)
    votes = dict.fromkeys(range(4), WRONG)
    job.open(votes, job.commit(votes), silent=[2])
    return job


def in_a_retry(world: World) -> Job:
    job = make_job(world)
    split(job)
    return job


def in_a_larger_set(world: World) -> Job:
    job = Job(world, changes={"first_set_size": 4}).train()
    job.vote({})
    job.tally([])
    return job


def after_a_decision(world: World) -> Job:
    job = make_job(world, 7)
    decide_by(job, range(3), hostile(job))
    return job


def with_a_called_pool(world: World) -> Job:
    job, _, _ = contested(world)
    appeal(job, 6)
    return job


def with_votes_in_a_called_pool(world: World) -> Job:
    job = with_a_called_pool(world)
    job.commit({3: WRONG, 4: WRONG})
    return job


def in_a_final(world: World) -> Job:
    return reach(make_job(world))


def in_a_served_final(world: World) -> Job:
    return reach(make_job(world)).submit_receipts(1)


def after_a_final(world: World) -> Job:
    job = reach(make_job(world, 7)).submit_receipts(1)
    decide_by(job, range(3), job.final_vote(REACHED))
    return job


def with_a_pool_called_to_a_final(world: World) -> Job:
    job = after_a_final(world)
    appeal(job, 6)
    return job


PHASES = [
    in_validation, in_served_validation, in_a_round, with_commitments, with_openings, in_a_retry,
    in_a_larger_set, after_a_decision, with_a_called_pool, with_votes_in_a_called_pool, in_a_final,
    in_a_served_final, after_a_final, with_a_pool_called_to_a_final,
]  # fmt: skip


def run_out(job: Job) -> int:
    """Let a stranger make every call that block numbers allow; returns how many it took."""
    world, calls = job.world, 0
    if world.ballots.current(1) != 0 and job.ballot.ballot_number == 0:
        job.start_training()
        calls += 1
    while job.ballot.ballot_number > 0:
        expire(job)
        calls += 1
    return calls


@pytest.mark.parametrize("reach_phase", PHASES)
def test_time_alone_ends_and_settles_a_job(
    world: World, reach_phase: Callable[[World], Job]
) -> None:
    job = reach_phase(world)
    # A void round counts against the next one, so few calls are enough.
    assert run_out(job) <= 5
    assert job.outcome > 0
    world.blocks.mine_past(job.result.final_block)
    # Nobody may know the credits of a decision by hostile nodes; then equal shares are due later.
    world.blocks.mine(job.world.params["max_window_blocks"] + 1)
    world.settlement.settle(1, job.terms_list, job.course, [], sender=world.stranger.address)
    assert world.market.is_closed(1)
    for cone in job.cones:
        if world.stakes.lock_of(1, cone.address).remaining_wei > 0:
            world.stakes.release(1, cone.address)
    assert sum(world.stakes.lock_of(1, cone.address).remaining_wei for cone in job.cones) == 0
    owed = sum(int(world.appeals.withdrawable(ETHER, cone.address)) for cone in job.cones)
    assert world.balance(world.appeals.address) == owed
