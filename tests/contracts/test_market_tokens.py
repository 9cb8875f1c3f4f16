"""Market: auctions in the deployment's token."""

from collections.abc import Mapping
from typing import Any

import boa
import pytest
from eth_utils.crypto import keccak

from tests.contracts import reference
from tests.contracts.auctions import BOND, OPEN, SECOND_PRICE, Auction, encode_call, stock
from tests.contracts.world import (
    BODY_HASH,
    BURN_ACCOUNT,
    CHAIN,
    ETHER,
    NO_PERMIT,
    ONE_ETHER,
    Actor,
    World,
    make_actor,
)

NEVER = 2**64


def make_world(deployers: Mapping[str, Any], token: Any) -> World:
    """A market whose token is this one, and bidders that have plenty of it."""
    world = stock(World(deployers, token=token.address))
    for bidder in (world.buyer, world.other_buyer):
        token.mint(bidder.address, 100 * ONE_ETHER)
    return world


@pytest.fixture
def token(deployers: Mapping[str, Any], clean_chain: None) -> Any:
    return deployers["TokenPlain"].deploy()


@pytest.fixture
def world(deployers: Mapping[str, Any], token: Any) -> World:
    return make_world(deployers, token)


def approve(token: Any, world: World, bidder: Actor, amount_wei: int) -> None:
    token.approve(world.market.address, amount_wei, sender=bidder.address)


def sign_permit(
    token: Any, world: World, owner: Actor, amount_wei: int, **changes: Any
) -> tuple[int, int, int, bytes, bytes]:
    """An EIP-2612 permit for the market: value, deadline, v, r, s."""
    fields = {
        "spender": world.market_raw,
        "nonce": int(token.nonces(owner.address)),
        "deadline": NEVER,
        "chain": CHAIN,
        **changes,
    }
    kind = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
    domain = keccak(
        keccak(kind)
        + keccak(b"Plain")
        + keccak(b"1")
        + reference.word(fields["chain"])
        + reference.word(bytes.fromhex(token.address[2:]))
    )
    kind = b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
    members = (owner.raw, fields["spender"], amount_wei, fields["nonce"], fields["deadline"])
    message = keccak(keccak(kind) + b"".join(map(reference.word, members)))
    signature = reference.sign(owner.key, keccak(b"\x19\x01" + domain + message))
    return amount_wei, fields["deadline"], signature[64], signature[:32], signature[32:64]


def test_an_auction_in_the_token_moves_no_ether(world: World, token: Any) -> None:
    auction = Auction(world, token=token)
    silent = make_actor("silent bidder")
    token.mint(silent.address, 20 * ONE_ETHER)
    for bidder in (world.buyer, world.other_buyer, silent):
        approve(token, world, bidder, BOND)
    auction.open(world.buyer, 9 * ONE_ETHER)
    auction.commit(world.other_buyer, 10 * ONE_ETHER)
    auction.commit(silent, 11 * ONE_ETHER)
    assert auction.job.currency == token.address
    auction.start_reveals()
    auction.reveal(world.buyer, 9 * ONE_ETHER)
    auction.reveal(world.other_buyer, 10 * ONE_ETHER)
    auction.close()
    auction.check_books([world.buyer, world.other_buyer, silent])
    assert auction.job.currency == token.address
    assert auction.reclaim(world.buyer) == BOND
    assert auction.reclaim(world.other_buyer) == 2 * ONE_ETHER
    assert auction.reclaim(silent) == BOND * 9 // 10
    assert token.balanceOf(BURN_ACCOUNT) == BOND // 10
    assert token.balanceOf(world.market.address) == 10 * ONE_ETHER
    assert world.balance(world.market.address) == 0


def test_both_currencies_are_kept_apart(world: World, token: Any) -> None:
    in_ether = Auction(world, SECOND_PRICE)
    in_ether.open(world.buyer, 9 * ONE_ETHER)
    in_token = Auction(world, SECOND_PRICE, token=token)
    approve(token, world, world.buyer, BOND)
    in_token.open(world.buyer, 9 * ONE_ETHER)
    for auction in (in_ether, in_token):
        auction.start_reveals()
        auction.reveal(world.buyer, 9 * ONE_ETHER)
    for auction in (in_ether, in_token):
        auction.close()
        auction.check_books([world.buyer])
    assert (in_ether.job.currency, in_token.job.currency) == (ETHER, token.address)


def test_the_price_of_a_job_in_the_token_goes_to_the_settlement_or_back(
    world: World, token: Any
) -> None:
    auctions = [Auction(world, OPEN, token=token)]
    approve(token, world, world.buyer, 18 * ONE_ETHER)
    auctions[0].open_clear(world.buyer, 9 * ONE_ETHER)
    auctions.append(Auction(world, OPEN, token=token))
    auctions[1].open_clear(world.buyer, 9 * ONE_ETHER)
    for auction in auctions:
        auction.close()
    world.market.start_job(1, sender=world.enrolment.address)
    world.market.release_escrow(1, sender=world.settlement.address)
    assert token.balanceOf(world.settlement.address) == 9 * ONE_ETHER
    world.market.cancel_job(2, sender=world.enrolment.address)
    before = token.balanceOf(world.buyer.address)
    world.market.reclaim_escrow(2, sender=world.buyer.address)
    assert token.balanceOf(world.buyer.address) - before == 9 * ONE_ETHER
    assert token.balanceOf(world.market.address) == 0


def test_raises_in_the_token_take_the_difference(world: World, token: Any) -> None:
    auction = Auction(world, OPEN, token=token)
    approve(token, world, world.buyer, 12 * ONE_ETHER)
    approve(token, world, world.other_buyer, 10 * ONE_ETHER)
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    auction.bid(world.other_buyer, 10 * ONE_ETHER)
    auction.bid(world.buyer, 12 * ONE_ETHER)
    assert token.allowance(world.buyer.address, world.market.address) == 0
    auction.check_books([world.buyer, world.other_buyer])
    assert auction.reclaim(world.other_buyer) == 10 * ONE_ETHER


def test_ether_is_not_taken_for_a_token(world: World, token: Any) -> None:
    sealed = Auction(world, token=token)
    approve(token, world, world.buyer, 2 * BOND)
    with boa.reverts("money: ether for a token"):
        sealed.open(world.buyer, 9 * ONE_ETHER, value=1)
    clear = Auction(world, OPEN, token=token)
    with boa.reverts("money: ether for a token"):
        clear.open_clear(world.buyer, 9 * ONE_ETHER, value=9 * ONE_ETHER)


def test_without_an_allowance_nothing_is_bid(world: World, token: Any) -> None:
    auction = Auction(world, token=token)
    with boa.reverts():
        auction.open(world.buyer, 9 * ONE_ETHER)
    approve(token, world, world.buyer, BOND - 1)
    with boa.reverts():
        auction.open(world.buyer, 9 * ONE_ETHER)
    assert world.market.auction_count() == 0


def test_another_token_is_not_a_currency(world: World, deployers: Mapping[str, Any]) -> None:
    other = deployers["TokenPlain"].deploy()
    with boa.reverts("market: currency not allowed"):
        Auction(world, token=other).open(world.buyer, 9 * ONE_ETHER)
    with boa.reverts("market: currency not allowed"):
        Auction(world, OPEN, token=other).open_clear(world.buyer, 9 * ONE_ETHER)


def test_a_permit_stands_for_an_allowance(world: World, token: Any) -> None:
    auction = Auction(world, token=token)
    auction.open(world.buyer, 9 * ONE_ETHER, permits=[sign_permit(token, world, world.buyer, BOND)])
    permit = sign_permit(token, world, world.other_buyer, BOND)
    auction.commit(world.other_buyer, 10 * ONE_ETHER, permits=[permit])
    clear = Auction(world, OPEN, token=token)
    permit = sign_permit(token, world, world.buyer, 9 * ONE_ETHER)
    clear.open_clear(world.buyer, 9 * ONE_ETHER, permits=[permit])
    permit = sign_permit(token, world, world.other_buyer, 10 * ONE_ETHER)
    clear.bid(world.other_buyer, 10 * ONE_ETHER, permits=[permit])
    assert token.balanceOf(world.market.address) == 2 * BOND + 19 * ONE_ETHER


def test_a_permit_that_somebody_else_used_first_does_no_harm(world: World, token: Any) -> None:
    auction = Auction(world, token=token)
    permit = sign_permit(token, world, world.buyer, BOND)
    token.permit(world.buyer.address, world.market.address, *permit, sender=world.stranger.address)
    auction.open(world.buyer, 9 * ONE_ETHER, permits=[permit])
    assert auction.held_wei(world.buyer) == BOND


@pytest.mark.parametrize(
    "change",
    [{"nonce": 7}, {"deadline": 0}, {"chain": 1}, {"spender": b"\x11" * 20}],
)
def test_a_permit_that_does_not_hold_takes_no_money(
    world: World, token: Any, change: dict[str, Any]
) -> None:
    auction = Auction(world, token=token)
    permit = sign_permit(token, world, world.buyer, BOND, **change)
    with boa.reverts():
        auction.open(world.buyer, 9 * ONE_ETHER, permits=[permit])


def test_another_accounts_permit_takes_none_of_its_money(world: World, token: Any) -> None:
    auction = Auction(world, token=token)
    permit = sign_permit(token, world, world.other_buyer, BOND)
    with boa.reverts():
        auction.open(world.buyer, 9 * ONE_ETHER, permits=[permit])
    assert token.balanceOf(world.other_buyer.address) == 100 * ONE_ETHER


def test_a_permit_in_an_auction_in_ether_is_ignored(world: World, token: Any) -> None:
    auction = Auction(world)
    permit = sign_permit(token, world, world.buyer, BOND)
    auction.open(world.buyer, 9 * ONE_ETHER, permits=[permit])
    assert token.allowance(world.buyer.address, world.market.address) == 0


def test_a_token_that_keeps_a_fee_is_refused(deployers: Mapping[str, Any]) -> None:
    token = deployers["TokenFee"].deploy()
    world = make_world(deployers, token)
    approve(token, world, world.buyer, BOND)
    with boa.reverts("money: token keeps a fee"):
        Auction(world, token=token).open(world.buyer, 9 * ONE_ETHER)
    with boa.reverts("money: token keeps a fee"):
        Auction(world, OPEN, token=token).open_clear(world.buyer, 9 * ONE_ETHER)


def test_a_token_that_returns_nothing_is_taken_and_paid(deployers: Mapping[str, Any]) -> None:
    token = deployers["TokenSilent"].deploy()
    world = make_world(deployers, token)
    auction = Auction(world, OPEN, token=token)
    for bidder in (world.buyer, world.other_buyer):
        approve(token, world, bidder, 20 * ONE_ETHER)
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    auction.bid(world.other_buyer, 10 * ONE_ETHER)
    assert auction.reclaim(world.buyer) == 9 * ONE_ETHER
    auction.close()
    auction.check_books([world.buyer, world.other_buyer])


def test_a_token_that_says_no_is_refused_both_ways(deployers: Mapping[str, Any]) -> None:
    token = deployers["TokenHostile"].deploy()
    world = make_world(deployers, token)
    auction = Auction(world, OPEN, token=token)
    for bidder in (world.buyer, world.other_buyer):
        approve(token, world, bidder, 20 * ONE_ETHER)
    token.refuse(True)
    with boa.reverts("money: token refused"):
        auction.open_clear(world.buyer, 9 * ONE_ETHER)
    token.refuse(False)
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    auction.bid(world.other_buyer, 10 * ONE_ETHER)
    token.refuse(True)
    with boa.reverts("money: token refused"):
        auction.reclaim(world.buyer)
    token.refuse(False)
    assert auction.reclaim(world.buyer) == 9 * ONE_ETHER


def test_a_token_that_calls_back_closes_no_auction(deployers: Mapping[str, Any]) -> None:
    token = deployers["TokenHostile"].deploy()
    world = make_world(deployers, token)
    auction = Auction(world, OPEN, token=token)
    for bidder in (world.buyer, world.other_buyer):
        approve(token, world, bidder, 20 * ONE_ETHER)
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    auction.bid(world.other_buyer, 10 * ONE_ETHER)
    world.blocks.mine_past(auction.of.commit_end)
    # Anyone may close it now, but not while the market pays.
    token.arm(world.market.address, encode_call(world.market, "close_auction", 1))
    assert auction.reclaim(world.buyer) == 9 * ONE_ETHER
    assert (token.has_tried(), token.has_succeeded()) == (True, False)
    auction.close()


@pytest.mark.parametrize("moment", ["taken", "paid"])
def test_a_bidder_with_a_hostile_token_gets_nothing_twice(
    deployers: Mapping[str, Any], moment: str
) -> None:
    token, account = deployers["TokenHostile"].deploy(), deployers["HostileAccount"].deploy()
    world = make_world(deployers, token)
    auction = Auction(world, OPEN, token=token)
    approve(token, world, world.buyer, 20 * ONE_ETHER)
    token.mint(account.address, 20 * ONE_ETHER)
    allow = encode_call(token, "approve", world.market.address, 20 * ONE_ETHER)
    reclaim = encode_call(world.market, "reclaim_bid", 1)
    again = account.execute.prepare_calldata(world.market.address, reclaim)
    bid = (1, 9 * ONE_ETHER, auction.terms, BODY_HASH, NO_PERMIT)

    account.execute(token.address, allow)
    auction.open_clear(world.buyer, 8 * ONE_ETHER)
    account.execute(world.market.address, encode_call(world.market, "bid", *bid))
    if moment == "taken":
        token.arm(account.address, again)
    auction.bid(world.buyer, 10 * ONE_ETHER)
    if moment == "paid":
        token.arm(account.address, again)
    account.execute(world.market.address, reclaim)
    assert (token.has_tried(), token.has_succeeded()) == (True, False)
    assert token.balanceOf(account.address) == 20 * ONE_ETHER
    assert token.balanceOf(world.market.address) == 10 * ONE_ETHER
