"""Corrected KRUM: which updates are trusted, and the step they agree on. Source: MECHANISM 11.2."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from protocol.errors import TooFewUpdates
from protocol.fixed_point import Int32
from protocol.linear_algebra import (
    ScaledUpdate,
    compute_gram,
    compute_rounded_mean,
    compute_squared_distances,
    measure_update,
)


class KrumMode(Enum):
    """What stands for the accepted updates."""

    MEAN = "mean"
    MEDOID = "medoid"


@dataclass(frozen=True, slots=True)
class KrumResult:
    """The step, and the accepted sellers in ascending order."""

    step: Int32
    accepted: tuple[int, ...]


def compute_krum_scores(distances: Sequence[Sequence[int]], byzantine_count: int) -> list[int]:
    """Score each update by its squared distance to its nearest peers; lower is better.

    Parameters
    ----------
    distances : n x n
        Exact squared distances.
    byzantine_count :
        f. A larger f than ``(n - 3) // 2`` cannot be tolerated and is lowered to it; below three
        updates it is 0.

    Returns
    -------
    scores : n integers of unlimited size
        Sum over the ``n - f - 2`` nearest *other* updates, at least one.
    """
    count = len(distances)
    tolerated = max(0, min(byzantine_count, (count - 3) // 2))
    nearest = max(1, count - tolerated - 2)
    return [
        sum(sorted(row[j] for j in range(count) if j != i)[:nearest])
        for i, row in enumerate(distances)
    ]


def select_krum(
    indices: Sequence[int],
    distances: Sequence[Sequence[int]],
    *,
    byzantine_count: int,
    accepted_count: int,
) -> tuple[int, ...]:
    """Choose the updates with the smallest (score, seller index).

    Parameters
    ----------
    indices : n seller indices, ascending and distinct
    distances : n x n
        Exact squared distances, in the order of ``indices``.
    byzantine_count, accepted_count :
        f and m.

    Returns
    -------
    accepted :
        min(m, n) seller indices, ascending.
    """
    scores = compute_krum_scores(distances, byzantine_count)
    ranked = sorted(zip(scores, indices, strict=True))
    return tuple(sorted(index for _, index in ranked[:accepted_count]))


def aggregate_krum(
    indices: Sequence[int],
    updates: Sequence[Int32],
    *,
    byzantine_count: int,
    accepted_count: int,
    mode: KrumMode = KrumMode.MEAN,
) -> KrumResult:
    """Reduce updates to one step near their mean pattern.

    Parameters
    ----------
    indices : n seller indices, ascending and distinct
    updates : n of shape (d,)
    byzantine_count, accepted_count :
        f and m.
    mode :
        MEAN: the rounded mean of the accepted updates. MEDOID: the accepted update that is
        closest to that mean, the smaller index on a tie.

    Raises
    ------
    TooFewUpdates
        Without any update: the caller decides what no update means.
    ValueError
        If a coordinate is outside the update's bound, or lengths differ.
    """
    if not updates:
        raise TooFewUpdates(received=0, required=1)
    measured = [measure_update(update) for update in updates]
    distances = compute_squared_distances(compute_gram(measured))
    accepted = select_krum(
        indices, distances, byzantine_count=byzantine_count, accepted_count=accepted_count
    )
    chosen = [update for index, update in zip(indices, measured, strict=True) if index in accepted]
    step = compute_rounded_mean(chosen)
    if mode is KrumMode.MEDOID:
        step = _find_closest(chosen, measure_update(step)).update
    return KrumResult(step, accepted)


def _find_closest(updates: Sequence[ScaledUpdate], centre: ScaledUpdate) -> ScaledUpdate:
    """Find the update closest to a point, the first on a tie."""
    away = [compute_squared_distances(compute_gram([one, centre]))[0][1] for one in updates]
    return updates[away.index(min(away))]
