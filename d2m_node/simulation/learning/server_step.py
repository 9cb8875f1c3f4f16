"""A step of the server's own after aggregation: its length chosen by validation, and momentum.

Sellers train a few epochs from the same model, so the mean of their updates points the right way
and stops short of where they would go together. Everything is integer: the same inputs give the
same step on every machine.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from protocol.baselines.interface import Aggregate, Aggregator, Offers
from protocol.errors import InvalidParams
from protocol.fixed_point import Int32, Int64
from protocol.update import MAX_UPDATE

FACTOR_BITS: Final = 8
ONE: Final = 1 << FACTOR_BITS
MAX_FACTOR: Final = 16 * ONE


@dataclass(frozen=True, slots=True)
class ServerStep:
    """An aggregator whose step is a factor times what it aggregated, plus part of the last step.

    In the long run steps are factor / (1 - momentum) times as long as the aggregates, and averages
    of about 1 / (1 - momentum) rounds. With several factors each candidate is measured on the
    round's validation samples, and the best one is taken; of equally good ones the first.
    """

    inner: Aggregator
    factors: tuple[int, ...] = (ONE,)
    """In 1/256."""
    momentum: int = 0
    """Part of the step before that is added, in 1/256."""

    def __post_init__(self) -> None:
        if not self.factors or not all(0 < factor <= MAX_FACTOR for factor in self.factors):
            raise InvalidParams("server_steps", "give numbers above 0, at most 16")
        if not 0 <= self.momentum < ONE:
            raise InvalidParams("server_momentum", "give a number from 0 to below 1")

    def aggregate(self, offers: Offers) -> Aggregate:
        """Aggregate, choose a length, add momentum."""
        found = self.inner.aggregate(offers)
        base: Int64 = found.step.astype(np.int64)
        carried: Int64 = base * 0
        if self.momentum and offers.previous_step is not None:
            carried = _scale(offers.previous_step.astype(np.int64), self.momentum)
        candidates = [_fit(_scale(base, factor) + carried) for factor in self.factors]
        if len(candidates) == 1:
            return replace(found, step=candidates[0])
        gains = list(offers.measure(candidates))
        return replace(found, step=candidates[gains.index(max(gains))])


def _scale(values: Int64, factor: int) -> Int64:
    """Multiply by factor / 256, rounding half up."""
    scaled: Int64 = (values * factor + ONE // 2) >> FACTOR_BITS
    return scaled


def _fit(values: Int64) -> Int32:
    return np.clip(values, -MAX_UPDATE, MAX_UPDATE).astype(np.int32)
