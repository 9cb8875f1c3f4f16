"""Sealed bids: how they are committed, and which one wins. Source: MECHANISM 3.1."""

from collections.abc import Iterable
from dataclasses import dataclass

from protocol.hashing import Domain, address_word, fixed_bytes, hash_domain, word
from protocol.types import Address, Digest, JobId, Wei


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
