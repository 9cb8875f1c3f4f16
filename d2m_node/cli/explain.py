"""Why a payee got what it got, by the words of the running node."""

from collections.abc import Iterable, Sequence

import click
import msgspec

from d2m_node import client as api
from d2m_node.cli.options import data_dir_option, json_of
from d2m_node.cli.output import print_facts, print_result, print_table
from d2m_node.cli.remote import ask
from d2m_node.errors import UserError


@click.group()
def explain() -> None:
    """Explain the payouts of a job (`explain payout ID`)."""


@explain.command("payout")
@data_dir_option()
@click.argument("job_id", metavar="ID", type=click.IntRange(min=1))
@click.option("--account", metavar="ADDRESS", help="Only what this account got.")
@json_of(api.ExplanationView)
def explain_payout(*, job_id: int, account: str | None, as_json: bool) -> None:
    """Recompute every payout of a settled job from what the chain recorded.

    Lists the events, the numbers that all share, and one line for each payee. Amounts are in the
    smallest unit of the job's currency. Ends with code 3 if an amount is another than the one that
    was credited.
    """
    found = ask(api.EXPLAIN_PAYOUTS, api.JobParams(job=job_id))
    payouts = _select(found, account)
    if as_json:
        print_result(msgspec.structs.replace(found, payouts=payouts))
    else:
        _show(found, payouts)
    if found.differences:
        raise UserError(f"job {job_id}: {'; '.join(found.differences)}")


def _select(found: api.ExplanationView, account: str | None) -> list[api.ExplainedPayoutView]:
    if account is None:
        return found.payouts
    payouts = [one for one in found.payouts if one.account == account.lower()]
    if not payouts:
        raise UserError(f"--account: {account} takes no part in job {found.job}")
    return payouts


def _show(found: api.ExplanationView, payouts: Sequence[api.ExplainedPayoutView]) -> None:
    """Print the events first; the lines after them name each by its place in that list."""
    numbers = found.numbers
    lists = [one.events for one in numbers] + [one.events + one.credited_by for one in payouts]
    events = sorted(
        {event for listed in lists for event in listed}, key=lambda one: (one.block, one.log_index)
    )
    places = {event: f"e{place}" for place, event in enumerate(events, start=1)}

    def cite(cited: Iterable[api.EventView]) -> str:
        return " ".join(places[event] for event in cited) or "-"

    print_facts([("job", found.job), ("currency", found.currency)])
    click.echo()
    print_table(
        ("", "event", "block", "log", "transaction"),
        [
            [places[one], one.event, str(one.block), str(one.log_index), one.transaction]
            for one in events
        ],
    )
    click.echo()
    print_table(
        ("number", "value", "computed as", "from"),
        [[one.name, str(one.value), one.formula or "-", cite(one.events)] for one in numbers],
    )
    click.echo()
    print_table(
        ("role", "account", "weight", "amount", "computed as", "from", "credited", "in"),
        [
            [
                f"{one.role} {one.index}",
                one.account,
                str(one.weight),
                str(one.amount_wei),
                one.formula,
                cite(one.events),
                _tell_credited(one),
                cite(one.credited_by),
            ]
            for one in payouts
        ],
    )


def _tell_credited(payout: api.ExplainedPayoutView) -> str:
    if not payout.is_claimed:
        return "not claimed yet"
    is_same = payout.credited_wei == payout.amount_wei
    return "the same" if is_same else str(payout.credited_wei)
