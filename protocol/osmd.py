"""Corrected OSMD: inclusion weights of the sellers, and who is sampled. Source: MECHANISM 10.

The state is one Q30 integer per seller, its inclusion probability; their sum is K * 2**30 and
each is at least the floor, so that a newcomer is always seen again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from protocol.fixed_point import LOG2E_Q32, exp2, lower_median
from protocol.hashing import Stream
from protocol.terms import Metric

ONE_Q30 = 1 << 30
DEFAULT_ALPHA_BPS = 2000
"""alpha: a fifth of the probability is shared equally (MECHANISM 1)."""

DEFAULT_ETA_Q16 = {
    Metric.ACC: 1 << 16,
    Metric.NEG_CE: 1 << 14,
    Metric.MACRO_F1: 1 << 16,
    Metric.NEG_MSE: 1 << 16,
}
"""eta: 1 for accuracy, a quarter for cross-entropy in bits (MECHANISM 1).

Macro-F1 lies in [0, 1] as accuracy does. A squared error does too, while it falls from that of
the mean, if targets have about unit variance: the scale that datasets are asked to have.
"""

MAX_LOG_STEP_Q32 = 1 << 32
"""zmax: one round changes a weight by at most a factor of two."""

MISSES_MAX = 3
"""A seller with so many misses in a job is held at the floor (MECHANISM 10.3)."""

State = tuple[int, ...]


def initial_state(seller_count: int, sellers_per_round: int) -> State:
    """Give every seller the same inclusion weight; the remainder goes to the first sellers."""
    if not 1 <= sellers_per_round <= seller_count:
        raise ValueError(f"cannot sample {sellers_per_round} of {seller_count} sellers")
    share, remainder = divmod(sellers_per_round * ONE_Q30, seller_count)
    return tuple(share + (index < remainder) for index in range(seller_count))


def compute_floor(seller_count: int, sellers_per_round: int, alpha_bps: int) -> int:
    """Compute lo, the smallest inclusion weight: floor(alpha * K * 2**30 / M).

    At least one unit: a weight of zero could never grow again, and the step divides by it.
    """
    return max(1, alpha_bps * sellers_per_round * ONE_Q30 // (10_000 * seller_count))


def sample_sellers(state: State, seller_seed: bytes) -> tuple[int, ...]:
    """Sample K distinct sellers, each with its inclusion weight as probability.

    Madow's systematic sampling over a shuffled list. Returned in ascending order.

    Source: MECHANISM 10.2.
    """
    stream = Stream(seller_seed, "seller-sample")
    shuffled = stream.draw(len(state), len(state))
    offset = stream.below(ONE_Q30)
    chosen = []
    cumulated = 0
    for index in shuffled:
        before = (cumulated - offset + ONE_Q30 - 1) // ONE_Q30
        cumulated += state[index]
        # Some offset + k * 2**30 lies in [before, after) iff the count of such points changes.
        if (cumulated - offset + ONE_Q30 - 1) // ONE_Q30 > before:
            chosen.append(index)
    return tuple(sorted(chosen))


@dataclass(frozen=True, slots=True)
class StepRules:
    """What bounds one mirror-descent step."""

    eta_q16: int
    """The step's length; see DEFAULT_ETA_Q16."""
    floor: int
    """lo, from :func:`compute_floor`."""
    removed: frozenset[int] = frozenset()
    """Sellers held at the floor for the rest of the job."""


def update(
    state: State, utilities: Mapping[int, int], missing: Collection[int], rules: StepRules
) -> State:
    """Move the inclusion weights by one mirror-descent step.

    Parameters
    ----------
    state :
        Inclusion weights before the round.
    utilities :
        Q20 utility improvement of the sellers that passed the gate. Only differences to their
        lower median count.
    missing :
        Sampled sellers whose update was missing or rejected: their weight is halved.
    rules :
        Length of the step, floor, and who is held there.

    Returns
    -------
    state :
        Inclusion weights of the next round; same sum.

    Source: MECHANISM 10.2.
    """
    weights = [inclusion_weight << 32 for inclusion_weight in state]
    if utilities:
        centre = lower_median(utilities.values())
        for index in sorted(utilities):
            gain = rules.eta_q16 * (utilities[index] - centre) * LOG2E_Q32 * ONE_Q30
            log_step = gain // (state[index] << 36)
            log_step = max(-MAX_LOG_STEP_Q32, min(log_step, MAX_LOG_STEP_Q32))
            weights[index] = _scale(weights[index], log_step)
    for index in sorted(missing):
        weights[index] = _scale(weights[index], -MAX_LOG_STEP_Q32)
    return _project_with_removed(weights, sum(state), rules)


def project(weights: Sequence[int], total: int, low: int, high: int) -> list[int]:
    """Project weights onto {low <= p_i <= high, sum p = total} in the sense of Kullback-Leibler.

    Parameters
    ----------
    weights :
        Positive integers; only their ratios matter, up to rounding.
    total, low, high :
        Integers with ``n * low <= total <= n * high``.

    Returns
    -------
    projected :
        clip(c * weight, low, high) with the largest c that does not exceed the total; the rest
        goes, one each, to the entries below ``high`` in ascending order, cyclically.

    Source: MECHANISM 10.2.
    """
    count = len(weights)
    if not count * low <= total <= count * high or min(weights, default=1) <= 0:
        raise ValueError(f"{count} weights cannot sum to {total} within [{low}, {high}]")
    if total == count * high:
        return [high] * count
    factor = _find_factor(weights, total, low, high)
    projected = _clip_all(weights, factor, low, high)
    remainder = total - sum(projected)
    while remainder:
        for index in range(count):
            if remainder and projected[index] < high:
                projected[index] += 1
                remainder -= 1
    return projected


def _project_with_removed(weights: list[int], total: int, rules: StepRules) -> State:
    """Hold removed sellers at the floor, unless too few others are left to fill a round."""
    active = [index for index in range(len(weights)) if index not in rules.removed]
    rest = total - (len(weights) - len(active)) * rules.floor
    if rest > len(active) * ONE_Q30:
        return tuple(project(weights, total, rules.floor, ONE_Q30))
    projected = project([weights[index] for index in active], rest, rules.floor, ONE_Q30)
    state = [rules.floor] * len(weights)
    for index, inclusion_weight in zip(active, projected, strict=True):
        state[index] = inclusion_weight
    return tuple(state)


def _find_factor(weights: Sequence[int], total: int, low: int, high: int) -> int:
    """Find the largest factor whose clipped products sum to at most ``total``."""
    above = 1
    while sum(_clip_all(weights, above, low, high)) <= total:
        above <<= 1
    below = above >> 1
    while above - below > 1:
        middle = (above + below) // 2
        if sum(_clip_all(weights, middle, low, high)) <= total:
            below = middle
        else:
            above = middle
    return below


def _clip_all(weights: Sequence[int], factor: int, low: int, high: int) -> list[int]:
    return [max(low, min((weight * factor) >> 96, high)) for weight in weights]


def _scale(weight: int, log_step_q32: int) -> int:
    mantissa, exponent = exp2(log_step_q32)
    return (weight * mantissa) >> (62 - exponent)
