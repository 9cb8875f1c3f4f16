"""Rules that mix updates before another rule combines them, in float32."""

from dataclasses import dataclass

import numpy as np

from protocol.baselines.floats import (
    Context,
    Float32,
    Mixture,
    compute_float_distances,
    compute_mean,
)
from protocol.baselines.interface import require_at_least
from protocol.errors import TooFewUpdates
from protocol.hashing import Stream


@dataclass(frozen=True, slots=True)
class NearestNeighbourMixing:
    """Each update becomes the mean of the ``n - f`` nearest, itself among them. n > 2f.

    Source: Allouah et al. 2023, "Fixing by Mixing", nearest neighbour mixing.
    """

    byzantine_count: int

    def __post_init__(self) -> None:
        require_at_least("byzantine_count", self.byzantine_count, 0)

    def mix(self, rows: Float32, context: Context) -> Mixture:  # noqa: ARG002
        """Mix; of equally near rows the earlier one is a neighbour."""
        count = len(rows)
        if count <= 2 * self.byzantine_count:
            raise TooFewUpdates(received=count, required=2 * self.byzantine_count + 1)
        nearest = count - self.byzantine_count
        order = np.argsort(compute_float_distances(rows), axis=1, kind="stable")[:, :nearest]
        chosen = np.zeros((count, count), dtype=np.float32)
        np.put_along_axis(chosen, order, np.float32(1 / nearest), axis=1)
        members = tuple(tuple(sorted(row)) for row in order.tolist())
        return Mixture(chosen @ rows, members)


@dataclass(frozen=True, slots=True)
class Bucketing:
    """Shuffled updates are averaged in buckets of ``bucket_size``.

    f hostile updates spoil at most f buckets, so the rule that follows keeps its f, for fewer
    rows. A last bucket that is not full is averaged over what it holds.

    Source: Karimireddy et al. 2022, algorithm 1.
    """

    bucket_size: int

    def __post_init__(self) -> None:
        require_at_least("bucket_size", self.bucket_size, 1)

    def mix(self, rows: Float32, context: Context) -> Mixture:
        """Shuffle by the round's seed, and average each bucket."""
        shuffled = Stream(context.seed, "bucketing").draw(len(rows), len(rows))
        starts = range(0, len(rows), self.bucket_size)
        members = tuple(tuple(sorted(shuffled[i : i + self.bucket_size])) for i in starts)
        return Mixture(np.stack([compute_mean(rows[list(bucket)]) for bucket in members]), members)
