"""What every aggregation rule and every sampler of an experiment looks like.

A federated loop draws sellers, gathers their updates into :class:`Offers`, and lets a
:class:`Mechanism` turn them into a step, into the accesses that are paid, and into the next
sampler. Any aggregator works with any sampler, so an ablation exchanges one of the two.

What votes and pays on a real market stands in ``protocol.aggregation`` and is exact; here it is
one rule among others. The published rules compute in floats: they feed no digest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from protocol.errors import InvalidParams, TooFewUpdates
from protocol.fixed_point import Int32

Measure = Callable[[Sequence[Int32]], Sequence[int]]
"""Improvement of the current model's utility by each of some updates alone, in Q20."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """The updates of one round, and what a rule may ask about them.

    Raises
    ------
    TooFewUpdates
        Without any update: no rule can make a step of nothing, and the caller decides what then.
    ValueError
        If the sellers are not ascending, or their number or the shapes do not fit the updates.
    """

    sellers: tuple[int, ...]
    """Seller index of each update, ascending; repeated where it was drawn more than once."""
    updates: tuple[Int32, ...]
    """In the same order, each of shape (d,), in units of 2**-20 within the update's bound."""
    measure: Measure
    """Evaluates candidates; costs a pass over the validation samples for each."""
    seed: bytes
    """32 bytes, another in each round, for the rules that shuffle."""
    previous_step: Int32 | None = None
    """Step of the round before, where there was one."""
    sample_counts: tuple[int, ...] | None = None
    """Samples behind each update, as the sellers claim."""
    utilities: Mapping[int, int] | None = None
    """Improvement by each seller's update alone, Q20, once a stage has measured it."""

    def __post_init__(self) -> None:
        if not self.updates:
            raise TooFewUpdates(received=0, required=1)
        if any(before > after for before, after in pairwise(self.sellers)):
            raise ValueError("sellers must be in ascending order")
        if len(self.sellers) != len(self.updates):
            raise ValueError(f"{len(self.updates)} updates of {len(self.sellers)} sellers")
        if len({update.shape for update in self.updates}) > 1:
            raise ValueError("updates differ in shape")

    @property
    def by_seller(self) -> dict[int, Int32]:
        """One update per seller, in ascending order: what a repeated draw repeats is one voice."""
        return dict(zip(self.sellers, self.updates, strict=True))

    def measure_all(self) -> Mapping[int, int]:
        """Return what was measured already, or measure every seller's update once."""
        if self.utilities is not None:
            return self.utilities
        distinct = self.by_seller
        return dict(zip(distinct, self.measure(tuple(distinct.values())), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """What an aggregation rule makes of a round."""

    step: Int32
    """Shape (d,), in units of 2**-20: what is added to the model."""
    contributors: tuple[int, ...]
    """Sellers whose update is part of the step, ascending, once per access: these are paid."""
    utilities: Mapping[int, int] | None = None
    """Improvement by the updates that count as measured, Q20; None if the rule measured none."""


class Aggregator(Protocol):
    """A rule that reduces updates to one step; a frozen dataclass of its parameters."""

    def aggregate(self, offers: Offers) -> Aggregate:
        """Compute the step. TooFewUpdates if the rule cannot hold for so few updates."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a sampler learns from a round."""

    drawn: tuple[int, ...]
    """As the sampler drew them."""
    absent: frozenset[int] = frozenset()
    """Drawn sellers that sent nothing."""
    utilities: Mapping[int, int]
    """Q20 improvement by the sellers whose update counts. Whoever was drawn and is not in here
    was absent, or its update was rejected."""


class Sampler(Protocol):
    """A rule that draws sellers, with its state. It is never changed: a step gives the next."""

    @property
    def uses_utilities(self) -> bool:
        """Whether :meth:`step` looks at utilities, which cost an evaluation per update."""
        ...

    @property
    def shares(self) -> tuple[float, ...]:
        """Expected part of a round's accesses per seller; the sum is 1."""
        ...

    def draw(self, seed: bytes) -> tuple[int, ...]:
        """Draw a round's sellers, ascending; a seller stands there once per access."""
        ...

    def step(self, feedback: Feedback) -> "Sampler":
        """Return the sampler of the next round."""
        ...


class SamplerRules(Protocol):
    """Parameters of a sampler; a frozen dataclass."""

    def start(self, seller_count: int) -> Sampler:
        """Return the sampler of the first round; InvalidParams if so few cannot be sampled."""
        ...


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One cell of an ablation: how sellers are drawn, and how their updates become a step."""

    sampler: Sampler
    aggregator: Aggregator

    def run_round(self, drawn: tuple[int, ...], offers: Offers) -> "tuple[Aggregate, Mechanism]":
        """Aggregate what the drawn sellers offer, and step the sampler.

        Updates are measured as the aggregator measures them (Corrected OSMD: after the gate has
        scaled them, survivors only), otherwise as they were sent, and only if the sampler asks.
        """
        aggregate = self.aggregator.aggregate(offers)
        utilities = aggregate.utilities
        if utilities is None:
            utilities = offers.measure_all() if self.sampler.uses_utilities else {}
        feedback = Feedback(
            drawn=drawn, absent=frozenset(drawn) - frozenset(offers.sellers), utilities=utilities
        )
        return aggregate, Mechanism(self.sampler.step(feedback), self.aggregator)


def require_at_least(field: str, value: int, least: int) -> None:
    """Raise InvalidParams that names the field if its value is less than the least."""
    if value < least:
        raise InvalidParams(field, f"must be at least {least}, not {value}")
