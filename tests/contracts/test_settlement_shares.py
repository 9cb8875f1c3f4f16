"""Settlement with many payees: shares that are set aside, claimed one by one, and swept."""

from collections.abc import Mapping
from typing import Any

import boa
import pytest
from eth_utils.crypto import keccak

from tests.contracts.stage import BUYER, COURSE, FINAL_BLOCK, Ended, Play
from tests.contracts.world import BURN_ACCOUNT, NO_ACCOUNT, ONE_ETHER, make_actor

CONES, SELLERS = 8, 13
CURRENCIES = ("ether", "token")


@pytest.fixture
def play(deployers: Mapping[str, Any], clean_chain: None) -> Play:
    return Play(deployers)


def many(play: Play, currency: str = "ether", **changes: Any) -> Ended:
    """A job with one payee too many to be credited."""
    fields: dict[str, Any] = {
        "price_wei": ONE_ETHER + 11,
        "participation": [3, 0, 1, 2, 3, 4, 5, 6],
        "weights": [1, 0, *range(2, 13)],
        "spent_wei": [0] * CONES,
        **changes,
    }
    return Ended(currency=play.currency(currency), **fields)


def claim_seller(play: Play, job: int, ended: Ended, index: int, **changes: Any) -> None:
    arguments = {"v": ended.weights[index], "proof": ended.proof(index), **changes}
    play.settlement.claim_seller_share(job, index, *arguments.values())


def claim_all(play: Play, job: int, ended: Ended) -> None:
    for index, count in enumerate(ended.participation):
        if count:
            play.settlement.claim_cone_share(job, index)
    for index, v in enumerate(ended.weights):
        if v:
            claim_seller(play, job, ended, index)


@pytest.mark.parametrize("currency", CURRENCIES)
def test_shares_are_set_aside_and_paid_to_their_owners(play: Play, currency: str) -> None:
    ended = many(play, currency)
    at = play.currency(currency)
    job = play.settle(ended)
    (opened,) = play.logs("SharesOpened")
    assert (opened.job, opened.credit_root) == (job, ended.root)
    (refund,) = play.logs("PayoutCredited")
    assert (refund.role, refund.payee) == (3, BUYER)
    left = play.settlement.shares_left(job)
    assert left + refund.amount_wei == ended.price_wei
    assert play.balance(play.settlement.address, at) == ended.price_wei

    play.settlement.claim_cone_share(job, 3, sender=make_actor("stranger").address)
    (paid,) = play.logs("PayoutCredited")
    assert (paid.role, paid.index, paid.weight, paid.payee) == (1, 3, 2, ended.cones[3])
    (claimed,) = play.logs("PayoutClaimed")
    assert (claimed.payee, claimed.currency) == (ended.cones[3], at)
    assert claimed.amount_wei == paid.amount_wei == play.balance(ended.cones[3], at)
    assert play.settlement.shares_left(job) == left - paid.amount_wei

    claim_seller(play, job, ended, 4)
    (paid,) = play.logs("PayoutCredited")
    assert (paid.role, paid.index, paid.weight, paid.payee) == (2, 4, 4, ended.sellers[4])
    assert paid.amount_wei == play.balance(ended.sellers[4], at)


@pytest.mark.parametrize("currency", CURRENCIES)
def test_the_last_claim_leaves_nothing(play: Play, currency: str) -> None:
    at = play.currency(currency)
    ended = many(play, currency)
    job = play.settle(ended)
    play.settlement.claim(at, sender=BUYER)
    claim_all(play, job, ended)
    assert play.settlement.shares_left(job) == 0
    assert play.balance(play.settlement.address, at) == 0
    with boa.reverts("shares: none left"):
        play.settlement.sweep_shares(job)


def test_the_last_member_that_is_credited_and_the_first_that_claims(play: Play) -> None:
    at_most = many(play, weights=[1] * (20 - CONES))
    play.settle(at_most)
    assert len(play.logs("SharesOpened")) == 0
    assert play.claimable(at_most.sellers[0], NO_ACCOUNT) > 0
    one_more = many(play, weights=[1] * (21 - CONES))
    play.settle(one_more)
    assert len(play.logs("SharesOpened")) == 1


def test_a_share_is_paid_once(play: Play) -> None:
    ended = many(play)
    job = play.settle(ended)
    play.settlement.claim_cone_share(job, 0)
    claim_seller(play, job, ended, 2)
    with boa.reverts("shares: already paid"):
        play.settlement.claim_cone_share(job, 0)
    with boa.reverts("shares: already paid"):
        claim_seller(play, job, ended, 2)


def test_who_earned_nothing_claims_nothing(play: Play) -> None:
    ended = many(play)
    job = play.settle(ended)
    with boa.reverts("shares: nothing earned"):
        play.settlement.claim_cone_share(job, 1)
    with boa.reverts("shares: nothing earned"):
        claim_seller(play, job, ended, 1)


def test_nobody_claims_beyond_the_members(play: Play) -> None:
    ended = many(play)
    job = play.settle(ended)
    with boa.reverts("shares: no such node"):
        play.settlement.claim_cone_share(job, 64)
    with pytest.raises(boa.BoaError):
        play.settlement.claim_cone_share(job, CONES)
    with pytest.raises(boa.BoaError):
        play.settlement.claim_seller_share(job, SELLERS, 1, [])
    with pytest.raises(boa.BoaError):
        play.settlement.claim_seller_share(job, 2**255, 1, [])


def test_a_claim_of_another_job_or_before_the_settlement_is_refused(play: Play) -> None:
    ended = many(play)
    with boa.reverts("shares: none left"):
        play.settlement.claim_cone_share(1, 0)
    job = play.end(ended)
    with boa.reverts("shares: none left"):
        play.settlement.claim_cone_share(job, 0)
    play.settlement.settle(job, ended.terms, COURSE, ended.leaves)
    with boa.reverts("shares: none left"):
        play.settlement.claim_cone_share(job + 1, 0)


@pytest.mark.parametrize("change", ["more", "another's proof", "shorter", "longer", "none"])
def test_a_weight_that_is_not_proven_is_refused(play: Play, change: str) -> None:
    ended = many(play)
    job = play.settle(ended)
    proof = ended.proof(5)
    changes: dict[str, dict[str, Any]] = {
        "more": {"v": 6},
        "another's proof": {"proof": ended.proof(6)},
        "shorter": {"proof": proof[:-1]},
        "longer": {"proof": (*proof, proof[0])},
        "none": {"proof": ()},
    }
    with boa.reverts("shares: not proven"):
        claim_seller(play, job, ended, 5, **changes[change])
    claim_seller(play, job, ended, 5)


def test_a_proof_of_one_job_is_none_in_another(play: Play) -> None:
    first = many(play)
    second = many(play, weights=[13 - v for v in first.weights])
    play.settle(first)
    job = play.settle(second)
    with boa.reverts("shares: not proven"):
        claim_seller(play, job, first, 5)


def test_equal_shares_need_no_proof(play: Play) -> None:
    ended = many(play, root=keccak(b"unknown"))
    job = play.end(ended)
    with boa.reverts("settlement: leaves missing"):
        play.settlement.settle(job, ended.terms, COURSE, [])
    play.blocks.mine_past(FINAL_BLOCK + 100)
    play.settlement.settle(job, ended.terms, COURSE, [])
    (opened,) = play.logs("SharesOpened")
    assert opened.credit_root == bytes(32)
    for index in range(SELLERS):
        play.settlement.claim_seller_share(job, index, 77, [])
        (paid,) = play.logs("PayoutCredited")
        assert (paid.weight, paid.amount_wei) == (1, opened.seller_pool_wei // SELLERS)
    with boa.reverts("shares: already paid"):
        play.settlement.claim_seller_share(job, 0, 1, [])


def test_batches_are_refunded_at_once_and_the_rest_is_shared(play: Play) -> None:
    ended = many(play, spent_wei=[10**15, 0, 0, 0, 0, 0, 0, 2 * 10**15])
    job = play.settle(ended)
    refunds = {log.index: log.amount_wei for log in play.logs("PayoutCredited") if log.role == 4}
    assert refunds == {0: 10**15, 7: 2 * 10**15}
    (opened,) = play.logs("SharesOpened")
    (settled,) = play.logs("JobSettled")
    assert opened.cone_pool_wei == settled.cone_pool_wei - 3 * 10**15
    assert play.claimable(ended.cones[0], NO_ACCOUNT) == 10**15
    play.settlement.claim_cone_share(job, 0)
    # The share is paid at once; the refund waits to be claimed.
    assert play.claimable(ended.cones[0], NO_ACCOUNT) == 10**15


def test_a_job_that_pays_nobody_sets_nothing_aside(play: Play) -> None:
    ended = many(play, outcome=3, rounds_done=0, participation=[0] * CONES, weights=[0] * SELLERS)
    job = play.settle(ended)
    assert play.logs("SharesOpened") == []
    assert play.claimable(BUYER, NO_ACCOUNT) == ended.price_wei
    with boa.reverts("shares: none left"):
        play.settlement.claim_cone_share(job, 0)


@pytest.mark.parametrize("currency", CURRENCIES)
def test_shares_that_nobody_claims_are_burned_and_never_refunded(play: Play, currency: str) -> None:
    at = play.currency(currency)
    ended = many(play, currency)
    job = play.settle(ended)
    settled_at = play.blocks.number
    claim_seller(play, job, ended, 12)
    left = play.settlement.shares_left(job)
    refund = play.claimable(BUYER, at)
    play.blocks.mine_to(settled_at + 50)
    with boa.reverts("shares: too early"):
        play.settlement.sweep_shares(job)
    play.blocks.mine()
    before = play.balance(BURN_ACCOUNT, at)
    play.settlement.sweep_shares(job, sender=make_actor("stranger").address)
    (swept,) = play.logs("SharesSwept")
    assert (swept.job, swept.amount_wei) == (job, left)
    assert play.balance(BURN_ACCOUNT, at) - before == left
    assert play.claimable(BUYER, at) == refund == play.balance(play.settlement.address, at)
    for claim in (
        lambda: play.settlement.claim_cone_share(job, 0),
        lambda: claim_seller(play, job, ended, 3),
        lambda: play.settlement.sweep_shares(job),
    ):
        with boa.reverts("shares: none left"):
            claim()


def test_the_shares_of_jobs_are_apart(play: Play) -> None:
    first, second = many(play), many(play, price_wei=2 * ONE_ETHER)
    jobs = [play.settle(first), play.settle(second)]
    left = play.settlement.shares_left(jobs[1])
    claim_all(play, jobs[0], first)
    assert [play.settlement.shares_left(job) for job in jobs] == [0, left]
    claim_all(play, jobs[1], second)
    owed = play.claimable(BUYER, NO_ACCOUNT)
    assert play.balance(play.settlement.address, NO_ACCOUNT) == owed


def test_a_greedy_payee_is_paid_its_share_once(play: Play, deployers: Mapping[str, Any]) -> None:
    greedy = deployers["HostileAccount"].deploy()
    ended = many(play, accounts={"cone 0": greedy.address, "seller 2": greedy.address})
    job = play.settle(ended)
    settlement = play.settlement
    shares = [
        (settlement.claim_cone_share, (job, 0)),
        (settlement.claim_seller_share, (job, 2, 2, ended.proof(2))),
    ]
    for claim, arguments in shares:
        before = play.balance(greedy.address, NO_ACCOUNT)
        greedy.arm(settlement.address, claim.prepare_calldata(*arguments))
        claim(*arguments)
        (paid,) = play.logs("PayoutCredited")
        assert (greedy.has_tried(), greedy.has_succeeded()) == (True, False)
        assert play.balance(greedy.address, NO_ACCOUNT) - before == paid.amount_wei


def test_a_payee_that_refuses_money_keeps_only_itself_waiting(
    play: Play, deployers: Mapping[str, Any]
) -> None:
    stubborn = deployers["HostileAccount"].deploy()
    ended = many(play, accounts={"cone 0": stubborn.address})
    job = play.settle(ended)
    stubborn.refuse(True)
    with boa.reverts("account: refused"):
        play.settlement.claim_cone_share(job, 0)
    play.settlement.claim_cone_share(job, 2)
    stubborn.refuse(False)
    play.settlement.claim_cone_share(job, 0)
    assert play.balance(stubborn.address, NO_ACCOUNT) > 0
