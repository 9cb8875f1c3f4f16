"""Appeals: who calls the pool, when, and for what bond."""

from collections.abc import Mapping
from typing import Any

import boa
import pytest

from protocol.appeals import compute_appeal_bond
from protocol.params import ProtocolParams
from protocol.terms import JobTerms, Metric
from protocol.types import Wei
from tests.contracts.scenarios import (
    appeal,
    bond,
    contested,
    decide_by,
    event,
    hash_of,
    held,
    honest,
    hostile,
    make_job,
    parent_of,
    tally_pool,
    vote_wei,
)
from tests.contracts.world import (
    ETHER,
    NO_DATA,
    NO_PERMIT,
    PARAMS,
    STRANGER,
    Job,
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
        with boa.reverts("appeals: not of this job"):
            world.appeals.appeal(
                1, job.terms_list, job.course, is_seller, index, NO_PERMIT,
                value=bond(job), sender=job.cones[0].address,
            )  # fmt: skip
    assert not job.ballot.is_pool_called


def test_a_node_of_another_job_does_not_appeal(world: World) -> None:
    job, _, _ = contested(world)
    for other in (0, 2):
        with boa.reverts("appeals: not of this job"):
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


@pytest.mark.parametrize("delay", [1, 2, 7])
@pytest.mark.parametrize("late", [0, 3, 19])
def test_nothing_is_built_on_a_decision_that_can_still_be_checked(
    deployers: Mapping[str, Any], delay: int, late: int
) -> None:
    job = make_job(World(deployers, seed_delay_blocks=delay), 7, appeal_blocks=delay + 1)
    world = job.world
    header, vote = honest(job)
    job.vote(dict.fromkeys(range(3), vote))
    world.blocks.mine(late)
    job.tally([(0, vote)], header)
    appeal_end = event(world.rounds, "RoundDecided").appeal_end
    assert appeal_end == world.blocks.number + job.terms["appeal_blocks"]
    opened = event(world.rounds, "AttemptOpened")
    # No window of the next round closes, and no vote of it is taken, before the last appeal.
    assert opened.update_commit_end - job.terms["update_commit_blocks"] >= appeal_end
    assert opened.seed_block > appeal_end
    world.blocks.mine_to(appeal_end)
    appeal(job, 6)
    called = event(world.appeals, "PoolCalled")
    assert called.seed_block == appeal_end + delay
    job.vote({3: vote})
    tally_pool(job, [(0, vote), (1, vote)])
    assert job.ballot.seed_block > world.blocks.number


def test_votes_for_the_ballot_that_waits_are_not_taken(world: World) -> None:
    job, _, _ = contested(world)
    waiting = [job.signed_commit(index, NO_DATA) for index in range(3, 7)]
    assert job.ballot.ballot_number == 2
    appeal(job, 6)
    world.blocks.mine_past(job.ballot.seed_block)
    with boa.reverts("ballots: nothing recorded"):
        world.ballots.submit_commits(1, STRANGER, 0b1111000, waiting)
    # The element of the waiting ballot is none of the one that is open.
    number = job.ballot.ballot_number
    for index in range(3, 7):
        chain = job.chains[index]
        job.chains[index] = [*chain[:number], chain[number + 1], *chain[number + 1 :]]
    votes = dict.fromkeys(range(3, 7), NO_DATA)
    batch = job.commit(votes)
    with boa.reverts("ballots: nothing recorded"):
        job.open(votes, batch)


def test_two_jobs_at_once_are_not_mixed_up(world: World) -> None:
    first = make_job(world, 7)
    header, vote = honest(first)
    decide_by(first, range(3), header)
    world.blocks.mine_to(event(world.rounds, "RoundDecided").appeal_end)
    bond_wei = appeal(first, 6)
    second = make_job(world, 7)
    assert (first.number, second.number) == (1, 2)
    assert first.terms_list == second.terms_list
    for job, course in ((1, second.course), (2, first.course)):
        with boa.reverts("rounds: wrong course"):
            world.rounds.tally(job, first.terms_list, course, [], b"")
        with boa.reverts("rounds: wrong course"):
            world.rounds.expire(job, first.terms_list, course)
        with boa.reverts("rounds: wrong course"):
            world.appeals.appeal(
                job, first.terms_list, course, False, 6, NO_PERMIT,
                value=bond_wei, sender=first.cones[6].address,
            )  # fmt: skip
    # Signed for the one, refused by the other.
    world.blocks.mine_past(second.ballot.seed_block)
    foreign = first.signed_commit(4, vote)
    with boa.reverts("ballots: nothing recorded"):
        world.ballots.submit_commits(2, STRANGER, 1 << 4, [foreign])
    header, vote = honest(second)
    with boa.reverts("header: not of this round"):
        foreign_header = header.replace((2).to_bytes(32), (1).to_bytes(32), 1)
        decide_by(second, range(3), foreign_header)
    assert world.appeals.appeal_of(1).bond_wei == bond_wei
    assert world.appeals.appeal_of(2).bond_wei == 0


@pytest.mark.parametrize("first_set_size", [1, 7, 100])
@pytest.mark.parametrize("price_wei", [9 * 10**18, 10**19, 12_345_678_901_234_567_891])
def test_a_bond_is_what_python_computes(
    deployers: Mapping[str, Any], first_set_size: int, price_wei: int
) -> None:
    world = World(deployers)
    changes = {"first_set_size": first_set_size}
    job = Job(world, price_wei=price_wei, changes=changes)
    job.prepare().open_auction().close_auction()
    terms = JobTerms(**{**job.terms, "metric": Metric(job.terms["metric"])})
    for missing in (0, 1, 6):
        expected = compute_appeal_bond(
            Wei(job.price_wei), terms, ProtocolParams(**{**PARAMS, "token": bytes(20)}), missing
        )
        assert world.appeals.bond_of(1, job.terms_list, missing) == expected
