"""The validity gate: which updates are updates at all. Source: MECHANISM 11.1.

Utility decides what is good; without the gate, sellers that send almost nothing would look best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isqrt

from protocol.fixed_point import Int32, lower_median
from protocol.linear_algebra import (
    ScaledUpdate,
    compute_gram,
    compute_squared_distances,
    compute_squared_norm,
    measure_update,
)

NORM_BAND_SQUARED = 16
"""Norms from a quarter of the median to four times the median pass; all here is squared."""

DUPLICATE_SQUARED = 16
"""Two updates closer than a quarter of the median norm are one."""

MIN_COSINE_SQUARED_INVERSE = 100
"""The cosine to the reference direction must be at least a tenth."""

MIN_REFERENCES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What passed the norm band and the duplicate check; their utilities are still unknown."""

    indices: tuple[int, ...]
    """Seller indices, ascending."""
    updates: tuple[ScaledUpdate, ...]
    """Equalised updates in the same order; their coordinates are made when they are read."""
    gram: tuple[tuple[int, ...], ...]
    """Their exact products, n x n."""
    distances: tuple[tuple[int, ...], ...]
    """Their exact squared distances, n x n."""


def select_candidates(updates: Mapping[int, Int32]) -> Candidates:
    """Apply the first three checks: norm band (G1), equal norms (G2), duplicates (G3).

    Parameters
    ----------
    updates :
        Seller index to update, all of shape (d,), coordinates within the update's bound.

    Returns
    -------
    candidates :
        The survivors, scaled to the median norm. The updates given are referred to, not copied.

    Raises
    ------
    ValueError
        If a coordinate is outside the update's bound.
    """
    measured = {index: measure_update(updates[index]) for index in sorted(updates)}
    norms = {index: compute_squared_norm(one) for index, one in measured.items()}
    median = lower_median(norms.values()) if norms else 0
    in_band = [index for index, norm in norms.items() if is_norm_in_band(norm, median)]
    equalised = [equalise(measured[index], norms[index], median) for index in in_band]
    gram = compute_gram(equalised)
    distances = compute_squared_distances(gram)
    kept = _select_distinct(distances, median)
    return Candidates(
        indices=tuple(in_band[position] for position in kept),
        updates=tuple(equalised[position] for position in kept),
        gram=_select_square(gram, kept),
        distances=_select_square(distances, kept),
    )


def is_norm_in_band(norm: int, median: int) -> bool:
    """Tell whether a squared norm passes G1; nothing does if the median is zero."""
    is_too_small = NORM_BAND_SQUARED * norm < median
    is_too_large = norm > NORM_BAND_SQUARED * median
    return median > 0 and not is_too_small and not is_too_large


def equalise(update: ScaledUpdate, norm: int, median: int) -> ScaledUpdate:
    """Scale an update to the median norm (G2): neither boosting nor hiding gains anything.

    The norms are squared and in the band, so the factor is between a quarter and four.
    """
    return replace(update, scale_q20=isqrt((median << 40) // norm))


def _select_distinct(distances: Sequence[Sequence[int]], median: int) -> list[int]:
    """Keep a position unless it is a near copy of a smaller one that was kept (G3)."""
    kept: list[int] = []
    for j, row in enumerate(distances):
        if all(DUPLICATE_SQUARED * row[i] >= median for i in kept):
            kept.append(j)
    return kept


def _select_square(
    matrix: Sequence[Sequence[int]], positions: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(matrix[i][j] for j in positions) for i in positions)


def select_aligned(
    candidates: Candidates, utilities: Mapping[int, int], sellers_per_round: int
) -> tuple[int, ...]:
    """Apply the last check (G4): a candidate must point where the best others point.

    Parameters
    ----------
    candidates :
        Survivors of the first three checks.
    utilities :
        Utility improvement of each candidate, Q20.
    sellers_per_round :
        K; the references are the best ``max(3, ceil(K / 2))`` candidates.

    Returns
    -------
    aligned :
        Seller indices, ascending; all candidates when fewer than three are left.
    """
    if len(candidates.indices) < MIN_REFERENCES:
        return candidates.indices
    count = max(MIN_REFERENCES, -(-sellers_per_round // 2))
    best_first = sorted(
        range(len(candidates.indices)),
        key=lambda position: (-utilities[candidates.indices[position]], position),
    )
    references = frozenset(best_first[:count])
    # Products with the sum of all references; who is one itself is taken out below.
    products = [sum(row[j] for j in references) for row in candidates.gram]
    norm_of_sum = sum(products[j] for j in references)
    aligned = []
    for position, index in enumerate(candidates.indices):
        product, norm = products[position], candidates.gram[position][position]
        reference_norm = norm_of_sum
        if position in references:
            # |T - u|^2 = |T|^2 - 2 u.T + |u|^2, before u.T becomes u.(T - u)
            reference_norm += norm - 2 * product
            product -= norm
        if product > 0 and MIN_COSINE_SQUARED_INVERSE * product**2 >= norm * reference_norm:
            aligned.append(index)
    return tuple(aligned)
