"""Market: sealed-bid auctions, enrolment, escrow."""

from typing import Any

import boa
import pytest
from eth_utils.crypto import keccak

from tests.contracts.world import (
    BODY_HASH,
    ONE_ETHER,
    TAGS,
    Actor,
    Job,
    World,
    make_actor,
)

ENROLMENT, RUNNING = 3, 4
SALT = keccak(b"salt")


class Auction:
    """An auction that actors bid in; every method is one call of theirs."""

    def __init__(self, world: World, reserve_wei: int = ONE_ETHER) -> None:
        self.world = world
        self.market = world.market
        self.reserve_wei = reserve_wei
        self.terms = tuple({**Job(world).terms}.values())
        self.number = world.market.auction_count() + 1

    def commitment(self, bidder: Actor, amount_wei: int) -> bytes:
        return self.world.bid_commitment(self.number, bidder, amount_wei, self.terms, SALT)

    def open(self, opener: Actor, amount_wei: int, **changes: Any) -> None:
        arguments = {
            "auction": self.number,
            "tags": TAGS,
            "mode": 0,
            "deposit_wei": ONE_ETHER,
            "reserve_wei": self.reserve_wei,
            "commit_blocks": 5,
            "reveal_blocks": 5,
            "commitment": self.commitment(opener, amount_wei),
            **changes,
        }
        value = arguments.pop("value", 12 * ONE_ETHER)
        self.market.open_auction(*arguments.values(), value=value, sender=opener.address)

    def commit(self, bidder: Actor, amount_wei: int, value: int = 12 * ONE_ETHER) -> None:
        commitment = self.commitment(bidder, amount_wei)
        self.market.commit_bid(self.number, commitment, value=value, sender=bidder.address)

    def reveal(self, bidder: Actor, amount_wei: int, terms: tuple[int, ...] | None = None) -> None:
        self.market.reveal_bid(
            self.number, amount_wei, terms or self.terms, BODY_HASH, SALT, sender=bidder.address
        )

    def reclaim(self, bidder: Actor) -> int:
        """Reclaim; return what the bidder got."""
        before = self.world.balance(bidder.address)
        self.market.reclaim_bid(self.number, sender=bidder.address)
        return self.world.balance(bidder.address) - before

    def start_reveals(self) -> None:
        self.world.blocks.mine_past(self.market.auction_of(self.number).commit_end)

    def close(self) -> None:
        self.world.blocks.mine_past(self.market.auction_of(self.number).reveal_end)
        self.market.close_auction(self.number)


@pytest.fixture
def auction(world: World) -> Auction:
    return Auction(world)


def event(contract: Any, name: str) -> Any:
    (found,) = [log for log in contract.get_logs() if type(log).__name__ == name]
    return found


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
    auction.close()

    record = world.market.job_of(1)
    assert (record.buyer, record.price_wei) == (world.other_buyer.address, 10 * ONE_ETHER)
    assert record.status == ENROLMENT
    burned_wei = world.burned_wei
    assert auction.reclaim(world.buyer) == 12 * ONE_ETHER
    assert auction.reclaim(world.other_buyer) == 2 * ONE_ETHER
    assert auction.reclaim(silent) == 12 * ONE_ETHER * 9 // 10
    assert world.burned_wei - burned_wei == 12 * ONE_ETHER // 10
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
    assert world.market.job_of(1).buyer == world.buyer.address


def test_the_announcement_of_a_winner_holds_what_a_node_needs(
    world: World, auction: Auction
) -> None:
    auction.open(world.buyer, 9 * ONE_ETHER)
    opened = event(world.market, "AuctionOpened")
    assert (opened.tags, opened.commit_end) == (TAGS, world.blocks.number + 5)
    assert opened.reveal_end == opened.commit_end + 5
    auction.start_reveals()
    auction.reveal(world.buyer, 9 * ONE_ETHER)
    revealed = event(world.market, "BidRevealed")
    assert tuple(revealed.terms) == auction.terms
    auction.close()
    closed = event(world.market, "AuctionClosed")
    record = world.market.job_of(1)
    assert closed.terms_hash == record.terms_hash
    assert closed.request_hash == record.request_hash
    assert closed.body_hash == BODY_HASH
    # Closed before the decision window was over: enrolment counts from its end.
    assert closed.enrolment_end == opened.reveal_end + 1 + 6


def test_enrolment_of_an_auction_that_is_closed_late_counts_from_the_call(
    world: World, auction: Auction
) -> None:
    auction.open(world.buyer, 9 * ONE_ETHER)
    auction.start_reveals()
    auction.reveal(world.buyer, 9 * ONE_ETHER)
    world.blocks.mine(50)
    auction.close()
    assert world.market.job_of(1).enrolment_end == world.blocks.number + 6


def test_an_auction_without_a_valid_bid_is_cancelled(world: World, auction: Auction) -> None:
    auction.open(world.buyer, 9 * ONE_ETHER)
    auction.close()
    assert event(world.market, "AuctionCancelled").auction == 1
    assert world.market.is_closed(1)
    assert auction.reclaim(world.buyer) == 12 * ONE_ETHER * 9 // 10


def test_nobody_reclaims_twice_and_strangers_reclaim_nothing(
    world: World, auction: Auction
) -> None:
    auction.open(world.buyer, 9 * ONE_ETHER)
    auction.close()
    auction.reclaim(world.buyer)
    for account in (world.buyer, world.stranger):
        with boa.reverts("market: nothing to reclaim"):
            auction.reclaim(account)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mode": 1}, "market: mode not supported"),
        ({"tags": []}, "market: tags not ascending"),
        ({"tags": TAGS[::-1]}, "market: tags not ascending"),
        ({"commit_blocks": 0}, "market: commit_blocks out of range"),
        ({"commit_blocks": 101}, "market: commit_blocks out of range"),
        ({"reveal_blocks": 0}, "market: reveal_blocks out of range"),
        ({"reveal_blocks": 101}, "market: reveal_blocks out of range"),
        ({"commitment": bytes(32)}, "market: empty commitment"),
        ({"value": ONE_ETHER - 1}, "market: deposit too small"),
        ({"value": 0, "deposit_wei": 0}, "market: no deposit"),
        ({"auction": 2}, "market: number taken"),
        ({"auction": 0}, "market: number taken"),
    ],
)
def test_an_auction_that_cannot_work_is_not_opened(
    world: World, auction: Auction, change: dict[str, Any], reason: str
) -> None:
    with boa.reverts(reason):
        auction.open(world.buyer, 9 * ONE_ETHER, **change)


def test_one_bid_per_bidder(world: World, auction: Auction) -> None:
    auction.open(world.buyer, 9 * ONE_ETHER)
    with boa.reverts("market: already bid"):
        auction.commit(world.buyer, 10 * ONE_ETHER)


def test_at_most_sixty_four_bids(world: World, auction: Auction) -> None:
    auction.open(world.buyer, 9 * ONE_ETHER)
    for number in range(63):
        auction.commit(make_actor(f"bidder {number}"), ONE_ETHER, value=ONE_ETHER)
    with boa.reverts("market: too many bids"):
        auction.commit(world.other_buyer, ONE_ETHER)


def test_bids_are_taken_and_revealed_in_their_windows_only(world: World, auction: Auction) -> None:
    with boa.reverts("market: no such auction"):
        auction.commit(world.buyer, ONE_ETHER)
    auction.open(world.buyer, 9 * ONE_ETHER)
    with boa.reverts("market: reveal not open"):
        auction.reveal(world.buyer, 9 * ONE_ETHER)
    with boa.reverts("market: auction not closed"):
        auction.reclaim(world.buyer)
    auction.start_reveals()
    with boa.reverts("market: bidding closed"):
        auction.commit(world.other_buyer, ONE_ETHER)
    with boa.reverts("market: reveal still open"):
        world.market.close_auction(1)
    world.blocks.mine(5)
    with boa.reverts("market: reveal closed"):
        auction.reveal(world.buyer, 9 * ONE_ETHER)
    auction.close()
    for call in (auction.close, lambda: auction.reveal(world.buyer, 9 * ONE_ETHER)):
        with boa.reverts("market: no such auction"):
            call()


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


def test_terms_that_cannot_work_are_not_revealed(world: World, auction: Auction) -> None:
    auction.terms = tuple({**Job(world).terms, "metric": 4}.values())
    auction.open(world.buyer, 9 * ONE_ETHER)
    auction.start_reveals()
    with boa.reverts("terms: metric out of range"):
        auction.reveal(world.buyer, 9 * ONE_ETHER)


def test_enrolment_gives_indices_in_order_and_locks_stake(world: World, job: Job) -> None:
    job.prepare().open_auction().close_auction().enrol()
    assert world.market.sellers_of(1) == [seller.address for seller in job.sellers]
    assert world.rounds.cone_accounts(1) == [cone.address for cone in job.cones]
    assert world.rounds.cone_at(1, 2).ticket_root == job.chains[2][0]
    for cone in job.cones:
        assert world.stakes.lock_of(1, cone.address).remaining_wei == 4 * ONE_ETHER
        assert world.stakes.holding_of(cone.address).free_wei == 4 * ONE_ETHER


def test_closing_enrolment_starts_the_wait_for_receipts(world: World, job: Job) -> None:
    job.prepare().open_auction().close_auction().enrol()
    enrolment_end = world.market.job_of(1).enrolment_end
    with boa.reverts("market: enrolment still open"):
        world.market.close_enrolment(1, job.terms_list)
    world.blocks.mine_past(enrolment_end)
    with boa.reverts("market: wrong terms"):
        world.market.close_enrolment(1, (7, *job.terms_list[1:]))
    world.market.close_enrolment(1, job.terms_list)

    closed = event(world.market, "EnrolmentClosed")
    assert (closed.sellers, closed.cones) == (5, 5)
    assert closed.validation_end == enrolment_end + 1 + 7
    assert world.market.job_of(1).status == RUNNING
    with boa.reverts("market: not in enrolment"):
        world.market.close_enrolment(1, job.terms_list)


def test_who_does_not_fit_is_not_enrolled(world: World, job: Job) -> None:
    job.prepare().open_auction()
    market, cone = world.market, job.cones[0].address
    with boa.reverts("market: not in enrolment"):
        job.enrol_seller(0)
    job.close_auction()
    with boa.reverts("market: wrong terms"):
        job.enrol_seller(0, terms=(7, *job.terms_list[1:]))
    with boa.reverts("market: not your data"):
        job.enrol_seller(0, dataset_id=2)
    poor = world.data.register_dataset(TAGS[:1], bytes(32), sender=job.sellers[0].address)
    with boa.reverts("market: tags missing"):
        job.enrol_seller(0, dataset_id=poor)
    job.enrol_seller(0)
    with boa.reverts("market: already enrolled"):
        job.enrol_seller(0)

    with boa.reverts("market: wrong terms"):
        market.enrol_cone(1, (7, *job.terms_list[1:]), bytes(32), sender=cone)
    with boa.reverts("market: staked too late"):
        market.enrol_cone(1, job.terms_list, bytes(32), sender=world.stranger.address)
    market.enrol_cone(1, job.terms_list, bytes(32), sender=cone)
    with boa.reverts("stake: already locked"):
        market.enrol_cone(1, job.terms_list, bytes(32), sender=cone)

    world.blocks.mine_past(market.job_of(1).enrolment_end)
    with boa.reverts("market: enrolment closed"):
        job.enrol_seller(1)
    with boa.reverts("market: enrolment closed"):
        market.enrol_cone(1, job.terms_list, bytes(32), sender=job.cones[1].address)


def test_stake_that_came_after_the_auction_was_seen_does_not_count(world: World, job: Job) -> None:
    job.prepare().open_auction()
    late = job.cones[0].address
    world.stakes.deposit(value=4 * ONE_ETHER, sender=late)
    job.close_auction()
    with boa.reverts("market: staked too late"):
        world.market.enrol_cone(1, job.terms_list, bytes(32), sender=late)


def test_a_node_without_enough_free_stake_is_not_enrolled(world: World, job: Job) -> None:
    job.prepare().open_auction().close_auction()
    poor = job.cones[0].address
    world.stakes.request_unbond(5 * ONE_ETHER, sender=poor)
    with boa.reverts("stake: not enough free stake"):
        world.market.enrol_cone(1, job.terms_list, bytes(32), sender=poor)


def test_places_are_limited_by_the_terms(world: World) -> None:
    job = Job(world, 6, 6, changes={"sellers_max": 5, "cones_max": 5})
    job.prepare().open_auction().close_auction()
    market, terms = world.market, job.terms_list
    for index in range(5):
        job.enrol_seller(index)
        market.enrol_cone(1, terms, bytes(32), sender=job.cones[index].address)
    with boa.reverts("market: sellers full"):
        job.enrol_seller(5)
    with boa.reverts("market: pool full"):
        market.enrol_cone(1, terms, bytes(32), sender=job.cones[5].address)


@pytest.mark.parametrize(("sellers", "cones"), [(4, 5), (5, 4), (0, 0)])
def test_a_job_with_too_few_of_them_is_cancelled_and_refunded(
    world: World, sellers: int, cones: int
) -> None:
    job = Job(world, sellers, cones).prepare().open_auction().close_auction().enrol()
    with boa.reverts("market: job not cancelled"):
        world.market.reclaim_escrow(1, sender=world.buyer.address)
    job.close_enrolment()
    assert event(world.market, "JobCancelled").refund_wei == job.price_wei
    with boa.reverts("market: not the buyer"):
        world.market.reclaim_escrow(1, sender=world.stranger.address)

    before = world.balance(world.buyer.address)
    world.market.reclaim_escrow(1, sender=world.buyer.address)
    assert world.balance(world.buyer.address) - before == job.price_wei
    assert world.balance(world.market.address) == 0
    with boa.reverts("market: nothing to reclaim"):
        world.market.reclaim_escrow(1, sender=world.buyer.address)
    for cone in job.cones:
        world.stakes.release(1, cone.address)
        assert world.stakes.holding_of(cone.address).free_wei == 8 * ONE_ETHER


def test_only_the_settlement_takes_the_escrow(world: World, job: Job) -> None:
    job.train()
    with boa.reverts("market: only the settlement"):
        world.market.release_escrow(1, sender=world.buyer.address)


def test_the_market_names_its_parameters_and_its_contracts(world: World, rules: Any) -> None:
    market = world.market
    assert market.params_hash() == rules.params_hash(tuple(world.params.values()))
    assert tuple(market.params()) == tuple(world.params.values())
    named = (market.peer_registry(), market.data_registry(), market.stake_pool())
    assert named == (world.peers.address, world.data.address, world.stakes.address)
    assert market.seller_deposits() == world.deposits.address
    assert (market.rounds(), market.settlement()) == (
        world.rounds.address,
        world.settlement.address,
    )
