"""Sellers' deposits: how large, when forfeited, and what the chain says of them."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.deposits import (
    DepositStatus,
    SellerDeposit,
    apply_deposit_event,
    compute_deposit_range,
    compute_seller_deposit,
    is_forfeit,
    validate_seller_deposit,
)
from protocol.errors import InvalidParams
from protocol.events import (
    DepositEvent,
    DepositForfeited,
    DepositReturned,
    EquivocationProved,
    SellerDeposited,
)
from protocol.settlement import Outcome, SettlementInputs, compute_settlement
from protocol.types import Address, Digest, JobId, UtilityQ20, Wei
from tests.protocol.test_terms import TERMS
from tests.protocol.vectors import load_vectors
from tests.support.params import PARAMS

VECTORS = load_vectors("deposits")
JOB, SELLER, OTHER = JobId(1), Address(b"\x01" * 20), Address(b"\x02" * 20)


@pytest.mark.parametrize("case", VECTORS["deposit_range"], ids=lambda case: str(case["price_wei"]))
def test_deposit_range_as_in_the_vectors(case: dict[str, int]) -> None:
    params = replace(PARAMS, cone_bps=case["cone_bps"], floor_bps=case["floor_bps"])
    got = compute_deposit_range(Wei(case["price_wei"]), case["sellers_min"], params)
    assert got == (case["least_wei"], case["most_wei"])


@pytest.mark.parametrize("case", load_vectors("auctions")["seller_deposit"])
def test_the_sellers_deposit_is_that_of_the_vectors(case: dict[str, int]) -> None:
    terms = replace(
        TERMS, sellers_min=case["sellers_min"], seller_deposit_wei=Wei(case["asked_wei"])
    )
    found = compute_seller_deposit(terms, Wei(case["price_wei"]), PARAMS)
    assert found == case["deposit_wei"]


@given(st.integers(0, 10**24), st.integers(3, 20), st.integers(0, 10_000), st.integers(0, 10_000))
def test_some_deposit_fits_every_price(
    price_wei: int, sellers_min: int, cone_bps: int, floor_bps: int
) -> None:
    params = replace(PARAMS, cone_bps=cone_bps, floor_bps=floor_bps)
    least_wei, most_wei = compute_deposit_range(Wei(price_wei), sellers_min, params)
    assert 1 <= least_wei <= most_wei


@given(st.integers(1, 10**24), st.integers(3, 20), st.integers(0, 17))
def test_the_least_deposit_covers_what_the_floor_pays_one_seller(
    price_wei: int, sellers_min: int, further: int
) -> None:
    sellers = min(20, sellers_min + further)
    settled = compute_settlement(
        SettlementInputs(
            price_wei=Wei(price_wei),
            outcome=Outcome.ENDED,
            cone_bps=PARAMS.cone_bps,
            floor_bps=PARAMS.floor_bps,
            refund_cap_bps=PARAMS.refund_cap_bps,
            rounds_max=4,
            rounds_done=4,
            sellers_per_round=3,
            target=UtilityQ20(1000),
            initial_utility=UtilityQ20(0),
            last_utility=UtilityQ20(100),
            participation_counts=(4,) * 5,
            contribution_weights=(1,) * sellers,
            spent_wei=(Wei(0),) * 5,
        )
    )
    least_wei, most_wei = compute_deposit_range(Wei(price_wei), sellers_min, PARAMS)
    assert max(settled.seller_payouts_wei) <= least_wei
    assert most_wei <= 2 * least_wei


@pytest.mark.parametrize(("deposit_wei", "fix"), [(583, "at least 584"), (1168, "at most 1167")])
def test_a_deposit_outside_the_range_of_its_price_is_refused(deposit_wei: int, fix: str) -> None:
    terms = replace(TERMS, sellers_min=6, seller_deposit_wei=Wei(deposit_wei))
    with pytest.raises(InvalidParams, match=fix) as caught:
        validate_seller_deposit(terms, Wei(10_000), PARAMS)
    assert caught.value.field == "seller_deposit_wei"


@pytest.mark.parametrize("deposit_wei", [584, 1167])
def test_the_ends_of_the_range_are_allowed(deposit_wei: int) -> None:
    terms = replace(TERMS, sellers_min=6, seller_deposit_wei=Wei(deposit_wei))
    validate_seller_deposit(terms, Wei(10_000), PARAMS)


@pytest.mark.parametrize("case", [one for one in VECTORS["forfeit"] if one["outcome"] > 0])
def test_forfeits_as_in_the_vectors(case: dict[str, Any]) -> None:
    got = is_forfeit(
        Outcome(case["outcome"]),
        case["rounds_done"],
        case["initial_utility"],
        case["last_utility"],
        is_final_evaluated=case["is_final_evaluated"],
    )
    assert got == case["is_forfeit"]


def deposited(seller: Address = SELLER) -> SellerDeposited:
    return SellerDeposited(job=JOB, seller=seller, amount_wei=Wei(7))


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (DepositReturned(job=JOB, seller=SELLER, amount_wei=Wei(7)), DepositStatus.RETURNED),
        (DepositForfeited(job=JOB, seller=SELLER, amount_wei=Wei(7)), DepositStatus.FORFEITED),
        (
            EquivocationProved(
                job=JOB,
                seller=SELLER,
                round_index=0,
                first_commitment=Digest(b"\x01" * 32),
                second_commitment=Digest(b"\x02" * 32),
                amount_wei=Wei(7),
            ),
            DepositStatus.EQUIVOCATED,
        ),
    ],
)
def test_an_event_changes_the_deposit_of_its_seller_alone(
    event: DepositEvent, status: DepositStatus
) -> None:
    deposits = apply_deposit_event(apply_deposit_event({}, deposited()), deposited(OTHER))
    assert deposits[SELLER] == SellerDeposit(Wei(7), DepositStatus.HELD)
    assert apply_deposit_event(deposits, event) == {
        SELLER: SellerDeposit(Wei(7), status),
        OTHER: SellerDeposit(Wei(7), DepositStatus.HELD),
    }
