"""The market's jobs, by the words of the running node."""

from pathlib import Path

import click

from d2m_node import client as api
from d2m_node.cli.options import data_dir_option, json_of
from d2m_node.cli.output import format_amount, format_wei, print_facts, print_result, print_table
from d2m_node.cli.refusals import show_refusals
from d2m_node.cli.remote import ask
from d2m_node.cli.shapes import SavedModel
from d2m_node.errors import UserError


@click.command()
@data_dir_option()
@json_of(list[api.JobSummary])
def jobs(*, as_json: bool) -> None:
    """List the market's jobs."""
    found = ask(api.LIST_JOBS, api.NoParams())
    if as_json:
        print_result(found)
        return
    rows = [
        [
            str(one.job),
            one.phase,
            format_amount(one.price_wei, one.currency) if one.buyer else "-",
            str(one.sellers),
            str(one.cones),
            str(one.rounds_done),
            "-" if one.utility is None else f"{one.utility:.4f}",
        ]
        for one in found
    ]
    print_table(("job", "phase", "price", "sellers", "CONE", "rounds", "utility"), rows)


class _JobGroup(click.Group):
    """`job 3` is short for `job show 3`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Put the command in that a bare number stands for."""
        return super().resolve_command(ctx, ["show", *args] if args[0].isdecimal() else args)


@click.group(cls=_JobGroup)
def job() -> None:
    """Describe a job (`job ID`), or save its model (`job model ID -o FILE`)."""


@job.command("show")
@data_dir_option()
@click.argument("job_id", metavar="ID", type=click.IntRange(min=1))
@json_of(api.JobView)
def job_show(*, job_id: int, as_json: bool) -> None:
    """Tell all that the chain says about a job."""
    found = ask(api.GET_JOB, api.JobParams(job=job_id))
    if as_json:
        print_result(found)
        return
    summary = found.summary
    print_facts(
        [
            ("job", summary.job),
            ("phase", summary.phase),
            ("buyer", summary.buyer or "-"),
            ("auction", summary.mode),
            ("price", format_amount(summary.price_wei, summary.currency)),
            ("target", "-" if found.target is None else found.target),
            ("sellers, CONE nodes", f"{summary.sellers}, {summary.cones}"),
            ("outcome", found.outcome or "-"),
            ("model", found.model_digest or "-"),
            ("refund", _format_refund(found)),
        ]
    )
    _show_rounds(found)
    _show_money(found)
    show_refusals(found.refusals)


def _format_refund(found: api.JobView) -> str:
    if found.refund_wei is None:
        return "-"
    return format_amount(found.refund_wei, found.summary.currency)


def _show_rounds(found: api.JobView) -> None:
    if found.rounds:
        click.echo()
        rows = [
            [
                str(one.round),
                one.kind,
                f"{one.utility:.4f}",
                f"{one.votes} of {one.votes_cast}",
                str(one.mini_rounds),
                one.digest,
            ]
            for one in found.rounds
        ]
        print_table(("round", "kind", "utility", "votes", "mini-rounds", "digest"), rows)


def _show_money(found: api.JobView) -> None:
    currency = found.summary.currency
    if found.payouts:
        click.echo()
        rows = [
            [one.role, one.to, format_amount(one.amount_wei, currency)] for one in found.payouts
        ]
        print_table(("role", "paid to", "amount"), rows)
    if found.slashes:
        click.echo()
        rows = [[one.account, one.reason, format_wei(one.amount_wei)] for one in found.slashes]
        print_table(("slashed", "reason", "amount"), rows)
    if found.deposits:
        click.echo()
        rows = [
            [one.account, one.status, format_amount(one.amount_wei, currency)]
            for one in found.deposits
        ]
        print_table(("seller's deposit", "status", "amount"), rows)


@job.command("model")
@data_dir_option()
@click.argument("job_id", metavar="ID", type=click.IntRange(min=1))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="A safetensors file to write.",
)
@json_of(SavedModel)
def job_model(*, job_id: int, output: Path, as_json: bool) -> None:
    """Save the model of a job.

    A buyer's node has it delivered. Any other fetches it from the job's nodes once the job is
    settled, if the request lets its account have it (`delivery.model`), and checks it against the
    digest on the chain.
    """
    model = ask(api.JOB_MODEL, api.JobParams(job=job_id))
    try:
        output.write_bytes(model.safetensors)
    except OSError as exc:
        raise UserError(f"{output}: cannot be written: {exc.strerror}") from exc
    size_bytes = len(model.safetensors)
    if as_json:
        saved = SavedModel(
            job=job_id,
            path=str(output),
            size_bytes=size_bytes,
            is_delivered=model.is_delivered,
        )
        print_result(saved)
    else:
        click.echo(f"{output}: {size_bytes} bytes")
