"""Integer arithmetic for everything that feeds a digest or a payout.

Source: MECHANISM 5, 5.1. Q32 means 32 fractional bits, and so on.
"""

from collections.abc import Iterable
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


def lower_median(values: Iterable[int]) -> int:
    """Return the middle value, the smaller one of two."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]
