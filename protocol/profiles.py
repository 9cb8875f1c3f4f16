"""The cheapest vote that is safe enough: L, n0 and g for a pool. Source: MECHANISM 8.5, 8.6."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from protocol.consensus_odds import compute_consensus_odds, compute_lead
from protocol.errors import InvalidParams
from protocol.sortition import compute_set_sizes
from protocol.ticket_odds import compute_ticket_odds

BYZANTINE_SHARE: Final = Fraction(3, 10)
"""f_max of MECHANISM 1."""

ALLOWED_ERROR: Final = Fraction(1, 10**6)
"""beta0 of MECHANISM 1."""

MINI_ROUND_COST_VOTES: Final = 15
"""What a mini-round costs beside its votes, in votes.

20 votes take 270k gas and 40 take 425k (MECHANISM 8.6): 7.75k a vote, and 115k whatever their
number.
"""

GROWTHS: Final = ((3, 2), (4, 3), (2, 1))
"""Growths to choose from: MECHANISM 1's, and a slower and a faster one.

Others save less than one part in a hundred (pools of 5 to 64, f_max = 0.3).
"""

SHARES: Final = (Fraction(0), Fraction(1, 3), Fraction(2, 3), Fraction(1))
"""Parts of f_max at which a profile's cost is looked at.

Nobody knows how many nodes will be hostile. At no hostile node the cheapest first set has no
reserve, and one silent node costs a second mini-round. At f_max every job would pay for the worst
case. The mean over the range that the guarantee covers weighs both.
"""

MIN_SAVING: Final = 1e-9
"""Of two profiles whose costs differ by less, the first found is kept: no rounding decides."""

NEGLIGIBLE: Final = 1e-18
"""States less likely than this are left out of the search; far below any allowed error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How a job votes."""

    lead: int
    first_set_size: int
    growth_numerator: int
    growth_denominator: int

    def compute_set_sizes(self, pool_size: int) -> tuple[int, ...]:
        """List the cumulative sizes of the execution sets of a pool."""
        return compute_set_sizes(
            pool_size, self.first_set_size, self.growth_numerator, self.growth_denominator
        )


STANDARD: Final = Profile(lead=17, first_set_size=25, growth_numerator=3, growth_denominator=2)
"""MECHANISM 1: safe in every pool for f_max = 0.30 and beta0 = 1e-6."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a vote is planned for."""

    pool_sizes: range
    """Sizes N that the pool may have, ascending: a request fixes its profile before enrolment."""
    byzantine_share: Fraction = BYZANTINE_SHARE
    """f_max, below one half."""
    allowed_error: Fraction = ALLOWED_ERROR
    """beta0, the probability of accepting a wrong digest that one round may have."""


def count_byzantine(pool_size: int, byzantine_share: Fraction) -> int:
    """Count the Byzantine nodes that a pool is planned for: floor(f_max N), but one at least.

    A share below one node would allow votes that a single node decides. A pool of one or two has
    no honest majority beside a hostile node, so nothing can be planned there.
    """
    if pool_size < 3:
        return 0
    return max(1, int(byzantine_share * pool_size))


def compute_cost(profile: Profile, pool_size: int, byzantine_share: Fraction) -> float:
    """Compute the expected cost of an attempt in votes, as a mean over ``SHARES`` of f_max.

    A vote costs one, a mini-round ``MINI_ROUND_COST_VOTES``. Sets are drawn by tickets.
    """
    sizes = profile.compute_set_sizes(pool_size)
    return _compute_cost(profile.lead, pool_size, sizes, byzantine_share)


def is_safe(profile: Profile, pool_size: int, goal: Goal) -> bool:
    """Tell whether the exact error of a profile in a pool is at most what the goal allows.

    It must be so for sets of exactly n_m nodes, which MECHANISM 8.5 computes with, and for sets
    that tickets draw, which have n_m nodes on average. Small pools need the second: among 10 nodes
    with 3 Byzantine ones, lead 2 and first set 6 never err in the first sense, and err with
    probability 0.5 % in the second.
    """
    bad = count_byzantine(pool_size, goal.byzantine_share)
    sizes = profile.compute_set_sizes(pool_size)
    exact = compute_consensus_odds(pool_size, bad, profile.lead, sizes)
    if exact.wrong > goal.allowed_error:
        return False
    tickets = compute_ticket_odds(pool_size, bad, profile.lead, sizes, NEGLIGIBLE)
    return tickets.wrong <= goal.allowed_error


def select_profile(goal: Goal) -> Profile:
    """Choose the cheapest profile that is safe in every pool of the goal.

    The cost is that of the largest pool. Pools with an honest majority that answers are always
    decided: their last set is everybody.

    Raises
    ------
    InvalidParams
        If a field of the goal makes no sense.

    Source: MECHANISM 8.5, 8.6.
    """
    validate_goal(goal)
    largest = goal.pool_sizes[-1]
    best = general = _select_general(goal)
    best_cost = compute_cost(best, largest, goal.byzantine_share)
    # Good ones are near the general profile, and a good one found early rules others out.
    for first_set_size in sorted(
        range(1, largest + 1), key=lambda size: abs(size - general.first_set_size)
    ):
        if first_set_size + MINI_ROUND_COST_VOTES >= best_cost:
            continue
        leads = range(_find_hopeful_lead(goal, first_set_size), general.lead + 1)
        for growth in GROWTHS:
            found = _find_cheaper(goal, first_set_size, growth, leads, best_cost)
            if found is not None:
                best, best_cost = found
    return best


def validate_goal(goal: Goal) -> None:
    """Check a goal. Raises InvalidParams."""
    if not goal.pool_sizes or goal.pool_sizes[0] < 1 or goal.pool_sizes.step < 1:
        raise InvalidParams("pool_sizes", f"is {goal.pool_sizes}; give ascending sizes from 1 up")
    if not 0 < goal.byzantine_share < Fraction(1, 2):
        raise InvalidParams("byzantine_share", f"is {goal.byzantine_share}; give 0 < f < 1/2")
    if not 0 < goal.allowed_error < 1:
        raise InvalidParams("allowed_error", f"is {goal.allowed_error}; give 0 < beta < 1")


def _select_general(goal: Goal) -> Profile:
    """Choose the profile that the proof of MECHANISM 8.3 covers, in proportions of the standard."""
    # One hostile node never leads by two, whatever share of a small pool it is.
    lead = max(2, compute_lead(goal.byzantine_share, goal.allowed_error))
    largest = goal.pool_sizes[-1]
    return Profile(
        # A lead of more than half of the pool is a majority of it: a longer one says the same.
        lead=min(lead, largest // 2 + 1),
        first_set_size=min(lead * STANDARD.first_set_size // STANDARD.lead, largest),
        growth_numerator=STANDARD.growth_numerator,
        growth_denominator=STANDARD.growth_denominator,
    )


def _find_hopeful_lead(goal: Goal, first_set_size: int) -> int:
    """Find the shortest lead whose error in the first mini-round alone is not too large."""
    largest = goal.pool_sizes[-1]
    bad = count_byzantine(largest, goal.byzantine_share)
    sizes = (min(first_set_size, largest),)
    lead = 1
    while compute_ticket_odds(largest, bad, lead, sizes, NEGLIGIBLE).wrong > goal.allowed_error:
        lead += 1
    return lead


def _find_cheaper(
    goal: Goal, first_set_size: int, growth: tuple[int, int], leads: range, best_cost: float
) -> tuple[Profile, float] | None:
    """Find the shortest safe lead and its cost; None if that is not below ``best_cost``.

    Longer leads cost more: whatever ends a vote under them ends it under a shorter one too.
    """
    largest = goal.pool_sizes[-1]
    bad = count_byzantine(largest, goal.byzantine_share)
    sizes = compute_set_sizes(largest, first_set_size, *growth)
    limit = best_cost - MIN_SAVING
    for lead in leads:
        # Some mini-rounds bound error and cost of all from below, and rule most leads out.
        if (
            compute_ticket_odds(largest, bad, lead, sizes[:3], NEGLIGIBLE).wrong
            > goal.allowed_error
        ):
            continue
        if _compute_cost(lead, largest, sizes[:2], goal.byzantine_share) >= limit:
            return None
        cost = _compute_cost(lead, largest, sizes, goal.byzantine_share)
        if cost >= limit:
            return None
        profile = Profile(
            lead=lead,
            first_set_size=first_set_size,
            growth_numerator=growth[0],
            growth_denominator=growth[1],
        )
        if all(is_safe(profile, pool_size, goal) for pool_size in reversed(goal.pool_sizes)):
            return profile, cost
    return None


def _compute_cost(
    lead: int, pool_size: int, set_sizes: Sequence[int], byzantine_share: Fraction
) -> float:
    cost = 0.0
    for part in SHARES:
        bad = int(part * count_byzantine(pool_size, byzantine_share))
        odds = compute_ticket_odds(pool_size, bad, lead, set_sizes, NEGLIGIBLE)
        cost += odds.expected_votes + MINI_ROUND_COST_VOTES * odds.expected_mini_rounds
    return cost / len(SHARES)
