"""Settlement: credits by currency, what tokens and payees may try, and the sweep."""

from collections.abc import Mapping
from typing import Any

import boa
import pytest

from tests.contracts.stage import BUYER, COURSE, Ended, Play, account
from tests.contracts.world import BURN_ACCOUNT, NO_ACCOUNT, make_actor

CURRENCIES = ("ether", "token")


@pytest.fixture
def play(deployers: Mapping[str, Any], clean_chain: None) -> Play:
    return Play(deployers)


def few(play: Play, currency: str = "ether", **changes: Any) -> Ended:
    return Ended(currency=play.currency(currency), **changes)


def payees_of(ended: Ended) -> list[str]:
    return [*ended.cones, *ended.sellers, BUYER]


def check_balance(play: Play, currency: str, ended: Ended) -> None:
    """The contract has what it owes."""
    owed = sum(play.claimable(one, currency) for one in payees_of(ended))
    assert play.balance(play.settlement.address, currency) == owed


@pytest.mark.parametrize("currency", CURRENCIES)
def test_each_payee_pulls_its_own_once(play: Play, currency: str) -> None:
    ended, at = few(play, currency), play.currency(currency)
    play.settle(ended)
    check_balance(play, at, ended)
    for payee in payees_of(ended):
        amount = play.claimable(payee, at)
        if amount == 0:
            continue
        before = play.balance(payee, at)
        play.settlement.claim(at, sender=payee)
        (claimed,) = play.logs("PayoutClaimed")
        assert (claimed.payee, claimed.currency, claimed.amount_wei) == (payee, at, amount)
        assert play.balance(payee, at) - before == amount
        with boa.reverts("settlement: nothing to claim"):
            play.settlement.claim(at, sender=payee)
    assert play.balance(play.settlement.address, at) == 0


def test_currencies_do_not_mix(play: Play) -> None:
    in_ether, in_token = few(play), few(play, "token", price_wei=20_014)
    play.settle(in_ether)
    play.settle(in_token)
    token, payee = play.token.address, in_ether.sellers[0]
    amounts = [play.claimable(payee, at) for at in (NO_ACCOUNT, token)]
    assert amounts[1] == pytest.approx(2 * amounts[0], abs=2)
    play.settlement.claim(token, sender=payee)
    assert play.claimable(payee, NO_ACCOUNT) == amounts[0]
    with boa.reverts("settlement: nothing to claim"):
        play.settlement.claim(account("another token"), sender=payee)


def test_credits_of_jobs_add_up(play: Play) -> None:
    first, second = few(play), few(play, price_wei=333)
    play.settle(first)
    amount = play.claimable(BUYER, NO_ACCOUNT)
    play.settle(second)
    (refund,) = [log for log in play.logs("PayoutCredited") if log.role == 3]
    assert play.claimable(BUYER, NO_ACCOUNT) == amount + refund.amount_wei


def test_a_job_in_the_token_refunds_no_batches(play: Play) -> None:
    ended = few(play, "token", spent_wei=(100, 0, 40))
    play.settle(ended)
    assert [log for log in play.logs("PayoutCredited") if log.role == 4] == []


@pytest.mark.parametrize("currency", CURRENCIES)
def test_what_nobody_claims_is_burned_a_long_time_after_the_last_credit(
    play: Play, currency: str
) -> None:
    at, ended = play.currency(currency), few(play, currency)
    payee, stranger = ended.sellers[0], make_actor("stranger").address
    with boa.reverts("settlement: nothing to sweep"):
        play.settlement.sweep(payee, at)
    play.settle(ended)
    play.blocks.mine(40)
    play.settle(ended)
    last_credit = play.blocks.number
    amount = play.claimable(payee, at)
    play.blocks.mine_to(last_credit + 50)
    with boa.reverts("settlement: too early to sweep"):
        play.settlement.sweep(payee, at, sender=stranger)
    play.blocks.mine()
    before = play.balance(BURN_ACCOUNT, at)
    play.settlement.sweep(payee, at, sender=stranger)
    (swept,) = play.logs("MoneySwept")
    assert (swept.payee, swept.currency, swept.amount_wei) == (payee, at, amount)
    assert play.balance(BURN_ACCOUNT, at) - before == amount
    check_balance(play, at, ended)
    for call in (
        lambda: play.settlement.sweep(payee, at),
        lambda: play.settlement.claim(at, sender=payee),
    ):
        with pytest.raises(boa.BoaError):
            call()


def test_time_alone_empties_the_contract(play: Play) -> None:
    ended = few(play, spent_wei=(100, 0, 40))
    play.settle(ended)
    play.blocks.mine(51)
    for payee in payees_of(ended):
        if play.claimable(payee, NO_ACCOUNT):
            play.settlement.sweep(payee, NO_ACCOUNT)
    assert play.balance(play.settlement.address, NO_ACCOUNT) == 0


def test_a_claim_in_time_leaves_nothing_to_sweep(play: Play) -> None:
    ended = few(play)
    play.settle(ended)
    play.settlement.claim(NO_ACCOUNT, sender=ended.sellers[0])
    play.blocks.mine(51)
    with boa.reverts("settlement: nothing to sweep"):
        play.settlement.sweep(ended.sellers[0], NO_ACCOUNT)


def test_a_greedy_payee_is_paid_once(play: Play, deployers: Mapping[str, Any]) -> None:
    greedy = deployers["HostileAccount"].deploy()
    ended = few(play, accounts={"seller 0": greedy.address})
    play.settle(ended)
    amount = play.claimable(greedy.address, NO_ACCOUNT)
    claim = play.settlement.claim.prepare_calldata(NO_ACCOUNT)
    greedy.arm(play.settlement.address, claim)
    greedy.execute(play.settlement.address, claim)
    assert (greedy.has_tried(), greedy.has_succeeded()) == (True, False)
    assert play.balance(greedy.address, NO_ACCOUNT) == amount
    check_balance(play, NO_ACCOUNT, ended)


def test_a_payee_that_refuses_money_loses_nothing_and_stops_nobody(
    play: Play, deployers: Mapping[str, Any]
) -> None:
    stubborn = deployers["HostileAccount"].deploy()
    ended = few(play, accounts={"seller 0": stubborn.address})
    play.settle(ended)
    amount = play.claimable(stubborn.address, NO_ACCOUNT)
    claim = play.settlement.claim.prepare_calldata(NO_ACCOUNT)
    stubborn.refuse(True)
    with boa.reverts("account: refused"):
        stubborn.execute(play.settlement.address, claim)
    play.settlement.claim(NO_ACCOUNT, sender=ended.sellers[1])
    assert play.claimable(stubborn.address, NO_ACCOUNT) == amount
    stubborn.refuse(False)
    stubborn.execute(play.settlement.address, claim)
    assert play.balance(stubborn.address, NO_ACCOUNT) == amount


@pytest.mark.parametrize("token", ["Silent", "Hostile"])
def test_odd_tokens_are_split_and_paid_like_any(
    deployers: Mapping[str, Any], clean_chain: None, token: str
) -> None:
    play = Play(deployers, token)
    ended, at = few(play, "token"), play.token.address
    play.settle(ended)
    for payee in payees_of(ended):
        amount = play.claimable(payee, at)
        if amount:
            play.settlement.claim(at, sender=payee)
            assert play.balance(payee, at) == amount
    assert play.balance(play.settlement.address, at) == 0


def test_a_hostile_token_cannot_come_back_in(
    deployers: Mapping[str, Any], clean_chain: None
) -> None:
    play = Play(deployers, "Hostile")
    ended, at, settlement = few(play, "token"), play.token.address, play.settlement
    job = play.end(ended)
    again = settlement.settle.prepare_calldata(job, ended.terms, COURSE, ended.leaves)
    play.token.arm(settlement.address, again)
    settlement.settle(job, ended.terms, COURSE, ended.leaves)
    assert (play.token.has_tried(), play.token.has_succeeded()) == (True, False)
    play.token.arm(settlement.address, settlement.claim.prepare_calldata(at))
    settlement.claim(at, sender=ended.sellers[0])
    assert (play.token.has_tried(), play.token.has_succeeded()) == (True, False)
    play.token.arm(settlement.address, settlement.sweep.prepare_calldata(BUYER, at))
    play.blocks.mine(51)
    settlement.sweep(ended.sellers[1], at)
    assert (play.token.has_tried(), play.token.has_succeeded()) == (True, False)
    check_balance(play, at, ended)


def test_a_token_that_says_no_loses_nobodys_credit(
    deployers: Mapping[str, Any], clean_chain: None
) -> None:
    play = Play(deployers, "Hostile")
    ended, at = few(play, "token"), play.token.address
    play.settle(ended)
    play.token.refuse(True)
    amount = play.claimable(ended.sellers[0], at)
    with boa.reverts("money: token refused"):
        play.settlement.claim(at, sender=ended.sellers[0])
    assert play.claimable(ended.sellers[0], at) == amount
    play.token.refuse(False)
    play.settlement.claim(at, sender=ended.sellers[0])


def test_a_token_that_begins_to_keep_a_fee_is_split_as_it_arrives(
    deployers: Mapping[str, Any], clean_chain: None
) -> None:
    play = Play(deployers, "Fee")
    ended, at = few(play, "token", price_wei=10_000), play.token.address
    play.settle(ended)
    (settled,) = play.logs("JobSettled")
    total = sum(log.amount_wei for log in play.logs("PayoutCredited"))
    assert settled.price_wei == total == 9_900
    check_balance(play, at, ended)
    # No job is paid with another one's money.
    for payee in payees_of(ended):
        if play.claimable(payee, at):
            play.settlement.claim(at, sender=payee)
    assert play.balance(play.settlement.address, at) == 0


def test_money_of_others_is_not_taken_for_a_price(play: Play) -> None:
    play.token.mint(play.settlement.address, 5)
    ended = few(play, "token")
    play.settle(ended)
    (settled,) = play.logs("JobSettled")
    assert settled.price_wei == ended.price_wei


def test_ether_comes_from_the_market_alone(play: Play) -> None:
    with pytest.raises(Exception, match="only the market"):
        boa.env.raw_call(play.settlement.address, sender=make_actor("stranger").address, value=1)


def test_the_highest_price_does_not_overflow(play: Play) -> None:
    ended = few(play, "token", price_wei=2**128 - 1)
    for _ in range(3):
        play.settle(ended)
    check_balance(play, play.token.address, ended)


def test_accepted_sellers_forfeit_only_for_one_final_evaluation(play: Play) -> None:
    worse = {"outcome": 2, "last_utility": 99_999, "weights": (2, 0)}
    ended = few(play, **worse)
    job = play.settle(ended)
    assert list(play.stage.forfeited_by(job)) == [ended.sellers[0]]
    apart = few(play, **worse, is_final_evaluated=False)
    assert list(play.stage.forfeited_by(play.settle(apart))) == []
