"""Rounds: audits, by which chance calls the whole pool to a decision."""

from collections.abc import Callable, Mapping
from typing import Any

import boa
import pytest

from tests.contracts import reference
from tests.contracts.blocks import beacon_value, header_of
from tests.contracts.scenarios import (
    REACHED,
    appeal,
    audit,
    decide_by,
    event,
    events,
    execute_slashes,
    expire,
    honest,
    hostile,
    locked,
    make_job,
    parent_of,
    reach,
    tally_pool,
)
from tests.contracts.world import CHAIN, HONEST_TRACE, ONE_ETHER, Ballot, Job, World


@pytest.fixture
def always(deployers: Mapping[str, Any], clean_chain: None) -> World:
    """A deployment in which every decision is audited."""
    return World(deployers, audit_bps=10_000)


def seed_of(job: Job, mini: int = 0) -> int:
    """What decides whether the last decision is audited."""
    number = (job.course[8] >> 200) + job.world.params["seed_delay_blocks"]
    round_index = (job.course[8] >> 24) & 0xFFFF
    return int.from_bytes(
        reference.tagged(
            "audit", CHAIN, job.world.market_raw, job.number, round_index, mini,
            beacon_value(number),
        )
    )  # fmt: skip


def test_an_audit_calls_the_rest_of_the_pool_without_a_bond(always: World) -> None:
    job = make_job(always, 7)
    _, vote = honest(job)
    lie = decide_by(job, range(3), hostile(job))
    audit(job)
    called = event(always.rounds, "PoolCalled")
    assert (called.ballot_number, called.mini, called.is_audit) == (1, 1, True)
    assert always.appeals.appeal_of(1).bond_wei == 0
    job.vote(dict.fromkeys(range(3, 7), vote))
    tally_pool(job, [(0, lie), (1, vote)], job.round_header())
    assert "DecisionOverturned" in events(always.rounds)
    # Nobody appealed, so nobody has anything back.
    assert "AppealResolved" not in events(always.rounds)
    always.blocks.mine()
    execute_slashes(job)
    assert [locked(job, i) for i in range(3)] == [2 * ONE_ETHER] * 3


def test_an_audit_pays_those_it_called_as_voters(always: World) -> None:
    job = make_job(always, 7)
    header, vote = honest(job)
    decide_by(job, range(3), header)
    audit(job)
    job.vote({3: vote, 4: vote})
    tally_pool(job, [(0, vote), (1, vote)])
    assert "AppealResolved" not in events(always.rounds)
    assert job.result.participation == [1, 1, 1, 1, 1, 0, 0]
    assert always.balance(always.appeals.address) == 0


def test_an_audit_that_nobody_counts_lets_the_decision_stand(always: World) -> None:
    job = make_job(always, 7)
    header, vote = honest(job)
    decide_by(job, range(3), header)
    audit(job)
    expire(job)
    assert event(always.rounds, "DecisionUpheld").digest == vote.digest
    assert "AppealResolved" not in events(always.rounds)
    assert (job.ballot.ballot_number, job.ballot.round_index) == (2, 1)


def test_without_audits_no_seed_calls_the_pool(deployers: Mapping[str, Any]) -> None:
    job = make_job(World(deployers, audit_bps=0), 7)
    for _ in range(3):
        header, vote = honest(job)
        decide_by(job, range(3), header)
        with boa.reverts("rounds: no audit of this decision"):
            audit(job)
        job.previous_digest = vote.digest
        job.credits = [v + (1 if i < 2 else 0) for i, v in enumerate(job.credits)]


@pytest.mark.parametrize("distance", [0, 1])
def test_an_audit_is_drawn_by_its_seed(deployers: Mapping[str, Any], distance: int) -> None:
    # The same deployment twice but for the probability: just enough, and just too little.
    with boa.env.anchor():
        probe = make_job(World(deployers, audit_bps=5000), 7)
        decide_by(probe, range(3), hostile(probe))
        draw = seed_of(probe) % 10_000
    job = make_job(World(deployers, audit_bps=draw + 1 - distance), 7)
    decide_by(job, range(3), hostile(job))
    assert seed_of(job) % 10_000 == draw
    if distance == 0:
        audit(job)
        assert job.ballot.is_pool_called
    else:
        with boa.reverts("rounds: no audit of this decision"):
            audit(job)


def test_an_audit_needs_the_header_of_its_block(always: World) -> None:
    job = make_job(always, 7)
    header, _ = honest(job)
    decide_by(job, range(3), header)
    number = (job.course[8] >> 200) + 1
    with boa.reverts("header: block not mined"):
        always.rounds.audit(1, job.terms_list, job.course, header_of(number))
    always.blocks.mine_past(number)
    for wrong in (b"", header_of(number - 1), header_of(number + 1)):
        with boa.reverts("header: not of this block"):
            always.rounds.audit(1, job.terms_list, job.course, wrong)
    audit(job)


def test_an_audit_is_taken_in_the_appeal_window_only(always: World) -> None:
    job = make_job(always, 7)
    with boa.reverts("rounds: no decision to check"):
        always.rounds.audit(1, job.terms_list, job.course, header_of(1))
    header, _ = honest(job)
    decide_by(job, range(3), header)
    last = always.blocks.number + 2
    always.blocks.mine_to(last + 1)
    with boa.reverts("rounds: appeal window closed"):
        audit(job)
    always.blocks.mine_to(last)
    audit(job)


@pytest.mark.parametrize("check", [audit, appeal])
def test_a_decision_is_checked_by_an_audit_or_an_appeal_but_not_by_both(
    always: World, check: Callable[[Job], Any]
) -> None:
    job = make_job(always, 7)
    header, _ = honest(job)
    decide_by(job, range(3), header)
    check(job)
    with boa.reverts("rounds: checked already"):
        appeal(job, 6)
    with boa.reverts("rounds: checked already"):
        audit(job)


def test_when_everybody_has_voted_there_is_nothing_to_audit(always: World) -> None:
    job = make_job(always)
    job.decide_round()
    with boa.reverts("rounds: everybody has voted"):
        audit(job)


def test_an_audit_of_the_final_that_ended_a_job(always: World) -> None:
    job = reach(make_job(always, 7))
    job.submit_receipts(1)
    vote = decide_by(job, range(3), job.final_vote(REACHED))
    assert job.outcome == 1
    audit(job)
    with boa.reverts("rounds: the pool is called"):
        always.settlement.settle(1, job.terms_list, job.course, job.leaves)
    job.vote({3: vote, 5: vote})
    tally_pool(job, [(0, vote), (1, vote)])
    assert job.outcome == 1
    job.settle()
    assert always.market.is_closed(1)


def test_a_later_mini_round_is_audited_with_all_votes_of_its_attempt(always: World) -> None:
    job = Job(always, cone_count=8, changes={"first_set_size": 4, "lead": 5}).train()
    header = job.round_header()
    vote = Ballot(reference.keccak(header), HONEST_TRACE)
    groups: list[tuple[int, Ballot]] = []
    while job.ballot.ballot_number == 1:
        drawn = job.drawn()[: 5 - job.ballot.opened.bit_count()]
        if drawn:
            groups.append((job.ballot.m, vote))
        job.vote(dict.fromkeys(drawn, vote))
        m = job.ballot.m
        job.tally(groups, header)
    assert m > 0, "another seed is needed for this test"
    audit(job)
    assert job.ballot.m == m + 1
    rest = job.drawn()
    assert rest == [i for i in range(8) if not (job.ballot.opened >> i) & 1]
    job.vote(dict.fromkeys(rest, vote))
    tally_pool(job, [*groups, (m + 1, vote)])
    assert event(always.rounds, "DecisionUpheld").votes == 8
    assert job.result.participation == [1] * 8


def test_an_audit_brings_the_course_and_the_terms_of_its_job(always: World) -> None:
    job = make_job(always, 7)
    header, _ = honest(job)
    decide_by(job, range(3), header)
    number = (job.course[8] >> 200) + 1
    always.blocks.mine_past(number)
    with boa.reverts("rounds: wrong course"):
        always.rounds.audit(1, job.terms_list, parent_of(job), header_of(number))
    with boa.reverts("rounds: wrong course"):
        always.rounds.audit(2, job.terms_list, job.course, header_of(number))
    with boa.reverts("rounds: wrong terms"):
        always.rounds.audit(1, (7, *job.terms_list[1:]), job.course, header_of(number))
