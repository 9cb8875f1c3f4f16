import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.fixed_point import Int32
from protocol.linear_algebra import (
    MAX_SCALE_Q20,
    ONE_Q20,
    ScaledUpdate,
    compute_gram,
    compute_rounded_mean,
    compute_squared_distances,
    compute_squared_norm,
    measure_update,
)
from protocol.model import MAX_PARAMETERS
from protocol.update import MAX_UPDATE
from tests.protocol.vectors import load_vectors

VECTORS = load_vectors()
COORDINATE = st.one_of(
    st.integers(-MAX_UPDATE, MAX_UPDATE),
    st.sampled_from([-MAX_UPDATE, -(1 << 19), -1, 0, 1, 1 << 19, MAX_UPDATE]),
)
ROWS = st.integers(1, 9).flatmap(
    lambda length: st.lists(
        st.lists(COORDINATE, min_size=length, max_size=length), min_size=1, max_size=5
    )
)
SCALE = st.one_of(st.integers(1 << 18, MAX_SCALE_Q20), st.sampled_from([1 << 18, ONE_Q20, 1 << 22]))
LENGTHS = [1, 7, 8192, 8193, 16_385, 65_536 + 5, 100_003]
"""Around the slices and the pieces of them."""


def measure_rows(rows: list[list[int]]) -> list[ScaledUpdate]:
    return [measure_update(np.array(row, dtype=np.int32)) for row in rows]


def draw_nearly_saturated(length: int, seed: int) -> Int32:
    """Coordinates close to the bound, whose products have low bits to lose."""
    return (MAX_UPDATE - np.random.default_rng(seed).integers(0, 1000, length)).astype(np.int32)


@given(ROWS)
def test_norms_products_and_distances_are_exact(rows: list[list[int]]) -> None:
    updates = measure_rows(rows)
    gram = compute_gram(updates)
    distances = compute_squared_distances(gram)
    for i, a in enumerate(rows):
        assert compute_squared_norm(updates[i]) == gram[i][i]
        for j, b in enumerate(rows):
            assert gram[i][j] == sum(x * y for x, y in zip(a, b, strict=True))
            assert distances[i][j] == sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("length", LENGTHS)
def test_slices_neither_lose_nor_repeat_a_column(length: int) -> None:
    rows = [draw_nearly_saturated(length, seed) for seed in range(3)]
    updates = [measure_update(row) for row in rows]
    # Below 2**23 columns int64 holds the sums.
    wide = np.stack(rows).astype(np.int64)
    assert compute_gram(updates) == (wide @ wide.T).tolist()
    assert compute_squared_norm(updates[1]) == int(wide[1] @ wide[1])
    total = wide.sum(axis=0)
    assert (compute_rounded_mean(updates) == (2 * total + 3) // 6).all()
    assert (updates[2].build() == rows[2]).all()


def test_the_largest_saturated_model_stays_exact_beyond_int64() -> None:
    high = np.broadcast_to(np.int32(MAX_UPDATE), MAX_PARAMETERS)
    low = np.broadcast_to(np.int32(-MAX_UPDATE), MAX_PARAMETERS)
    gram = compute_gram([measure_update(high), measure_update(low)])
    norm = MAX_PARAMETERS * MAX_UPDATE**2
    assert gram == [[norm, -norm], [-norm, norm]]
    assert compute_squared_norm(measure_update(high)) == norm
    assert compute_squared_distances(gram)[0][1] == 4 * norm > 1 << 65


@given(st.lists(COORDINATE, min_size=1, max_size=9), SCALE)
def test_a_scaled_coordinate_is_rounded_half_up_and_clipped(row: list[int], scale: int) -> None:
    (measured,) = measure_rows([row])
    scaled = ScaledUpdate(measured.update, measured.largest, scale)
    expected = [
        max(-MAX_UPDATE, min((value * scale + (1 << 19)) >> 20, MAX_UPDATE)) for value in row
    ]
    assert scaled.build().tolist() == expected
    assert compute_gram([scaled]) == [[sum(value * value for value in expected)]]
    assert compute_rounded_mean([scaled]).tolist() == expected


@pytest.mark.parametrize(("value", "rounded"), [(1, 1), (3, 2), (-1, 0), (-3, -1)])
def test_a_scaled_half_is_rounded_up(value: int, rounded: int) -> None:
    halved = ScaledUpdate(np.array([value], dtype=np.int32), abs(value), ONE_Q20 // 2)
    assert halved.build().tolist() == [rounded]


@pytest.mark.parametrize(("total", "count", "mean"), VECTORS["idiv_round"])
def test_the_mean_of_the_specification_rounds_half_up(total: int, count: int, mean: int) -> None:
    rows = [[total], *([[0]] * (count - 1))]
    assert compute_rounded_mean(measure_rows(rows)).tolist() == [mean]


@given(ROWS)
def test_the_mean_rounds_each_coordinate_half_up(rows: list[list[int]]) -> None:
    count = len(rows)
    sums = [sum(column) for column in zip(*rows, strict=True)]
    expected = [(2 * total + count) // (2 * count) for total in sums]
    assert compute_rounded_mean(measure_rows(rows)).tolist() == expected


@pytest.mark.parametrize(
    ("rows", "mean"),
    [([[2], [3]], 3), ([[-2], [-3]], -2), ([[2], [2], [3]], 2), ([[-2], [-2], [-3]], -2)],
)
def test_the_mean_gives_the_recorded_values(rows: list[list[int]], mean: int) -> None:
    assert compute_rounded_mean(measure_rows(rows)).tolist() == [mean]


@pytest.mark.parametrize("value", [MAX_UPDATE + 1, -MAX_UPDATE - 1, -(1 << 31)])
def test_a_coordinate_beyond_the_proven_bound_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="exact"):
        measure_update(np.array([0, value], dtype=np.int32))


def test_updates_of_different_lengths_are_refused() -> None:
    updates = measure_rows([[1, 2, 3], [4]])
    with pytest.raises(ValueError, match="different lengths"):
        compute_gram(updates)
    with pytest.raises(ValueError, match="different lengths"):
        compute_rounded_mean(updates)


def test_nothing_has_no_products_and_no_mean() -> None:
    assert compute_gram([]) == []
    with pytest.raises(ValueError, match="no updates"):
        compute_rounded_mean([])


@pytest.mark.parametrize("length", [20_000, 60_000, 200_000])
def test_no_product_or_mean_copies_the_updates(length: int) -> None:
    rows = [draw_nearly_saturated(length, seed) for seed in range(24)]
    updates = [ScaledUpdate(row, MAX_UPDATE, ONE_Q20 + 7) for row in rows]
    held = sum(row.nbytes for row in rows)
    tracemalloc.start()
    try:
        compute_gram(updates)
        compute_rounded_mean(updates)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 0.6 * held
