"""The conditions of MECHANISM 15, and its tables."""

from dataclasses import replace
from math import inf, isclose, isfinite
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import InvalidParams
from protocol.incentives import (
    MAX_AMOUNT,
    MAX_COALITIONS,
    Attack,
    Draw,
    Incentives,
    JobPlan,
    compute_attack,
    compute_incentives,
    compute_k_star,
    compute_pay_per_vote,
    describe_incentives,
)
from protocol.profiles import STANDARD, Profile

PLAN = JobPlan(pool_size=50, byzantine_max=15, profile=STANDARD, price=1000, rounds=50, stake=100)
"""MECHANISM 1's defaults; a tenth of the price as stake."""

WEAK = Profile(lead=1, first_set_size=3, growth_numerator=3, growth_denominator=2)

SAFE_BY_SIZE = replace(
    PLAN,
    pool_size=10,
    byzantine_max=3,
    profile=Profile(lead=2, first_set_size=6, growth_numerator=3, growth_denominator=2),
)
"""Never errs in sets of exact sizes, and errs if tickets draw them."""


def list_attacks(plan: JobPlan) -> list[Attack]:
    """All coalitions under both draws."""
    return [
        compute_attack(plan, count, compute_pay_per_vote(plan, draw), draw)
        for draw in Draw
        for count in range(1, plan.byzantine_max + 1)
    ]


@pytest.mark.parametrize(
    ("pool_size", "bad", "beta", "beta_job", "caught", "node", "node_right", "system", "right"),
    [
        # The example of 15.3, which prints 1.7e-4 where its own 8.2e-3 needs 1.646e-4.
        (50, 15, "0", "0", "1.000", "110", "0", "1645", "0"),
        (50, 22, "3.6e-09", "1.8e-07", "1.000", "112", "1e-08", "2464", "3e-07"),
        (1000, 300, "6e-08", "3e-06", "0.937", "94", "1e-08", "2.8e+04", "4e-06"),
        (1000, 400, "0.00016", "0.0082", "0.997", "101", "3e-05", "4e+04", "0.01"),
        (1000, 450, "0.0069", "0.29", "1.000", "103", "0.001", "4.6e+04", "0.5"),
    ],
)
def test_the_table_of_the_conditions_is_reproduced(
    pool_size: int,
    bad: int,
    beta: str,
    beta_job: str,
    caught: str,
    node: str,
    node_right: str,
    system: str,
    right: str,
) -> None:
    plan = replace(PLAN, pool_size=pool_size, byzantine_max=bad, slash_wrong=1.0)
    found = compute_incentives(plan)
    assert f"{found.attack.odds.wrong:.2g}" == beta
    assert f"{found.attack.beta_job:.2g}" == beta_job
    assert f"{found.attack.q_caught:.3f}" == caught
    assert f"{found.cone.left:.0f}" == node
    assert f"{found.cone.right_round:.1g}" == node_right
    printed = f"{found.system.left:.0f}" if pool_size == 50 else f"{found.system.left:.2g}"
    assert printed == system
    assert f"{found.system.right_round:.1g}" == right
    assert found.cone.byzantine_count == found.system.byzantine_count == bad


@pytest.mark.parametrize(
    ("audit", "gain", "part"), [(0.1, 0.1, 15), (0.9, 0.1, 135), (0.1, 1.0, 1.5), (0.9, 1.0, 13.5)]
)
def test_the_stake_rule_gives_the_printed_parts_of_the_price(
    audit: float, gain: float, part: float
) -> None:
    # 15.5: Amt/15 and Amt/135; for the extreme gain Amt/1.5 and Amt/13.5.
    found = compute_incentives(replace(PLAN, audit=audit, quality_gain=gain))
    assert isclose(found.minimum_stake_targeted, 1000 / part, rel_tol=1e-9)
    assert found.minimum_stake == found.minimum_stake_targeted


@pytest.mark.parametrize(
    ("lead", "pool_size", "sizes", "votes"),
    [
        (17, 50, (25, 38, 50), 21),  # 15.4: 21 of 25
        (9, 50, (14, 21, 32, 48, 50), 12),  # 12 of 14
        (17, 1000, (25, 38), 21),
        (3, 5, (4, 5), 3),  # a majority of five
        (9, 50, (4, 6, 9, 14), 9),  # neither 4 nor 6 nodes can lead by 9
        (99, 5, (4, 5), 3),
        (10**400, 5, (4, 5), 3),  # beyond what a float holds
    ],
)
def test_a_targeted_briber_needs_so_many_votes(
    lead: int, pool_size: int, sizes: tuple[int, ...], votes: int
) -> None:
    assert compute_k_star(lead, pool_size, sizes) == votes


def test_pay_per_vote_is_that_of_honest_operation() -> None:
    found = compute_incentives(PLAN)
    assert found.honest_votes == 25
    assert isclose(found.pay_per_vote, 300 / (50 * 25))


def test_punishment_needs_a_right_decision_or_an_audit() -> None:
    # Half of the pool less one, lead one: wrong digests win often, and only audits punish them.
    plan = replace(PLAN, pool_size=7, byzantine_max=3, profile=WEAK, rounds=1)
    strict = compute_attack(replace(plan, audit=1.0), 3, pay_per_vote=1.0)
    lax = compute_attack(replace(plan, audit=0.0), 3, pay_per_vote=1.0)
    drawn = lax.odds.expected_votes / 7
    assert isclose(strict.q_caught, drawn)
    assert isclose(lax.q_caught, drawn * (1 - lax.odds.wrong))
    assert isclose(lax.q_caught_coalition, 1 - lax.odds.wrong)
    assert isclose(lax.remaining_pay, drawn)


def test_a_tiny_error_is_not_lost_in_rounding() -> None:
    # 5.5e-12 a round is 2.8e-10 in fifty, which 1 - (1 - x)**50 would get wrong.
    found = compute_incentives(replace(PLAN, pool_size=1000, byzantine_max=100))
    assert isclose(found.attack.beta_job, 50 * found.attack.odds.wrong, rel_tol=1e-9)
    assert 0 < found.attack.beta_job < 1e-16


@settings(max_examples=50)
@given(
    st.integers(3, 30),
    st.integers(1, 12),
    st.integers(1, 20),
    st.floats(0, 200),
    st.floats(0, 1),
    st.floats(0.01, 1),
    st.data(),
)
def test_the_least_stake_is_where_the_conditions_begin_to_hold(
    pool_size: int,
    lead: int,
    first: int,
    stake: float,
    quality_gain: float,
    audit: float,
    data: st.DataObject,
) -> None:
    profile = Profile(lead=lead, first_set_size=first, growth_numerator=3, growth_denominator=2)
    bad = data.draw(st.integers(0, (pool_size - 1) // 2))
    plan = replace(
        PLAN,
        pool_size=pool_size,
        byzantine_max=bad,
        profile=profile,
        stake=stake,
        quality_gain=quality_gain,
        audit=audit,
    )
    found = compute_incentives(plan)
    least = found.minimum_stake_conditions
    enough = compute_incentives(replace(plan, stake=least * 1.001 + 1e-9))
    assert enough.system.holds
    assert enough.cone.holds
    if least > 1e-6:
        assert not compute_incentives(replace(plan, stake=least * 0.999)).system.holds
    # What the conditions say at their tightest, they say of every smaller coalition.
    assert found.system.holds == all(
        attack.byzantine_count * attack.q_caught * (plan.penalty + attack.remaining_pay)
        >= attack.beta_job * plan.gain
        for attack in list_attacks(plan)
    )
    # The bribe that a node asks for, B b >= beta_r G, multiplied by beta_r.
    assert found.seller.holds == all(
        attack.byzantine_count * attack.q_caught * (plan.penalty + attack.remaining_pay)
        >= attack.beta_job**2 * plan.gain
        for attack in list_attacks(plan)
    )


def test_the_defaults_are_honest() -> None:
    found = compute_incentives(PLAN)
    assert found.honest
    assert describe_incentives(found)["over all"] == "honesty is the best strategy"


def break_down(found: Incentives) -> list[str]:
    conditions = {"seller": found.seller, "cone": found.cone, "system": found.system}
    return [name for name, condition in conditions.items() if not condition.holds]


def test_a_weak_vote_and_no_stake_make_bribery_pay() -> None:
    plan = replace(PLAN, pool_size=7, byzantine_max=3, profile=WEAK, stake=0, quality_gain=1)
    found = compute_incentives(plan)
    assert break_down(found) == ["seller", "cone", "system"]
    assert not found.honest
    words = describe_incentives(found)
    assert words["seller"].startswith("bribing the coalition pays")
    assert words["CONE node"].startswith("taking the bribe pays")
    assert words["system"].startswith("there is a bribe")
    assert words["over all"] == "honesty is not secured"


def test_a_bribe_that_nodes_take_may_cost_more_than_it_brings() -> None:
    plan = replace(PLAN, pool_size=7, byzantine_max=3, profile=WEAK)
    found = compute_incentives(plan)
    assert found.seller.holds
    # By hand, for the coalition named: B times the bribe at which a node is indifferent.
    attack = min(
        (one for one in list_attacks(plan) if one.byzantine_count == found.seller.byzantine_count),
        key=lambda one: one.q_caught / one.beta_job**2,
    )
    bribe = attack.q_caught * (plan.penalty + attack.remaining_pay) / attack.beta_job
    assert isclose(found.seller.left, found.seller.byzantine_count * bribe)
    assert isclose(found.seller.right, attack.beta_job * plan.gain)
    # A hundredth of the loss is a hundredth of the bribe.
    cheap = replace(plan, stake=0, quality_gain=1, rounds=1000)
    assert not compute_incentives(cheap).seller.holds


def test_no_bribe_is_enough_where_no_wrong_digest_can_win() -> None:
    # Not even if nodes have nothing to lose.
    poor = replace(PLAN, stake=0, cone_share=0)
    for plan in (PLAN, replace(PLAN, byzantine_max=0), poor):
        seller = compute_incentives(plan).seller
        assert (seller.left, seller.right, seller.holds) == (inf, 0, True)


def test_a_job_must_be_safe_if_tickets_draw_its_sets() -> None:
    found = compute_incentives(SAFE_BY_SIZE)
    assert found.attack.odds.wrong == found.attack.beta_job == 0
    assert f"{found.attack_by_tickets.odds.wrong:.4f}" == "0.0048"
    assert f"{found.attack_by_tickets.beta_job:.2f}" == "0.21"
    assert found.value_at_risk == found.attack_by_tickets.beta_job * found.plan.gain > 0
    assert found.error == found.attack_by_tickets.odds.wrong
    assert not found.is_lead_enough
    assert describe_incentives(found)["lead"].startswith("too short")
    # A thousand rounds, and a gain that only the odds by tickets make worth a bribe.
    lasting = replace(SAFE_BY_SIZE, rounds=1000, quality_gain=1, audit=1, stake=360)
    found = compute_incentives(lasting)
    assert found.minimum_stake_targeted < found.plan.stake < found.minimum_stake_conditions
    assert break_down(found) == ["seller", "cone", "system"]
    assert not found.honest


def test_a_job_must_be_safe_in_sets_of_exact_sizes() -> None:
    # 22 of 50: 3.6e-9 in exact sets, 2.1e-9 by tickets.
    found = compute_incentives(replace(PLAN, byzantine_max=22))
    assert found.attack.odds.wrong > found.attack_by_tickets.odds.wrong > 0
    assert found.error == found.attack.odds.wrong
    assert found.value_at_risk == found.attack.beta_job * found.plan.gain


def test_honesty_that_a_short_lead_leaves_at_risk_is_said_to_be_so() -> None:
    found = compute_incentives(replace(SAFE_BY_SIZE, stake=400))
    assert found.honest
    assert describe_incentives(found)["over all"].endswith("raise the lead")


def test_large_coalitions_are_weighed_up_at_sizes_that_end_with_the_largest() -> None:
    few = compute_incentives(replace(PLAN, pool_size=200, byzantine_max=MAX_COALITIONS))
    many = compute_incentives(replace(PLAN, pool_size=200, byzantine_max=MAX_COALITIONS + 1))
    assert few.system.byzantine_count == few.attack.byzantine_count == MAX_COALITIONS
    assert many.system.byzantine_count == many.attack.byzantine_count == MAX_COALITIONS + 1


def test_a_stake_that_a_targeted_briber_can_pay_for_is_not_honest() -> None:
    found = compute_incentives(replace(PLAN, stake=66))
    assert break_down(found) == []
    assert not found.honest
    assert describe_incentives(found)["stake"] == "too small: give 66.6667"
    assert compute_incentives(replace(PLAN, stake=67)).honest


def test_the_stake_that_is_advised_is_enough() -> None:
    plan = replace(PLAN, pool_size=10, byzantine_max=3)
    advice = describe_incentives(compute_incentives(replace(plan, stake=1)))["stake"]
    advised = float(advice.removeprefix("too small: give "))
    assert compute_incentives(replace(plan, stake=advised)).honest


def test_without_audits_and_appeals_no_stake_is_enough() -> None:
    found = compute_incentives(replace(PLAN, audit=0))
    assert found.minimum_stake == inf
    assert not found.honest
    assert describe_incentives(found)["stake"].startswith("no stake is enough")


def test_without_hostile_nodes_nothing_is_at_risk() -> None:
    found = compute_incentives(replace(PLAN, byzantine_max=0))
    assert found.value_at_risk == found.attack.beta_job == 0
    assert found.honest


def test_value_at_risk_is_what_the_lead_leaves_open() -> None:
    found = compute_incentives(replace(PLAN, pool_size=1000, byzantine_max=400))
    assert f"{found.value_at_risk / found.plan.gain:.1%}" == "0.8%"  # 15.4, item 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"pool_size": 0}, "pool_size"),
        ({"pool_size": 2001}, "pool_size"),
        ({"byzantine_max": 25}, "byzantine_max"),
        ({"byzantine_max": -1}, "byzantine_max"),
        ({"price": 0}, "price"),
        ({"price": inf}, "price"),
        ({"price": 1.1 * MAX_AMOUNT}, "price"),
        ({"stake": 1.1 * MAX_AMOUNT}, "stake"),
        ({"rounds": 1001}, "rounds"),
        ({"profile": replace(WEAK, lead=0)}, "lead"),
        ({"profile": replace(WEAK, lead=2001)}, "lead"),
        ({"profile": replace(WEAK, first_set_size=0)}, "first_set_size"),
        ({"profile": replace(WEAK, first_set_size=2001)}, "first_set_size"),
        ({"profile": replace(WEAK, growth_numerator=2)}, "growth_numerator"),
        ({"profile": replace(WEAK, growth_denominator=0)}, "growth_numerator"),
        ({"profile": replace(WEAK, growth_numerator=1001)}, "growth_numerator"),
        (
            {
                "pool_size": 500,
                "profile": replace(WEAK, growth_numerator=1000, growth_denominator=999),
            },
            "growth_numerator",
        ),
        ({"rounds": 0}, "rounds"),
        ({"stake": -1}, "stake"),
        ({"stake": float("nan")}, "stake"),
        ({"quality_gain": 1.1}, "quality_gain"),
        ({"audit": -0.1}, "audit"),
        ({"slash_wrong": 2}, "slash_wrong"),
        ({"cone_share": float("nan")}, "cone_share"),
    ],
)
def test_a_plan_out_of_range_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams, match=f"{field}: is .*; give"):
        compute_incentives(replace(PLAN, **change))


def test_the_largest_amounts_do_not_overflow() -> None:
    plan = replace(PLAN, price=MAX_AMOUNT, stake=MAX_AMOUNT, pool_size=7, byzantine_max=3)
    for profile in (WEAK, STANDARD):
        found = compute_incentives(replace(plan, profile=profile))
        assert isfinite(found.minimum_stake)
        assert isfinite(found.system.left - found.system.right)


def test_every_growth_that_a_job_can_have_is_weighed_up() -> None:
    slow = Profile(lead=17, first_set_size=1, growth_numerator=1000, growth_denominator=999)
    found = compute_incentives(replace(PLAN, pool_size=64, byzantine_max=1, profile=slow))
    assert len(found.execution_set_sizes) == 64
