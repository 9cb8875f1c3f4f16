"""Commands that ask the running node, over its socket."""

import json
import secrets
from pathlib import Path

import click
import msgspec

from d2m_node import client as api
from d2m_node.cli.options import data_dir, data_dir_option, json_option
from d2m_node.cli.output import format_amount, format_wei, print_facts, print_json, print_table
from d2m_node.client import CallRefused, RpcClient
from d2m_node.errors import FatalError, NodeError, TransientError, UserError

_ERRORS: dict[int, type[NodeError]] = {
    api.ErrorCode.INTERNAL: NodeError,
    api.ErrorCode.UNAVAILABLE: TransientError,
    api.ErrorCode.FATAL: FatalError,
}
"""What a refusal means for the exit code; anything else is the asker's to change."""


def ask(method: api.Method[api.P, api.R], params: api.P) -> api.R:
    """Call the node. Raises the error that its answer stands for."""
    with RpcClient(_find_socket()) as client:
        try:
            return client.call(method, params)
        except CallRefused as exc:
            raise _ERRORS.get(exc.code, UserError)(str(exc)) from exc


def ask_by_name(method: str, params: object) -> object:
    """Call any method with plain values. Raises the error that the answer stands for."""
    with RpcClient(_find_socket()) as client:
        try:
            return client.call_by_name(method, params)
        except CallRefused as exc:
            raise _ERRORS.get(exc.code, UserError)(str(exc)) from exc


def _find_socket() -> Path:
    from d2m_node.settings import read_configuration

    socket = read_configuration(data_dir()).values["rpc.socket"]
    assert isinstance(socket, Path)
    return socket


@click.command()
@data_dir_option()
@json_option
def status(*, as_json: bool) -> None:
    """Say who and where the running node is."""
    node = ask(api.NODE_STATUS, api.NoParams())
    if as_json:
        print_json(msgspec.to_builtins(node))
        return
    print_facts(
        [
            ("account", node.account),
            ("peer", node.peer_id),
            ("chain", f"{node.chain_id}, block {node.block_number}"),
            ("market", node.market),
            ("peers", f"{node.peers_connected} connected of {node.peers_known} known"),
            ("roles", _join_roles(node.roles)),
            ("jobs", ", ".join(f"{count} {phase}" for phase, count in node.jobs.items()) or "none"),
        ]
    )
    _show_refusals(node.refusals)


def _show_refusals(found: list[api.RefusalView]) -> None:
    """Say which jobs this node turned down or could not go on with, and why."""
    if found:
        click.echo()
        rows = [[str(one.job), one.role, one.reason, str(one.block)] for one in found]
        print_table(("job refused", "role", "why", "block"), rows)


def _join_roles(roles: dict[str, api.RoleStateName]) -> str:
    """Write which roles are on, and which of them drain."""
    words = {"on": "", "draining": " (draining)"}
    named = [role + words[state] for role, state in roles.items() if state in words]
    return ", ".join(named) or "none (observer)"


@click.command()
@data_dir_option()
@json_option
def peers(*, as_json: bool) -> None:
    """List the peers that the node knows."""
    found = ask(api.NODE_PEERS, api.NoParams())
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    rows = [
        [
            peer.multiaddr,
            "connected" if peer.connected else peer.last_error or "not connected",
            ", ".join(peer.accounts) or "-",
        ]
        for peer in found
    ]
    print_table(("address", "state", "accounts"), rows)


@click.command()
@data_dir_option()
@json_option
def jobs(*, as_json: bool) -> None:
    """List the market's jobs."""
    found = ask(api.LIST_JOBS, api.NoParams())
    if as_json:
        print_json(msgspec.to_builtins(found))
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
@json_option
def job_show(*, job_id: int, as_json: bool) -> None:
    """Tell all that the chain says about a job."""
    found = ask(api.GET_JOB, api.JobParams(job=job_id))
    if as_json:
        print_json(msgspec.to_builtins(found))
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
    _show_refusals(found.refusals)


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
@json_option
def job_model(*, job_id: int, output: Path, as_json: bool) -> None:
    """Save the model that a job delivered to this buyer."""
    model = ask(api.JOB_MODEL, api.JobParams(job=job_id))
    try:
        output.write_bytes(model.safetensors)
    except OSError as exc:
        raise UserError(f"{output}: cannot be written: {exc.strerror}") from exc
    if as_json:
        print_json({"job": job_id, "path": str(output), "size_bytes": len(model.safetensors)})
    else:
        click.echo(f"{output}: {len(model.safetensors)} bytes")


@click.command()
@data_dir_option()
@json_option
def roles(*, as_json: bool) -> None:
    """List the roles: on, draining or off."""
    _show_roles(ask(api.LIST_ROLES, api.NoParams()), as_json=as_json)


def _show_roles(found: list[api.RoleView], *, as_json: bool) -> None:
    if as_json:
        print_json({one.role: one.state for one in found})
    else:
        print_facts([(one.role, one.state) for one in found])


_role_argument = click.argument("name", type=click.Choice(["buyer", "seller", "cone"]))


@click.group()
def role() -> None:
    """Switch a role on or off, or let it finish and leave."""


@role.command("enable")
@data_dir_option()
@_role_argument
@click.option(
    "--dataset",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="For a seller: a dataset.toml.",
)
@click.option("--stake", metavar="AMOUNT", help='For a CONE node: what it stakes, like "5ether".')
@json_option
def role_enable(*, name: api.Role, dataset: Path | None, stake: str | None, as_json: bool) -> None:
    """Switch a role on, or undo its drain. It stays on across restarts, until another command."""
    params = api.EnableRoleParams(
        role=name,
        dataset=None if dataset is None else str(dataset.absolute()),
        stake_wei=stake,
        idempotency_key=secrets.token_hex(16) if name == "cone" else None,
    )
    _show_roles(ask(api.ENABLE_ROLE, params), as_json=as_json)


@role.command("drain")
@data_dir_option()
@_role_argument
@json_option
def role_drain(*, name: api.Role, as_json: bool) -> None:
    """Let a role finish its round, take no new job, and be off then.

    A CONE node takes its stake out as soon as its jobs are settled. `role enable` undoes it.
    """
    _show_roles(ask(api.DRAIN_ROLE, api.RoleParams(role=name)), as_json=as_json)


@role.command("disable")
@data_dir_option()
@_role_argument
@json_option
def role_disable(*, name: api.Role, as_json: bool) -> None:
    """Switch a role off at once; its jobs go on when it is on again.

    A CONE node that has committed a vote and does not open it loses stake: drain it instead.
    """
    _show_roles(ask(api.DISABLE_ROLE, api.RoleParams(role=name)), as_json=as_json)


@click.group()
def request() -> None:
    """Submit a request for a model."""


@request.command("submit")
@data_dir_option()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--idempotency-key",
    help="The same key never bids twice: give one to repeat a call safely.  [default: a new one]",
)
@json_option
def request_submit(*, file: Path, idempotency_key: str | None, as_json: bool) -> None:
    """Bid for a request.toml: open an auction, or join the one for its tags."""
    key = idempotency_key or secrets.token_hex(16)
    params = api.SubmitRequestParams(idempotency_key=key, path=str(file.absolute()))
    submitted = ask(api.SUBMIT_REQUEST, params)
    if as_json:
        print_json({"job": submitted.job, "idempotency_key": key})
    else:
        click.echo(f"bid committed in auction {submitted.job}; see d2m-node job {submitted.job}")


@click.command()
@data_dir_option()
@click.argument("method")
@click.argument("params", metavar="[JSON]", default="{}")
def rpc(*, method: str, params: str) -> None:
    """Call any method of the node's RPC; `d2m-node rpc rpc.methods` lists them."""
    try:
        plain = json.loads(params)
    except ValueError as exc:
        raise click.BadParameter(f"{params!r} is no JSON: {exc}") from exc
    print_json(ask_by_name(method, plain))
