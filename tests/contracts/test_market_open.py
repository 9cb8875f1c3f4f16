"""Market: auctions of bids in the clear."""

from typing import Any

import boa
import pytest

from tests.contracts import reference
from tests.contracts.auctions import (
    CANCELLED,
    ENROLMENT,
    OPEN,
    UNWORKABLE_TERMS,
    Auction,
    encode_call,
    event,
    stock,
)
from tests.contracts.world import BODY_HASH, ETHER, NO_PERMIT, ONE_ETHER, TAGS, World, make_actor


@pytest.fixture
def auction(world: World) -> Auction:
    return Auction(stock(world), OPEN, blocks=50)


def test_the_highest_bid_wins_and_pays_its_amount(world: World, auction: Auction) -> None:
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    auction.bid(world.other_buyer, 10 * ONE_ETHER)
    auction.bid(world.buyer, 11 * ONE_ETHER)
    auction.check_books([world.buyer, world.other_buyer])
    auction.close()
    assert (auction.job.buyer, auction.job.price_wei) == (world.buyer.address, 11 * ONE_ETHER)
    assert auction.job.status == ENROLMENT
    auction.check_books([world.buyer, world.other_buyer])
    assert auction.reclaim(world.other_buyer) == 10 * ONE_ETHER
    with boa.reverts("market: nothing to reclaim"):
        auction.reclaim(world.buyer)
    assert world.balance(world.market.address) == 11 * ONE_ETHER


def test_a_bid_alone_wins(world: World, auction: Auction) -> None:
    auction.open_clear(world.buyer, ONE_ETHER * 9)
    auction.close()
    assert (auction.job.buyer, auction.job.price_wei) == (world.buyer.address, 9 * ONE_ETHER)


def test_a_bid_in_the_clear_tells_what_a_sealed_and_revealed_one_does(
    world: World, auction: Auction
) -> None:
    opened_block = world.blocks.number
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    opened = event(world.market, "AuctionOpened")
    assert (opened.tags, opened.mode, opened.currency) == (TAGS, OPEN, ETHER)
    assert (opened.deposit_wei, opened.reserve_wei) == (0, ONE_ETHER)
    assert opened.commit_end == opened.reveal_end == opened_block + 50
    committed = event(world.market, "BidCommitted")
    assert (committed.bidder, committed.deposit_wei) == (world.buyer.address, 9 * ONE_ETHER)
    revealed = event(world.market, "BidRevealed")
    assert (revealed.amount_wei, revealed.body_hash) == (9 * ONE_ETHER, BODY_HASH)
    assert tuple(revealed.terms) == auction.terms
    bid = world.market.bid_of(1, world.buyer.address)
    assert (bid.commitment, bid.is_revealed) == (committed.commitment, True)

    auction.bid(world.buyer, 12 * ONE_ETHER)
    assert event(world.market, "BidCommitted").deposit_wei == 12 * ONE_ETHER
    assert event(world.market, "BidRevealed").amount_wei == 12 * ONE_ETHER
    auction.close()
    assert event(world.market, "AuctionClosed").request_hash == committed.commitment
    assert auction.job.opened_block == opened_block


def test_the_terms_are_those_of_the_last_bid(world: World, auction: Auction) -> None:
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    auction.change_terms(rounds_max=7)
    auction.bid(world.buyer, 10 * ONE_ETHER)
    assert event(world.market, "BidRevealed").terms.rounds_max == 7
    auction.close()
    assert auction.job.terms_hash == reference.terms_hash(auction.terms)
    assert auction.job.request_hash == reference.request_hash(auction.terms, BODY_HASH)


@pytest.mark.parametrize(
    ("best_wei", "least_wei"),
    [(10 * ONE_ETHER, 105 * ONE_ETHER // 10), (10 * ONE_ETHER + 1, 105 * ONE_ETHER // 10 + 2)],
)
def test_a_raise_is_at_least_five_percent(
    world: World, auction: Auction, best_wei: int, least_wei: int
) -> None:
    auction.open_clear(world.buyer, best_wei)
    for bidder in (world.buyer, world.other_buyer):
        with boa.reverts("market: raise too small"):
            auction.bid(bidder, least_wei - 1)
    auction.bid(world.other_buyer, least_wei)


def test_a_bidder_adds_what_is_missing_and_no_more(world: World, auction: Auction) -> None:
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    for value in (0, 1, 10 * ONE_ETHER):
        with boa.reverts("money: not the amount"):
            auction.bid(world.buyer, 10 * ONE_ETHER, value=value)
    auction.bid(world.buyer, 10 * ONE_ETHER, value=ONE_ETHER)
    auction.bid(world.other_buyer, 11 * ONE_ETHER)
    auction.bid(world.buyer, 12 * ONE_ETHER, value=2 * ONE_ETHER)
    assert auction.held_wei(world.buyer) == 12 * ONE_ETHER
    assert world.balance(world.market.address) == 23 * ONE_ETHER


def test_an_outbid_bidder_takes_its_money_back_at_once_and_may_bid_again(
    world: World, auction: Auction
) -> None:
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    with boa.reverts("market: the best bid stays"):
        auction.reclaim(world.buyer)
    with boa.reverts("market: nothing to reclaim"):
        auction.reclaim(world.stranger)
    auction.bid(world.other_buyer, 10 * ONE_ETHER)
    assert auction.reclaim(world.buyer) == 9 * ONE_ETHER
    reclaimed = event(world.market, "BidReclaimed")
    assert (reclaimed.amount_wei, reclaimed.forfeited_wei) == (9 * ONE_ETHER, 0)
    with boa.reverts("market: nothing to reclaim"):
        auction.reclaim(world.buyer)
    auction.check_books([world.buyer, world.other_buyer])

    auction.bid(world.buyer, 11 * ONE_ETHER, value=11 * ONE_ETHER)
    with boa.reverts("market: the best bid stays"):
        auction.reclaim(world.buyer)
    auction.close()
    assert auction.job.buyer == world.buyer.address
    assert auction.reclaim(world.other_buyer) == 10 * ONE_ETHER
    assert world.balance(world.market.address) == 11 * ONE_ETHER


def test_a_bid_in_the_last_tenth_moves_the_end(world: World, auction: Auction) -> None:
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    end = auction.of.commit_end
    world.blocks.mine_to(end - 5)
    auction.bid(world.other_buyer, 10 * ONE_ETHER)
    assert auction.of.commit_end == end
    world.blocks.mine_to(end - 4)
    auction.bid(world.buyer, 11 * ONE_ETHER)
    assert event(world.market, "AuctionExtended").commit_end == end + 5
    assert (auction.of.commit_end, auction.of.reveal_end) == (end + 5, end + 5)
    with boa.reverts("market: reveal still open"):
        world.blocks.mine_to(end + 5)
        world.market.close_auction(1)
    # The tenth stays that of the window as it was opened.
    auction.bid(world.other_buyer, 12 * ONE_ETHER)
    assert (auction.of.commit_end, auction.of.extended_blocks) == (end + 10, 10)
    auction.close()
    assert auction.job.buyer == world.other_buyer.address


def test_a_window_of_one_block_is_extended_by_one(world: World) -> None:
    auction = Auction(stock(world), OPEN, blocks=1)
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    end = auction.of.commit_end
    assert end == world.blocks.number + 1, "the opening bid is not late"
    world.blocks.mine()
    auction.bid(world.other_buyer, 10 * ONE_ETHER)
    assert auction.of.commit_end == end + 1


def test_no_auction_is_kept_open_longer_than_the_longest_window(world: World) -> None:
    auction = Auction(stock(world), OPEN, blocks=100)
    auction.change_terms(seller_deposit_wei=10**9)
    auction.open_clear(world.buyer, 10**10, reserve_wei=0)
    end, amount_wei = auction.of.commit_end, 10**10
    for turn in range(12):
        world.blocks.mine_to(auction.of.commit_end)
        amount_wei = amount_wei * 105 // 100 + 1
        auction.change_terms(seller_deposit_wei=amount_wei // 10)
        auction.bid((world.other_buyer, world.buyer)[turn % 2], amount_wei)
    assert auction.of.commit_end == end + 100
    assert auction.of.extended_blocks == 100
    world.blocks.mine_past(end + 100)
    with boa.reverts("market: bidding closed"):
        auction.bid(world.buyer, 2 * amount_wei)
    auction.close()
    assert auction.job.price_wei == amount_wei


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tags": []}, "market: tags not ascending"),
        ({"tags": TAGS[::-1]}, "market: tags not ascending"),
        ({"currency": "0x" + "11" * 20, "value": 0}, "market: currency not allowed"),
        ({"bid_blocks": 0}, "market: commit_blocks out of range"),
        ({"bid_blocks": 101}, "market: commit_blocks out of range"),
        ({"auction": 2}, "market: number taken"),
        ({"amount_wei": ONE_ETHER - 1}, "market: below the reserve"),
        ({"amount_wei": 0, "reserve_wei": 0}, "market: raise too small"),
        ({"amount_wei": 2**128}, "market: deposit too large"),
        ({"value": 9 * ONE_ETHER - 1}, "money: not the amount"),
        ({"value": 9 * ONE_ETHER + 1}, "money: not the amount"),
    ],
)
def test_an_auction_that_cannot_work_is_not_opened(
    world: World, auction: Auction, change: dict[str, Any], reason: str
) -> None:
    arguments = {"amount_wei": 9 * ONE_ETHER, "value": 9 * ONE_ETHER, **change}
    with boa.reverts(reason):
        auction.open_clear(world.buyer, **arguments)
    assert world.market.auction_count() == 0


@pytest.mark.parametrize(("change", "reason"), UNWORKABLE_TERMS)
def test_terms_that_cannot_work_are_not_bid_with(
    world: World, auction: Auction, change: dict[str, int], reason: str
) -> None:
    fitting = auction.terms
    auction.change_terms(**change)
    with boa.reverts(reason):
        auction.open_clear(world.buyer, 9 * ONE_ETHER)
    auction.terms = fitting
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    auction.change_terms(**change)
    with boa.reverts(reason):
        auction.bid(world.other_buyer, 10 * ONE_ETHER)


def test_sealed_bids_are_not_taken_among_those_in_the_clear(world: World, auction: Auction) -> None:
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    with boa.reverts("market: bids are not sealed"):
        auction.commit(world.other_buyer, 10 * ONE_ETHER)
    with boa.reverts("market: bids are not sealed"):
        auction.reveal(world.buyer, 9 * ONE_ETHER)


def test_bids_are_taken_in_the_window_only(world: World, auction: Auction) -> None:
    with boa.reverts("market: no such auction"):
        auction.bid(world.buyer, 9 * ONE_ETHER)
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    world.blocks.mine_to(auction.of.commit_end)
    with boa.reverts("market: reveal still open"):
        world.market.close_auction(1)
    world.blocks.mine()
    with boa.reverts("market: bidding closed"):
        auction.bid(world.other_buyer, 10 * ONE_ETHER)
    auction.close()
    with boa.reverts("market: no such auction"):
        auction.bid(world.other_buyer, 10 * ONE_ETHER)
    with boa.reverts("market: no such auction"):
        auction.close()


def test_many_bidders_fill_no_auction(world: World, auction: Auction) -> None:
    amount_wei = 10**6
    auction.change_terms(seller_deposit_wei=amount_wei // 10)
    auction.open_clear(world.buyer, amount_wei, reserve_wei=0)
    for number in range(70):
        amount_wei = -(-amount_wei * 105 // 100)
        auction.change_terms(seller_deposit_wei=amount_wei // 10)
        auction.bid(make_actor(f"bidder {number}"), amount_wei)
    auction.close()
    assert auction.job.price_wei == amount_wei


def test_a_bid_that_another_one_came_before_takes_no_money(world: World, auction: Auction) -> None:
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    auction.bid(world.other_buyer, 10 * ONE_ETHER)
    before = world.balance(world.buyer.address)
    with boa.reverts("market: raise too small"):
        auction.bid(world.buyer, 10 * ONE_ETHER)
    assert world.balance(world.buyer.address) == before


def test_the_refund_of_a_cancelled_job_is_its_price(world: World, auction: Auction) -> None:
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    auction.close()
    world.market.cancel_job(1, sender=world.enrolment.address)
    assert auction.job.status == CANCELLED
    before = world.balance(world.buyer.address)
    world.market.reclaim_escrow(1, sender=world.buyer.address)
    assert world.balance(world.buyer.address) - before == 9 * ONE_ETHER
    assert world.balance(world.market.address) == 0


def encode_bid(auction: Auction, amount_wei: int) -> bytes:
    arguments = (auction.number, amount_wei, auction.terms, BODY_HASH, NO_PERMIT)
    return encode_call(auction.market, "bid", *arguments)


def test_a_bidder_that_asks_again_while_it_is_paid_gets_nothing_more(
    world: World, auction: Auction, deployers: dict[str, Any]
) -> None:
    hostile = deployers["HostileAccount"].deploy()
    bid = encode_bid(auction, 10 * ONE_ETHER)
    reclaim = encode_call(world.market, "reclaim_bid", 1)
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    hostile.execute(world.market.address, bid, value=10 * ONE_ETHER, sender=world.stranger.address)
    auction.bid(world.buyer, 11 * ONE_ETHER)
    hostile.arm(world.market.address, reclaim)
    hostile.execute(world.market.address, reclaim)
    assert (hostile.has_tried(), hostile.has_succeeded()) == (True, False)
    assert world.balance(world.market.address) == 11 * ONE_ETHER


def test_a_bidder_that_refuses_its_money_holds_up_nobody(
    world: World, auction: Auction, deployers: dict[str, Any]
) -> None:
    hostile = deployers["HostileAccount"].deploy()
    bid = encode_bid(auction, 10 * ONE_ETHER)
    auction.open_clear(world.buyer, 9 * ONE_ETHER)
    hostile.execute(world.market.address, bid, value=10 * ONE_ETHER, sender=world.stranger.address)
    hostile.refuse(True)
    auction.bid(world.buyer, 11 * ONE_ETHER)
    with boa.reverts("account: refused"):
        hostile.execute(world.market.address, encode_call(world.market, "reclaim_bid", 1))
    auction.close()
    assert auction.job.buyer == world.buyer.address
