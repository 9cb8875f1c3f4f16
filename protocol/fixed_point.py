"""Integer arithmetic for everything that feeds a digest or a payout.

Source: MECHANISM 5, 5.1. Q32 means 32 fractional bits, and so on.
"""

from collections.abc import Iterable, Sequence
from math import isqrt

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

LOG2E_Q32 = 6196328018
LOG2E_Q16 = 94548

FLOAT64_EXACT = 1 << 53
"""Float64 holds every integer up to here; sums that stay below are exact in any order."""


def _compute_roots(bits: int, count: int) -> tuple[int, ...]:
    """List 2**(2**-i) for i = 1..count, each as an integer with ``bits`` fractional bits."""
    roots = [isqrt(1 << (2 * bits + 1))]
    while len(roots) < count:
        roots.append(isqrt(roots[-1] << bits))
    return tuple(roots)


EXP2_ROOTS_Q62 = _compute_roots(62, 32)
EXP2_ROOTS_Q30 = _compute_roots(30, 16)


def exp2(exponent_q32: int) -> tuple[int, int]:
    """Raise two to a Q32 power.

    Returns
    -------
    mantissa, exponent :
        The result is ``mantissa * 2**exponent / 2**62`` with mantissa in [2**62, 2**63).
    """
    exponent = exponent_q32 >> 32
    fraction = exponent_q32 & 0xFFFFFFFF
    mantissa = 1 << 62
    for i, root in enumerate(EXP2_ROOTS_Q62, start=1):
        if fraction >> (32 - i) & 1:
            mantissa = (mantissa * root) >> 62
    return mantissa, exponent


def exp2_16(fraction_q16: Int64) -> Int64:
    """Raise two to Q16 powers in [0, 1), any shape; the results are Q30 in [2**30, 2**31)."""
    result = np.full(fraction_q16.shape, 1 << 30, dtype=np.int64)
    for i, root in enumerate(EXP2_ROOTS_Q30, start=1):
        is_set = (fraction_q16 >> (16 - i) & 1).astype(bool)
        result = np.where(is_set, (result * root) >> 30, result)
    return result


def log2_16(values: Int64) -> Int64:
    """Take the binary logarithm of positive integers below 2**62, any shape, in Q16."""
    floors = np.zeros(values.shape, dtype=np.int64)
    for shift in (32, 16, 8, 4, 2, 1):
        floors += np.where(values >> (floors + shift) > 0, shift, 0)
    normalised = np.where(
        floors <= 30,
        values << np.maximum(30 - floors, 0),
        values >> np.maximum(floors - 30, 0),
    )
    result = floors << 16
    for i in range(1, 17):
        normalised = (normalised * normalised) >> 30
        carry = normalised >> 31
        normalised >>= carry
        result += carry << (16 - i)
    return result


def idiv_round(numerator: int, denominator: int) -> int:
    """Divide by a positive integer, rounding half up."""
    return (2 * numerator + denominator) // (2 * denominator)


def rounded_mean(vectors: Sequence[Int32]) -> Int32:
    """Average vectors coordinate by coordinate, rounding half up; shape (d,)."""
    count = len(vectors)
    total = np.zeros(vectors[0].shape, dtype=np.int64)
    for vector in vectors:
        total += vector
    return ((2 * total + count) // (2 * count)).astype(np.int32)


def lower_median(values: Iterable[int]) -> int:
    """Return the middle value, the smaller one of two."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]


MAX_COORDINATE = (1 << 20) - 1
"""Largest absolute coordinate for which the products below are proven exact."""

_COLUMNS = 1 << 13
# 2**13 products of at most (2**20-1)**2 sum to less than 2**53, so one float64 matrix product
# over so many columns is exact in whatever order BLAS adds.

_INT64_COLUMNS = 1 << 21
# And 2**21 of them sum to less than 2**61, so int64 holds them.


def compute_gram(vectors: Sequence[Int32]) -> list[list[int]]:
    """Multiply every vector with every other, exactly.

    Parameters
    ----------
    vectors : n of shape (d,)
        Coordinates within +-MAX_COORDINATE.

    Returns
    -------
    gram :
        n x n integers of unlimited size. No copy of all vectors is made: the work goes through
        slices of 8192 columns.

    Raises
    ------
    ValueError
        If a coordinate exceeds the bound, so that the sums would not be exact.

    Source: MECHANISM 5 (exact float GEMM, squared distance).
    """
    count = len(vectors)
    if count == 0:
        return []
    for vector in vectors:
        _check_coordinates(vector)
    total = np.zeros((count, count), dtype=object)
    length = vectors[0].shape[0]
    for outer in range(0, length, _INT64_COLUMNS):
        partial = np.zeros((count, count), dtype=np.int64)
        for start in range(outer, min(outer + _INT64_COLUMNS, length), _COLUMNS):
            columns = np.empty((count, min(_COLUMNS, length - start)), dtype=np.float64)
            for row, vector in enumerate(vectors):
                columns[row] = vector[start : start + _COLUMNS]
            partial += (columns @ columns.T).astype(np.int64)
        total += partial.astype(object)
    return [[int(entry) for entry in row] for row in total]


def compute_squared_norm(vector: Int32) -> int:
    """Multiply a vector with itself, exactly; ValueError as for :func:`compute_gram`."""
    _check_coordinates(vector)
    total = 0
    for start in range(0, len(vector), _INT64_COLUMNS):
        part = vector[start : start + _INT64_COLUMNS].astype(np.int64)
        total += int(part @ part)
    return total


def compute_squared_distances(gram: Sequence[Sequence[int]]) -> list[list[int]]:
    """Turn products into squared distances, |a|^2 + |b|^2 - 2ab; n x n exact integers."""
    count = len(gram)
    return [[gram[i][i] + gram[j][j] - 2 * gram[i][j] for j in range(count)] for i in range(count)]


def _check_coordinates(vector: Int32) -> None:
    if vector.size and max(int(vector.max()), -int(vector.min())) > MAX_COORDINATE:
        raise ValueError(f"a coordinate exceeds {MAX_COORDINATE}: products would not be exact")
