import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.fixed_point import Int32, compute_gram, compute_squared_norm
from protocol.gate import Candidates, is_norm_in_band, select_aligned, select_candidates

RECORDED = {
    0: (40, 0, 0, 4),
    1: (36, 8, 0, 0),
    2: (30, 20, 4, 0),
    3: (1, 0, 0, 0),
    4: (0, -40, 0, 0),
    5: (36, 8, 0, 0),
    6: (400, 0, 0, 0),
    7: (0, 0, 36, 0),
}
RECORDED_UTILITIES = {0: 100, 2: 80, 4: -50, 7: 95}


def as_updates(rows: dict[int, tuple[int, ...]]) -> dict[int, Int32]:
    return {index: 1000 * np.array(row, dtype=np.int32) for index, row in rows.items()}


def draw_updates(count: int, length: int = 64, seed: int = 0) -> dict[int, Int32]:
    generator = np.random.default_rng(seed)
    common = generator.normal(size=length)
    return {
        index: (20_000 * (common + generator.normal(size=length))).astype(np.int32)
        for index in range(count)
    }


def test_the_gate_keeps_the_recorded_sellers() -> None:
    candidates = select_candidates(as_updates(RECORDED))
    # 3 and 6 are outside the norm band; 1 and 5 are copies of 0 after equalising.
    assert candidates.indices == (0, 2, 4, 7)
    assert [update.tolist() for update in candidates.updates] == [
        [36695, 0, 0, 3670],
        [30497, 20332, 4066, 0],
        [0, -36878, 0, 0],
        [0, 0, 36878, 0],
    ]
    assert select_aligned(candidates, RECORDED_UTILITIES, sellers_per_round=8) == (0, 2)


def test_the_products_belong_to_the_survivors() -> None:
    candidates = select_candidates(as_updates(RECORDED))
    expected = compute_gram(candidates.updates)
    assert [list(row) for row in candidates.gram] == expected
    first, second = candidates.updates[:2]
    assert candidates.distances[0][1] == compute_squared_norm((first - second).astype(np.int32))


@given(st.integers(1, 1 << 40))
def test_the_band_reaches_from_a_quarter_to_four_times_the_median_norm(median: int) -> None:
    assert is_norm_in_band(16 * median, median)
    assert not is_norm_in_band(16 * median + 1, median)
    assert is_norm_in_band(-(-median // 16), median)
    assert not is_norm_in_band(-(-median // 16) - 1, median)


def test_nobody_passes_when_the_median_update_is_zero() -> None:
    updates = as_updates({0: (0, 0), 1: (0, 0), 2: (5, 0)})
    assert select_candidates(updates).indices == ()


def test_zero_and_tiny_updates_never_pass() -> None:
    updates = draw_updates(6)
    updates[2] = np.zeros(64, dtype=np.int32)
    updates[3] = (updates[3] // 50).astype(np.int32)
    assert select_candidates(updates).indices == (0, 1, 4, 5)


@pytest.mark.parametrize("factor", [0.26, 0.5, 2.0, 3.9])
@pytest.mark.parametrize("scaled_seller", range(7))
def test_scaling_an_update_does_not_change_who_survives(factor: float, scaled_seller: int) -> None:
    updates = {
        index: (update * (160_000 / np.linalg.norm(update))).astype(np.int32)
        for index, update in draw_updates(7).items()
    }
    expected = select_candidates(updates)
    updates[scaled_seller] = np.rint(updates[scaled_seller] * factor).astype(np.int32)
    scaled = select_candidates(updates)
    assert scaled.indices == expected.indices
    for before, after in zip(expected.updates, scaled.updates, strict=True):
        # Rounding a quarter of an update costs two units after scaling back; its norm a few more.
        assert np.abs(before - after).max() <= 8


@given(st.integers(1, 8))
def test_identical_updates_collapse_to_the_first(count: int) -> None:
    update = draw_updates(1)[0]
    candidates = select_candidates({3 * index: update.copy() for index in range(count)})
    assert candidates.indices == (0,)
    assert (candidates.updates[0] == update).all()


def test_a_duplicate_of_a_rejected_duplicate_stays_if_it_is_far_from_the_first() -> None:
    # Neighbours are nearer than a quarter of the norm, 0 and 2 are not.
    rows = {0: (100, 0), 1: (98, 20), 2: (92, 39)}
    assert select_candidates(as_updates(rows)).indices == (0, 2)


def test_the_gate_does_not_depend_on_the_order_of_arrival() -> None:
    updates = as_updates(RECORDED)
    backwards = dict(reversed(updates.items()))
    assert select_candidates(backwards).indices == select_candidates(updates).indices


def test_no_updates_give_no_candidates() -> None:
    candidates = select_candidates({})
    assert candidates == Candidates(indices=(), updates=(), gram=())
    assert select_aligned(candidates, {}, 5) == ()


def test_fewer_than_three_candidates_are_not_compared() -> None:
    opposed = select_candidates(as_updates({0: (40, 0), 5: (-40, 0)}))
    assert select_aligned(opposed, {0: 1, 5: 0}, sellers_per_round=5) == (0, 5)


def test_orthogonal_and_reversed_updates_are_rejected() -> None:
    updates = draw_updates(6)
    reversed_update = (-updates[1]).astype(np.int32)
    noise = np.random.default_rng(9).normal(size=64)
    common = sum(update.astype(float) for update in updates.values())
    noise -= common * (noise @ common) / (common @ common)
    updates[6] = reversed_update
    updates[7] = (28_000 * noise).astype(np.int32)
    candidates = select_candidates(updates)
    assert {6, 7} <= set(candidates.indices)
    utilities = {index: -index for index in candidates.indices}
    assert select_aligned(candidates, utilities, sellers_per_round=8) == (0, 1, 2, 3, 4, 5)
