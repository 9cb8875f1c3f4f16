"""Terms, parameters and the arithmetic of payments."""

from typing import Any

import boa
import pytest

from tests.contracts import vectors
from tests.contracts.support import MECHANISM
from tests.contracts.world import PARAMS

TERMS = tuple(vectors.TERMS.values())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rounds_max", 0),
        ("rounds_max", 1001),
        ("target", 2**62 + 1),
        ("metric", 4),
        ("sellers_per_round", 2),
        ("lead", 0),
        ("lead", 65),
        ("first_set_size", 0),
        ("growth_numerator", 2),
        ("growth_numerator", 1001),
        ("growth_denominator", 0),
        ("sellers_min", 4),
        ("sellers_max", 4),
        ("sellers_max", 257),
        ("cones_min", 0),
        ("cones_max", 4),
        ("cones_max", 65),
        ("stake_wei", 0),
        ("seller_deposit_wei", 0),
        *((field, 0) for field in vectors.TERMS if field.endswith("_blocks")),
        *((field, 101) for field in vectors.TERMS if field.endswith("_blocks")),
    ],
)
def test_terms_out_of_range_are_refused_by_name(rules: Any, field: str, value: int) -> None:
    rules.validate_terms(TERMS, 1, 100)
    with boa.reverts(f"terms: {field} out of range"):
        rules.validate_terms(tuple({**vectors.TERMS, field: value}.values()), 1, 100)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, 10_001) for field in PARAMS if field.endswith("_bps")),
        ("min_stake_wei", 0),
        ("unbonding_blocks", 2**32 + 1),
        ("max_window_blocks", 0),
        ("seed_delay_blocks", 0),
        ("retries", 6),
        ("finals_max", 201),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(rules: Any, field: str, value: int) -> None:
    rules.validate_params(tuple(PARAMS.values()))
    with boa.reverts(f"params: {field} out of range"):
        rules.validate_params(tuple({**PARAMS, field: value}.values()))


SETTLE_TERMS = tuple({**vectors.TERMS, "rounds_max": 50, "target": 1_000_000}.values())


def pools(rules: Any, outcome: int, rounds_done: int, initial: int, last: int) -> tuple[int, int]:
    result = (
        bytes(32), outcome, rounds_done, initial, last, True, bytes(32), bytes(32), 0, 0, [], [],
    )  # fmt: skip
    got = rules.pools(10_007, SETTLE_TERMS, tuple(PARAMS.values()), result)
    return got.cone_wei, got.seller_wei


@pytest.mark.parametrize(
    ("name", "outcome", "last", "refund"),
    [("settle_partial", 2, 900_000, 1382), ("settle_full", 1, 1_000_000, 2)],
)
def test_settlement_as_in_the_mechanism(
    rules: Any, name: str, outcome: int, last: int, refund: int
) -> None:
    cone_wei, seller_wei = pools(rules, outcome, 40, 100_000, last)
    cones = [rules.share(cone_wei, count, 5) for count in (3, 2, 0)]
    sellers = [rules.share(seller_wei, v, 6) for v in (5, 1)]
    expected = MECHANISM[name]
    assert cones == list(expected["cone"].values())
    assert sellers == list(expected["sellers"].values())
    assert 10_007 - sum(cones) - sum(sellers) == refund


def test_the_floor_is_paid_only_with_a_tenth_of_the_way(rules: Any) -> None:
    assert pools(rules, 2, 40, 0, 99_999)[1] == 7005 * 999 // 10_000
    assert pools(rules, 2, 40, 0, 100_000)[1] == 7005 * 4000 // 10_000


def test_no_progress_pays_sellers_nothing(rules: Any) -> None:
    assert pools(rules, 2, 40, 500_000, 400_000) == (3002 * 40 // 50, 0)


def test_a_target_below_the_start_is_full_progress(rules: Any) -> None:
    assert pools(rules, 2, 50, 1_000_000, 0) == (3002, 7005)


def test_no_decided_round_pays_nothing(rules: Any) -> None:
    assert pools(rules, 2, 0, 0, 0) == (0, 0)


def test_an_unserved_job_pays_one_round_to_the_pool(rules: Any) -> None:
    assert pools(rules, 4, 0, 0, 0) == (3002 // 50, 0)


def test_the_access_cap_is_three_equal_shares_rounded_up(rules: Any) -> None:
    assert rules.access_cap(5, 4, 6) == 10
    assert rules.access_cap(5, 1, 7) == 3
