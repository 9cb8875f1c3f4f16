"""Appeals: who calls the pool, when, and for what bond."""

import boa
import pytest

from tests.contracts.scenarios import (
    appeal,
    bond,
    contested,
    decide_by,
    event,
    hash_of,
    held,
    hostile,
    make_job,
    parent_of,
    tally_pool,
    vote_wei,
)
from tests.contracts.world import (
    ETHER,
    NO_PERMIT,
    World,
)


def test_an_appeal_of_a_node_calls_the_rest_of_the_pool(world: World) -> None:
    job, _, _ = contested(world)
    resumed, parent = job.ballot, parent_of(job)
    appeal_end = world.blocks.number + 2
    assert event(world.rounds, "RoundDecided").appeal_end == appeal_end
    bond_wei = appeal(job, 6)
    assert bond_wei == 4 * vote_wei(job)
    opened = event(world.appeals, "AppealOpened")
    assert (opened.job, opened.appellant) == (1, job.cones[6].address)
    assert opened.bond_wei == bond_wei
    assert tuple(world.appeals.appeal_of(1)) == (job.cones[6].address, ETHER, bond_wei)
    assert world.balance(world.appeals.address) == held(job) == bond_wei

    called = event(world.appeals, "PoolCalled")
    assert (called.ballot_number, called.mini, called.is_audit) == (1, 1, False)
    # The windows follow from the end of the appeal window, whoever appealed when.
    assert called.seed_block == appeal_end + 1
    assert called.commit_end == called.seed_block + 3
    assert called.open_end == called.commit_end + 3
    ballot = job.ballot
    assert (ballot.ballot_number, ballot.round_index, ballot.m) == (1, 0, 1)
    assert ballot.is_pool_called
    assert (ballot.committed, ballot.opened) == (0b111, 0b111)
    assert resumed.ballot_number == 2
    assert hash_of(parent) == job.course[1]


def test_a_seller_appeals_too(world: World) -> None:
    job, _, _ = contested(world)
    bond_wei = appeal(job, 3, is_seller=True)
    assert tuple(world.appeals.appeal_of(1)) == (job.sellers[3].address, ETHER, bond_wei)


def test_only_members_of_the_job_appeal(world: World) -> None:
    job, _, _ = contested(world)
    outsiders = [
        (0, False, world.stranger),
        (0, True, world.stranger),
        (0, False, world.buyer),
        (1, False, job.cones[0]),
        (0, True, job.cones[0]),
        (0, False, job.sellers[0]),
    ]
    for index, is_seller, account in outsiders:
        with boa.reverts("appeals: not of this job"):
            appeal(job, index, is_seller=is_seller, sender=account.address)
    for index, is_seller in ((7, False), (5, True), (2**255, True)):
        with boa.reverts():
            world.appeals.appeal(
                1, job.terms_list, job.course, is_seller, index, NO_PERMIT,
                value=bond(job), sender=job.cones[0].address,
            )  # fmt: skip
    assert not job.ballot.is_pool_called


def test_a_node_of_another_job_does_not_appeal(world: World) -> None:
    job, _, _ = contested(world)
    for other in (0, 2):
        with boa.reverts():
            world.appeals.appeal(
                other, job.terms_list, job.course, False, 0, NO_PERMIT,
                value=bond(job), sender=job.cones[0].address,
            )  # fmt: skip


@pytest.mark.parametrize("difference", [-1, 1])
def test_an_appeal_brings_exactly_its_bond(world: World, difference: int) -> None:
    job, _, _ = contested(world)
    with boa.reverts("money: not the amount"):
        appeal(job, value=bond(job) + difference)
    assert not job.ballot.is_pool_called
    assert world.balance(world.appeals.address) == 0


def test_a_bond_is_at_least_the_smallest_unit_per_vote(world: World) -> None:
    job = make_job(world)
    poor = (1000, *job.terms_list[1:])
    assert world.appeals.bond_of(1, job.terms_list, 3) == 3 * vote_wei(job)
    assert world.appeals.bond_of(2, poor, 3) == 3


def test_an_appeal_is_taken_in_its_window_only(world: World) -> None:
    job = make_job(world, 7)
    with boa.reverts("rounds: no decision to check"):
        appeal(job, value=0)
    decide_by(job, range(3), hostile(job))
    last = world.blocks.number + 2
    world.blocks.mine_to(last + 1)
    with boa.reverts("rounds: appeal window closed"):
        appeal(job)
    world.blocks.mine_to(last)
    appeal(job)


def test_a_decision_is_checked_once(world: World) -> None:
    job, vote, lie = contested(world)
    appeal(job, 6)
    with boa.reverts("rounds: checked already"):
        appeal(job, 5)
    with boa.reverts("rounds: checked already"):
        appeal(job, 6)
    job.vote(dict.fromkeys(range(3, 7), vote))
    tally_pool(job, [(0, lie), (1, vote)], job.round_header())
    # The new decision is that of the whole pool: nobody calls it again, not even at once.
    with boa.reverts("rounds: checked already"):
        appeal(job, 0)


def test_when_everybody_has_voted_there_is_nobody_to_call(world: World) -> None:
    job = make_job(world)
    job.decide_round()
    with boa.reverts("rounds: everybody has voted"):
        appeal(job, 0)


def test_an_appeal_brings_the_course_and_the_terms_of_its_job(world: World) -> None:
    job, _, _ = contested(world)
    for terms, course, reason in (
        (job.terms_list, parent_of(job), "rounds: wrong course"),
        ((7, *job.terms_list[1:]), job.course, "rounds: wrong terms"),
    ):
        with boa.reverts(reason):
            world.appeals.appeal(
                1, terms, course, False, 0, NO_PERMIT,
                value=bond(job), sender=job.cones[0].address,
            )  # fmt: skip
