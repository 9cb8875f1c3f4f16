"""Payouts in words: formulas that give the amounts, and events that hold the numbers."""

from dataclasses import replace
from math import ceil

import pytest

from protocol.errors import RuleViolation
from protocol.events import SharesOpened
from protocol.payment_audit import SettledJob
from protocol.payout_explanation import (
    EventSource,
    ExplainedNumber,
    ExplainedPayment,
    PayoutExplanation,
    explain_payouts,
)
from protocol.settlement import Outcome, PayeeRole
from protocol.types import Wei
from tests.support.params import PARAMS
from tests.support.settled_job import CONES, JOB, SELLERS, make_job_state, make_settled_job

JOB_BY_HAND = make_settled_job()


def explain(settled: SettledJob = JOB_BY_HAND) -> PayoutExplanation:
    return explain_payouts(make_job_state(settled), PARAMS)


def number(explanation: PayoutExplanation, name: str) -> ExplainedNumber:
    (found,) = [one for one in explanation.numbers if one.name == name]
    return found


def payment(explanation: PayoutExplanation, role: PayeeRole, index: int) -> ExplainedPayment:
    (found,) = [
        one
        for one in explanation.payments
        if one.payment.role is role and one.payment.index == index
    ]
    return found


def names(sources: tuple[EventSource, ...]) -> list[str]:
    return [source.event for source in sources]


def compute(formula: str) -> int:
    """The formulas are Python."""
    return int(eval(formula, {"min": min, "max": max, "ceil": ceil}))


def test_every_formula_gives_its_amount() -> None:
    explanation = explain()
    for one in explanation.payments:
        assert compute(one.formula) == one.payment.computed_wei
    for two in explanation.numbers:
        if two.formula and " in " not in two.formula:
            assert compute(two.formula) == two.value


def test_every_number_has_a_formula_or_an_event_or_is_a_parameter() -> None:
    for one in explain().numbers:
        assert one.formula or one.sources or one.name.endswith("_bps")


def test_a_node_is_explained_by_its_enrolment_and_the_ballots_it_is_paid_for() -> None:
    explanation = explain()
    first = payment(explanation, PayeeRole.CONE, 0)
    assert first.formula == "1501 * 3 // 11"
    assert names(first.sources) == ["ConeEnrolled", "RoundDecided", "RoundDecided", "FinalDecided"]
    copier = payment(explanation, PayeeRole.CONE, 3)
    assert names(copier.sources) == ["ConeEnrolled", "RoundDecided", "FinalDecided"]
    idle = payment(explanation, PayeeRole.CONE, 4)
    assert (names(idle.sources), idle.credited_by) == (["ConeEnrolled"], ())


def test_a_seller_is_explained_by_the_rounds_that_accepted_it() -> None:
    explanation = explain()
    first = payment(explanation, PayeeRole.SELLER, 0)
    assert first.formula == "3502 * min(2, 6) // 4"
    assert names(first.sources) == ["SellerEnrolled", "RoundDecided", "RoundDecided"]
    assert names(first.credited_by) == ["PayoutCredited"]
    third = payment(explanation, PayeeRole.SELLER, 2)
    assert third.sources[1] == first.sources[2]


def test_an_event_is_named_by_block_log_and_transaction() -> None:
    state = make_job_state(JOB_BY_HAND)
    (enrolled,) = [one for one in state.trail if getattr(one.event, "node", None) == CONES[2]]
    source = payment(explain(), PayeeRole.CONE, 2).sources[0]
    assert source == EventSource(
        event="ConeEnrolled",
        block_number=enrolled.block_number,
        log_index=enrolled.log_index,
        transaction_hash=enrolled.transaction_hash,
    )


def test_utilities_are_those_of_the_final_or_of_the_first_and_last_round() -> None:
    assert names(number(explain(), "last_utility").sources) == ["FinalDecided"]
    rounds_only = explain(replace(JOB_BY_HAND, ballots=JOB_BY_HAND.ballots[:2]))
    first, last = number(rounds_only, "initial_utility"), number(rounds_only, "last_utility")
    assert names((*first.sources, *last.sources)) == ["RoundDecided"] * 2
    assert first.sources != last.sources


def test_batches_are_explained_by_the_last_course() -> None:
    spent = tuple(Wei(one * 10**10) for one in (2, 0, 1, 0, 0))
    explanation = explain(replace(JOB_BY_HAND, spent_wei=spent))
    batcher = payment(explanation, PayeeRole.BATCHER, 2)
    assert batcher.formula == "300 * 10000000000 // 30000000000"
    assert names(batcher.sources) == ["ConeEnrolled", "CourseChanged"]
    assert number(explanation, "refund_cap").value == 300


def test_a_share_that_nobody_claimed_has_no_credit() -> None:
    shares = SharesOpened(
        job=JOB,
        cone_pool_wei=Wei(1501),
        seller_pool_wei=Wei(3502),
        credit_root=JOB_BY_HAND.ended.credit_root,
    )
    claimed = replace(JOB_BY_HAND, shares=shares, payouts=JOB_BY_HAND.payouts[1:])
    explanation = explain(claimed)
    assert explanation.audit.is_exact
    waiting = payment(explanation, PayeeRole.CONE, 0)
    assert (waiting.payment.computed_wei, waiting.credited_by) == (409, ())
    assert not waiting.payment.is_claimed


@pytest.mark.parametrize(
    ("outcome", "cone_pool", "seller_pool"),
    [
        (Outcome.TARGET, "10007 * 3000 // 10000", "(10007 - 3002)"),
        (Outcome.UNSERVED, "10007 * 3000 // 10000 // 4", "0"),
    ],
)
def test_pools_are_explained_by_the_outcome(
    outcome: Outcome, cone_pool: str, seller_pool: str
) -> None:
    ended = replace(JOB_BY_HAND.ended, outcome=outcome)
    explanation = explain(replace(JOB_BY_HAND, ended=ended))
    assert number(explanation, "cone_pool").formula == cone_pool
    assert number(explanation, "seller_pool").formula == seller_pool
    assert compute(cone_pool) == explanation.audit.settlement.cone_pool_wei


def test_a_wrong_payment_stays_visible() -> None:
    wrong = replace(JOB_BY_HAND.payouts[4], amount_wei=Wei(1750))
    payouts = (*JOB_BY_HAND.payouts[:4], wrong, *JOB_BY_HAND.payouts[5:])
    explanation = explain(replace(JOB_BY_HAND, payouts=payouts))
    one = payment(explanation, PayeeRole.SELLER, 0).payment
    assert (one.payee, one.computed_wei, one.credited_wei) == (SELLERS[0], 1751, 1750)
    assert not explanation.audit.is_exact


def test_a_job_that_is_not_settled_has_nothing_to_explain() -> None:
    state = replace(make_job_state(JOB_BY_HAND), settled=None)
    with pytest.raises(RuleViolation, match="is not settled"):
        explain_payouts(state, PARAMS)
