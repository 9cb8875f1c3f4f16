"""Published aggregation rules, in float32. Each states its source; f is ``byzantine_count``."""

from dataclasses import dataclass

import numpy as np

from protocol.baselines.floats import (
    Combination,
    Context,
    Float32,
    compute_float_distances,
    compute_mean,
)
from protocol.baselines.interface import require_at_least
from protocol.errors import InvalidParams, TooFewUpdates
from protocol.fixed_point import Int64


@dataclass(frozen=True, slots=True)
class FedAvg:
    """The mean of all updates. Source: McMahan et al. 2017, algorithm 1, equal sample counts."""

    def combine(self, rows: Float32, context: Context) -> Combination:  # noqa: ARG002
        """Average all rows."""
        return Combination(compute_mean(rows), tuple(range(len(rows))))


@dataclass(frozen=True, slots=True)
class WeightedFedAvg:
    """The mean, weighted by the samples that each seller claims.

    Nobody can check the claims, so whoever claims most rules the mean: for honest sellers only.
    Source: McMahan et al. 2017, algorithm 1.
    """

    def combine(self, rows: Float32, context: Context) -> Combination:
        """Average the rows, weighted by ``sample_counts``; InvalidParams without usable ones."""
        counts = np.array(context.sample_counts or (), dtype=np.float64)
        if counts.shape != (len(rows),) or counts.min() < 0 or not counts.any():
            raise InvalidParams(
                "sample_counts", "give each update its count, not all zero, and mix nothing before"
            )
        step = np.average(rows, axis=0, weights=counts).astype(np.float32)
        return Combination(step, tuple(np.flatnonzero(counts).tolist()))


@dataclass(frozen=True, slots=True)
class Krum:
    """The one update with the nearest ``n - f - 2`` others. n >= 2f + 3.

    Source: Blanchard et al. 2017, "The Krum Function". Ties go to the smaller seller index.
    """

    byzantine_count: int

    def __post_init__(self) -> None:
        require_at_least("byzantine_count", self.byzantine_count, 0)

    def combine(self, rows: Float32, context: Context) -> Combination:  # noqa: ARG002
        """Choose the row with the best score."""
        best = int(rank_by_krum(rows, self.byzantine_count)[0])
        return Combination(rows[best], (best,))


@dataclass(frozen=True, slots=True)
class MultiKrum:
    """The mean of the m updates with the best Krum scores. n >= 2f + 3 and n >= m + f + 2.

    Source: Blanchard et al. 2017, "Multi-Krum".
    """

    byzantine_count: int
    accepted_count: int | None = None
    """m; by default the largest that the paper allows, n - f - 2."""

    def __post_init__(self) -> None:
        require_at_least("byzantine_count", self.byzantine_count, 0)
        if self.accepted_count is not None:
            require_at_least("accepted_count", self.accepted_count, 1)

    def combine(self, rows: Float32, context: Context) -> Combination:  # noqa: ARG002
        """Average the rows with the best scores."""
        ranked = rank_by_krum(rows, self.byzantine_count)
        largest = len(rows) - self.byzantine_count - 2
        count = largest if self.accepted_count is None else self.accepted_count
        if count > largest:
            raise TooFewUpdates(received=len(rows), required=count + self.byzantine_count + 2)
        used = sorted(ranked[:count].tolist())
        return Combination(compute_mean(rows[used]), tuple(used))


@dataclass(frozen=True, slots=True)
class CoordinateMedian:
    """The median of each coordinate. Source: Yin et al. 2018, definition 1."""

    def combine(self, rows: Float32, context: Context) -> Combination:  # noqa: ARG002
        """Take the median; of two middle values, their mean."""
        return Combination(np.median(rows, axis=0), tuple(range(len(rows))))


@dataclass(frozen=True, slots=True)
class TrimmedMean:
    """The mean of each coordinate without its f largest and f smallest values. n > 2f.

    Source: Yin et al. 2018, definition 2, with f = beta * n.
    """

    byzantine_count: int

    def __post_init__(self) -> None:
        require_at_least("byzantine_count", self.byzantine_count, 0)

    def combine(self, rows: Float32, context: Context) -> Combination:  # noqa: ARG002
        """Trim and average."""
        cut = self.byzantine_count
        if len(rows) <= 2 * cut:
            raise TooFewUpdates(received=len(rows), required=2 * cut + 1)
        kept = np.sort(rows, axis=0)[cut : len(rows) - cut]
        return Combination(compute_mean(kept), tuple(range(len(rows))))


@dataclass(frozen=True, slots=True)
class CentredClipping:
    """The mean of the updates, each pulled to within ``radius`` of the estimate so far.

    Source: Karimireddy et al. 2021, "CenteredClip": v + mean of (x_i - v) min(1, tau / |x_i - v|).
    """

    radius: float
    """tau, as a Euclidean norm in units of parameters."""
    iterations: int = 1
    """Repetitions of the step within one round; the paper uses one."""

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise InvalidParams("radius", f"must be positive, not {self.radius}")
        require_at_least("iterations", self.iterations, 1)

    def combine(self, rows: Float32, context: Context) -> Combination:
        """Start from the step of the round before, or from zero in the first round."""
        start = context.previous_step
        centre = np.zeros(rows.shape[1], dtype=np.float32) if start is None else start
        for _ in range(self.iterations):
            away = rows - centre
            norms = np.linalg.norm(away, axis=1)
            # Zero norms stay inside any radius; the maximum only avoids dividing by zero.
            factors = np.minimum(1, self.radius / np.maximum(norms, np.finfo(np.float32).tiny))
            away *= factors[:, np.newaxis].astype(np.float32)
            centre = centre + compute_mean(away)
        return Combination(centre, tuple(range(len(rows))))


def rank_by_krum(rows: Float32, byzantine_count: int) -> Int64:
    """Rank rows of shape (n, d) by Krum's score, best first, ties by position; shape (n,).

    Raises
    ------
    TooFewUpdates
        If n < 2f + 3, for which the paper proves nothing.
    """
    count = len(rows)
    if count < 2 * byzantine_count + 3:
        raise TooFewUpdates(received=count, required=2 * byzantine_count + 3)
    distances = compute_float_distances(rows)
    np.fill_diagonal(distances, np.inf)  # no update is its own neighbour
    nearest = np.sort(distances, axis=1)[:, : count - byzantine_count - 2]
    return np.argsort(nearest.sum(axis=1), kind="stable")
