"""Roles that drain: nothing new, the round to its end, and everybody's money home."""

from functools import partial

import pytest
import trio

from d2m_node.calls import (
    ContractCall,
    DepositStake,
    EnrolCone,
    EnrolSeller,
    ReclaimDeposit,
    ReleaseStake,
    RequestUnbond,
    SettleJob,
    WithdrawStake,
)
from d2m_node.errors import TransactionReverted
from d2m_node.roles.cone import run_cone
from d2m_node.roles.executor import HonestExecutor
from d2m_node.roles.payday import run_payday
from d2m_node.roles.policies import ConePolicy, SellerPolicy
from d2m_node.roles.seller import run_seller
from d2m_node.roles.shift import Shift
from protocol.events import (
    AttemptUndecided,
    CourseChanged,
    StakeLocked,
    TrainingEnded,
)
from protocol.job import JobPhase
from protocol.types import NO_DIGEST, BlockNumber, Wei
from protocol.wire import messages as wire
from tests.support.check_events import events_of_call
from tests.support.decided import BEFORE, course_after, decide_first_round, find_randomness
from tests.support.job import CONES, JOB, OPENED, Cast, retried
from tests.support.market import Node, wait_idle
from tests.support.params import PARAMS
from tests.support.training import Training

DECIDED = OPENED.open_end + 1
APPEAL_END = DECIDED + 4
FIRST_SIGHT = OPENED.seller_seed_block
"""A block in the middle of the first round."""


async def begin(nursery: trio.Nursery) -> Training:
    """Let everybody work on the first round, which chance will not audit; stake is locked."""
    training = Training(nursery)
    market = training.cast.market
    market.randomness[DECIDED] = find_randomness(False)
    market.apply(CourseChanged(job=JOB, course=BEFORE))
    for node in training.cast.cones:
        market.apply(StakeLocked(job=JOB, account=node.signer.address, amount_wei=Wei(1)))
    await training.start()
    return training


async def decide(training: Training) -> None:
    """Let the first round be decided by what was voted for."""
    await training.cast.market.mine_to(DECIDED)
    assert training.ballot.opened == training.drawn
    found = training.executors[min(training.drawn)].results[0]
    decide_first_round(training.cast, found.digest, appeal_end=APPEAL_END, header=found.opening)


async def finish_second_round(training: Training) -> None:
    await training.cast.market.mine_to(training.ballot.current.open_end)


async def end_job(training: Training) -> None:
    """Let training end; the job is settled by whoever has the turn."""
    market = training.cast.market
    market.apply(
        CourseChanged(job=JOB, course=course_after(NO_DIGEST)),
        TrainingEnded(
            job=JOB, outcome=0, rounds_done=1, initial_utility=0, last_utility=0,
            model_digest=NO_DIGEST, credit_root=NO_DIGEST, credit_sum=0,
            final_block=BlockNumber(market.state.block_number + 2),
        ),
    )  # fmt: skip
    await market.mine(2 + CONES)


def computed_rounds(training: Training, index: int) -> list[int]:
    return [work.round_index for work in training.executors[index].rounds]


def calls_of(training: Training, node: Node) -> list[ContractCall]:
    """What was mined of a node."""
    account = node.signer.address
    return [call for sender, call in training.cast.market.calls if sender == account]


def outsider(training: Training) -> int:
    """A node without which the first round was decided."""
    return min(set(range(CONES)) - training.drawn)


# --- CONE nodes in a job


async def test_a_cone_finishes_its_round_and_leaves_the_next_to_those_who_can_decide(
    nursery: trio.Nursery,
) -> None:
    training = await begin(nursery)
    await training.cast.market.mine_to(FIRST_SIGHT)
    leaver = outsider(training)
    training.cone_shifts[leaver].drain()
    await decide(training)
    await finish_second_round(training)
    assert computed_rounds(training, leaver) == [0]
    others = set(range(CONES)) - {leaver}
    assert all(computed_rounds(training, index) == [0, 1] for index in others)
    assert training.left == []


async def test_a_cone_whose_drain_is_undone_votes_again(nursery: trio.Nursery) -> None:
    training = await begin(nursery)
    await training.cast.market.mine_to(FIRST_SIGHT)
    leaver = outsider(training)
    training.cone_shifts[leaver].drain()
    training.cone_shifts[leaver].resume()
    await decide(training)
    await finish_second_round(training)
    assert computed_rounds(training, leaver) == [0, 1]


async def test_cones_that_a_decision_needs_go_on_voting(nursery: trio.Nursery) -> None:
    training = await begin(nursery)
    await training.cast.market.mine_to(FIRST_SIGHT)
    for shift in training.cone_shifts:
        shift.drain()
    # Nothing was decided yet: nobody knows that others can.
    await training.cast.market.mine_to(OPENED.open_end)
    assert training.ballot.opened == training.drawn
    market = training.cast.market
    market.apply(AttemptUndecided(job=JOB, ballot_number=1, round_index=0, unopened=0), retried())
    await market.mine_to(retried().open_end)
    assert all(computed_rounds(training, index) == [0, 0] for index in range(CONES))


async def test_a_cone_that_drains_answers_when_the_whole_pool_is_called(
    nursery: trio.Nursery,
) -> None:
    training = await begin(nursery)
    await training.cast.market.mine_to(FIRST_SIGHT)
    leaver = outsider(training)
    training.cone_shifts[leaver].drain()
    await decide(training)
    training.cast.market.apply(*events_of_call(training.job, is_audit=True))
    await training.cast.market.mine_to(training.ballot.current.open_end)
    assert leaver in training.ballot.opened


async def test_a_vote_that_was_sealed_before_a_restart_is_opened_by_a_cone_that_drains(
    nursery: trio.Nursery,
) -> None:
    training = await begin(nursery)
    market = training.cast.market
    voter = min(training.drawn)
    await market.mine_to(OPENED.seed_block + 2)
    assert voter in training.ballot.committed
    training.cone_shifts[voter] = Shift("cone", is_draining=True)
    await training.restart_cone(voter)
    await market.mine_to(DECIDED)
    assert voter in training.ballot.opened


# --- the stake


async def test_a_cone_settles_its_job_takes_its_stake_out_and_leaves(
    nursery: trio.Nursery,
) -> None:
    training = await begin(nursery)
    market = training.cast.market
    leaver = outsider(training)
    node = training.cast.cones[leaver]
    nursery.start_soon(run_payday, node.ports)
    training.cone_shifts[leaver].drain()
    await decide(training)
    for index in set(range(CONES)) - {leaver}:
        await training.stop_cone(index)
    await market.mine_to(APPEAL_END)
    await end_job(training)
    await market.mine(3)
    assert training.job.phase is JobPhase.SETTLED
    mine = calls_of(training, node)
    assert any(isinstance(call, SettleJob) for call in mine)
    assert [call for call in mine if isinstance(call, ReleaseStake)]
    assert [call for call in mine if isinstance(call, RequestUnbond)] == [
        RequestUnbond(amount_wei=Wei(1))
    ]
    assert training.left == [training.cone_shifts[leaver]]
    await market.mine(PARAMS.unbonding_blocks + 2)
    assert WithdrawStake() in [
        call for sender, call in market.calls if sender == node.signer.address
    ]
    stake = market.state.stakes[node.signer.address]
    assert (stake.free_wei, stake.unbonding_wei, stake.withdrawn_wei) == (0, 0, 1)


async def drain_cone(cast: Cast, shift: Shift, nursery: trio.Nursery) -> None:
    """Run a CONE node as a node does, until it has left."""
    post = cast.cones[0].post("cone", nursery, shift)
    await run_cone(post, ConePolicy(stake_wei=Wei(5)), HonestExecutor())


async def test_a_cone_without_a_job_leaves_at_once_with_its_stake(nursery: trio.Nursery) -> None:
    cast = Cast()
    cast.register_all()
    shift = Shift("cone", is_draining=True)
    with trio.CancelScope() as scope:
        nursery.start_soon(cast.market.mine, 3)
        await drain_cone(cast, shift, nursery)
    assert not scope.cancelled_caught
    assert cast.market.sent(DepositStake) == [], "what drains is not topped up"
    assert cast.market.sent(RequestUnbond) == [RequestUnbond(amount_wei=Wei(1))]


async def test_a_drain_that_is_undone_keeps_the_stake(nursery: trio.Nursery) -> None:
    training = await begin(nursery)
    shift = training.cone_shifts[0]
    shift.drain()
    await training.cast.market.mine(2)
    shift.resume()
    await training.cast.market.mine_to(OPENED.open_end)
    assert training.cast.market.sent(RequestUnbond) == []
    assert training.left == []


async def test_a_drain_that_is_undone_too_late_does_not_end_the_node_if_money_is_short(
    nursery: trio.Nursery,
) -> None:
    """The old stake is on its way out then, and the account cannot pay for another one."""
    cast = Cast()
    cast.register_all()
    shift = Shift("cone", is_draining=True)
    nursery.start_soon(drain_cone, cast, shift, nursery)
    await cast.market.mine()
    assert cast.market.sent(RequestUnbond) == [RequestUnbond(amount_wei=Wei(1))]
    cast.market.refuses = lambda call: isinstance(call, DepositStake)
    shift.resume()
    await cast.market.mine(2)
    assert cast.market.sent(DepositStake) == []


async def test_a_cone_that_lost_stake_starts_again_although_money_is_short(
    nursery: trio.Nursery,
) -> None:
    """Its jobs still need it: what is locked in them would be at risk."""
    cast = Cast()
    cast.register_all()
    cast.market.refuses = lambda call: isinstance(call, DepositStake)
    post = cast.cones[0].post("cone", nursery, Shift("cone"))
    run = partial(run_cone, post, ConePolicy(stake_wei=Wei(5)), HonestExecutor())
    with trio.fail_after(5):
        await nursery.start(run)
        stranger = cast.buyer.post("cone", nursery, Shift("cone"))
        with pytest.raises(TransactionReverted, match="the test refuses it"):
            await nursery.start(
                partial(run_cone, stranger, ConePolicy(stake_wei=Wei(5)), HonestExecutor())
            )


async def test_a_role_that_drains_applies_for_nothing(nursery: trio.Nursery) -> None:
    cast = Cast()
    cast.open_enrolment()
    post = cast.cones[0].post("cone", nursery, Shift("cone", is_draining=True))
    nursery.start_soon(run_cone, post, ConePolicy(stake_wei=Wei(1)), HonestExecutor())
    seller = cast.sellers[0].post("seller", nursery, Shift("seller", is_draining=True))
    policy = SellerPolicy(dataset_path="dataset.toml")
    nursery.start_soon(run_seller, seller, policy, None)
    await cast.market.mine(2)
    assert cast.market.sent(EnrolCone) == cast.market.sent(EnrolSeller) == []
    assert cast.cones[0].refusals() == cast.sellers[0].refusals() == []


# --- sellers


async def test_a_seller_offers_no_update_after_its_round_and_has_its_deposit_back(
    nursery: trio.Nursery,
) -> None:
    training = await begin(nursery)
    market = training.cast.market
    leaver = 1
    await market.mine_to(FIRST_SIGHT + 1)
    for index in range(len(training.cast.sellers)):
        nursery.start_soon(run_payday, training.cast.sellers[index].ports)
    training.seller_shifts[leaver].drain()
    await decide(training)
    await finish_second_round(training)
    first, second = (
        training.cast.cones[0].rooms[JOB].heard(wire.UpdateCommit, index) for index in (0, 1)
    )
    assert leaver in first
    assert leaver not in second
    assert second
    assert training.left == []
    await end_job(training)
    await market.mine(3)
    assert ReclaimDeposit(job=JOB) in calls_of(training, training.cast.sellers[leaver])
    assert training.left == [training.seller_shifts[leaver]]
    await wait_idle()
