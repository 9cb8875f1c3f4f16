"""The audit of a job: its decided ballots and its payments, computed again."""

import click

from d2m_node.cli.options import data_dir, data_dir_option, json_of
from d2m_node.cli.output import format_wei, print_result, print_table
from d2m_node.cli.shapes import AuditedBallot
from d2m_node.errors import UserError
from protocol.payment_audit import AuditedPayment, PaymentAudit, describe_differences


@click.command()
@data_dir_option()
@click.argument("job_id", metavar="ID", type=click.IntRange(min=1))
@json_of(list[AuditedBallot])
def audit(*, job_id: int, as_json: bool) -> None:
    """Compute a job's decided ballots and payments again, from what this node recorded.

    The node must be stopped. Ends with code 3 if a ballot's digest is another than the one decided,
    or if a payment is another than the one that the decided ballots lead to. JSON lists the
    ballots.
    """
    import trio

    from d2m_node.audit import audit_job
    from protocol.types import JobId

    folder = data_dir()
    if not folder.is_dir():
        raise UserError(f"--data-dir: {folder} does not exist; give a CONE node's folder")
    found = trio.run(audit_job, folder, JobId(job_id))
    rows = [
        AuditedBallot(
            kind=ballot.kind.name.lower(),
            round=ballot.round_index,
            attempt=ballot.attempt,
            decided="0x" + ballot.decided.hex(),
            computed="0x" + ballot.computed.hex(),
            agrees=ballot.matches,
        )
        for ballot in found.ballots
    ]
    if as_json:
        print_result(rows)
    else:
        _show_ballots(rows)
        _show_payments(found.payments)
    wrong = [row for row in rows if not row.agrees]
    if wrong:
        raise UserError(f"job {job_id}: {len(wrong)} of {len(rows)} ballots do not agree")
    if found.payments is not None and not found.payments.is_exact:
        raise UserError(f"job {job_id}: {'; '.join(describe_differences(found.payments))}")


def _show_ballots(rows: list[AuditedBallot]) -> None:
    cells = [
        [
            str(row.round),
            row.kind,
            row.decided,
            "the same" if row.agrees else row.computed,
        ]
        for row in rows
    ]
    print_table(("round", "kind", "decided digest", "computed again"), cells)


def _show_payments(found: PaymentAudit | None) -> None:
    """List every payee, also those who get nothing."""
    click.echo()
    if found is None:
        click.echo("no settlement is recorded: payments were not checked")
        return
    cells = [
        [
            payment.role.name.lower(),
            "0x" + payment.payee.hex(),
            str(payment.weight),
            format_wei(payment.credited_wei) if payment.is_claimed else "not claimed yet",
            _tell_computed(payment),
        ]
        for payment in found.payments
    ]
    print_table(("role", "payee", "weight", "credited", "computed again"), cells)


def _tell_computed(payment: AuditedPayment) -> str:
    if payment.is_claimed and payment.matches:
        return "the same"
    return format_wei(payment.computed_wei)
