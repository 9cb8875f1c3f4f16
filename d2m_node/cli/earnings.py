"""What the account earned and spent, by the words of the running node."""

import sys
from collections.abc import Sequence

import click

from d2m_node import client as api
from d2m_node.cli.options import data_dir_option, json_of
from d2m_node.cli.output import format_amount, print_facts, print_result, print_table, round_wei
from d2m_node.cli.refusals import show_refusals
from d2m_node.cli.remote import ask


@click.command()
@data_dir_option()
@click.option("--job", metavar="ID", type=click.IntRange(min=1), help="Only this job.")
@click.option("--why", is_flag=True, help="Tell where each amount, and each zero, comes from.")
@json_of(api.EarningsView)
def earnings(*, job: int | None, why: bool, as_json: bool) -> None:
    """Add up what this account put up, spent and earned, job by job and role by role.

    Held is what contracts still keep of bids, deposits, stake and bonds; net is earned less spent.
    Gas is counted apart, as far as this data directory remembers. On a terminal the table rounds
    down; --why is exact, and so is --json, which tells everything.
    """
    found = ask(api.LIST_EARNINGS, api.EarningsParams(job=job))
    if as_json:
        print_result(found)
        return
    print_facts([("account", found.account), ("up to block", found.block_number)])
    click.echo()
    if not found.positions:
        click.echo("nothing yet: this account took part in no job")
        return
    rows = [
        [str(one.job), one.role, *_amounts(one), one.phase if one.held_wei or one.due_wei else ""]
        for one in found.positions
    ]
    sums = [["all", "", *_amounts(one), ""] for one in found.sums]
    header = ("job", "role", "earned", "spent", "held", "net", "")
    print_table(header, [*rows, *sums])
    for one in found.sums:
        if one.unclaimed_wei:
            click.echo(f"to be pulled: {format_amount(one.unclaimed_wei, one.currency)}")
    gas_wei = sum(one.fee_wei for one in found.gas)
    if gas_wei:
        count = sum(one.transactions for one in found.gas)
        click.echo(
            f"gas, apart from these: {format_amount(gas_wei, 'ether')}, {count} transactions"
        )
    if why:
        for position in found.positions:
            _explain(position)
        _explain_gas(found.gas)
        show_refusals(found.refusals)


def _amounts(one: api.PositionView | api.SumView) -> Sequence[str]:
    amounts = (one.earned_wei, one.spent_wei, one.held_wei, one.net_wei)
    return [_format_signed(amount, one.currency) for amount in amounts]


def _format_signed(amount_wei: int, currency: str) -> str:
    if amount_wei == 0:
        return "-"
    sign = "-" if amount_wei < 0 else ""
    if currency == "ether" and sys.stdout.isatty():  # a table of exact amounts does not fit
        return sign + round_wei(abs(amount_wei))
    return sign + format_amount(abs(amount_wei), currency)


def _explain(position: api.PositionView) -> None:
    click.echo(f"\njob {position.job}, as {position.role}, in {position.currency}")
    for entry in position.entries:
        formula = f"  = {entry.formula}" if entry.formula else ""
        event = f"{entry.event.event} in block {entry.event.block}"
        amount = format_amount(entry.amount_wei, position.currency)
        click.echo(f"  {entry.effect}: {amount}  {entry.kind}{formula}  ({event})")
    if position.due_wei:
        due = format_amount(position.due_wei, position.currency)
        click.echo(f"  due: {due}  a share that is not claimed yet")
    for zero in position.zeros:
        click.echo(f"  0: {_place(zero)}{zero.reason}")


def _explain_gas(gas: Sequence[api.GasView]) -> None:
    if gas:
        click.echo()
        rows = [
            [
                "-" if one.job is None else str(one.job),
                one.call,
                str(one.transactions),
                format_amount(one.fee_wei, "ether"),
            ]
            for one in gas
        ]
        print_table(("job", "gas for", "sent", "cost"), rows)


def _place(zero: api.ZeroView) -> str:
    if zero.round is None:
        return ""
    return f"{'final evaluation after ' if zero.is_final else ''}round {zero.round}: "
