import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.fixed_point import (
    EXP2_ROOTS_Q30,
    EXP2_ROOTS_Q62,
    MAX_COORDINATE,
    Int32,
    compute_gram,
    compute_squared_distances,
    compute_squared_norm,
    exp2,
    exp2_16,
    idiv_round,
    log2_16,
    lower_median,
    rounded_mean,
)
from tests.protocol.vectors import load_vectors

VECTORS = load_vectors()
Q32_EXPONENTS = st.integers(-(8 << 32), 8 << 32)


def as_vectors(rows: list[list[int]]) -> list[Int32]:
    return [np.array(row, dtype=np.int32) for row in rows]


def test_roots_of_two_are_the_recorded_ones() -> None:
    first, second, last = VECTORS["R62_first"]
    assert (EXP2_ROOTS_Q62[0], EXP2_ROOTS_Q62[1], EXP2_ROOTS_Q62[31]) == (first, second, last)
    assert list(EXP2_ROOTS_Q30) == VECTORS["R30"]


@pytest.mark.parametrize(("exponent", "mantissa", "shift"), VECTORS["exp2"])
def test_exp2_gives_the_recorded_values(exponent: int, mantissa: int, shift: int) -> None:
    assert exp2(exponent) == (mantissa, shift)


@given(Q32_EXPONENTS)
def test_exp2_is_within_1e_8_of_the_real_value(exponent: int) -> None:
    mantissa, shift = exp2(exponent)
    assert 1 << 62 <= mantissa < 1 << 63
    assert math.isclose(mantissa / 2**62 * 2.0**shift, 2.0 ** (exponent / 2**32), rel_tol=1e-8)


@given(Q32_EXPONENTS, st.integers(1, 1 << 20))
def test_exp2_is_monotone(exponent: int, more: int) -> None:
    smaller, larger = exp2(exponent), exp2(exponent + more)
    assert (smaller[1], smaller[0]) <= (larger[1], larger[0])


def test_exp2_16_is_monotone_and_close_over_its_whole_range() -> None:
    fractions = np.arange(1 << 16, dtype=np.int64)
    results = exp2_16(fractions)
    assert results[0] == 1 << 30
    assert (np.diff(results) >= 0).all()
    assert np.allclose(results / 2**30, 2.0 ** (fractions / 2**16), rtol=1e-7, atol=0)


@pytest.mark.parametrize(("value", "logarithm"), VECTORS["log2_q16"])
def test_log2_16_gives_the_recorded_values(value: int, logarithm: int) -> None:
    assert log2_16(np.array([value], dtype=np.int64))[0] == logarithm


@given(st.lists(st.integers(1, (1 << 62) - 1), min_size=2, max_size=20))
def test_log2_16_is_monotone_and_within_1e_3(values: list[int]) -> None:
    values.sort()
    logarithms = log2_16(np.array(values, dtype=np.int64))
    assert (np.diff(logarithms) >= 0).all()
    for value, logarithm in zip(values, logarithms, strict=True):
        assert abs(logarithm / 2**16 - math.log2(value)) < 1e-3


@pytest.mark.parametrize(("numerator", "denominator", "quotient"), VECTORS["idiv_round"])
def test_division_rounds_half_up(numerator: int, denominator: int, quotient: int) -> None:
    assert idiv_round(numerator, denominator) == quotient


@given(st.lists(st.lists(st.integers(-1000, 1000), min_size=3, max_size=3), min_size=1))
def test_rounded_mean_rounds_each_coordinate_half_up(rows: list[list[int]]) -> None:
    expected = [idiv_round(sum(column), len(rows)) for column in zip(*rows, strict=True)]
    assert rounded_mean(as_vectors(rows)).tolist() == expected


def test_lower_median_takes_the_smaller_of_two_middle_values() -> None:
    assert lower_median([4, 1, 3, 2]) == 2
    assert lower_median([3, 1, 2]) == 2


@given(
    st.lists(
        st.lists(st.integers(-MAX_COORDINATE, MAX_COORDINATE), min_size=4, max_size=4),
        min_size=1,
        max_size=5,
    )
)
def test_gram_and_distances_are_exact(rows: list[list[int]]) -> None:
    gram = compute_gram(as_vectors(rows))
    distances = compute_squared_distances(gram)
    for i, a in enumerate(rows):
        assert compute_squared_norm(as_vectors(rows)[i]) == gram[i][i]
        for j, b in enumerate(rows):
            assert gram[i][j] == sum(x * y for x, y in zip(a, b, strict=True))
            assert distances[i][j] == sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def test_saturated_long_vectors_stay_exact_beyond_int64() -> None:
    length = (1 << 21) + (1 << 13) + 5
    high = np.full(length, MAX_COORDINATE, dtype=np.int32)
    distances = compute_squared_distances(compute_gram([high, -high]))
    assert distances[0][1] == length * (2 * MAX_COORDINATE) ** 2 > 1 << 63


def test_coordinates_beyond_the_proven_bound_are_refused() -> None:
    too_large = as_vectors([[0, MAX_COORDINATE + 1]])
    with pytest.raises(ValueError, match="exact"):
        compute_gram(too_large)
    with pytest.raises(ValueError, match="exact"):
        compute_squared_norm(-too_large[0])


def test_gram_of_nothing_is_empty() -> None:
    assert compute_gram([]) == []
