import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.settlement import (
    Outcome,
    SettlementInputs,
    compute_progress_bps,
    compute_settlement,
)
from protocol.types import UtilityQ20, Wei
from tests.protocol.vectors import load_vectors

VECTORS = load_vectors()
INPUTS = SettlementInputs(
    price_wei=Wei(10_007),
    outcome=Outcome.ENDED,
    cone_bps=3000,
    floor_bps=5000,
    refund_cap_bps=1000,
    rounds_max=50,
    rounds_done=40,
    sellers_per_round=5,
    target=UtilityQ20(1_000_000),
    initial_utility=UtilityQ20(100_000),
    last_utility=UtilityQ20(900_000),
    participation_counts=(3, 2, 0),
    contribution_weights=(5, 1),
    spent_wei=(Wei(0), Wei(0), Wei(0)),
)
SHARED = load_vectors("settlement")


@st.composite
def settlements(draw: st.DrawFn) -> SettlementInputs:
    utility = st.integers(-(1 << 24), 1 << 20).map(UtilityQ20)
    rounds_max = draw(st.integers(1, 60))
    cones = draw(st.integers(1, 9))
    counts = st.lists(st.integers(0, 60), min_size=cones, max_size=cones)
    spending = st.lists(st.integers(0, 10**20).map(Wei), min_size=cones, max_size=cones)
    return SettlementInputs(
        price_wei=Wei(draw(st.integers(0, 10**24))),
        outcome=draw(st.sampled_from(Outcome)),
        cone_bps=draw(st.integers(0, 10_000)),
        floor_bps=draw(st.integers(0, 10_000)),
        refund_cap_bps=draw(st.integers(0, 10_000)),
        rounds_max=rounds_max,
        rounds_done=draw(st.integers(0, rounds_max)),
        sellers_per_round=draw(st.integers(3, 10)),
        target=draw(utility),
        initial_utility=draw(utility),
        last_utility=draw(utility),
        participation_counts=tuple(draw(counts)),
        contribution_weights=tuple(draw(st.lists(st.integers(0, 60), min_size=1, max_size=9))),
        spent_wei=tuple(draw(spending)),
    )


def test_partial_settlement_is_the_recorded_one() -> None:
    recorded = VECTORS["settle_partial"]
    settlement = compute_settlement(INPUTS)
    assert list(settlement.cone_payouts_wei) == list(recorded["cone"].values())
    assert list(settlement.seller_payouts_wei) == list(recorded["sellers"].values())
    assert settlement.refund_wei == recorded["refund"]


def test_full_settlement_is_the_recorded_one() -> None:
    recorded = VECTORS["settle_full"]
    settlement = compute_settlement(
        replace(INPUTS, outcome=Outcome.TARGET, last_utility=INPUTS.target)
    )
    assert list(settlement.cone_payouts_wei) == list(recorded["cone"].values())
    assert list(settlement.seller_payouts_wei) == list(recorded["sellers"].values())
    assert settlement.refund_wei == recorded["refund"]


@given(settlements())
def test_every_wei_is_paid_or_refunded(inputs: SettlementInputs) -> None:
    settlement = compute_settlement(inputs)
    refunds = settlement.batch_refunds_wei
    payouts = settlement.cone_payouts_wei + settlement.seller_payouts_wei + refunds
    assert sum(payouts) + settlement.refund_wei == inputs.price_wei
    assert min(payouts) >= 0
    assert settlement.refund_wei >= 0
    assert sum(settlement.cone_payouts_wei + refunds) <= settlement.cone_pool_wei
    assert sum(settlement.seller_payouts_wei) <= settlement.seller_pool_wei


@given(settlements().filter(lambda inputs: inputs.outcome is not Outcome.UNSERVED))
def test_who_did_nothing_gets_nothing(inputs: SettlementInputs) -> None:
    settlement = compute_settlement(inputs)
    for counts, payouts in (
        (inputs.participation_counts, settlement.cone_payouts_wei),
        (inputs.contribution_weights, settlement.seller_payouts_wei),
    ):
        for count, payout in zip(counts, payouts, strict=True):
            assert count or not payout


def test_a_reached_target_refunds_dust_only() -> None:
    inputs = replace(INPUTS, outcome=Outcome.TARGET)
    assert compute_settlement(inputs).refund_wei < len(inputs.participation_counts) + 2


def test_progress_below_a_tenth_is_paid_without_the_floor() -> None:
    slow = replace(INPUTS, last_utility=UtilityQ20(189_999))  # 999 of 10000
    assert compute_settlement(slow).seller_pool_wei == 7005 * 999 // 10_000
    faster = replace(INPUTS, last_utility=UtilityQ20(190_000))  # 1000 of 10000
    assert compute_settlement(faster).seller_pool_wei == 7005 * 4000 // 10_000


def test_no_decided_round_refunds_everything() -> None:
    for outcome in (Outcome.TARGET, Outcome.ENDED, Outcome.ABORTED):
        nothing = compute_settlement(replace(INPUTS, outcome=outcome, rounds_done=0))
        assert nothing.refund_wei == INPUTS.price_wei


def test_a_pool_without_weights_is_refunded() -> None:
    inputs = replace(INPUTS, outcome=Outcome.TARGET, contribution_weights=(0, 0))
    settlement = compute_settlement(inputs)
    assert settlement.seller_payouts_wei == (0, 0)
    assert settlement.refund_wei == 7005 + 1


def test_paid_accesses_are_capped_at_three_equal_shares() -> None:
    # Cap: ceil(3 * 3 * 4 / 10) = 4 of 4 + 4 * 2.
    inputs = replace(
        INPUTS,
        outcome=Outcome.TARGET,
        price_wei=Wei(10_000),
        sellers_per_round=3,
        rounds_done=4,
        contribution_weights=(8, 4, *[0] * 8),
    )
    settlement = compute_settlement(inputs)
    assert settlement.seller_payouts_wei[:2] == (7000 * 4 // 12, 7000 * 4 // 12)


def test_unserved_validation_data_cost_the_buyer_one_round() -> None:
    settlement = compute_settlement(replace(INPUTS, outcome=Outcome.UNSERVED, rounds_done=0))
    assert settlement.cone_payouts_wei == (20, 20, 20)  # (3002 // 50) // 3
    assert settlement.seller_payouts_wei == (0, 0)


def test_batches_are_refunded_before_the_pool_is_split() -> None:
    # A pool of 3002 * 40 // 50 = 2401; the cap is 300 * 40 // 50 = 240.
    inputs = replace(INPUTS, spent_wei=(Wei(100), Wei(0), Wei(40)))
    settlement = compute_settlement(inputs)
    assert settlement.cone_pool_wei == 2401
    assert settlement.batch_refunds_wei == (100, 0, 40)
    assert settlement.cone_payouts_wei == (2261 * 3 // 5, 2261 * 2 // 5, 0)


def test_refunds_above_the_cap_are_cut_alike() -> None:
    inputs = replace(INPUTS, spent_wei=(Wei(200), Wei(7), Wei(100)))
    settlement = compute_settlement(inputs)
    assert settlement.batch_refunds_wei == (240 * 200 // 307, 240 * 7 // 307, 240 * 100 // 307)


def test_refunds_never_exceed_the_pool() -> None:
    inputs = replace(INPUTS, refund_cap_bps=10_000, spent_wei=(Wei(5000), Wei(5000), Wei(0)))
    settlement = compute_settlement(inputs)
    assert sum(settlement.batch_refunds_wei) == 2400 <= settlement.cone_pool_wei
    assert sum(settlement.cone_payouts_wei) == 0


@pytest.mark.parametrize("case", SHARED["settlements"], ids=lambda case: case["name"])
def test_the_contract_has_the_same_numbers(case: dict[str, Any]) -> None:
    inputs = SettlementInputs(
        price_wei=Wei(case["price_wei"]),
        outcome=Outcome(case["outcome"]),
        cone_bps=case["cone_bps"],
        floor_bps=case["floor_bps"],
        refund_cap_bps=case["refund_cap_bps"],
        rounds_max=case["rounds_max"],
        rounds_done=case["rounds_done"],
        sellers_per_round=case["sellers_per_round"],
        target=UtilityQ20(case["target"]),
        initial_utility=UtilityQ20(case["initial_utility"]),
        last_utility=UtilityQ20(case["last_utility"]),
        participation_counts=tuple(case["participation"]),
        contribution_weights=tuple(case["weights"]),
        spent_wei=tuple(case["spent_wei"]),
    )
    found = msgspec.to_builtins(compute_settlement(inputs))
    assert {name: found[name] for name in case["expected"]} == {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in case["expected"].items()
    }


@pytest.mark.parametrize(
    ("target", "initial", "last", "progress"),
    [
        (100, 100, 0, 10_000),  # nothing was asked
        (100, 0, 200, 10_000),
        (100, 0, -50, 0),
        (3, 0, 1, 3333),
        (-10, -30, -20, 5000),
    ],
)
def test_progress_is_the_share_of_the_way(
    target: int, initial: int, last: int, progress: int
) -> None:
    assert compute_progress_bps(target, initial, last) == progress


@given(settlements().filter(lambda inputs: inputs.rounds_done > 0))
def test_a_reached_target_refunds_dust_only_while_nobody_is_capped(
    inputs: SettlementInputs,
) -> None:
    capped = any(
        weight * len(inputs.contribution_weights)
        > 3 * inputs.sellers_per_round * inputs.rounds_done
        for weight in inputs.contribution_weights
    )
    paid = sum(inputs.participation_counts) > 0 < sum(inputs.contribution_weights)
    settlement = compute_settlement(replace(inputs, outcome=Outcome.TARGET))
    if paid and not capped:
        payees = len(inputs.spent_wei)
        payees += len(inputs.participation_counts) + len(inputs.contribution_weights)
        assert settlement.refund_wei < payees
    if not sum(inputs.contribution_weights):
        assert settlement.refund_wei >= settlement.seller_pool_wei


@given(settlements(), st.integers(0, 10**24))
def test_a_higher_price_pays_nobody_less(inputs: SettlementInputs, more: int) -> None:
    # What batches cost is no share of a price.
    inputs = replace(inputs, spent_wei=(Wei(0),) * len(inputs.spent_wei))
    before = compute_settlement(inputs)
    after = compute_settlement(replace(inputs, price_wei=Wei(inputs.price_wei + more)))
    for low, high in zip(before.cone_payouts_wei, after.cone_payouts_wei, strict=True):
        assert low <= high


@given(settlements().filter(lambda inputs: inputs.outcome is not Outcome.UNSERVED))
def test_who_did_as_much_is_paid_as_much(inputs: SettlementInputs) -> None:
    settlement = compute_settlement(inputs)
    for counts, payouts in (
        (inputs.participation_counts, settlement.cone_payouts_wei),
        (inputs.contribution_weights, settlement.seller_payouts_wei),
    ):
        by_count = dict(zip(counts, payouts, strict=True))
        assert all(by_count[count] == payout for count, payout in zip(counts, payouts, strict=True))
        assert [by_count[count] for count in sorted(by_count)] == sorted(by_count.values())


def test_a_deployment_slashes_a_wrong_vote_as_much_as_a_hidden_one() -> None:
    # Else a coalition that loses would rather not open its votes (MECHANISM 1).
    path = Path(__file__).parents[2] / "configs" / "params" / "dev.toml"
    params = tomllib.loads(path.read_text())
    assert params["slash_wrong_bps"] == params["slash_noreveal_bps"] > 0
