"""How bids are committed, which one wins, what it pays, and when a late bid moves the end."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.auction import (
    AuctionMode,
    BiddingWindow,
    BidOpening,
    RevealedBid,
    compute_bid_commitment,
    compute_extension,
    compute_least_bid,
    compute_price,
    select_winner,
)
from protocol.hashing import Domain, keccak, word
from protocol.types import Address, BlockNumber, Digest, JobId, Wei
from tests.protocol.vectors import load_vectors

VECTORS = load_vectors("auctions")
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


@pytest.mark.parametrize("case", VECTORS["awards"])
def test_winner_and_price_are_those_of_the_vectors(case: dict) -> None:
    bids = [
        RevealedBid(Address(bytes([index]) * 20), Wei(case["amounts_wei"][index]), index)
        for index in case["reveals"]
    ]
    winner = select_winner(bids)
    if winner is None:
        assert case["winner"] is None
        return
    assert winner.commitment_index == case["winner"]
    price_wei = compute_price(AuctionMode(case["mode"]), Wei(case["reserve_wei"]), bids)
    assert price_wei == case["price_wei"]


@pytest.mark.parametrize("case", VECTORS["least_bid"])
def test_the_least_bid_is_that_of_the_vectors(case: dict) -> None:
    assert compute_least_bid(case["reserve_wei"], case["best_wei"]) == case["least_wei"]


@pytest.mark.parametrize("case", VECTORS["extension"])
def test_the_extension_is_that_of_the_vectors(case: dict) -> None:
    window = BiddingWindow(
        opened_block=case["opened_block"],
        commit_end=case["commit_end"],
        extended_blocks=case["extended_blocks"],
    )
    blocks = compute_extension(window, case["now_block"], case["max_window_blocks"])
    assert blocks == case["blocks"]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_winner_does_not_depend_on_the_order_of_reveals(amounts: list[int], random) -> None:
    bids = [RevealedBid(BUYER, Wei(amount), place) for place, amount in enumerate(amounts)]
    winner = select_winner(bids)
    random.shuffle(bids)
    assert select_winner(bids) == winner


@given(
    st.lists(st.integers(0, 10**30), min_size=1, max_size=8),
    st.integers(0, 10**30),
    st.sampled_from(AuctionMode),
)
def test_no_winner_pays_more_than_it_bid(
    amounts: list[int], reserve: int, mode: AuctionMode
) -> None:
    bids = [RevealedBid(BUYER, Wei(max(one, reserve)), i) for i, one in enumerate(amounts)]
    winner = select_winner(bids)
    assert winner is not None
    assert reserve <= compute_price(mode, Wei(reserve), bids) <= winner.amount_wei


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=8),
    st.integers(0, 9),
    st.integers(1, 9),
)
def test_a_second_price_does_not_depend_on_what_the_winner_bids(
    others: list[int], reserve: int, lead: int
) -> None:
    top = max(*others, reserve)
    rivals = [RevealedBid(RIVAL, Wei(one), i + 1) for i, one in enumerate(others)]
    prices = {
        compute_price(
            AuctionMode.SECOND_PRICE,
            Wei(reserve),
            [RevealedBid(BUYER, Wei(top + extra), 0), *rivals],
        )
        for extra in (0, lead)
    }
    assert prices == {top}


@given(st.integers(1, 2**128), st.integers(0, 2**128))
def test_a_raise_is_the_smallest_of_five_percent(best: int, reserve: int) -> None:
    least = compute_least_bid(Wei(reserve), Wei(best))
    assert least > best
    assert least * 10_000 >= best * 10_500
    assert least == reserve or (least - 1) * 10_000 < best * 10_500


@given(st.integers(1, 200), st.integers(1, 60), st.data())
def test_all_extensions_together_stay_below_the_bound(
    window_blocks: int, bound: int, data: st.DataObject
) -> None:
    window = BiddingWindow(opened_block=BlockNumber(50), commit_end=BlockNumber(50 + window_blocks))
    now = 50
    for _ in range(30):
        now = data.draw(st.integers(now, window.commit_end))
        blocks = compute_extension(window, BlockNumber(now), bound)
        window = BiddingWindow(
            opened_block=window.opened_block,
            commit_end=BlockNumber(window.commit_end + blocks),
            extended_blocks=window.extended_blocks + blocks,
        )
    assert window.extended_blocks <= bound
    assert window.commit_end <= 50 + window_blocks + bound
