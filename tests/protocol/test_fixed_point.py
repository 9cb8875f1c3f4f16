import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.fixed_point import (
    EXP2_ROOTS_Q30,
    EXP2_ROOTS_Q62,
    exp2,
    exp2_16,
    log2_16,
    lower_median,
)
from tests.protocol.vectors import load_vectors

VECTORS = load_vectors()
Q32_EXPONENTS = st.integers(-(8 << 32), 8 << 32)


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


def test_lower_median_takes_the_smaller_of_two_middle_values() -> None:
    assert lower_median([4, 1, 3, 2]) == 2
    assert lower_median([3, 1, 2]) == 2
