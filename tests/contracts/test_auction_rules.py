"""The rules of the auctions: the contract's are those of the shared vectors."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.auction import BiddingWindow, compute_extension, compute_least_bid
from protocol.types import BlockNumber, Wei
from tests.contracts import auction_vectors
from tests.contracts.auctions import CANCELLED, Auction, stock
from tests.contracts.support import load_vector, pure_calls
from tests.contracts.vectors import TERMS
from tests.contracts.world import PARAMS, World, make_actor

VECTORS = load_vector("auctions.json")


def test_the_recorded_vectors_are_what_the_reference_computes() -> None:
    assert auction_vectors.build() == VECTORS


@pytest.mark.parametrize("case", VECTORS["least_bid"])
def test_the_least_bid_is_that_of_the_vectors(rules: Any, case: dict[str, int]) -> None:
    assert rules.least_bid(case["reserve_wei"], case["best_wei"]) == case["least_wei"]


@pytest.mark.parametrize("case", VECTORS["extension"])
def test_the_extension_is_that_of_the_vectors(rules: Any, case: dict[str, int]) -> None:
    *arguments, blocks = case.values()
    assert rules.extension(*arguments) == blocks


@pytest.mark.parametrize("case", VECTORS["seller_deposit"])
def test_the_sellers_deposit_is_that_of_the_vectors(rules: Any, case: dict[str, int]) -> None:
    changes = {"sellers_min": case["sellers_min"], "seller_deposit_wei": case["asked_wei"]}
    terms = tuple({**TERMS, **changes}.values())
    found = rules.seller_deposit(case["price_wei"], terms, tuple(PARAMS.values()))
    assert found == case["deposit_wei"]


@pytest.mark.parametrize("case", VECTORS["awards"])
def test_winner_and_price_are_those_of_the_vectors(world: World, case: dict[str, Any]) -> None:
    auction = Auction(stock(world), case["mode"], reserve_wei=case["reserve_wei"])
    bidders = [make_actor(f"bidder {index}") for index in range(len(case["amounts_wei"]))]
    amounts = [amount or auction.reserve_wei for amount in case["amounts_wei"]]
    auction.open(bidders[0], amounts[0])
    for bidder, amount_wei in zip(bidders[1:], amounts[1:], strict=True):
        auction.commit(bidder, amount_wei)
    auction.start_reveals()
    for index in case["reveals"]:
        auction.reveal(bidders[index], amounts[index])
    auction.close()
    if case["winner"] is None:
        assert auction.job.status == CANCELLED
        return
    assert auction.job.buyer == bidders[case["winner"]].address
    assert auction.job.price_wei == case["price_wei"]
    auction.check_books(bidders)


@pure_calls
@given(reserve_wei=st.integers(0, 2**128), best_wei=st.integers(0, 2**128))
def test_the_least_bid_is_that_of_the_rules(rules: Any, reserve_wei: int, best_wei: int) -> None:
    expected = compute_least_bid(Wei(reserve_wei), Wei(best_wei))
    assert rules.least_bid(reserve_wei, best_wei) == expected


@pure_calls
@given(
    opened_block=st.integers(0, 10**9),
    window_blocks=st.integers(1, 2**32),
    extended_blocks=st.integers(0, 2**32),
    left_blocks=st.integers(0, 2**32),
    data=st.data(),
)
def test_the_extension_is_that_of_the_rules(
    rules: Any,
    opened_block: int,
    window_blocks: int,
    extended_blocks: int,
    left_blocks: int,
    data: st.DataObject,
) -> None:
    end = opened_block + window_blocks + extended_blocks
    now = data.draw(st.integers(opened_block, end) | st.integers(max(opened_block, end - 20), end))
    bound = extended_blocks + left_blocks
    window = BiddingWindow(
        opened_block=BlockNumber(opened_block),
        commit_end=BlockNumber(end),
        extended_blocks=extended_blocks,
    )
    expected = compute_extension(window, BlockNumber(now), bound)
    assert rules.extension(now, opened_block, end, extended_blocks, bound) == expected
