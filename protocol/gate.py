"""The validity gate: which updates are updates at all. Source: MECHANISM 11.1.

Utility decides what is good; without the gate, sellers that send almost nothing would look best.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt

import numpy as np

from protocol.fixed_point import (
    Int32,
    Int64,
    compute_gram,
    compute_squared_distances,
    compute_squared_norm,
    lower_median,
)
from protocol.update import MAX_UPDATE

NORM_BAND_SQUARED = 16
"""Norms from a quarter of the median to four times the median pass; all here is squared."""

DUPLICATE_SQUARED = 16
"""Two updates closer than a quarter of the median norm are one."""

MIN_COSINE_SQUARED_INVERSE = 100
"""The cosine to the reference direction must be at least a tenth."""

MIN_REFERENCES = 3
_HALF_Q20 = 1 << 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What passed the norm band and the duplicate check; their utilities are still unknown."""

    indices: tuple[int, ...]
    """Seller indices, ascending."""
    updates: tuple[Int32, ...]
    """Equalised updates in the same order, each of shape (d,)."""
    gram: tuple[tuple[int, ...], ...]
    """Their exact products."""

    @property
    def distances(self) -> list[list[int]]:
        """Exact squared distances, n x n."""
        return compute_squared_distances(self.gram)


def select_candidates(updates: Mapping[int, Int32]) -> Candidates:
    """Apply the first three checks: norm band (G1), equal norms (G2), duplicates (G3).

    Parameters
    ----------
    updates :
        Seller index to update of shape (d,), coordinates within the update's bound.

    Returns
    -------
    candidates :
        The survivors, scaled to the median norm.
    """
    norms = {index: compute_squared_norm(updates[index]) for index in sorted(updates)}
    if not norms:
        return Candidates(indices=(), updates=(), gram=())
    median = lower_median(norms.values())
    in_band = [index for index, norm in norms.items() if is_norm_in_band(norm, median)]
    equalised = [equalise(updates[index], norms[index], median) for index in in_band]
    gram = compute_gram(equalised)
    kept = _select_distinct(compute_squared_distances(gram), median)
    return Candidates(
        indices=tuple(in_band[position] for position in kept),
        updates=tuple(equalised[position] for position in kept),
        gram=tuple(tuple(gram[i][j] for j in kept) for i in kept),
    )


def is_norm_in_band(norm: int, median: int) -> bool:
    """Tell whether a squared norm passes G1; nothing does if the median is zero."""
    is_too_small = NORM_BAND_SQUARED * norm < median
    is_too_large = norm > NORM_BAND_SQUARED * median
    return median > 0 and not is_too_small and not is_too_large


def equalise(update: Int32, norm: int, median: int) -> Int32:
    """Scale an update to the median norm (G2): neither boosting nor hiding gains anything."""
    scale_q20 = isqrt((median << 40) // norm)
    scaled = (update.astype(np.int64) * scale_q20 + _HALF_Q20) >> 20
    clipped: Int64 = np.clip(scaled, -MAX_UPDATE, MAX_UPDATE)
    return clipped.astype(np.int32)


def _select_distinct(distances: list[list[int]], median: int) -> list[int]:
    """Keep a position unless it is a near copy of a smaller one that was kept (G3)."""
    kept: list[int] = []
    for j in range(len(distances)):
        if all(DUPLICATE_SQUARED * distances[i][j] >= median for i in kept):
            kept.append(j)
    return kept


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
    references = best_first[:count]
    return tuple(
        index
        for position, index in enumerate(candidates.indices)
        if _is_aligned(candidates.gram, position, references)
    )


def _is_aligned(gram: tuple[tuple[int, ...], ...], position: int, references: list[int]) -> bool:
    """Compare with the sum T of the other references, by the products already known."""
    others = [reference for reference in references if reference != position]
    product = sum(gram[position][other] for other in others)
    norm_of_sum = sum(gram[i][j] for i in others for j in others)
    if product <= 0:
        return False
    return MIN_COSINE_SQUARED_INVERSE * product**2 >= gram[position][position] * norm_of_sum
