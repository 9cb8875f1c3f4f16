"""Whether honesty pays: what a bribed vote wins and what it costs. Source: MECHANISM 15.

Rational players, a safe chain, and a coalition of fewer than half of the pool's nodes that all
vote for one wrong digest. The whole gain counts for one accepted wrong digest. Amounts are floats
in any one unit: these numbers advise, and feed no payout.

MECHANISM 8.5 and its tables count with execution sets of exactly n_m nodes. The market draws by
private tickets, which makes sets of n_m nodes on average: among 10 nodes with 3 hostile ones,
lead 2 and first set 6 never err with exact sizes, and err in 0.5 % of the rounds by tickets. So
every condition, the least stake and the value at risk are judged under both draws, and the worse
one counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from enum import Enum
from math import expm1, inf, isfinite, log1p
from typing import Final

from protocol.consensus_odds import ConsensusOdds, compute_consensus_odds
from protocol.errors import InvalidParams
from protocol.profiles import ALLOWED_ERROR, NEGLIGIBLE, Profile
from protocol.terms import MAX_GROWTH_TERM, MAX_ROUNDS
from protocol.ticket_odds import compute_ticket_odds

MAX_POOL: Final = 2000
"""Larger pools take seconds to weigh up, and no job has them."""

MAX_SETS: Final = 64
"""As many execution sets as any job can have: each is larger than the one before it."""

MAX_COALITIONS: Final = 64
"""Coalition sizes that are weighed up; all of them in every pool that a job can have."""

MAX_AMOUNT: Final = 1e30
"""Largest price or stake: a billion coins in their smallest unit, and no figure overflows."""


class Draw(Enum):
    """How execution sets come about. Source: MECHANISM 7.2, 8.5."""

    EXACT = "exact"
    """n_m nodes, as the public draw gives them and the published tables assume."""
    TICKETS = "tickets"
    """n_m nodes on average: what the market does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """A job as its parties weigh it up before they join; the defaults are MECHANISM 1's."""

    pool_size: int
    byzantine_max: int
    """B_max, the largest coalition that is considered."""
    profile: Profile
    price: float
    rounds: int
    stake: float
    """Of one CONE node."""
    quality_gain: float = 0.1
    """q' - q: how much of the sellers' pool a wrong digest brings to who bribes for it."""
    audit: float = 0.1
    """a: probability that an audit or an appeal overturns a wrong decision."""
    slash_wrong: float = 0.5
    """Part of the stake that a vote for a rejected digest loses."""
    cone_share: float = 0.3

    @property
    def gain(self) -> float:
        """G, what a wrong digest is worth to who bribes for it."""
        return self.quality_gain * (1 - self.cone_share) * self.price

    @property
    def penalty(self) -> float:
        """Pen, what a rejected vote costs its node."""
        return self.slash_wrong * self.stake


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """What a coalition that attacks whenever it is drawn has to expect."""

    byzantine_count: int
    odds: ConsensusOdds
    beta_job: float
    """P(a wrong digest is accepted in some round of the job)."""
    q_caught: float
    """P(one given node of the coalition is punished in the job)."""
    q_caught_coalition: float
    """P(some node of the coalition is punished in the job)."""
    remaining_pay: float
    """W_rem, what a node would still have earned."""


@dataclass(frozen=True, slots=True)
class Condition:
    """An inequality that keeps players honest, at the coalition size where it is tightest."""

    byzantine_count: int
    left: float
    """What dishonesty costs."""
    right_round: float
    """What it brings if one round is attacked: the figure of the table in MECHANISM 15.3."""
    right: float
    """What it brings if all rounds are."""

    @property
    def holds(self) -> bool:
        """Tell whether dishonesty does not pay."""
        return self.left >= self.right


@dataclass(frozen=True, slots=True, kw_only=True)
class Incentives:
    """Everything that MECHANISM 15.7 asks of the calculator."""

    plan: JobPlan
    execution_set_sizes: tuple[int, ...]
    attack: Attack
    """Of the largest coalition, with sets of exact sizes: the figures of MECHANISM 8.5 and 15.3."""
    attack_by_tickets: Attack
    """Of the largest coalition, with sets as the market draws them."""
    honest_votes: float
    """E[votes] of a round without Byzantine nodes, with sets of exact sizes."""
    pay_per_vote: float
    """w_r, in honest operation, with sets of exact sizes."""
    seller: Condition
    cone: Condition
    system: Condition
    k_star: int
    """Votes of one execution set that decide it: what a targeted briber must buy."""
    minimum_stake_conditions: float
    """Least stake that fulfils the system's condition (MECHANISM 15.3)."""
    minimum_stake_targeted: float
    """Least stake against who buys the k* votes of a set that it knows (MECHANISM 15.5)."""
    value_at_risk: float
    """beta_job x G under the worse draw: what no deposit protects, only the lead does
    (MECHANISM 15.4)."""

    @property
    def minimum_stake(self) -> float:
        """The larger one of the two least stakes."""
        return max(self.minimum_stake_conditions, self.minimum_stake_targeted)

    @property
    def honest(self) -> bool:
        """Tell whether all three conditions hold and the stake is large enough.

        The stake counts too, because the conditions hold for almost any: it is the targeted
        briber that limits security (MECHANISM 15.3, 15.4).
        """
        conditions = (self.seller, self.cone, self.system)
        is_staked = self.plan.stake >= self.minimum_stake
        return is_staked and all(condition.holds for condition in conditions)

    @property
    def error(self) -> float:
        """Beta of the largest coalition under the worse draw."""
        return max(self.attack.odds.wrong, self.attack_by_tickets.odds.wrong)

    @property
    def is_lead_enough(self) -> bool:
        """Tell whether a round errs no more often than MECHANISM 1 allows.

        Apart from ``honest``: a coalition that attacks only when it expects to win is rarely
        slashed, so no deposit makes up for a short lead (MECHANISM 15.4).
        """
        return self.error <= ALLOWED_ERROR


def compute_incentives(plan: JobPlan) -> Incentives:
    """Weigh up a job, under both draws.

    What an attack brings counts for the whole job in each condition.

    Raises
    ------
    InvalidParams
        Naming the field of the plan that is out of range, and what would be in range.

    Source: MECHANISM 15.2 to 15.7.
    """
    validate_plan(plan)
    sizes = plan.profile.compute_set_sizes(plan.pool_size)
    exact, by_tickets = (_list_attacks(plan, draw) for draw in (Draw.EXACT, Draw.TICKETS))
    attacks = exact + by_tickets
    k_star = compute_k_star(plan.profile.lead, plan.pool_size, sizes)
    return Incentives(
        plan=plan,
        execution_set_sizes=sizes,
        attack=exact[-1],
        attack_by_tickets=by_tickets[-1],
        honest_votes=_compute_odds(plan, 0, Draw.EXACT).expected_votes,
        pay_per_vote=compute_pay_per_vote(plan, Draw.EXACT),
        seller=_find_tightest([_judge_seller(plan, attack) for attack in attacks]),
        cone=_find_tightest([_judge_cone(plan, attack) for attack in attacks]),
        system=_find_tightest([_judge_system(plan, attack) for attack in attacks]),
        k_star=k_star,
        minimum_stake_conditions=max(_compute_least_stake(plan, attack) for attack in attacks),
        minimum_stake_targeted=_divide(plan.gain, k_star * plan.audit * plan.slash_wrong),
        value_at_risk=max(exact[-1].beta_job, by_tickets[-1].beta_job) * plan.gain,
    )


def compute_pay_per_vote(plan: JobPlan, draw: Draw) -> float:
    """Compute w_r, what a vote earns if nobody is Byzantine. Source: MECHANISM 15.1."""
    votes = plan.rounds * _compute_odds(plan, 0, draw).expected_votes
    return plan.cone_share * plan.price / votes


def compute_attack(
    plan: JobPlan, byzantine_count: int, pay_per_vote: float, draw: Draw = Draw.EXACT
) -> Attack:
    """Compute the odds of a coalition of one size that attacks in every round.

    A node of it is punished when the right digest wins, and when the wrong one wins and is
    overturned.

    Source: MECHANISM 15.2.
    """
    odds = _compute_odds(plan, byzantine_count, draw)
    # Rounding may leave a sum of probabilities a hair above one.
    punished = max(0.0, 1 - odds.wrong - odds.undecided) + odds.wrong * plan.audit
    drawn = odds.expected_votes / plan.pool_size
    return Attack(
        byzantine_count=byzantine_count,
        odds=odds,
        beta_job=_repeat(odds.wrong, plan.rounds),
        q_caught=_repeat(drawn * punished, plan.rounds),
        q_caught_coalition=_repeat(punished, plan.rounds),
        remaining_pay=pay_per_vote * drawn * plan.rounds,
    )


def compute_k_star(lead: int, pool_size: int, set_sizes: Sequence[int]) -> int:
    """Compute how many votes of one execution set decide against all others of the set.

    ceil((n0 + L) / 2); fewer if they are a majority of the pool. A first set that cannot decide
    by itself is passed over.

    Source: MECHANISM 15.4, item 2.
    """
    majority = pool_size // 2 + 1
    return next(
        votes for size in set_sizes if (votes := min((size + lead + 1) // 2, majority)) <= size
    )


def describe_incentives(incentives: Incentives) -> dict[str, str]:
    """Say in words what holds: a verdict per condition, on the stake and the lead, and over all."""
    stake = incentives.plan.stake
    least = incentives.minimum_stake
    return {
        "seller": "bribing costs more than it brings"
        if incentives.seller.holds
        else "bribing the coalition pays; raise the stake or the lead",
        "CONE node": "taking the bribe costs a node more than it brings"
        if incentives.cone.holds
        else "taking the bribe pays; raise the stake or the lead",
        "system": "no bribe suits both sides"
        if incentives.system.holds
        else "there is a bribe that suits both sides; raise the stake or the lead",
        "stake": "enough against who knows a set and buys its votes"
        if stake >= least
        else f"too small: give {_round_up(least)}"
        if isfinite(least)
        else "no stake is enough, because nothing that is wrong is ever punished",
        "lead": "wrong digests are as rare as they must be"
        if incentives.is_lead_enough
        else "too short: the value at risk can be won; raise it",
        "over all": "honesty is not secured"
        if not incentives.honest
        else "honesty is the best strategy"
        if incentives.is_lead_enough
        else "honesty is the best strategy but for the value at risk: raise the lead",
    }


def validate_plan(plan: JobPlan) -> None:
    """Check a plan. Raises InvalidParams.

    A lead or first set above the pool makes sense: a majority decides, or everybody votes at once.
    """
    limits = (
        ("pool_size", plan.pool_size, MAX_POOL),
        ("rounds", plan.rounds, MAX_ROUNDS),
        ("lead", plan.profile.lead, MAX_POOL),
        ("first_set_size", plan.profile.first_set_size, MAX_POOL),
    )
    for name, number, most in limits:
        if not 1 <= number <= most:
            raise InvalidParams(name, f"is {number}; give 1 to {most}")
    if not 0 <= 2 * plan.byzantine_max < plan.pool_size:
        raise InvalidParams(
            "byzantine_max", f"is {plan.byzantine_max}; give less than half of {plan.pool_size}"
        )
    _validate_growth(plan)
    if not 0 < plan.price <= MAX_AMOUNT:
        raise InvalidParams("price", f"is {plan.price}; give more than 0, up to {MAX_AMOUNT:g}")
    if not 0 <= plan.stake <= MAX_AMOUNT:
        raise InvalidParams("stake", f"is {plan.stake}; give 0 or more, up to {MAX_AMOUNT:g}")
    for name in ("quality_gain", "audit", "slash_wrong", "cone_share"):
        if not 0 <= getattr(plan, name) <= 1:
            raise InvalidParams(name, f"is {getattr(plan, name)}; give 0 to 1")


def _validate_growth(plan: JobPlan) -> None:
    above, below = plan.profile.growth_numerator, plan.profile.growth_denominator
    fix = ""
    if not 0 < below < above:
        fix = "give more than 1"
    elif above > MAX_GROWTH_TERM:
        fix = f"give a fraction of numbers up to {MAX_GROWTH_TERM}"
    elif (count := len(plan.profile.compute_set_sizes(plan.pool_size))) > MAX_SETS:
        fix = f"give more: it makes {count} sets, over {MAX_SETS}"
    if fix:
        raise InvalidParams("growth_numerator", f"is {above}/{below}; {fix}")


def _compute_odds(plan: JobPlan, byzantine_count: int, draw: Draw) -> ConsensusOdds:
    sizes = plan.profile.compute_set_sizes(plan.pool_size)
    lead = plan.profile.lead
    if draw is Draw.EXACT:
        return compute_consensus_odds(plan.pool_size, byzantine_count, lead, sizes)
    return compute_ticket_odds(plan.pool_size, byzantine_count, lead, sizes, NEGLIGIBLE)


def _list_attacks(plan: JobPlan, draw: Draw) -> list[Attack]:
    """Weigh up coalitions, the largest one last; the one of nobody if there are no others."""
    pay_per_vote = compute_pay_per_vote(plan, draw)
    counts = _list_coalitions(plan.byzantine_max)
    return [compute_attack(plan, count, pay_per_vote, draw) for count in counts]


def _list_coalitions(byzantine_max: int) -> list[int]:
    """List the sizes to weigh up: all of them, or as many evenly spread ones, the largest last.

    What an attack brings and costs changes smoothly with the coalition's size.
    """
    if byzantine_max <= MAX_COALITIONS:
        return list(range(1, byzantine_max + 1)) or [0]
    return [part * byzantine_max // MAX_COALITIONS for part in range(1, MAX_COALITIONS + 1)]


def _repeat(chance: float, rounds: int) -> float:
    """Compute 1 - (1 - chance)**rounds, exactly for the smallest chances too."""
    return 1.0 if chance >= 1 else -expm1(rounds * log1p(-chance))


def _judge_seller(plan: JobPlan, attack: Attack) -> Condition:
    """B b >= beta_r G: the bribes cost more than the wrong digest brings.

    b is what a node asks for, q_caught (Pen + W_rem) / beta_r; where no wrong digest can win, no
    bribe is enough. With G / B, all that the gain can pay, the condition could not fail.
    """
    bribe = _compute_expected_loss(plan, attack) / attack.beta_job if attack.beta_job else inf
    return _judge(attack, cost=max(1, attack.byzantine_count) * bribe, prize=plan.gain)


def _judge_cone(plan: JobPlan, attack: Attack) -> Condition:
    """q_caught (Pen + W_rem) >= beta_r b: a node loses more than the bribe brings it."""
    bribe = plan.gain / max(1, attack.byzantine_count)  # all that the gain can pay
    return _judge(attack, cost=_compute_expected_loss(plan, attack), prize=bribe)


def _judge_system(plan: JobPlan, attack: Attack) -> Condition:
    """B q_caught (Pen + W_rem) >= beta_r G: no bribe suits both sides."""
    cost = attack.byzantine_count * _compute_expected_loss(plan, attack)
    return _judge(attack, cost=cost, prize=plan.gain)


def _judge(attack: Attack, *, cost: float, prize: float) -> Condition:
    return Condition(
        attack.byzantine_count, cost, attack.odds.wrong * prize, attack.beta_job * prize
    )


def _compute_expected_loss(plan: JobPlan, attack: Attack) -> float:
    return attack.q_caught * (plan.penalty + attack.remaining_pay)


def _find_tightest(conditions: Sequence[Condition]) -> Condition:
    """Choose the one with the largest right side for its left; of equals the largest coalition."""
    return max(conditions, key=lambda one: (_divide(one.right, one.left), one.byzantine_count))


def _compute_least_stake(plan: JobPlan, attack: Attack) -> float:
    """Solve the system's condition for the stake."""
    caught = attack.byzantine_count * attack.q_caught
    missing = _divide(attack.beta_job * plan.gain, caught) - attack.remaining_pay
    return _divide(max(0.0, missing), plan.slash_wrong)


def _round_up(amount: float) -> str:
    """Write an amount with six digits that is enough wherever the amount is."""
    return f"{Context(prec=6, rounding=ROUND_CEILING).create_decimal_from_float(amount):g}"


def _divide(dividend: float, divisor: float) -> float:
    """Divide amounts: nothing by nothing is nothing, something by nothing is without end."""
    if divisor == 0:
        return inf if dividend > 0 else 0.0
    return dividend / divisor
