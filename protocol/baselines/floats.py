"""Rules in float32, as they are published, and their way to and from integers.

A float rule sees a matrix with one row per update. Mixing rules make other rows of these first
and remember which updates each new row is made of, so that the sellers of a step stay known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from protocol.baselines.interface import Aggregate, Offers
from protocol.fixed_point import Float64, Int32
from protocol.update import FRACTION_BITS, quantise

Float32 = NDArray[np.float32]

_COLUMNS = 1 << 16
"""Columns that are widened to float64 at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a float rule may use beside the rows."""

    seed: bytes
    previous_step: Float32 | None
    """Shape (d,)."""
    sample_counts: tuple[int, ...] | None
    """One per row."""


@dataclass(frozen=True, slots=True)
class Combination:
    """One step, shape (d,), and the positions of the rows that are part of it."""

    step: Float32
    used: tuple[int, ...]


class FloatRule(Protocol):
    """Reduces rows to one step."""

    def combine(self, rows: Float32, context: Context) -> Combination:
        """Compute the step of rows of shape (n, d). TooFewUpdates if n is too small."""
        ...


@dataclass(frozen=True, slots=True)
class Mixture:
    """New rows of shape (n', d), and for each the positions of the rows that it is made of."""

    rows: Float32
    members: tuple[tuple[int, ...], ...]


class Mixer(Protocol):
    """Makes other rows of the rows, for the rule that follows."""

    def mix(self, rows: Float32, context: Context) -> Mixture:
        """Mix rows of shape (n, d). TooFewUpdates if n is too small."""
        ...


@dataclass(frozen=True, slots=True)
class FloatAggregator:
    """A published rule, with any mixing before it, as an aggregator of integer updates."""

    rule: FloatRule
    mixers: tuple[Mixer, ...] = ()

    def aggregate(self, offers: Offers) -> Aggregate:
        """Combine the updates as float32 rows (exact: an update has 20 bits) and quantise."""
        rows = np.stack([_to_floats(update) for update in offers.updates])
        members: Sequence[tuple[int, ...]] = [(position,) for position in range(len(rows))]
        previous = offers.previous_step
        context = Context(
            seed=offers.seed,
            previous_step=None if previous is None else _to_floats(previous),
            sample_counts=offers.sample_counts,
        )
        for mixer in self.mixers:
            mixture = mixer.mix(rows, context)
            rows = mixture.rows
            members = [
                tuple(m for row in made_of for m in members[row]) for made_of in mixture.members
            ]
            # A mixed row has no seller who could say how many samples are behind it.
            context = replace(context, sample_counts=None)
        combination = self.rule.combine(rows, context)
        positions = {position for row in combination.used for position in members[row]}
        return Aggregate(
            step=quantise(combination.step),
            contributors=tuple(offers.sellers[position] for position in sorted(positions)),
        )


def compute_float_distances(rows: Float32) -> Float64:
    """Compute all squared distances between rows of shape (n, d); shape (n, n), zero diagonal.

    Through products in float64: float32 products lose small distances between large rows.
    """
    count, length = rows.shape
    gram = np.zeros((count, count))
    for start in range(0, length, _COLUMNS):
        part = rows[:, start : start + _COLUMNS].astype(np.float64)
        gram += part @ part.T
    norms = gram.diagonal()
    distances: Float64 = np.maximum(norms[:, np.newaxis] + norms - 2 * gram, 0)
    np.fill_diagonal(distances, 0)
    return distances


def compute_mean(rows: Float32) -> Float32:
    """Average rows of shape (n, d), summing in float64; shape (d,)."""
    mean: Float64 = rows.mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32)


def _to_floats(values: Int32) -> Float32:
    floats: Float32 = np.ldexp(values.astype(np.float32), -FRACTION_BITS)
    return floats
