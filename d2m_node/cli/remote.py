"""Commands that ask the running node, over its socket."""

import json
import secrets
from pathlib import Path

import click

from d2m_node import client as api
from d2m_node.cli.options import ANY, data_dir, data_dir_option, json_of
from d2m_node.cli.output import print_facts, print_json, print_json_line, print_result
from d2m_node.cli.shapes import Submitted
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
@json_of(list[api.RoleView])
def roles(*, as_json: bool) -> None:
    """List the roles, and where each stands."""
    _show_roles(ask(api.LIST_ROLES, api.NoParams()), as_json=as_json)


def _show_roles(found: list[api.RoleView], *, as_json: bool) -> None:
    if as_json:
        print_result(found)
    else:
        print_facts([(one.role, _tell_state(one)) for one in found])


def _tell_state(role: api.RoleView) -> str:
    return role.state if role.note is None else f"{role.state}: {role.note}"


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
@click.option(
    "--idempotency-key",
    help="The same key never stakes twice: give one to repeat a call safely.  [default: a new one]",
)
@json_of(list[api.RoleView])
def role_enable(
    *,
    name: api.Role,
    dataset: Path | None,
    stake: str | None,
    idempotency_key: str | None,
    as_json: bool,
) -> None:
    """Switch a role on, or undo its drain. It stays on across restarts, until another command."""
    params = api.EnableRoleParams(
        role=name,
        dataset=None if dataset is None else str(dataset.absolute()),
        stake_wei=stake,
        idempotency_key=idempotency_key or (secrets.token_hex(16) if name == "cone" else None),
    )
    _show_roles(ask(api.ENABLE_ROLE, params), as_json=as_json)


@role.command("drain")
@data_dir_option()
@_role_argument
@json_of(list[api.RoleView])
def role_drain(*, name: api.Role, as_json: bool) -> None:
    """Let a role finish its round, take no new job, and be off then.

    A CONE node takes its stake out as soon as its jobs are settled. `role enable` undoes it.
    """
    _show_roles(ask(api.DRAIN_ROLE, api.RoleParams(role=name)), as_json=as_json)


@role.command("disable")
@data_dir_option()
@_role_argument
@click.option("--now", is_flag=True, help="At once, though that may cost stake or a deposit.")
@json_of(list[api.RoleView])
def role_disable(*, name: api.Role, now: bool, as_json: bool) -> None:
    """Switch a role off; its jobs go on when it is on again.

    It begins nothing any more. Votes and sealed bids that it has committed to cost money if they
    are not opened: it opens them first, as `closing`, and is off then.
    """
    _show_roles(ask(api.DISABLE_ROLE, api.DisableRoleParams(role=name, now=now)), as_json=as_json)


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
@json_of(Submitted)
def request_submit(*, file: Path, idempotency_key: str | None, as_json: bool) -> None:
    """Bid for a request.toml: open an auction, or join the one for its tags."""
    key = idempotency_key or secrets.token_hex(16)
    params = api.SubmitRequestParams(idempotency_key=key, path=str(file.absolute()))
    submitted = ask(api.SUBMIT_REQUEST, params)
    if as_json:
        print_result(Submitted(job=submitted.job, idempotency_key=key))
    else:
        click.echo(f"bid committed in auction {submitted.job}; see d2m-node job {submitted.job}")


@click.command()
@data_dir_option()
@click.argument("method")
@click.argument("params", metavar="[JSON]", default="{}")
@json_of(ANY, help_text="Print the result in one line.")
def rpc(*, method: str, params: str, as_json: bool) -> None:
    """Call any method of the node's RPC; `d2m-node rpc rpc.methods` lists them.

    Prints the result, which is JSON with and without --json.
    """
    try:
        plain = json.loads(params)
    except ValueError as exc:
        raise click.BadParameter(f"{params!r} is no JSON: {exc}") from exc
    result = ask_by_name(method, plain)
    if as_json:
        print_json_line(result)
    else:
        print_json(result)
