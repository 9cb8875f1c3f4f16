"""Rules that draw sellers: uniformly, by Corrected OSMD, and as published."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from protocol.baselines.interface import Feedback, require_at_least
from protocol.errors import InvalidParams
from protocol.fixed_point import Float64
from protocol.hashing import Stream
from protocol.osmd import (
    DEFAULT_ALPHA_BPS,
    DEFAULT_ETA_Q16,
    MISSES_MAX,
    State,
    StepRules,
    compute_floor,
    initial_state,
    sample_sellers,
    update,
)
from protocol.params import BPS
from protocol.terms import Metric
from protocol.update import FRACTION_BITS

_FLOAT_BITS = 53


@dataclass(frozen=True, slots=True)
class UniformSampling:
    """Every seller is drawn equally often, for ever."""

    sellers_per_round: int

    def start(self, seller_count: int) -> "UniformSampler":
        """Return the sampler of all rounds."""
        _require_enough(seller_count, self.sellers_per_round)
        return UniformSampler(self.sellers_per_round, seller_count)


@dataclass(frozen=True, slots=True)
class UniformSampler:
    """Draws K of M sellers without replacement."""

    sellers_per_round: int
    seller_count: int

    @property
    def uses_utilities(self) -> bool:
        """No: nothing is learnt."""
        return False

    @property
    def shares(self) -> tuple[float, ...]:
        """The same for all."""
        return (1 / self.seller_count,) * self.seller_count

    def draw(self, seed: bytes) -> tuple[int, ...]:
        """Draw K distinct sellers."""
        stream = Stream(seed, "uniform-sample")
        return tuple(sorted(stream.draw(self.sellers_per_round, self.seller_count)))

    def step(self, feedback: Feedback) -> "UniformSampler":  # noqa: ARG002
        """Stay as it is."""
        return self


@dataclass(frozen=True, slots=True)
class OsmdSampling:
    """Our sampler: OSMD on the capped simplex, exact. Source: MECHANISM 10.2, 10.3."""

    sellers_per_round: int
    eta_q16: int = DEFAULT_ETA_Q16[Metric.ACC]
    alpha_bps: int = DEFAULT_ALPHA_BPS

    def __post_init__(self) -> None:
        require_at_least("eta_q16", self.eta_q16, 0)
        if not 0 <= self.alpha_bps <= BPS:
            raise InvalidParams("alpha_bps", f"must be 0 to {BPS}, not {self.alpha_bps}")

    def start(self, seller_count: int) -> "OsmdSampler":
        """Return a sampler that draws all sellers equally often."""
        _require_enough(seller_count, self.sellers_per_round)
        floor = compute_floor(seller_count, self.sellers_per_round, self.alpha_bps)
        state = initial_state(seller_count, self.sellers_per_round)
        return OsmdSampler(state, StepRules(self.eta_q16, floor), (0,) * seller_count)


@dataclass(frozen=True, slots=True)
class OsmdSampler:
    """Inclusion weights, as on a market."""

    state: State
    rules: StepRules
    misses: tuple[int, ...]
    """Rounds per seller in which it was drawn and sent nothing."""

    @property
    def uses_utilities(self) -> bool:
        """Yes."""
        return True

    @property
    def shares(self) -> tuple[float, ...]:
        """Inclusion weights over their sum."""
        total = sum(self.state)
        return tuple(inclusion_weight / total for inclusion_weight in self.state)

    def draw(self, seed: bytes) -> tuple[int, ...]:
        """Draw K distinct sellers, each with its inclusion weight as probability."""
        return sample_sellers(self.state, seed)

    def step(self, feedback: Feedback) -> "OsmdSampler":
        """Take one mirror-descent step; hold at the floor whoever sent nothing three times."""
        misses = tuple(
            count + (index in feedback.absent) for index, count in enumerate(self.misses)
        )
        removed = frozenset(index for index, count in enumerate(misses) if count >= MISSES_MAX)
        missing = [index for index in feedback.drawn if index not in feedback.utilities]
        rules = replace(self.rules, removed=removed)
        return OsmdSampler(update(self.state, feedback.utilities, missing, rules), rules, misses)


@dataclass(frozen=True, slots=True)
class ZlfkSampling:
    """The published sampler: OSMD on the simplex with a floor, drawn with replacement.

    Source: Zhao, Lyu, Fernandez, Kolar 2023, algorithm 1; MECHANISM 10.1.
    """

    sellers_per_round: int
    eta: float = 1.0
    alpha: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise InvalidParams("alpha", f"must be between 0 and 1, not {self.alpha}")

    def start(self, seller_count: int) -> "ZlfkSampler":
        """Return a sampler that draws all sellers equally often."""
        if self.sellers_per_round < 1 or seller_count < 1:
            raise InvalidParams("sellers_per_round", "draw at least one seller, of at least one")
        return ZlfkSampler(self, (1 / seller_count,) * seller_count)


@dataclass(frozen=True, slots=True)
class ZlfkSampler:
    """Probabilities of a single draw."""

    rules: ZlfkSampling
    shares: tuple[float, ...]

    @property
    def uses_utilities(self) -> bool:
        """Yes."""
        return True

    def draw(self, seed: bytes) -> tuple[int, ...]:
        """Draw K times, with replacement; a seller that is drawn twice stands there twice."""
        words = Stream(seed, "zlfk-sample").words(self.rules.sellers_per_round)
        uniform = np.ldexp((words >> np.uint64(64 - _FLOAT_BITS)).astype(np.float64), -_FLOAT_BITS)
        cumulated = np.cumsum(self.shares)
        drawn = np.searchsorted(cumulated, uniform * cumulated[-1], side="right")
        return tuple(sorted(drawn.tolist()))

    def step(self, feedback: Feedback) -> "ZlfkSampler":
        """Take one mirror-descent step with the estimator u / (K p) of each drawn seller.

        A seller that was drawn twice counts once, as in the authors' code. One that sent nothing
        has no estimate and counts as if it had not been drawn; the paper knows no such seller.
        """
        logarithms = np.log(self.shares)
        for index, utility in feedback.utilities.items():
            improvement = utility / (1 << FRACTION_BITS)
            estimate = improvement / (self.rules.sellers_per_round * self.shares[index])
            logarithms[index] += self.rules.eta * estimate
        projected = project_onto_floor(logarithms, self.rules.alpha / len(self.shares))
        return replace(self, shares=tuple(projected.tolist()))


def project_onto_floor(logarithms: Sequence[float] | Float64, floor: float) -> Float64:
    """Project weights onto {p_i >= floor, sum p = 1} in the sense of Kullback-Leibler.

    The closed form: sorted ascending, all before the first i with
    ``w_i (1 - floor (i-1)) > floor * sum of w_j over j >= i`` get the floor, the others share the
    rest in proportion.

    Parameters
    ----------
    logarithms : shape (M,)
        Natural logarithms of the weights; only their differences matter, so the largest is
        subtracted first and no exponential overflows.
    floor :
        alpha / M, with ``M * floor < 1``.

    Source: Zhao, Lyu, Fernandez, Kolar 2023; MECHANISM 10.1.
    """
    exponents = np.asarray(logarithms, dtype=np.float64)
    weights: Float64 = np.exp(exponents - exponents.max())
    order = np.argsort(weights, kind="stable")
    ordered = weights[order]
    tails = np.cumsum(ordered[::-1])[::-1]
    # The last entry always passes: M * floor < 1.
    left = 1 - floor * np.arange(len(ordered))
    first = int(np.argmax(ordered * left > floor * tails))
    projected = np.full(len(ordered), floor)
    projected[order[first:]] = left[first] * ordered[first:] / tails[first]
    return projected


def _require_enough(seller_count: int, sellers_per_round: int) -> None:
    if not 1 <= sellers_per_round <= seller_count:
        raise InvalidParams(
            "sellers_per_round", f"must be 1 to {seller_count}, the number of sellers"
        )
