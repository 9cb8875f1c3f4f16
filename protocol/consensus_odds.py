"""How likely a vote goes wrong, and what it costs. Source: MECHANISM 8.2, 8.3, 8.5.

Floats: these numbers plan a job and inform its parties. None of them feeds a digest, a payout or
a vote.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from protocol.fixed_point import Float64, Int64

MIN_WEIGHT = 1e-40
"""Numbers of silent nodes less likely than this are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsensusOdds:
    """What to expect of one attempt when all Byzantine nodes vote for one wrong digest."""

    wrong: float
    undecided: float
    expected_votes: float
    """Nodes drawn into the execution sets; silent ones count."""
    expected_mini_rounds: float


@dataclass(frozen=True, slots=True)
class SequentialOdds:
    """What to expect of an unlimited pool whose votes come one at a time."""

    wrong: float
    expected_votes: float


def compute_lead(byzantine_share: Fraction, allowed_error: Fraction) -> int:
    """Compute L: the smallest lead with (f / (1-f))**L <= beta0.

    Parameters
    ----------
    byzantine_share :
        f_max, below one half.
    allowed_error :
        beta0, the probability of accepting a wrong digest that one round may have.

    Source: MECHANISM 8.2.
    """
    if not (0 < byzantine_share < Fraction(1, 2) and 0 < allowed_error < 1):
        raise ValueError(f"need 0 < f < 1/2 and 0 < beta < 1: {byzantine_share}, {allowed_error}")
    ratio = byzantine_share / (1 - byzantine_share)
    lead, probability = 0, Fraction(1)
    while probability > allowed_error:
        lead += 1
        probability *= ratio
    return lead


def compute_error_bound(byzantine_share: float, lead: int) -> float:
    """Compute (f / (1-f))**L: no strategy, schedule or pool makes a wrong digest more likely.

    Where honest nodes are silent, f is B / (N - silent ones).

    Source: MECHANISM 8.3, the claim.
    """
    _check_share(byzantine_share)
    return float((byzantine_share / (1 - byzantine_share)) ** lead)


def compute_sequential_odds(byzantine_share: float, lead: int) -> SequentialOdds:
    """Follow a random walk that ends ``lead`` steps from its start, on either side.

    Source: MECHANISM 8.3, infinite pool (Wald).
    """
    _check_share(byzantine_share)
    ratio = (byzantine_share / (1 - byzantine_share)) ** lead
    wrong = ratio / (1 + ratio)
    return SequentialOdds(wrong, lead * (1 - 2 * wrong) / (1 - 2 * byzantine_share))


def compute_consensus_odds(
    pool_size: int,
    byzantine_count: int,
    lead: int,
    set_sizes: Sequence[int],
    silent_share: float = 0.0,
) -> ConsensusOdds:
    """Follow the distribution of the votes through the mini-rounds.

    The order in which nodes enter is a uniformly random permutation of the pool. Such an order is
    a sequence of independent nodes, each Byzantine with any one chance, of which only those with
    ``byzantine_count`` Byzantine nodes in all are looked at. So drawing more nodes is a
    convolution, whatever was drawn before, and only the few states that leave the vote open are
    carried on.

    Parameters
    ----------
    pool_size, byzantine_count, lead :
        N, B, L.
    set_sizes :
        Cumulative sizes, as ``sortition.compute_set_sizes`` lists them.
    silent_share :
        Probability with which an honest node does not answer, each on its own.

    Raises
    ------
    ValueError
        If there are more Byzantine nodes than nodes, or no silent share can be so large.

    Source: MECHANISM 8.5.
    """
    if not (0 <= byzantine_count <= pool_size and 0 <= silent_share < 1):
        raise ValueError(f"{byzantine_count} of {pool_size} nodes, {silent_share} of them silent")
    # Any chance gives the same odds. This one keeps the weights near one, also for B = 0.
    chance = (byzantine_count + 1) / (pool_size + 2)
    wrong = expected_votes = expected_mini_rounds = 0.0
    # Entry (silent, bad): weight of the paths that lead there and leave the vote open.
    weights: Float64 = np.zeros((1, byzantine_count + 1))
    weights[0, 0] = still_open = 1.0
    former_size = 0
    for set_size in set_sizes:
        expected_votes += still_open * (set_size - former_size)
        expected_mini_rounds += still_open
        kernel = _compute_kernel(set_size - former_size, byzantine_count, chance, silent_share)
        weights = _convolve(weights, kernel)
        probabilities = weights * _condition(pool_size, byzantine_count, set_size, chance)
        bad = np.arange(byzantine_count + 1)
        good = set_size - bad - np.arange(len(weights))[:, np.newaxis]
        is_wrong = (bad - good >= lead) | (2 * bad > pool_size)
        is_open = ~is_wrong & (good - bad < lead) & (2 * good <= pool_size)
        wrong += float(probabilities[is_wrong].sum())
        still_open = float(probabilities[is_open].sum())
        weights = np.where(is_open, weights, 0.0)
        former_size = set_size
    return ConsensusOdds(
        wrong=wrong,
        undecided=still_open,
        expected_votes=expected_votes,
        expected_mini_rounds=expected_mini_rounds,
    )


def compute_binomial(trials: int | Int64, successes: Int64, chance: float) -> Float64:
    """Compute the probability of each number of successes; zero where it is impossible.

    Parameters
    ----------
    trials, successes :
        Numbers or arrays that broadcast.
    chance :
        Of one success, above zero.
    """
    failures = trials - successes
    if chance >= 1:
        return np.where(failures == 0, 1.0, 0.0)
    possible = (successes >= 0) & (failures >= 0)
    hits, misses = np.where(possible, successes, 0), np.where(possible, failures, 0)
    logs = _log_factorials(1 << int(np.max(trials)).bit_length())
    log_ways = logs[trials] - logs[hits] - logs[misses]
    log_chance = hits * math.log(chance) + misses * math.log1p(-chance)
    return np.exp(np.where(possible, log_ways + log_chance, -np.inf))


def _compute_kernel(
    drawn: int, byzantine_count: int, chance: float, silent_share: float
) -> Float64:
    """Compute P(silent, bad) among ``drawn`` independent nodes, shape (rows, min(drawn, B) + 1)."""
    bad = np.arange(min(drawn, byzantine_count) + 1)
    bad_odds = compute_binomial(drawn, bad, chance)
    if silent_share == 0:  # the general case below gives the same, slowly
        return bad_odds[np.newaxis]
    silent = np.arange(drawn + 1)
    kernel = bad_odds * compute_binomial(drawn - bad, silent[:, np.newaxis], silent_share)
    likely: Float64 = kernel[kernel.max(axis=1) >= MIN_WEIGHT]
    return likely


def _convolve(weights: Float64, kernel: Float64) -> Float64:
    """Add independent nodes to each state; rows count silent nodes, columns Byzantine ones."""
    width = weights.shape[1]
    after: Float64 = np.zeros((len(weights) + len(kernel) - 1, width))
    for silent, row in enumerate(weights):
        open_states = np.flatnonzero(row >= MIN_WEIGHT if silent else row)
        if len(open_states) == 0:
            continue
        first, last = open_states[0], open_states[-1] + 1
        for more, new in enumerate(kernel):
            sums = np.convolve(row[first:last], new)[: width - first]
            after[silent + more, first : first + len(sums)] += sums
    return after


def _condition(pool_size: int, byzantine_count: int, set_size: int, chance: float) -> Float64:
    """Compute what turns weights into probabilities, per number of Byzantine nodes drawn.

    It is the chance that the rest of the pool holds the other Byzantine nodes, over the chance
    that the whole pool holds all of them.
    """
    others = byzantine_count - np.arange(byzantine_count + 1)
    total = compute_binomial(pool_size, np.array([byzantine_count]), chance)
    return compute_binomial(pool_size - set_size, others, chance) / total


@lru_cache(maxsize=32)
def _log_factorials(largest: int) -> Float64:
    return np.array([math.lgamma(number + 1) for number in range(largest + 1)])


def _check_share(byzantine_share: float) -> None:
    if not 0 <= byzantine_share < 0.5:
        raise ValueError(f"need 0 <= f < 1/2: {byzantine_share}")
