"""Market: auctions of sealed bids, the record of a job, escrow."""

from typing import Any

import boa
import pytest

from tests.contracts import reference
from tests.contracts.auctions import (
    BOND,
    CANCELLED,
    ENROLMENT,
    RUNNING,
    SALT,
    SECOND_PRICE,
    SETTLED,
    UNWORKABLE_TERMS,
    Auction,
    event,
    stock,
)
from tests.contracts.world import (
    BODY_HASH,
    ETHER,
    NO_PERMIT,
    ONE_ETHER,
    TAGS,
    World,
    make_actor,
)


@pytest.fixture
def auction(world: World) -> Auction:
    return Auction(stock(world))


def test_the_higher_bid_wins_and_everybody_gets_the_rest_back(
    world: World, auction: Auction
) -> None:
    silent = make_actor("silent bidder")
    auction.open(world.buyer, 9 * ONE_ETHER)
    auction.commit(world.other_buyer, 10 * ONE_ETHER)
    auction.commit(silent, 11 * ONE_ETHER)
    auction.start_reveals()
    auction.reveal(world.buyer, 9 * ONE_ETHER)
    auction.reveal(world.other_buyer, 10 * ONE_ETHER)
    auction.check_books([world.buyer, world.other_buyer, silent])
    auction.close()

    auction.check_books([world.buyer, world.other_buyer, silent])
    assert (auction.job.buyer, auction.job.price_wei) == (
        world.other_buyer.address,
        10 * ONE_ETHER,
    )
    assert auction.job.status == ENROLMENT
    burned_wei = world.burned_wei
    assert auction.reclaim(world.buyer) == BOND
    assert auction.reclaim(world.other_buyer) == 2 * ONE_ETHER
    assert auction.reclaim(silent) == BOND * 9 // 10
    assert world.burned_wei - burned_wei == BOND // 10
    assert world.balance(world.market.address) == 10 * ONE_ETHER


@pytest.mark.parametrize("first_to_reveal", ["buyer", "other_buyer"])
def test_of_equal_bids_the_earlier_commitment_wins(
    world: World, auction: Auction, first_to_reveal: str
) -> None:
    auction.open(world.buyer, 9 * ONE_ETHER)
    auction.commit(world.other_buyer, 9 * ONE_ETHER)
    auction.start_reveals()
    bidders = [world.buyer, world.other_buyer]
    for bidder in bidders if first_to_reveal == "buyer" else bidders[::-1]:
        auction.reveal(bidder, 9 * ONE_ETHER)
    auction.close()
    assert auction.job.buyer == world.buyer.address


def test_a_winner_that_put_up_its_price_has_nothing_to_reclaim(
    world: World, auction: Auction
) -> None:
    auction.open(world.buyer, BOND)
    auction.start_reveals()
    auction.reveal(world.buyer, BOND)
    auction.close()
    with boa.reverts("market: nothing to reclaim"):
        auction.reclaim(world.buyer)


def test_the_announcement_of_a_winner_holds_what_a_node_needs(
    world: World, auction: Auction
) -> None:
    opened_block = world.blocks.number
    auction.open(world.buyer, 9 * ONE_ETHER)
    opened = event(world.market, "AuctionOpened")
    assert (opened.tags, opened.mode, opened.currency) == (TAGS, 0, ETHER)
    assert (opened.deposit_wei, opened.reserve_wei) == (ONE_ETHER, ONE_ETHER)
    assert opened.commit_end == opened_block + 5
    assert opened.reveal_end == opened.commit_end + 5
    committed = event(world.market, "BidCommitted")
    assert (committed.bidder, committed.deposit_wei) == (world.buyer.address, BOND)
    assert world.market.tags_of(1) == TAGS
    auction.start_reveals()
    auction.reveal(world.buyer, 9 * ONE_ETHER)
    revealed = event(world.market, "BidRevealed")
    assert tuple(revealed.terms) == auction.terms
    assert (revealed.amount_wei, revealed.body_hash) == (9 * ONE_ETHER, BODY_HASH)
    auction.close()
    closed = event(world.market, "AuctionClosed")
    record = auction.job
    assert closed.terms_hash == record.terms_hash
    assert closed.request_hash == record.request_hash
    assert closed.body_hash == record.body_hash == BODY_HASH
    assert (record.opened_block, record.currency) == (opened_block, ETHER)
    # Closed before the decision window was over: enrolment counts from its end.
    assert closed.enrolment_end == record.enrolment_end == opened.reveal_end + 1 + 6


def test_enrolment_of_an_auction_that_is_closed_late_counts_from_the_call(
    world: World, auction: Auction
) -> None:
    auction.open(world.buyer, 9 * ONE_ETHER)
    auction.start_reveals()
    auction.reveal(world.buyer, 9 * ONE_ETHER)
    world.blocks.mine(50)
    auction.close()
    assert auction.job.enrolment_end == world.blocks.number + 6


def test_an_auction_without_a_valid_bid_is_cancelled(world: World, auction: Auction) -> None:
    auction.open(world.buyer, 9 * ONE_ETHER)
    auction.close()
    assert event(world.market, "AuctionCancelled").auction == 1
    assert world.market.is_closed(1)
    assert auction.job.status == CANCELLED
    with boa.reverts("market: not the buyer"):
        world.market.reclaim_escrow(1, sender=world.buyer.address)
    assert auction.reclaim(world.buyer) == BOND * 9 // 10
    assert world.balance(world.market.address) == 0


def test_nobody_reclaims_twice_and_strangers_reclaim_nothing(
    world: World, auction: Auction
) -> None:
    auction.open(world.buyer, 9 * ONE_ETHER)
    auction.close()
    auction.reclaim(world.buyer)
    for account in (world.buyer, world.stranger):
        with boa.reverts("market: nothing to reclaim"):
            auction.reclaim(account)
    auction.number = 2
    with boa.reverts("market: no such auction"):
        auction.reclaim(world.buyer)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mode": 2}, "market: mode not supported"),
        ({"mode": 3}, "market: mode not supported"),
        ({"tags": []}, "market: tags not ascending"),
        ({"tags": TAGS[::-1]}, "market: tags not ascending"),
        ({"currency": "0x" + "11" * 20, "value": 0}, "market: currency not allowed"),
        ({"commit_blocks": 0}, "market: commit_blocks out of range"),
        ({"commit_blocks": 101}, "market: commit_blocks out of range"),
        ({"commit_blocks": 2**256 - 1}, "market: commit_blocks out of range"),
        ({"reveal_blocks": 0}, "market: reveal_blocks out of range"),
        ({"reveal_blocks": 101}, "market: reveal_blocks out of range"),
        ({"commitment": bytes(32)}, "market: empty commitment"),
        ({"bond_wei": ONE_ETHER - 1}, "market: deposit too small"),
        ({"bond_wei": 0, "deposit_wei": 0}, "market: no deposit"),
        ({"bond_wei": 2**128, "value": 0}, "market: deposit too large"),
        ({"value": BOND - 1}, "money: not the amount"),
        ({"value": BOND + 1}, "money: not the amount"),
        ({"auction": 2}, "market: number taken"),
        ({"auction": 0}, "market: number taken"),
    ],
)
def test_an_auction_that_cannot_work_is_not_opened(
    world: World, auction: Auction, change: dict[str, Any], reason: str
) -> None:
    with boa.reverts(reason):
        auction.open(world.buyer, 9 * ONE_ETHER, **change)
    assert world.market.auction_count() == 0


def test_auctions_for_the_same_tags_run_side_by_side(world: World, auction: Auction) -> None:
    auction.open(world.buyer, 9 * ONE_ETHER)
    late = Auction(world)
    with boa.reverts("market: number taken"):
        auction.open(world.other_buyer, 10 * ONE_ETHER)
    late.open(world.other_buyer, 10 * ONE_ETHER)
    late.commit(world.buyer, 11 * ONE_ETHER)
    auction.start_reveals()
    auction.reveal(world.buyer, 9 * ONE_ETHER)
    late.reveal(world.buyer, 11 * ONE_ETHER)
    auction.close()
    late.close()
    assert [auction.job.price_wei, late.job.price_wei] == [9 * ONE_ETHER, 11 * ONE_ETHER]
    assert auction.reclaim(world.buyer) == 3 * ONE_ETHER
    assert late.reclaim(world.buyer) == ONE_ETHER
    assert late.reclaim(world.other_buyer) == BOND * 9 // 10
    assert world.balance(world.market.address) == 20 * ONE_ETHER


def test_one_bid_per_bidder(world: World, auction: Auction) -> None:
    auction.open(world.buyer, 9 * ONE_ETHER)
    with boa.reverts("market: already bid"):
        auction.commit(world.buyer, 10 * ONE_ETHER)


def test_many_small_bids_keep_nobody_out(world: World, auction: Auction) -> None:
    auction.open(world.buyer, 2 * ONE_ETHER)
    for number in range(80):
        auction.commit(make_actor(f"bidder {number}"), ONE_ETHER, ONE_ETHER)
    auction.commit(world.other_buyer, 9 * ONE_ETHER)
    auction.start_reveals()
    auction.reveal(world.other_buyer, 9 * ONE_ETHER)
    auction.close()
    assert auction.job.buyer == world.other_buyer.address


def test_bids_are_taken_and_revealed_in_their_windows_only(world: World, auction: Auction) -> None:
    for call in (
        lambda: auction.commit(world.buyer, ONE_ETHER),
        lambda: auction.reveal(world.buyer, ONE_ETHER),
        lambda: auction.bid(world.buyer, ONE_ETHER),
        auction.close,
    ):
        with boa.reverts("market: no such auction"):
            call()
    auction.open(world.buyer, 9 * ONE_ETHER)
    with boa.reverts("market: reveal not open"):
        auction.reveal(world.buyer, 9 * ONE_ETHER)
    with boa.reverts("market: auction not closed"):
        auction.reclaim(world.buyer)
    world.blocks.mine(5)
    assert world.blocks.number == auction.of.commit_end
    with boa.reverts("market: reveal not open"):
        auction.reveal(world.buyer, 9 * ONE_ETHER)
    auction.start_reveals()
    with boa.reverts("market: bidding closed"):
        auction.commit(world.other_buyer, ONE_ETHER)
    world.blocks.mine(4)
    assert world.blocks.number == auction.of.reveal_end
    with boa.reverts("market: reveal still open"):
        world.market.close_auction(1)
    world.blocks.mine()
    with boa.reverts("market: reveal closed"):
        auction.reveal(world.buyer, 9 * ONE_ETHER)
    auction.close()
    for call in (
        auction.close,
        lambda: auction.reveal(world.buyer, 9 * ONE_ETHER),
        lambda: auction.commit(world.other_buyer, ONE_ETHER),
    ):
        with boa.reverts("market: no such auction"):
            call()


def test_the_last_blocks_of_both_windows_count(world: World, auction: Auction) -> None:
    auction.open(world.buyer, 9 * ONE_ETHER)
    world.blocks.mine_to(auction.of.commit_end)
    auction.commit(world.other_buyer, 10 * ONE_ETHER)
    world.blocks.mine_to(auction.of.reveal_end)
    auction.reveal(world.other_buyer, 10 * ONE_ETHER)
    auction.close()
    assert auction.job.buyer == world.other_buyer.address


def test_a_bid_is_revealed_once_and_as_committed(world: World, auction: Auction) -> None:
    auction.open(world.buyer, 9 * ONE_ETHER)
    auction.start_reveals()
    with boa.reverts("market: reveal mismatch"):
        auction.reveal(world.buyer, 8 * ONE_ETHER)
    with boa.reverts("market: nothing committed"):
        auction.reveal(world.other_buyer, 9 * ONE_ETHER)
    auction.reveal(world.buyer, 9 * ONE_ETHER)
    with boa.reverts("market: already revealed"):
        auction.reveal(world.buyer, 9 * ONE_ETHER)


def test_a_copied_commitment_can_be_opened_by_nobody_else(world: World, auction: Auction) -> None:
    copied = auction.commitment(world.buyer, 9 * ONE_ETHER)
    auction.open(world.buyer, 9 * ONE_ETHER)
    world.market.commit_bid(
        1, copied, BOND, NO_PERMIT, value=BOND, sender=world.other_buyer.address
    )
    auction.start_reveals()
    auction.reveal(world.buyer, 9 * ONE_ETHER)
    with boa.reverts("market: reveal mismatch"):
        auction.reveal(world.other_buyer, 9 * ONE_ETHER)


@pytest.mark.parametrize("place", ["another auction", "another chain", "another market"])
def test_a_commitment_for_elsewhere_cannot_be_opened(
    world: World, auction: Auction, place: str
) -> None:
    chain, market, number = 31337, world.market_raw, 1
    if place == "another auction":
        number = 2
    elif place == "another chain":
        chain = 1
    else:
        market = bytes(20)
    fields = (chain, market, number, world.buyer.raw, 9 * ONE_ETHER)
    commitment = commit_to(fields, auction.terms)
    auction.open(world.buyer, 9 * ONE_ETHER, commitment=commitment)
    auction.start_reveals()
    with boa.reverts("market: reveal mismatch"):
        auction.reveal(world.buyer, 9 * ONE_ETHER)


def commit_to(fields: tuple[Any, ...], terms: tuple[int, ...]) -> bytes:
    return reference.tagged("bid", *fields, reference.request_hash(terms, BODY_HASH), SALT)


@pytest.mark.parametrize(
    ("amount_wei", "reason"),
    [(13 * ONE_ETHER, "market: above the deposit"), (1, "market: below the reserve")],
)
def test_an_amount_out_of_bounds_is_not_revealed(
    world: World, auction: Auction, amount_wei: int, reason: str
) -> None:
    auction.open(world.buyer, amount_wei)
    auction.start_reveals()
    with boa.reverts(reason):
        auction.reveal(world.buyer, amount_wei)


@pytest.mark.parametrize(("change", "reason"), UNWORKABLE_TERMS)
def test_terms_that_cannot_work_are_not_revealed(
    world: World, auction: Auction, change: dict[str, int], reason: str
) -> None:
    auction.change_terms(**change)
    auction.open(world.buyer, 9 * ONE_ETHER)
    auction.start_reveals()
    with boa.reverts(reason):
        auction.reveal(world.buyer, 9 * ONE_ETHER)


def test_what_is_registered_after_the_opening_does_not_count(world: World) -> None:
    auction = Auction(stock(world, datasets=5, stakers=5))
    auction.change_terms(sellers_min=6, cones_min=6)
    auction.open(world.buyer, 9 * ONE_ETHER)
    assert (auction.of.datasets, auction.of.stakers) == (5, 5)
    stock(world, datasets=1, stakers=0)
    world.stakes.deposit(value=ONE_ETHER, sender=make_actor("late cone").address)
    auction.start_reveals()
    with boa.reverts("market: sellers_min above the registered"):
        auction.reveal(world.buyer, 9 * ONE_ETHER)
    later = Auction(world)
    later.change_terms(sellers_min=6, cones_min=6)
    later.open(world.buyer, 9 * ONE_ETHER)
    later.start_reveals()
    later.reveal(world.buyer, 9 * ONE_ETHER)


def test_bids_in_the_clear_are_not_taken_among_sealed_ones(world: World, auction: Auction) -> None:
    auction.open(world.buyer, 9 * ONE_ETHER)
    with boa.reverts("market: bids are sealed"):
        auction.bid(world.other_buyer, 10 * ONE_ETHER)


@pytest.fixture
def won(world: World, auction: Auction) -> Auction:
    """An auction that the buyer has won for nine ether."""
    auction.open(world.buyer, 9 * ONE_ETHER)
    auction.start_reveals()
    auction.reveal(world.buyer, 9 * ONE_ETHER)
    auction.close()
    return auction


@pytest.mark.parametrize("function", ["start_job", "cancel_job"])
def test_only_the_enrolment_ends_an_enrolment(world: World, won: Auction, function: str) -> None:
    end = getattr(world.market, function)
    for stranger in (world.buyer.address, world.settlement.address, world.rounds.address):
        with boa.reverts("market: only the enrolment"):
            end(1, sender=stranger)
    with boa.reverts("market: not in enrolment"):
        end(2, sender=world.enrolment.address)
    end(1, sender=world.enrolment.address)
    with boa.reverts("market: not in enrolment"):
        end(1, sender=world.enrolment.address)


def test_a_cancelled_job_is_refunded_in_full_and_once(world: World, won: Auction) -> None:
    with boa.reverts("market: job not cancelled"):
        world.market.reclaim_escrow(1, sender=world.buyer.address)
    world.market.cancel_job(1, sender=world.enrolment.address)
    assert event(world.market, "JobCancelled").refund_wei == 9 * ONE_ETHER
    assert world.market.is_closed(1)
    with boa.reverts("market: not the buyer"):
        world.market.reclaim_escrow(1, sender=world.stranger.address)

    before = world.balance(world.buyer.address)
    world.market.reclaim_escrow(1, sender=world.buyer.address)
    assert event(world.market, "EscrowReclaimed").amount_wei == 9 * ONE_ETHER
    assert world.balance(world.buyer.address) - before == 9 * ONE_ETHER
    with boa.reverts("market: nothing to reclaim"):
        world.market.reclaim_escrow(1, sender=world.buyer.address)
    assert world.balance(world.market.address) == BOND - 9 * ONE_ETHER


def test_only_the_settlement_takes_the_escrow_and_of_a_running_job(
    world: World, won: Auction
) -> None:
    for stranger in (world.buyer.address, world.enrolment.address):
        with boa.reverts("market: only the settlement"):
            world.market.release_escrow(1, sender=stranger)
    with boa.reverts("market: job not running"):
        world.market.release_escrow(1, sender=world.settlement.address)
    world.market.start_job(1, sender=world.enrolment.address)
    assert (won.job.status, world.market.is_closed(1)) == (RUNNING, False)
    world.market.release_escrow(1, sender=world.settlement.address)
    assert (won.job.status, world.market.escrow_of(1)) == (SETTLED, 0)
    assert world.market.is_closed(1)
    assert world.balance(world.settlement.address) == 9 * ONE_ETHER
    with boa.reverts("market: job not running"):
        world.market.release_escrow(1, sender=world.settlement.address)
    with boa.reverts("market: job not cancelled"):
        world.market.reclaim_escrow(1, sender=world.buyer.address)


def test_the_winner_of_a_second_price_auction_pays_the_second_bid(world: World) -> None:
    auction = Auction(stock(world), SECOND_PRICE)
    silent = make_actor("silent bidder")
    auction.open(world.buyer, 11 * ONE_ETHER)
    auction.commit(world.other_buyer, 10 * ONE_ETHER)
    auction.commit(silent, 12 * ONE_ETHER)
    auction.start_reveals()
    auction.reveal(world.other_buyer, 10 * ONE_ETHER)
    auction.reveal(world.buyer, 11 * ONE_ETHER)
    auction.close()
    assert (auction.job.buyer, auction.job.price_wei) == (world.buyer.address, 10 * ONE_ETHER)
    assert event(world.market, "AuctionClosed").price_wei == 10 * ONE_ETHER
    assert world.market.escrow_of(1) == 10 * ONE_ETHER
    auction.check_books([world.buyer, world.other_buyer, silent])
    assert auction.reclaim(world.buyer) == 2 * ONE_ETHER
    assert auction.reclaim(world.other_buyer) == BOND
    assert auction.reclaim(silent) == BOND * 9 // 10
    assert world.balance(world.market.address) == 10 * ONE_ETHER


def test_who_bids_alone_for_a_second_price_pays_the_reserve(world: World) -> None:
    auction = Auction(stock(world), SECOND_PRICE, reserve_wei=0)
    auction.open(world.buyer, 11 * ONE_ETHER)
    auction.start_reveals()
    auction.reveal(world.buyer, 11 * ONE_ETHER)
    auction.close()
    assert auction.job.price_wei == 0
    assert auction.reclaim(world.buyer) == BOND
    assert world.balance(world.market.address) == 0


def test_the_market_names_its_parameters_and_its_contracts(world: World, rules: Any) -> None:
    market = world.market
    assert market.params_hash() == rules.params_hash(tuple(world.params.values()))
    assert tuple(market.params()) == tuple(world.params.values())
    assert list(market.contracts()) == [
        contract.address
        for contract in (
            world.peers,
            world.data,
            world.stakes,
            world.deposits,
            world.enrolment,
            world.statements,
            world.ballots,
            world.rounds,
            world.appeals,
            world.settlement,
        )
    ]


def test_an_unknown_job_has_nothing(world: World) -> None:
    market = world.market
    assert market.job_of(7).status == 0
    assert (market.tags_of(7), market.escrow_of(7), market.is_closed(7)) == ([], 0, False)
    assert market.auction_of(7).commit_end == 0
    assert market.bid_of(7, world.buyer.address).commitment == bytes(32)
