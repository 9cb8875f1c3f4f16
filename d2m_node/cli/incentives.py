"""Whether honesty pays in a job: a calculator that needs no node."""

import re
from fractions import Fraction
from math import isfinite
from typing import Final

import click

from d2m_node.cli.options import json_of
from d2m_node.cli.output import print_facts, print_result, print_table
from d2m_node.cli.shapes import ConditionView, IncentivesView
from protocol.errors import InvalidParams
from protocol.incentives import (
    Condition,
    Incentives,
    JobPlan,
    compute_incentives,
    describe_incentives,
)
from protocol.profiles import ALLOWED_ERROR, STANDARD, Profile

OPTIONS: Final = {
    "pool_size": "--pool",
    "byzantine_max": "--byzantine",
    "lead": "--lead",
    "first_set_size": "--first-set",
    "growth_numerator": "--growth",
    "rounds": "--rounds",
    "price": "--price",
    "stake": "--stake",
    "quality_gain": "--quality-gain",
    "audit": "--audit",
}
"""The option that each field of a plan comes from."""

MAX_TEXT: Final = 20
"""Longest number that is read exactly, in characters."""

DECIMAL: Final = re.compile(r"\d+(\.\d*)?|\.\d+", re.ASCII)
"""No exponent: 1e999999999 is short, and takes forever to write out."""

RATIO: Final = re.compile(rf"\d+/0*[1-9]\d*|{DECIMAL.pattern}", re.ASCII)


class _Ratio(click.ParamType[Fraction]):
    """A number written as 3/2, 1.5 or 2."""

    name = "ratio"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Fraction:
        """Read the number exactly."""
        if isinstance(value, Fraction):
            return value
        text = str(value)
        if len(text) > MAX_TEXT or not RATIO.fullmatch(text):
            self.fail(f"{text[:MAX_TEXT]!r} is no such number; write 3/2 or 1.5", param, ctx)
        return Fraction(text)


class _Byzantine(click.ParamType[Fraction | int]):
    """A count of nodes, or a share of the pool with a decimal point."""

    name = "count|share"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Fraction | int:
        """Tell a share by its point."""
        text = str(value)
        number: Fraction | int = -1
        if len(text) <= MAX_TEXT and DECIMAL.fullmatch(text):
            number = Fraction(text) if "." in text else int(text)
        if number < 0 or (isinstance(number, Fraction) and number > 1):
            shown = repr(text[:MAX_TEXT])
            self.fail(f"is {shown}; write a count (15) or a share from 0 to 1 (0.3)", param, ctx)
        return number


@click.command()
@click.option(
    "--pool",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="CONE nodes of the job.",
)
@click.option(
    "--byzantine",
    type=_Byzantine(),
    default="0.3",
    show_default=True,
    help="Nodes that collude at most: a share of the pool (0.3) or a count (15).",
)
@click.option(
    "--lead",
    type=click.IntRange(min=1),
    default=STANDARD.lead,
    show_default=True,
    help="Votes by which a digest must be ahead.",
)
@click.option(
    "--first-set",
    type=click.IntRange(min=1),
    default=STANDARD.first_set_size,
    show_default=True,
    help="Nodes in the first execution set.",
)
@click.option(
    "--growth",
    type=_Ratio(),
    default="3/2",
    show_default=True,
    help="Growth of the set: 3/2 or 1.5.",
)
@click.option(
    "--price",
    type=float,
    default=1000,
    show_default=True,
    help="What the buyer pays, in any unit; other amounts are in the same.",
)
@click.option(
    "--rounds", type=click.IntRange(min=1), default=50, show_default=True, help="Rounds of the job."
)
@click.option("--stake", type=float, help="Stake of a CONE node.  [default: a tenth of the price]")
@click.option(
    "--quality-gain",
    type=float,
    default=0.1,
    show_default=True,
    help="Part of the sellers' pool that a wrong digest brings to who bribes for it.",
)
@click.option(
    "--audit",
    type=float,
    default=0.1,
    show_default=True,
    help="Probability that an audit or an appeal overturns a wrong decision.",
)
@json_of(IncentivesView)
def incentives(  # noqa: PLR0913 - click passes each option
    *,
    pool: int,
    byzantine: Fraction | int,
    lead: int,
    first_set: int,
    growth: Fraction,
    price: float,
    rounds: int,
    stake: float | None,
    quality_gain: float,
    audit: float,
    as_json: bool,
) -> None:
    """Tell whether honesty pays in a job, before you join or pay for it.

    Computes how likely a coalition of CONE nodes gets a wrong result accepted, what that is worth
    to who bribes for it, and what it costs. Half of a stake is lost with a wrong vote, and CONE
    nodes share 30 % of the price. The lead and the first set are those of the standard profile
    unless they are given. Needs no running node.

    The odds are shown for execution sets of exactly the planned sizes. Wrong results are shown for
    sets drawn by private tickets too, as the market draws them: those have these sizes on average.
    Conditions, minimum stake, value at risk and verdicts take the worse of both. In JSON, "beta"
    and the keys after it up to "q_caught" are for exact sizes.
    """
    plan = JobPlan(
        pool_size=pool,
        byzantine_max=byzantine if isinstance(byzantine, int) else int(byzantine * pool),
        profile=Profile(
            lead=lead,
            first_set_size=first_set,
            growth_numerator=growth.numerator,
            growth_denominator=growth.denominator,
        ),
        price=price,
        rounds=rounds,
        stake=price / 10 if stake is None else stake,
        quality_gain=quality_gain,
        audit=audit,
    )
    try:
        found = compute_incentives(plan)
    except InvalidParams as exc:
        raise click.BadParameter(exc.reason, param_hint=OPTIONS[exc.field]) from exc
    if as_json:
        print_result(_view(found))
    else:
        _show(found)


def _view(found: Incentives) -> IncentivesView:
    attack = found.attack
    return IncentivesView(
        execution_set_sizes=list(found.execution_set_sizes),
        lead=found.plan.profile.lead,
        beta=attack.odds.wrong,
        beta_job=attack.beta_job,
        undecided=attack.odds.undecided,
        expected_votes=attack.odds.expected_votes,
        pay_per_vote=found.pay_per_vote,
        q_caught=attack.q_caught,
        margins={
            "seller": _view_condition(found.seller),
            "cone": _view_condition(found.cone),
            "system": _view_condition(found.system),
        },
        k_star=found.k_star,
        minimum_stake=_to_number(found.minimum_stake),
        value_at_risk=found.value_at_risk,
        honest=found.honest,
    )


def _view_condition(condition: Condition) -> ConditionView:
    return ConditionView(
        byzantine=condition.byzantine_count,
        left=_to_number(condition.left),
        right=condition.right,
        right_per_round=condition.right_round,
        margin=_to_number(condition.left - condition.right),
        holds=condition.holds,
    )


def _to_number(amount: float) -> float | None:
    """JSON has no infinity: null where no bribe or no stake is enough."""
    return amount if isfinite(amount) else None


def _show(found: Incentives) -> None:
    attack, by_tickets, plan = found.attack, found.attack_by_tickets, found.plan
    count = attack.byzantine_count
    print_facts(
        [
            ("execution sets", ", ".join(map(str, found.execution_set_sizes))),
            ("lead", plan.profile.lead),
            ("Byzantine nodes", f"up to {count} of {plan.pool_size}"),
            ("wrong digest accepted", f"{attack.odds.wrong:.2g} per round"),
            ("", f"{attack.beta_job:.2g} in {plan.rounds} rounds"),
            ("the same, by tickets", f"{by_tickets.odds.wrong:.2g} per round"),
            ("", f"{by_tickets.beta_job:.2g} in {plan.rounds} rounds"),
            ("undecided", f"{attack.odds.undecided:.2g} per attempt"),
            ("votes of a round", f"{attack.odds.expected_votes:.1f}"),
            ("", f"{found.honest_votes:.1f} if all are honest"),
            ("pay per vote", f"{found.pay_per_vote:.4g}"),
            ("one node is caught", f"{attack.q_caught:.3f} in {plan.rounds} rounds"),
            ("some node is caught", f"{attack.q_caught_coalition:.3f} in {plan.rounds} rounds"),
            ("votes to buy in one set", found.k_star),
            ("minimum stake", f"{_format_amount(found.minimum_stake)}, given {plan.stake:.6g}"),
            ("value at risk", f"{found.value_at_risk:.2g}"),
        ]
    )
    click.echo("\nThe verdicts take the worse of exact set sizes and sets drawn by tickets.\n")
    words = describe_incentives(found)
    conditions = {"seller": found.seller, "CONE node": found.cone, "system": found.system}
    rows = [
        [name, _format_amount(one.left), _format_amount(one.right), words[name]]
        for name, one in conditions.items()
    ]
    least = _format_amount(found.minimum_stake)
    rows.append(["stake", _format_amount(plan.stake), least, words["stake"]])
    allowed = _format_amount(float(ALLOWED_ERROR))
    rows.append(["lead", allowed, _format_amount(found.error), words["lead"]])
    print_table(("condition", "must be at least", "this", "verdict"), rows)
    click.echo(f"\n{words['over all']}")


def _format_amount(amount: float) -> str:
    return f"{amount:.4g}" if isfinite(amount) else "no limit"
