"""The exact rules of the market, taken apart for ablations and put behind the interface.

``gate+filter+round-krum`` is the aggregation of a whole round (MECHANISM 13); leave out a part to
see what it is worth.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from protocol.aggregation import DEFAULT_KEEP_BPS, compute_byzantine_count, select_refined
from protocol.baselines.interface import Aggregate, Aggregator, Offers, require_at_least
from protocol.gate import select_aligned, select_candidates
from protocol.krum import KrumMode, aggregate_krum


class Stage(Protocol):
    """Leaves only some sellers for the rule that follows."""

    def select(self, offers: Offers) -> Offers | None:
        """Return what remains, one update per seller, with utilities; None if nothing does."""
        ...


@dataclass(frozen=True, slots=True)
class Staged:
    """A rule that sees what some stages leave."""

    stages: tuple[Stage, ...]
    rule: Aggregator

    def aggregate(self, offers: Offers) -> Aggregate:
        """Compute the step; a zero step without contributors if a stage leaves nobody."""
        remaining = offers
        for stage in self.stages:
            selected = stage.select(remaining)
            if selected is None:
                return Aggregate(
                    step=np.zeros_like(offers.updates[0]), contributors=(), utilities={}
                )
            remaining = selected
        return replace(self.rule.aggregate(remaining), utilities=remaining.utilities)


@dataclass(frozen=True, slots=True)
class Gate:
    """The validity gate; the updates that pass have equal norms. Source: MECHANISM 11.1."""

    sellers_per_round: int

    def __post_init__(self) -> None:
        require_at_least("sellers_per_round", self.sellers_per_round, 1)

    def select(self, offers: Offers) -> Offers | None:
        """Keep the updates that are updates at all."""
        candidates = select_candidates(offers.by_seller)
        equalised = [update.build() for update in candidates.updates]
        gains = dict(zip(candidates.indices, offers.measure(equalised), strict=True))
        aligned = select_aligned(candidates, gains, self.sellers_per_round)
        if not aligned:
            return None
        updates = dict(zip(candidates.indices, equalised, strict=True))
        return replace(
            offers,
            sellers=aligned,
            updates=tuple(updates[index] for index in aligned),
            sample_counts=None,
            utilities={index: gains[index] for index in aligned},
        )


@dataclass(frozen=True, slots=True)
class UtilityFilter:
    """Keeps the updates that improve the model most, alone. Source: MECHANISM 13."""

    sellers_per_round: int
    keep_bps: int = DEFAULT_KEEP_BPS

    def __post_init__(self) -> None:
        require_at_least("sellers_per_round", self.sellers_per_round, 1)
        require_at_least("keep_bps", self.keep_bps, 1)

    def select(self, offers: Offers) -> Offers:
        """Keep the best; the utilities of all stay, because the sampler learns from all."""
        utilities = offers.measure_all()
        refined = select_refined(utilities, self.sellers_per_round, self.keep_bps)
        by_seller = offers.by_seller
        return replace(
            offers,
            sellers=refined,
            updates=tuple(by_seller[index] for index in refined),
            sample_counts=None,
            utilities=utilities,
        )


@dataclass(frozen=True, slots=True)
class CorrectedKrum:
    """Corrected KRUM of one update per seller. Source: MECHANISM 11.2."""

    byzantine_count: int
    """f; lowered where there are too few updates for it."""
    accepted_count: int | None = None
    """m; by default n - f."""
    mode: KrumMode = KrumMode.MEAN

    def __post_init__(self) -> None:
        require_at_least("byzantine_count", self.byzantine_count, 0)
        if self.accepted_count is not None:
            require_at_least("accepted_count", self.accepted_count, 1)

    def aggregate(self, offers: Offers) -> Aggregate:
        """Compute the step; updates that a seller offers twice count once."""
        distinct = offers.by_seller
        largest = max(1, len(distinct) - self.byzantine_count)
        result = aggregate_krum(
            tuple(distinct),
            tuple(distinct.values()),
            byzantine_count=self.byzantine_count,
            accepted_count=largest if self.accepted_count is None else self.accepted_count,
            mode=self.mode,
        )
        return Aggregate(step=result.step, contributors=result.accepted)


@dataclass(frozen=True, slots=True)
class RoundKrum:
    """Corrected KRUM with f and m as a round sets them. Source: MECHANISM 13."""

    sellers_per_round: int
    mode: KrumMode = KrumMode.MEAN

    def __post_init__(self) -> None:
        require_at_least("sellers_per_round", self.sellers_per_round, 1)

    def aggregate(self, offers: Offers) -> Aggregate:
        """Compute the step."""
        byzantine_count = compute_byzantine_count(self.sellers_per_round, len(offers.by_seller))
        return CorrectedKrum(byzantine_count, mode=self.mode).aggregate(offers)
