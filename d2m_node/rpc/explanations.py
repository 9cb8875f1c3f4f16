"""The payouts of a job as the operator reads them: formulas, and the events behind them."""

from collections.abc import Sequence

from d2m_node.client import EventView, ExplainedPayoutView, ExplanationView, NumberView
from d2m_node.rpc.views import PAYOUT_ROLES, to_hex
from protocol.payment_audit import describe_differences
from protocol.payout_explanation import EventSource, ExplainedPayment, PayoutExplanation
from protocol.types import NO_ACCOUNT


def view_explanation(explanation: PayoutExplanation) -> ExplanationView:
    """Describe every payout of a settled job."""
    is_ether = explanation.currency == NO_ACCOUNT
    return ExplanationView(
        job=explanation.job_id,
        currency="ether" if is_ether else to_hex(explanation.currency),
        numbers=[
            NumberView(
                name=number.name,
                value=number.value,
                formula=number.formula,
                events=view_events(number.sources),
            )
            for number in explanation.numbers
        ],
        payouts=[_view_payout(one) for one in explanation.payments],
        differences=list(describe_differences(explanation.audit)),
    )


def _view_payout(explained: ExplainedPayment) -> ExplainedPayoutView:
    payment = explained.payment
    return ExplainedPayoutView(
        role=PAYOUT_ROLES[payment.role],
        index=payment.index,
        account=to_hex(payment.payee),
        weight=payment.weight,
        amount_wei=payment.computed_wei,
        credited_wei=payment.credited_wei,
        is_claimed=payment.is_claimed,
        formula=explained.formula,
        events=view_events(explained.sources),
        credited_by=view_events(explained.credited_by),
    )


def view_events(sources: Sequence[EventSource]) -> list[EventView]:
    """Describe where the chain recorded something."""
    return [
        EventView(
            event=source.event,
            block=source.block_number,
            log_index=source.log_index,
            transaction=to_hex(source.transaction_hash),
        )
        for source in sources
    ]
