"""What a CONE node does about a decision: it appeals, audits by chance, and sees slashes done."""

from dataclasses import replace

import numpy as np
import pytest
import trio

from d2m_node.calls import AppealDecision, ApproveToken, AuditDecision, ExecuteSlashes
from d2m_node.roles.checks import check_decision, execute_slashes
from d2m_node.roles.vote import Finding
from protocol.events import CourseChanged, DecisionUpheld
from protocol.hashing import keccak
from protocol.round import BallotResult
from protocol.types import NO_DIGEST, Address, Digest, Wei
from tests.support.check_events import events_of_call
from tests.support.decided import (
    BEFORE,
    DIGEST,
    course_after,
    decide_first_round,
    find_randomness,
    plan_slashes,
    record_votes,
)
from tests.support.job import CONES, JOB, OPENED, TERMS, Cast

DECIDED = OPENED.open_end + 1
SEED_BLOCK = OPENED.open_end + 1
"""Of the audit: as far behind the last opening as every seed is behind its deadline."""
TOKEN = Address(b"\x77" * 20)
FIRST_TURN = 2
"""Who comes first in the order of the pool for this ballot of this job."""
VOTED = (0, 1)


@pytest.fixture
def cast() -> Cast:
    """A job in its first round, which chance will not audit."""
    started = Cast()
    started.start()
    started.market.randomness[SEED_BLOCK] = find_randomness(False)
    job = replace(started.market.state.jobs[JOB], price_wei=Wei(3000))
    started.market.state = replace(started.market.state, jobs={JOB: job})
    return started


def found(digest: Digest) -> Finding:
    return Finding(BallotResult(digest=digest, opening=b"", logits=np.zeros(0, np.int64)), 0)


OTHER = found(keccak(b"another digest"))
EQUAL = found(DIGEST)


async def decide(cast: Cast, window: int = 6, voted: tuple[int, ...] = VOTED) -> int:
    """Let some nodes have decided the first round; return the last block for appeals."""
    await cast.market.mine_to(DECIDED)
    record_votes(cast, voted)
    decide_first_round(cast, DIGEST, appeal_end=DECIDED + window)
    return DECIDED + window


async def check(cast: Cast, index: int, finding: Finding | None, nursery: trio.Nursery) -> None:
    """Let one node look at the decision."""
    seat = await cast.take_seat(index, nursery)
    ballot = cast.market.state.jobs[JOB].decided[-1].ballot
    nursery.start_soon(check_decision, seat, ballot, finding)


# --- appeals


async def test_a_node_that_found_another_digest_appeals_with_the_bond_of_the_missing_votes(
    cast: Cast, nursery: trio.Nursery
) -> None:
    appeal_end = await decide(cast)
    await check(cast, FIRST_TURN, OTHER, nursery)
    await cast.market.mine_to(appeal_end + 10)
    ((sender, call),) = cast.market.calls
    assert sender == cast.cones[FIRST_TURN].signer.address
    assert call == AppealDecision(
        job=JOB,
        terms=TERMS,
        course=course_after(DIGEST),
        is_seller=False,
        index=FIRST_TURN,
        permits=(),
        value_wei=Wei(3 * (900 // 30)),
    )
    job = cast.market.state.jobs[JOB]
    assert job.ballot is not None
    assert job.ballot.is_pool_called


@pytest.mark.parametrize(
    "finding", [EQUAL, Finding(None, 0b1), None], ids=["it agrees", "it lacked data", "no result"]
)
async def test_a_node_without_another_digest_does_not_appeal(
    cast: Cast, nursery: trio.Nursery, finding: Finding | None
) -> None:
    appeal_end = await decide(cast)
    await check(cast, FIRST_TURN, finding, nursery)
    await cast.market.mine_to(appeal_end + 10)
    assert cast.market.calls == []


@pytest.mark.parametrize("index", range(CONES))
async def test_every_rank_has_its_turn_in_a_window_of_two_blocks(
    cast: Cast, nursery: trio.Nursery, index: int
) -> None:
    appeal_end = await decide(cast, window=2)
    await check(cast, index, OTHER, nursery)
    await cast.market.mine_to(appeal_end)
    (call,) = cast.market.sent(AppealDecision)
    assert call.index == index


@pytest.mark.parametrize("window", [2, 6])
async def test_of_all_that_differ_the_chain_needs_one(
    cast: Cast, nursery: trio.Nursery, window: int
) -> None:
    appeal_end = await decide(cast, window)
    for index in range(CONES):
        await check(cast, index, OTHER, nursery)
    await cast.market.mine_to(appeal_end + 10)
    senders = {call.index for call in cast.market.sent(AppealDecision)}
    # With no block for turns all send at once, and all but one are refused.
    assert senders == ({FIRST_TURN} if window == 6 else set(range(CONES)))
    appeal = cast.market.state.jobs[JOB].appeal
    assert appeal is not None
    assert appeal.bond_wei == 90


async def test_the_next_in_turn_appeals_if_the_first_is_silent(
    cast: Cast, nursery: trio.Nursery
) -> None:
    appeal_end = await decide(cast)
    for index in set(range(CONES)) - {FIRST_TURN}:
        await check(cast, index, OTHER, nursery)
    await cast.market.mine_to(appeal_end)
    assert [call.index for call in cast.market.sent(AppealDecision)] == [FIRST_TURN + 1]


async def test_nobody_appeals_against_a_decision_that_cannot_fall(
    cast: Cast, nursery: trio.Nursery
) -> None:
    # Two are missing, and an absolute majority of five has voted for the decision.
    appeal_end = await decide(cast, voted=(0, 1, 2))
    await check(cast, FIRST_TURN, OTHER, nursery)
    await cast.market.mine_to(appeal_end + 10)
    assert cast.market.calls == []


async def test_nobody_appeals_when_all_have_voted(cast: Cast, nursery: trio.Nursery) -> None:
    appeal_end = await decide(cast, voted=tuple(range(CONES)))
    await check(cast, FIRST_TURN, OTHER, nursery)
    await cast.market.mine_to(appeal_end + 2)
    assert cast.market.calls == []


@pytest.mark.parametrize(("blocks_left", "appeals"), [(1, 1), (0, 0)])
async def test_an_appeal_is_sent_within_its_window_and_not_after_it(
    cast: Cast, nursery: trio.Nursery, blocks_left: int, appeals: int
) -> None:
    appeal_end = await decide(cast)
    await cast.market.mine_to(appeal_end - blocks_left)
    await check(cast, FIRST_TURN, OTHER, nursery)
    await cast.market.mine_to(appeal_end + 2)
    assert len(cast.market.sent(AppealDecision)) == appeals


@pytest.mark.parametrize("finding", [OTHER, EQUAL])
async def test_a_pool_that_is_called_is_not_called_again(
    cast: Cast, nursery: trio.Nursery, finding: Finding
) -> None:
    cast.market.randomness[SEED_BLOCK] = find_randomness(True)
    appeal_end = await decide(cast)
    cast.market.apply(*events_of_call(cast.market.state.jobs[JOB], is_audit=False))
    await check(cast, FIRST_TURN, finding, nursery)
    await cast.market.mine_to(appeal_end)
    assert cast.market.calls == []


async def test_a_decision_that_the_whole_pool_made_is_not_checked_again(
    cast: Cast, nursery: trio.Nursery
) -> None:
    appeal_end = await decide(cast)
    cast.market.apply(*events_of_call(cast.market.state.jobs[JOB], is_audit=False))
    seat = await cast.take_seat(FIRST_TURN, nursery)
    called = seat.job.ballot
    assert called is not None
    cast.market.apply(
        DecisionUpheld(
            job=JOB, ballot_number=1, digest=DIGEST, votes=3, voters=0b111, wrong=0, unopened=0
        ),
        CourseChanged(job=JOB, course=replace(BEFORE, decision=DIGEST)),
    )
    await check_decision(seat, called, OTHER)
    await cast.market.mine_to(appeal_end)
    assert cast.market.calls == []


@pytest.mark.parametrize("index", range(CONES))
async def test_in_a_token_the_allowance_comes_first_and_both_fit_into_two_blocks(
    cast: Cast, nursery: trio.Nursery, index: int
) -> None:
    job = replace(cast.market.state.jobs[JOB], currency=TOKEN)
    cast.market.state = replace(cast.market.state, jobs={JOB: job})
    appeal_end = await decide(cast, window=2)
    await check(cast, index, OTHER, nursery)
    await cast.market.mine_to(appeal_end)
    allowed, appealed = (call for _, call in cast.market.calls)
    assert allowed == ApproveToken(spender="Appeals", amount_wei=Wei(90))
    assert isinstance(appealed, AppealDecision)
    assert appealed.value_wei == 0
    assert cast.market.state.jobs[JOB].appeal is not None


# --- audits


@pytest.mark.parametrize("finding", [EQUAL, Finding(None, 0b1), None])
async def test_a_decision_is_audited_if_chance_says_so(
    cast: Cast, nursery: trio.Nursery, finding: Finding | None
) -> None:
    cast.market.randomness[SEED_BLOCK] = find_randomness(True)
    appeal_end = await decide(cast)
    await check(cast, FIRST_TURN, finding, nursery)
    await cast.market.mine_to(appeal_end + 10)
    assert cast.market.sent(AuditDecision) == [
        AuditDecision(
            job=JOB,
            terms=TERMS,
            course=course_after(DIGEST),
            header=b"header" + SEED_BLOCK.to_bytes(8, "big"),
        )
    ]
    assert len(cast.market.calls) == 1


@pytest.mark.parametrize(("late", "silent"), [(0, 0), (0, 1), (2, 0), (2, 1)])
async def test_nodes_take_turns_at_an_audit_however_late_the_decision_came(
    cast: Cast, nursery: trio.Nursery, late: int, silent: int
) -> None:
    cast.market.randomness[SEED_BLOCK] = find_randomness(True)
    await cast.market.mine_to(DECIDED + late)
    record_votes(cast, VOTED)
    decide_first_round(cast, DIGEST, appeal_end=DECIDED + late + 6)
    order = [(FIRST_TURN + rank) % CONES for rank in range(CONES)]
    for index in order[silent:]:
        await check(cast, index, EQUAL, nursery)
    await cast.market.mine_to(DECIDED + late + 16)
    ((sender, _),) = cast.market.calls
    assert sender == cast.cones[order[silent]].signer.address


@pytest.mark.parametrize(("blocks_left", "audits"), [(1, 1), (0, 0)])
async def test_an_audit_is_sent_within_the_window_and_not_after_it(
    cast: Cast, nursery: trio.Nursery, blocks_left: int, audits: int
) -> None:
    cast.market.randomness[SEED_BLOCK] = find_randomness(True)
    appeal_end = await decide(cast)
    await cast.market.mine_to(appeal_end - blocks_left)
    await check(cast, FIRST_TURN, EQUAL, nursery)
    await cast.market.mine_to(appeal_end + 10)
    assert len(cast.market.sent(AuditDecision)) == audits


async def test_nobody_audits_when_all_have_voted(cast: Cast, nursery: trio.Nursery) -> None:
    cast.market.randomness[SEED_BLOCK] = find_randomness(True)
    appeal_end = await decide(cast, voted=tuple(range(CONES)))
    await check(cast, FIRST_TURN, EQUAL, nursery)
    await cast.market.mine_to(appeal_end)
    assert cast.market.calls == []


# --- slashes


async def plan(cast: Cast, nursery: trio.Nursery, due: int) -> None:
    """Let all nodes see to slashes, and let some be due."""
    for index in range(CONES):
        nursery.start_soon(execute_slashes, await cast.take_seat(index, nursery))
    course = replace(BEFORE, slashes=plan_slashes([1], [3], due))
    cast.market.apply(CourseChanged(job=JOB, course=course))


async def test_slashes_are_carried_out_once_when_they_are_due_and_not_before(
    cast: Cast, nursery: trio.Nursery
) -> None:
    await plan(cast, nursery, due=4)
    course = cast.market.state.jobs[JOB].course
    await cast.market.mine_to(4)
    assert cast.market.calls == []
    await cast.market.mine()
    assert cast.market.sent(ExecuteSlashes) == [ExecuteSlashes(job=JOB, course=course)]
    await cast.market.mine(10)
    assert len(cast.market.calls) == 1


async def test_without_anybody_to_slash_nobody_sends_anything(
    cast: Cast, nursery: trio.Nursery
) -> None:
    await plan(cast, nursery, due=4)
    cast.market.apply(CourseChanged(job=JOB, course=BEFORE))
    await cast.market.mine(10)
    assert cast.market.calls == []


async def test_nobody_is_slashed_while_the_pool_is_called(
    cast: Cast, nursery: trio.Nursery
) -> None:
    record_votes(cast, VOTED)
    slashes = plan_slashes([1], [3], 4)
    decide_first_round(cast, DIGEST, appeal_end=4, slashes=slashes)
    for index in range(CONES):
        nursery.start_soon(execute_slashes, await cast.take_seat(index, nursery))
    await cast.market.mine_to(3)
    cast.market.apply(*events_of_call(cast.market.state.jobs[JOB], is_audit=True))
    await cast.market.mine(20)
    assert cast.market.calls == []
    # It stood: what was planned is due in the block that says so.
    slashes = plan_slashes([1], [3], cast.market.state.block_number + 1)
    upheld = replace(course_after(DIGEST), slashes=slashes, parent=NO_DIGEST)
    cast.market.apply(CourseChanged(job=JOB, course=upheld))
    await cast.market.mine(10)
    assert cast.market.sent(ExecuteSlashes) == [ExecuteSlashes(job=JOB, course=upheld)]


async def test_the_slashes_of_the_next_decision_are_carried_out_as_well(
    cast: Cast, nursery: trio.Nursery
) -> None:
    await plan(cast, nursery, due=4)
    await cast.market.mine_to(10)
    later = replace(BEFORE, slashes=plan_slashes([2], [], 14))
    cast.market.apply(CourseChanged(job=JOB, course=later))
    await cast.market.mine_to(14)
    assert len(cast.market.calls) == 1
    await cast.market.mine_to(30)
    first, second = cast.market.sent(ExecuteSlashes)
    assert (first.course.slashes, second.course) == (plan_slashes([1], [3], 4), later)


async def test_the_next_in_turn_carries_slashes_out_if_the_first_is_silent(
    cast: Cast, nursery: trio.Nursery
) -> None:
    course = replace(BEFORE, slashes=plan_slashes([1], [], 4))
    cast.market.apply(CourseChanged(job=JOB, course=course))
    seats = [await cast.take_seat(index, nursery) for index in range(CONES)]
    ranks = {seat.rank(4): seat for seat in seats}
    for rank in (1, 2):
        nursery.start_soon(execute_slashes, ranks[rank])
    await cast.market.mine_to(5)
    assert cast.market.calls == []
    await cast.market.mine_to(20)
    assert [sender for sender, _ in cast.market.calls] == [ranks[1].ports.signer.address]
