from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from protocol.auction import BidOpening, RevealedBid, compute_bid_commitment, select_winner
from protocol.hashing import Domain, keccak, word
from protocol.types import Address, Digest, JobId, Wei

DOMAIN = Domain(1337, Address(b"\x11" * 20))
BUYER, RIVAL = Address(b"\x01" * 20), Address(b"\x02" * 20)
OPENING = BidOpening(
    auction=JobId(7),
    bidder=BUYER,
    amount_wei=Wei(1000),
    request_hash=Digest(b"\x22" * 32),
    salt=b"\x33" * 32,
)


def test_commitment_hashes_every_field_after_its_domain() -> None:
    expected = keccak(
        b"D2M/v1/bid\x00"
        + word(1337)
        + bytes(12)
        + DOMAIN.market
        + word(7)
        + bytes(12)
        + BUYER
        + word(1000)
        + OPENING.request_hash
        + OPENING.salt
    )
    assert compute_bid_commitment(DOMAIN, OPENING) == expected


def test_a_copied_commitment_does_not_fit_another_bidder() -> None:
    copied = replace(OPENING, bidder=RIVAL)
    assert compute_bid_commitment(DOMAIN, copied) != compute_bid_commitment(DOMAIN, OPENING)


def test_the_highest_bid_wins() -> None:
    low, high = RevealedBid(BUYER, Wei(5), 0), RevealedBid(RIVAL, Wei(6), 1)
    assert select_winner([low, high]) == high


def test_the_earlier_commitment_wins_a_tie() -> None:
    early, late = RevealedBid(BUYER, Wei(5), 0), RevealedBid(RIVAL, Wei(5), 1)
    assert select_winner([late, early]) == early


def test_nobody_wins_without_bids() -> None:
    assert select_winner([]) is None


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_winner_does_not_depend_on_the_order_of_reveals(amounts: list[int], random) -> None:
    bids = [RevealedBid(BUYER, Wei(amount), place) for place, amount in enumerate(amounts)]
    winner = select_winner(bids)
    random.shuffle(bids)
    assert select_winner(bids) == winner
