"""Money as a node folds it from the events, against what the contracts hold, over whole jobs."""

from collections.abc import Mapping
from typing import Any

import boa
import pytest

from protocol.claims import claim_of
from protocol.market import MarketState
from protocol.payment_audit import describe_differences
from protocol.payout_explanation import PayoutExplanation, explain_payouts
from protocol.shares import find_cone_share, find_seller_share
from protocol.types import NO_ACCOUNT as NO_CURRENCY
from protocol.types import Address, BlockNumber, JobId
from tests.contracts.folding import fold, params_of
from tests.contracts.scenarios import (
    REACHED,
    advance,
    appeal,
    decide_against,
    decide_by,
    expire,
    honest,
    hostile,
    make_job,
    reach,
    split,
    tally_pool,
)
from tests.contracts.world import ETHER, Actor, Job, World

ONE = JobId(1)


@pytest.fixture
def world(
    deployers: Mapping[str, Any], clean_chain: None, monkeypatch: pytest.MonkeyPatch
) -> World:
    """A world in which gas has a price, so that batches are refunded."""
    monkeypatch.setattr(boa.env, "_gas_price", 2 * 10**9)
    return World(deployers)


def actors(job: Job) -> list[Actor]:
    return [*job.cones, *job.sellers, job.world.buyer]


def check_money(job: Job) -> MarketState:
    """What each account can pull is what the contracts would pay it."""
    world, state = job.world, fold(job.world)
    for actor in actors(job):
        account = Address(actor.raw)
        owed = claim_of(state.payouts, NO_CURRENCY, account).owed_wei
        assert owed == world.settlement.claimable(ETHER, actor.address)
        bond = claim_of(state.bonds, NO_CURRENCY, account).owed_wei
        assert bond == world.appeals.withdrawable(ETHER, actor.address)
    for cone in job.cones:
        stake, holding = state.stakes[Address(cone.raw)], world.stakes.holding_of(cone.address)
        assert (stake.free_wei, stake.reward_wei) == (holding.free_wei, holding.reward_wei)
        locked = world.stakes.lock_of(job.number, cone.address).remaining_wei
        assert stake.locked_wei.get(JobId(job.number), 0) == locked
    return state


def explain(job: Job) -> PayoutExplanation:
    """Settle, and explain every payout from the events alone."""
    job.settle()
    explanation = explain_payouts(check_money(job).jobs[ONE], params_of(job.world))
    assert describe_differences(explanation.audit) == ()
    return explanation


def send_round(job: Job, sender: int) -> None:
    """Decide a round in batches that a node sends for all."""
    header, vote = honest(job)
    votes = dict.fromkeys(range(job.cone_count), vote)
    batch = job.commit(votes, sender=sender)
    job.open(votes, batch, sender=sender)
    job.world.blocks.mine_past(job.ballot.open_end)
    job.tally([(0, vote)], header)
    advance(job, vote.digest)


def test_a_job_with_liars_and_batches_is_explained_to_the_wei(world: World) -> None:
    job = make_job(world, 7, rounds_max=4)
    decide_against(job, hostile=5, silent=6)
    send_round(job, sender=1)
    send_round(job, sender=2)
    job.decide_round(400_000)
    job.decide_final(500_000)
    explanation = explain(job)
    roles = [one.payment.role.name for one in explanation.payments if one.payment.computed_wei]
    assert roles.count("BATCHER") == 2
    assert set(roles) == {"CONE", "SELLER", "BUYER", "BATCHER"}
    rewarded = [one for one in job.cones if world.stakes.holding_of(one.address).reward_wei]
    assert len(rewarded) == 5


@pytest.mark.parametrize("end", ["target", "aborted", "unserved", "undecided final"])
def test_however_a_job_ends_its_payouts_are_explained(world: World, end: str) -> None:
    if end == "unserved":
        job = Job(world).prepare().open_auction().close_auction().enrol().close_enrolment()
        job.start_training()
    else:
        job = make_job(world, rounds_max=6 if end != "undecided final" else 1)
    if end == "target":
        reach(job).decide_final(REACHED)
    elif end == "aborted":
        job.decide_round(543_073)
        for _ in range(4):
            split(job)
    elif end == "undecided final":
        job.decide_round(543_073)
        job.submit_receipts(1)
        for _ in range(2):
            split(job)
    explain(job)


@pytest.mark.parametrize("end", ["upheld", "overturned", "not counted"])
def test_a_decision_that_the_pool_checked_is_explained(world: World, end: str) -> None:
    job = make_job(world, 7, rounds_max=1)
    header, vote = honest(job)
    first = decide_by(job, range(3), header if end != "overturned" else hostile(job))
    appeal(job, 6)
    check_money(job)
    called = {"upheld": range(3, 6), "overturned": range(3, 7), "not counted": range(3, 5)}[end]
    job.vote(dict.fromkeys(called, vote))
    if end == "not counted":
        expire(job)
    else:
        groups = [(0, first), (1, vote)]
        tally_pool(job, groups, header if end == "overturned" else b"")
    advance(job, vote.digest)
    check_money(job)
    job.decide_final(500_000)
    explanation = explain(job)
    paid = [one.payment.index for one in explanation.payments if one.payment.role == 1]
    assert paid == list(range(7))


def test_shares_are_found_and_proven_from_the_events_alone(world: World) -> None:
    job = Job(world, seller_count=16, changes={"first_set_size": 5}).train()
    reach(job).decide_final(REACHED)
    explain(job)
    state, settlement = fold(world), world.settlement
    for cone in job.cones:
        share = find_cone_share(state.jobs[ONE], Address(cone.raw))
        if share is not None:
            settlement.claim_cone_share(1, share.index)
            (paid,) = [log for log in settlement.get_logs() if hasattr(log, "weight")]
            assert (paid.weight, paid.amount_wei) == (share.weight, share.amount_wei)
    for seller in job.sellers:
        share = find_seller_share(state.jobs[ONE], Address(seller.raw))
        if share is not None:
            settlement.claim_seller_share(1, share.index, share.weight, share.proof)
            (paid,) = [log for log in settlement.get_logs() if hasattr(log, "weight")]
            assert (paid.weight, paid.amount_wei) == (share.weight, share.amount_wei)
    assert settlement.shares_left(1) == 0
    job_state = check_money(job).jobs[ONE]
    assert all(find_cone_share(job_state, Address(one.raw)) is None for one in job.cones)
    explanation = explain_payouts(job_state, params_of(world))
    assert explanation.audit.is_exact
    assert all(one.payment.is_claimed or not one.payment.computed_wei
               for one in explanation.payments)  # fmt: skip


def test_unbonding_stake_and_rewards_can_be_withdrawn_when_the_fold_says_so(world: World) -> None:
    job = make_job(world, 7)
    decide_against(job, hostile=5, silent=6)
    job.decide_round()
    node = job.cones[0]
    world.stakes.request_unbond(10**18, sender=node.address)
    release = world.blocks.number + world.params["unbonding_blocks"]
    for block in (world.blocks.number + 1, release, release + 1):
        world.blocks.mine_to(block)
        stake = fold(world).stakes[Address(node.raw)]
        owed = stake.withdrawable_wei(BlockNumber(block))
        if owed == 0:
            with boa.reverts("stake: nothing to withdraw"):
                world.stakes.withdraw(sender=node.address)
            continue
        before = world.balance(node.address)
        world.stakes.withdraw(sender=node.address)
        assert world.balance(node.address) - before == owed
    assert fold(world).stakes[Address(node.raw)].unbonding_wei == 0
