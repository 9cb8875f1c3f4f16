"""The automatic choice of lead, first set and growth."""

from fractions import Fraction

import pytest

from protocol.consensus_odds import compute_consensus_odds
from protocol.errors import InvalidParams
from protocol.profiles import (
    ALLOWED_ERROR,
    BYZANTINE_SHARE,
    GROWTHS,
    MINI_ROUND_COST_VOTES,
    STANDARD,
    Goal,
    Profile,
    compute_cost,
    count_byzantine,
    is_safe,
    select_profile,
)
from protocol.ticket_odds import compute_ticket_odds

THIRTY_PERCENT = Fraction(3, 10)
ECONOMY = {
    50: Profile(lead=9, first_set_size=14, growth_numerator=3, growth_denominator=2),
    1000: Profile(lead=15, first_set_size=23, growth_numerator=3, growth_denominator=2),
}


def only(pool_size: int) -> Goal:
    return Goal(range(pool_size, pool_size + 1))


def errors_of(profile: Profile, pool_size: int, bad: int) -> tuple[float, float]:
    """For sets of exact sizes, and for sets drawn by tickets."""
    sizes = profile.compute_set_sizes(pool_size)
    return (
        compute_consensus_odds(pool_size, bad, profile.lead, sizes).wrong,
        compute_ticket_odds(pool_size, bad, profile.lead, sizes).wrong,
    )


def try_all(goal: Goal) -> float:
    """Cost of the cheapest safe profile, by looking at every one."""
    largest = goal.pool_sizes[-1]
    costs = []
    for first in range(1, largest + 1):
        for lead in range(1, largest // 2 + 2):
            for numerator, denominator in GROWTHS:
                profile = Profile(
                    lead=lead,
                    first_set_size=first,
                    growth_numerator=numerator,
                    growth_denominator=denominator,
                )
                if all(
                    max(errors_of(profile, size, count_byzantine(size, goal.byzantine_share)))
                    <= goal.allowed_error
                    for size in goal.pool_sizes
                ):
                    costs.append(compute_cost(profile, largest, goal.byzantine_share))
    return min(costs)


@pytest.mark.parametrize("pool_size", [1, 2, 3, 5, 7, 10, 15])
def test_the_choice_is_the_cheapest_of_all(pool_size: int) -> None:
    chosen = select_profile(only(pool_size))
    cost = compute_cost(chosen, pool_size, THIRTY_PERCENT)
    assert abs(cost - try_all(only(pool_size))) < 1e-6


def test_the_choice_is_the_cheapest_for_another_goal_too() -> None:
    goal = Goal(range(10, 11), Fraction(2, 5), Fraction(1, 1000))
    cost = compute_cost(select_profile(goal), 10, goal.byzantine_share)
    assert abs(cost - try_all(goal)) < 1e-6


def test_the_choice_for_a_range_is_the_cheapest_that_is_safe_in_each_pool() -> None:
    goal = Goal(range(5, 10))
    cost = compute_cost(select_profile(goal), 9, THIRTY_PERCENT)
    assert abs(cost - try_all(goal)) < 1e-6


@pytest.mark.parametrize("sizes", [range(5, 8), range(5, 21), range(50, 65)])
def test_every_pool_of_a_range_is_safe(sizes: range) -> None:
    chosen = select_profile(Goal(sizes))
    for size in sizes:
        assert max(errors_of(chosen, size, size * 3 // 10)) <= 1e-6


def test_a_smaller_pool_of_the_range_may_need_a_safer_vote() -> None:
    # Seven hostile nodes are more of 24 than of 25.
    assert not is_safe(select_profile(only(25)), 24, only(24))
    assert is_safe(select_profile(Goal(range(24, 26))), 24, only(24))


@pytest.mark.parametrize("pool_size", [50, 1000])
def test_the_choice_costs_no_more_than_the_published_profiles(pool_size: int) -> None:
    chosen = select_profile(only(pool_size))
    cost = compute_cost(chosen, pool_size, THIRTY_PERCENT)
    assert cost <= compute_cost(STANDARD, pool_size, THIRTY_PERCENT)
    assert cost <= compute_cost(ECONOMY[pool_size], pool_size, THIRTY_PERCENT)
    assert max(errors_of(chosen, pool_size, pool_size * 3 // 10)) <= 1e-6


@pytest.mark.parametrize("pool_size", [1, 2, 3, 4, 5, 7, 50])
def test_honest_pools_are_always_decided_and_mostly_at_once(pool_size: int) -> None:
    chosen = select_profile(only(pool_size))
    sizes = chosen.compute_set_sizes(pool_size)
    assert compute_consensus_odds(pool_size, 0, chosen.lead, sizes).undecided == 0
    assert compute_ticket_odds(pool_size, 0, chosen.lead, sizes).expected_mini_rounds < 1.3


def test_two_colluders_in_a_small_market_cannot_win() -> None:
    # The pools of a local market: 5 nodes, or 7 of which 2 collude.
    chosen = select_profile(Goal(range(5, 8)))
    assert max(errors_of(chosen, 7, 2)) == 0
    assert chosen.lead <= 4  # more than half of 7: no votes are asked for that cannot be had


def test_the_economy_profile_of_fifty_is_not_safe_under_tickets() -> None:
    exact, tickets = errors_of(ECONOMY[50], 50, 15)
    assert exact < ALLOWED_ERROR < tickets
    assert not is_safe(ECONOMY[50], 50, only(50))
    assert is_safe(STANDARD, 50, only(50))
    assert is_safe(ECONOMY[1000], 1000, only(1000))


def test_a_profile_that_errs_with_exact_sets_is_not_safe() -> None:
    # 6.0e-7 with exact sets, 4.0e-7 with tickets.
    goal = Goal(range(1000, 1001), allowed_error=Fraction(5, 10**7))
    exact, tickets = errors_of(ECONOMY[1000], 1000, 300)
    assert tickets < goal.allowed_error < exact
    assert not is_safe(ECONOMY[1000], 1000, goal)


def test_small_pools_are_planned_for_one_hostile_node_at_least() -> None:
    counts = [count_byzantine(size, THIRTY_PERCENT) for size in (1, 2, 3, 4, 6, 7, 10, 1000)]
    assert counts == [0, 0, 1, 1, 1, 2, 3, 300]


def test_costs_count_votes_and_mini_rounds_over_four_shares() -> None:
    # Everybody votes at once: five votes and one mini-round at any share.
    everybody = Profile(lead=1, first_set_size=5, growth_numerator=3, growth_denominator=2)
    assert abs(compute_cost(everybody, 5, BYZANTINE_SHARE) - 5 - MINI_ROUND_COST_VOTES) < 1e-9


def test_the_choice_is_the_same_every_time() -> None:
    assert select_profile(only(30)) == select_profile(only(30))


@pytest.mark.parametrize(
    ("goal", "field"),
    [
        (Goal(range(5, 5)), "pool_sizes"),
        (Goal(range(5)), "pool_sizes"),
        (Goal(range(9, 4, -1)), "pool_sizes"),
        (Goal(range(5, 6), Fraction(1, 2)), "byzantine_share"),
        (Goal(range(5, 6), Fraction(0)), "byzantine_share"),
        (Goal(range(5, 6), THIRTY_PERCENT, Fraction(0)), "allowed_error"),
        (Goal(range(5, 6), THIRTY_PERCENT, Fraction(1)), "allowed_error"),
    ],
)
def test_a_goal_without_meaning_is_refused(goal: Goal, field: str) -> None:
    with pytest.raises(InvalidParams, match=field):
        select_profile(goal)
