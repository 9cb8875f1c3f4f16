"""Auctions: how a bid is committed, which one wins, and what the winner pays.

Source: MECHANISM 3.1.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from protocol.hashing import Domain, address_word, fixed_bytes, hash_domain, word
from protocol.params import BPS
from protocol.types import Address, BlockNumber, Digest, JobId, Wei

RAISE_BPS = 500
"""A bid in the clear is higher than the best one by at least this part of it, in 1/10000."""
LATE_PARTS = 10
"""A bid in the last one of so many parts of the window moves its end."""


class AuctionMode(IntEnum):
    """How bids are made, and what the winner pays."""

    SEALED = 0
    """Committed, then revealed; the winner pays its bid."""
    SECOND_PRICE = 1
    """Committed, then revealed; the winner pays the second bid, or the reserve if that is more."""
    OPEN = 2
    """In the clear, each higher than the one before; the winner pays its bid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BidOpening:
    """What a bidder reveals."""

    auction: JobId
    bidder: Address
    amount_wei: Wei
    request_hash: Digest
    salt: bytes


@dataclass(frozen=True, slots=True)
class RevealedBid:
    """A valid reveal, and the place of its commitment among the auction's commitments."""

    bidder: Address
    amount_wei: Wei
    commitment_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BiddingWindow:
    """The blocks in which bids in the clear are taken."""

    opened_block: BlockNumber
    commit_end: BlockNumber
    extended_blocks: int = 0
    """Sum of the extensions, which ``commit_end`` holds already."""


def compute_bid_commitment(domain: Domain, opening: BidOpening) -> Digest:
    """Hash a bid so that its amount stays secret and nobody else can open it."""
    return hash_domain(
        "bid",
        domain.prefix,
        word(opening.auction),
        address_word(opening.bidder),
        word(opening.amount_wei),
        fixed_bytes(opening.request_hash),
        fixed_bytes(opening.salt),
    )


def select_winner(bids: Iterable[RevealedBid]) -> RevealedBid | None:
    """Choose the highest bid, the earlier commitment on a tie; None without bids."""
    return max(bids, key=lambda bid: (bid.amount_wei, -bid.commitment_index), default=None)


def compute_price(mode: AuctionMode, reserve_wei: Wei, bids: Iterable[RevealedBid]) -> Wei:
    """Find what the winner of these bids pays.

    Parameters
    ----------
    mode
        Mode of the auction.
    reserve_wei
        Least amount of a bid.
    bids
        Valid bids, at least one, in any order.

    Returns
    -------
    Wei
        The highest amount; in a second-price auction the next one, equal to it on a tie, or the
        reserve if that is more.
    """
    amounts = sorted((bid.amount_wei for bid in bids), reverse=True)
    if mode is AuctionMode.SECOND_PRICE:
        return max([reserve_wei, *amounts[1:2]])
    return amounts[0]


def compute_least_bid(reserve_wei: Wei, best_wei: Wei) -> Wei:
    """Find the smallest bid in the clear that is taken; ``best_wei`` is zero if there is none.

    The reserve, or 5 % above the best bid, rounded up; at least one.
    """
    return Wei(max(reserve_wei, -(-best_wei * (BPS + RAISE_BPS) // BPS), 1))


def compute_extension(window: BiddingWindow, now_block: BlockNumber, max_window_blocks: int) -> int:
    """Find how many blocks a bid in the clear adds to its auction, so that others can answer it.

    A bid in the last tenth of the window as it was opened, at least its last block, adds as many
    blocks. All extensions together are at most ``max_window_blocks``, the deployment's longest
    window.
    """
    opened_blocks = window.commit_end - window.extended_blocks - window.opened_block
    late_blocks = max(opened_blocks // LATE_PARTS, 1)
    if now_block <= window.commit_end - late_blocks:
        return 0
    return min(late_blocks, max_window_blocks - window.extended_blocks)
