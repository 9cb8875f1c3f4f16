"""Settlement: whole jobs, from the first bid to the last wei."""

from typing import Any

import boa
import pytest
from eth.exceptions import Revert
from eth_utils.crypto import keccak

from protocol.merkle import compute_proof
from protocol.types import Digest
from tests.contracts import reference
from tests.contracts.scenarios import REACHED, decide_against, honest, make_job, reach, split
from tests.contracts.world import ETHER, ONE_ETHER, Actor, Job, World

CONE, SELLER, BUYER, BATCHER = 1, 2, 3, 4


def credited(world: World) -> dict[tuple[int, int], int]:
    """Amounts of the last settlement by (role, index)."""
    return {
        (log.role, log.index): log.amount_wei
        for log in world.settlement.get_logs()
        if type(log).__name__ == "PayoutCredited"
    }


def settled(world: World) -> Any:
    (found,) = [log for log in world.settlement.get_logs() if type(log).__name__ == "JobSettled"]
    return found


def claim_all(job: Job) -> int:
    """Let everybody claim; return the sum."""
    world, total = job.world, 0
    for actor in (*job.cones, *job.sellers, world.buyer):
        claimable = world.settlement.claimable(ETHER, actor.address)
        if claimable > 0:
            before = world.balance(actor.address)
            world.settlement.claim(ETHER, sender=actor.address)
            assert world.balance(actor.address) - before == claimable
            total += claimable
    return total


def check_buckets(job: Job) -> None:
    """Every contract holds exactly what it owes."""
    world, payees = job.world, (*job.cones, *job.sellers, job.world.buyer)
    stakes = 0
    for cone in job.cones:
        holding = world.stakes.holding_of(cone.address)
        stakes += holding.free_wei + holding.unbonding_wei + holding.reward_wei
        stakes += world.stakes.lock_of(job.number, cone.address).remaining_wei
    assert world.balance(world.stakes.address) == stakes
    deposit = world.market.bid_of(job.number, world.buyer.address).deposit_wei if job.number else 0
    # The bid's deposit becomes the escrow; what exceeds the price is still the bidder's.
    owed = world.market.escrow_of(job.number)
    status = world.market.job_of(job.number).status
    if deposit > 0:
        owed += deposit - (job.price_wei if status > 2 else 0)
    assert world.balance(world.market.address) == owed
    held = sum(world.deposits.deposit_of(job.number, one.address) for one in job.sellers)
    assert world.balance(world.deposits.address) == held
    claimable = sum(world.settlement.claimable(ETHER, payee.address) for payee in payees)
    assert world.balance(world.settlement.address) == claimable


def test_a_job_that_reaches_its_target_pays_the_whole_price(world: World) -> None:
    job = reach(make_job(world))
    job.decide_final(REACHED)
    job.settle()

    amounts, price = credited(world), job.price_wei
    assert [amounts[CONE, index] for index in range(5)] == [price * 3 // 10 // 5] * 5
    assert [amounts[SELLER, index] for index in range(2)] == [price * 7 // 10 // 2] * 2
    assert sum(amounts.values()) == price
    report = settled(world)
    assert (report.price_wei, report.rounds_done) == (price, 2)
    assert (report.cone_pool_wei, report.seller_pool_wei) == (price * 3 // 10, price * 7 // 10)
    assert report.refund_wei == amounts.get((BUYER, 0), 0) == 0
    assert claim_all(job) == price
    assert world.balance(world.settlement.address) == 0


def test_every_step_of_a_job_leaves_each_contract_with_what_it_owes(world: World) -> None:
    job = Job(world, cone_count=7, price_wei=10 * ONE_ETHER + 7, changes={"first_set_size": 7})
    steps = (
        job.prepare,
        job.open_auction,
        job.close_auction,
        job.enrol,
        job.close_enrolment,
        lambda: job.submit_receipts(0),
        job.start_training,
        lambda: decide_against(job, hostile=5, silent=6),
        lambda: decide_against(job, hostile=4, silent=6),
        lambda: split(job),
        lambda: job.decide_round(REACHED),
        lambda: job.decide_round(REACHED),
        lambda: job.decide_final(REACHED),
        job.settle,
    )
    for step in steps:
        step()
        check_buckets(job)
    assert claim_all(job) == job.price_wei
    check_buckets(job)
    for cone in job.cones:
        if world.stakes.lock_of(1, cone.address).remaining_wei > 0:
            world.stakes.release(1, cone.address)
    check_buckets(job)


def test_a_job_that_ends_below_its_target_pays_rounds_and_progress(world: World) -> None:
    job = make_job(world, rounds_max=4)
    for utility in (200_000, 300_000, 400_000, 543_073):
        job.decide_round(utility)
    job.decide_final(543_073)
    job.settle()

    amounts, price = credited(world), job.price_wei
    # Half of the way from 90,000 to 996,147, to the part in ten thousand; the floor is as high.
    assert settled(world).seller_pool_wei == price * 7 // 10 * 5000 // 10_000
    assert settled(world).cone_pool_wei == price * 3 // 10
    assert amounts[BUYER, 0] == price - sum(
        amount for (role, _), amount in amounts.items() if role != BUYER
    )
    assert sum(amounts.values()) == price
    assert claim_all(job) == price


def test_an_aborted_job_without_a_decided_round_refunds_the_buyer(world: World) -> None:
    job = make_job(world)
    for _ in range(4):
        split(job)
    job.settle()
    assert credited(world) == {(BUYER, 0): job.price_wei}


def test_an_aborted_job_pays_for_its_decided_rounds(world: World) -> None:
    job = make_job(world)
    job.decide_round(543_073)
    for _ in range(4):
        split(job)
    job.settle()
    amounts = credited(world)
    cone_wei = job.price_wei * 3 // 10 // 6 // 5
    assert [amounts[CONE, index] for index in range(5)] == [cone_wei] * 5
    assert sum(amounts.values()) == job.price_wei


def test_an_unserved_job_pays_one_round_to_the_pool(world: World) -> None:
    job = Job(world).prepare().open_auction().close_auction().enrol().close_enrolment()
    job.start_training()
    world.blocks.mine()
    world.settlement.settle(1, job.terms_list, job.course, [])
    amounts = credited(world)
    each = job.price_wei * 3 // 10 // 6 // 5
    assert [amounts[CONE, index] for index in range(5)] == [each] * 5
    assert amounts[BUYER, 0] == job.price_wei - 5 * each


def test_stake_is_free_again_after_the_settlement(world: World) -> None:
    job = reach(make_job(world))
    with boa.reverts("stake: job not closed"):
        world.stakes.release(1, job.cones[0].address)
    job.decide_final(REACHED)
    job.settle()
    for cone in job.cones:
        world.stakes.release(1, cone.address)
        assert world.stakes.holding_of(cone.address).free_wei == 8 * ONE_ETHER


def test_the_settlement_executes_the_last_slashes(world: World) -> None:
    job = make_job(world, cones=7, rounds_max=1)
    decide_against(job, hostile=5, silent=6)
    job.submit_receipts(1)
    world.blocks.mine_past(job.ballot.open_end + 20)
    world.rounds.expire(1, job.terms_list, job.course)
    job.settle()
    for index in (5, 6):
        lock = world.stakes.lock_of(1, job.cones[index].address)
        assert lock.remaining_wei == 2 * ONE_ETHER


def test_what_the_cap_on_accesses_withholds_returns_to_the_buyer(world: World) -> None:
    job = Job(world, seller_count=15, changes={"first_set_size": 5, "sellers_per_round": 3}).train()
    for utility in (500_000, REACHED, REACHED):
        job.decide_round(utility)
    job.decide_final(REACHED)
    job.settle()
    # ceil(3 * 3 * 3 / 15) = 2 accesses of the 3 that both accepted sellers have.
    amounts = credited(world)
    assert [amounts[SELLER, index] for index in range(2)] == [job.price_wei * 7 // 10 // 3] * 2
    assert sum(amounts.values()) == job.price_wei


def test_a_whole_job_with_many_payees_pays_its_price_by_claims(world: World) -> None:
    job = Job(world, seller_count=16, changes={"first_set_size": 5}).train()
    for _ in range(2):
        job.decide_round(REACHED)
    job.decide_final(REACHED)
    job.settle()
    assert credited(world) == {}
    settlement = world.settlement
    assert settlement.shares_left(1) == world.balance(settlement.address) == job.price_wei
    for index in range(5):
        settlement.claim_cone_share(1, index)
    leaves = [reference.tagged("credit", i, s.raw, v) for i, (s, v) in members(job)]
    for index, (_, v) in members(job):
        if v > 0:
            proof = compute_proof([Digest(leaf) for leaf in leaves], index)
            settlement.claim_seller_share(1, index, v, proof)
    paid = world.balance(job.sellers[0].address), world.balance(job.sellers[1].address)
    assert paid[0] == paid[1]
    assert settlement.shares_left(1) == world.balance(settlement.address) == 0


def members(job: Job) -> list[tuple[int, tuple[Actor, int]]]:
    """Sellers and their credits, by index."""
    return list(enumerate(zip(job.sellers, job.credits, strict=True)))


def test_who_sends_batches_for_all_is_refunded_out_of_the_nodes_pool(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boa.env, "_gas_price", 2 * 10**9)
    job = make_job(world, rounds_max=1)
    header, vote = honest(job)
    votes = dict.fromkeys(range(5), vote)
    batch = job.commit(votes, sender=2)
    job.open(votes, batch, sender=3)
    world.blocks.mine_past(job.ballot.open_end)
    job.tally([(0, vote)], header)
    job.credits = [1, 1, 0, 0, 0]
    job.decide_final(REACHED)
    spent = list(job.result.refunds_wei)
    assert spent[2] > 0 < spent[3]
    assert [spent[index] for index in (0, 1, 4)] == [0, 0, 0]
    job.settle()

    amounts = credited(world)
    assert {place: amount for place, amount in amounts.items() if place[0] == BATCHER} == {
        (BATCHER, 2): spent[2],
        (BATCHER, 3): spent[3],
    }
    pool = job.price_wei * 3 // 10
    assert settled(world).cone_pool_wei == pool
    assert [amounts[CONE, index] for index in range(5)] == [(pool - sum(spent)) // 5] * 5
    assert sum(amounts.values()) == job.price_wei == claim_all(job)


def test_a_job_is_settled_once_in_time_and_under_its_terms(world: World) -> None:
    job = reach(make_job(world))
    with boa.reverts("rounds: training not ended"):
        world.settlement.settle(1, job.terms_list, job.course, job.leaves)
    job.decide_final(REACHED)
    with boa.reverts("rounds: appeal window open"):
        world.settlement.settle(1, job.terms_list, job.course, job.leaves)
    world.blocks.mine_past(job.result.final_block)
    with boa.reverts("settlement: wrong terms"):
        world.settlement.settle(1, (7, *job.terms_list[1:]), job.course, job.leaves)
    other_course = (keccak(b"other"), *job.course[1:])
    with boa.reverts("rounds: wrong course"):
        world.settlement.settle(1, job.terms_list, other_course, job.leaves)
    job.settle()
    assert world.settlement.is_settled(1)
    with boa.reverts("settlement: already settled"):
        world.settlement.settle(1, job.terms_list, job.course, job.leaves)


def test_credits_must_be_those_of_the_decided_root(world: World) -> None:
    job = reach(make_job(world))
    job.decide_final(REACHED)
    world.blocks.mine(10)
    payees, counts = zip(*job.leaves, strict=True)
    for leaves, reason in (
        ([], "settlement: leaves missing"),
        (job.leaves[:4], "settlement: leaves missing"),
        (job.leaves[::-1], "settlement: not the seller"),
        (list(zip(payees, (1, *counts[1:]), strict=True)), "settlement: not the credit root"),
        (list(zip(payees, (3, *counts[1:]), strict=True)), "settlement: more credits than rounds"),
    ):
        with boa.reverts(reason):
            world.settlement.settle(1, job.terms_list, job.course, leaves)


def test_credits_that_nobody_knows_do_not_lock_the_money_up(world: World) -> None:
    job = make_job(world, rounds_max=1)
    header = job.round_header(credit_root=keccak(b"unknown"))
    job.decide(header)
    job.decide_final(REACHED)
    final_block = job.result.final_block
    world.blocks.mine_to(final_block + 100)
    with boa.reverts("settlement: leaves missing"):
        world.settlement.settle(1, job.terms_list, job.course, [])
    world.blocks.mine()
    world.settlement.settle(1, job.terms_list, job.course, [])
    amounts = credited(world)
    assert [amounts[SELLER, i] for i in range(5)] == [job.price_wei * 7 // 10 // 5] * 5


def test_who_has_no_credit_claims_nothing(world: World) -> None:
    with boa.reverts("settlement: nothing to claim"):
        world.settlement.claim(ETHER, sender=world.stranger.address)


@pytest.mark.parametrize("contract", ["settlement", "market", "stakes", "deposits", "rounds"])
def test_money_that_nobody_is_owed_is_not_taken(world: World, contract: str) -> None:
    with pytest.raises(Revert):
        boa.env.raw_call(getattr(world, contract).address, sender=world.stranger.address, value=1)
