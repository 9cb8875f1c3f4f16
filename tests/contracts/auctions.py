"""An auction that actors bid in; every method is one call of theirs."""

from collections.abc import Iterable
from typing import Any

from eth_utils.crypto import keccak

from tests.contracts.vectors import TERMS
from tests.contracts.world import (
    BODY_HASH,
    ETHER,
    NO_PERMIT,
    ONE_ETHER,
    TAGS,
    Actor,
    World,
    make_actor,
)

SEALED, SECOND_PRICE, OPEN = 0, 1, 2
AUCTION, CANCELLED, ENROLMENT, RUNNING, SETTLED = 1, 2, 3, 4, 5
SALT = keccak(b"salt")
BOND = 12 * ONE_ETHER
"""What bidders put up unless a test says otherwise."""
UNWORKABLE_TERMS: tuple[tuple[dict[str, int], str], ...] = (
    ({"metric": 4}, "terms: metric out of range"),
    ({"sellers_min": 6}, "market: sellers_min above the registered"),
    ({"cones_min": 6}, "market: cones_min above the registered"),
    ({"seller_deposit_wei": 1}, "market: seller_deposit_wei does not fit the price"),
    (
        {"seller_deposit_wei": 2 * ONE_ETHER},
        "market: seller_deposit_wei does not fit the price",
    ),
)
"""Changes to what terms say, and why an auction refuses them."""


def stock(world: World, datasets: int = 5, stakers: int = 5) -> World:
    """Register as much as the terms of the test auctions ask for."""
    for number in range(datasets):
        seller = make_actor(f"seller {number}").address
        world.data.register_dataset(TAGS, keccak(b"metadata"), 0, 0, sender=seller)
    for number in range(stakers):
        world.stakes.deposit(value=8 * ONE_ETHER, sender=make_actor(f"cone {number}").address)
    world.blocks.mine()
    return world


def event(contract: Any, name: str) -> Any:
    (found,) = [log for log in contract.get_logs() if type(log).__name__ == name]
    return found


def encode_call(contract: Any, function: str, *arguments: Any) -> bytes:
    """A call as a hostile contract makes it."""
    plain = getattr(contract, "unwrapped", contract)
    encoded: bytes = getattr(plain, function).prepare_calldata(*arguments)
    return encoded


class Auction:
    """One auction, of sealed bids or of bids in the clear."""

    def __init__(
        self,
        world: World,
        mode: int = SEALED,
        *,
        token: Any = None,
        reserve_wei: int = ONE_ETHER,
        blocks: int = 5,
    ) -> None:
        self.world = world
        self.market = world.market
        self.mode = mode
        self.token = token
        self.currency = ETHER if token is None else token.address
        self.reserve_wei = reserve_wei
        self.blocks = blocks
        self.terms = tuple({**TERMS, "stake_wei": 4 * ONE_ETHER}.values())
        self.number = world.market.auction_count() + 1

    def change_terms(self, **changes: int) -> None:
        self.terms = tuple(({**dict(zip(TERMS, self.terms, strict=True)), **changes}).values())

    def commitment(self, bidder: Actor, amount_wei: int) -> bytes:
        return self.world.bid_commitment(self.number, bidder, amount_wei, self.terms, SALT)

    def value(self, amount_wei: int) -> int:
        """The ether that goes along with a payment: none if it is in the token."""
        return amount_wei if self.token is None else 0

    def open(self, opener: Actor, amount_wei: int, **changes: Any) -> None:
        """Open with a sealed bid."""
        arguments = {
            "auction": self.number,
            "tags": TAGS,
            "mode": self.mode,
            "currency": self.currency,
            "deposit_wei": ONE_ETHER,
            "reserve_wei": self.reserve_wei,
            "commit_blocks": self.blocks,
            "reveal_blocks": 5,
            "commitment": self.commitment(opener, amount_wei),
            "bond_wei": BOND,
            "permits": NO_PERMIT,
            **changes,
        }
        value = arguments.pop("value", self.value(arguments["bond_wei"]))
        self.market.open_auction(*arguments.values(), value=value, sender=opener.address)

    def commit(self, bidder: Actor, amount_wei: int, bond_wei: int = BOND, **options: Any) -> None:
        self.market.commit_bid(
            self.number,
            self.commitment(bidder, amount_wei),
            bond_wei,
            options.get("permits", NO_PERMIT),
            value=options.get("value", self.value(bond_wei)),
            sender=bidder.address,
        )

    def start_reveals(self) -> None:
        self.world.blocks.mine_past(self.of.commit_end)

    def reveal(self, bidder: Actor, amount_wei: int) -> None:
        self.market.reveal_bid(
            self.number, amount_wei, self.terms, BODY_HASH, SALT, sender=bidder.address
        )

    def open_clear(self, opener: Actor, amount_wei: int, **changes: Any) -> None:
        """Open with a bid in the clear."""
        arguments = {
            "auction": self.number,
            "tags": TAGS,
            "currency": self.currency,
            "reserve_wei": self.reserve_wei,
            "bid_blocks": self.blocks,
            "amount_wei": amount_wei,
            "terms": self.terms,
            "body_hash": BODY_HASH,
            "permits": NO_PERMIT,
            **changes,
        }
        value = arguments.pop("value", self.value(amount_wei))
        self.market.open_clear_auction(*arguments.values(), value=value, sender=opener.address)

    def bid(self, bidder: Actor, amount_wei: int, **options: Any) -> None:
        """Bid in the clear, paying what is missing unless told otherwise."""
        missing_wei = amount_wei - self.held_wei(bidder)
        self.market.bid(
            self.number,
            amount_wei,
            self.terms,
            BODY_HASH,
            options.get("permits", NO_PERMIT),
            value=options.get("value", self.value(missing_wei)),
            sender=bidder.address,
        )

    def close(self) -> None:
        self.world.blocks.mine_past(self.of.reveal_end)
        self.market.close_auction(self.number)

    def reclaim(self, bidder: Actor) -> int:
        """Reclaim; return what the bidder got."""
        before = self.purse_wei(bidder.address)
        self.market.reclaim_bid(self.number, sender=bidder.address)
        return self.purse_wei(bidder.address) - before

    @property
    def of(self) -> Any:
        return self.market.auction_of(self.number)

    @property
    def job(self) -> Any:
        return self.market.job_of(self.number)

    def held_wei(self, bidder: Actor) -> int:
        """What a bidder has in the auction."""
        return int(self.market.bid_of(self.number, bidder.address).deposit_wei)

    def purse_wei(self, account: str) -> int:
        """What an account has of the auction's currency."""
        if self.token is None:
            return self.world.balance(account)
        return int(self.token.balanceOf(account))

    def check_books(self, bidders: Iterable[Actor]) -> None:
        """What the market holds is what bidders have in the auction and the job's escrow."""
        held_wei = sum(self.held_wei(bidder) for bidder in bidders)
        escrow_wei = self.market.escrow_of(self.number)
        assert self.purse_wei(self.market.address) == held_wei + escrow_wei
