"""Commands that work on this node's own directory."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path

import click

from d2m_node.cli.options import data_dir, data_dir_option, json_option, set_option
from d2m_node.cli.output import print_facts, print_json, print_table
from d2m_node.errors import KeyUnavailable, UserError

DEVNET_CHAIN_ID = 31337
DEVNET_RPC_URL = "http://127.0.0.1:8545"

_CONFIG = """\
# Settings of one d2m-node; `d2m-node config show` lists all of them.

[chain]
chain_id = {chain_id}
{market}
rpc_urls = [{rpc_url}]
{pace}
[keys]
password_file = {password_file}
"""
_DEVNET_PACE = """\
confirmations = 0
poll_seconds = 0.5
"""


@click.command()
@data_dir_option()
@click.option("--network", type=click.Choice(["devnet"]), help="Take the values of a network.")
@click.option("--rpc-url", help="Endpoint of the chain.  [devnet: http://127.0.0.1:8545]")
@click.option("--chain-id", type=click.IntRange(min=1), help="[devnet: 31337]")
@click.option("--market", help="Address of the Market contract.")
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its first line protects the account.  [default: a random password in a new file]",
)
@json_option
def init(  # noqa: PLR0913 - click passes each option
    *,
    network: str | None,
    rpc_url: str | None,
    chain_id: int | None,
    market: str | None,
    password_file: Path | None,
    as_json: bool,
) -> None:
    """Make a data directory: encrypted keys and a config.toml."""
    from d2m_node.keys import create_account, read_password
    from d2m_node.settings import CONFIG_NAME
    from d2m_node.user_input import parse_address

    folder = data_dir()
    config = folder / CONFIG_NAME
    if config.exists():
        raise UserError(f"{config} exists already; this node is set up")
    is_devnet = network == "devnet"
    if is_devnet:
        rpc_url, chain_id = rpc_url or DEVNET_RPC_URL, chain_id or DEVNET_CHAIN_ID
    if rpc_url is None or chain_id is None:
        raise click.UsageError("give --network devnet, or --rpc-url and --chain-id")
    if market is not None:
        parse_address(market)
    _make_folder(folder)
    password_file = (password_file or _make_password(folder / "password")).absolute()
    # The keys of a devnet guard nothing, so opening them may be quick.
    account = create_account(folder / "account.json", read_password(password_file), light=is_devnet)
    text = _CONFIG.format(
        chain_id=chain_id,
        market=f'market = "{market}"' if market else '# market = "0x…"',
        rpc_url=json.dumps(rpc_url),  # a JSON string is a TOML string
        pace=_DEVNET_PACE if is_devnet else "",
        password_file=json.dumps(str(password_file)),
    )
    config.write_text(text, encoding="utf-8")
    address = "0x" + account.hex()
    if as_json:
        print_json({"account": address, "config": str(config), "data_dir": str(folder)})
    else:
        _say_what_next(folder, address, password_file, has_market=market is not None)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise UserError(f"{folder}: cannot be made: {exc.strerror}") from exc


def _make_password(path: Path) -> Path:
    """Write a random password for the owner alone. One that is there already is kept."""
    if not path.exists():
        try:
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(24) + "\n", encoding="utf-8")
        except OSError as exc:
            raise KeyUnavailable(f"{path}: cannot be written: {exc.strerror}") from exc
    return path


def _say_what_next(folder: Path, address: str, password_file: Path, *, has_market: bool) -> None:
    print_facts(
        [
            ("account", address),
            ("data directory", folder),
            ("password", f"{password_file}  (keep a copy: nothing else opens the account)"),
        ]
    )
    steps = [
        f"send {address} some money for gas",
        "d2m-node run",
        "d2m-node role enable buyer | seller --dataset FILE | cone --stake 5ether",
    ]
    if not has_market:
        steps.insert(0, f"write the Market contract's address into {folder / 'config.toml'}")
    click.echo("\nNext:")
    for number, step in enumerate(steps, start=1):
        click.echo(f"  {number}. {step}")


@click.command()
@data_dir_option()
@set_option
def run(*, flags: Mapping[str, str]) -> None:
    """Run the node until SIGTERM, Ctrl-C or `d2m-node rpc node.stop`."""
    from d2m_node.logs import configure_logs
    from d2m_node.settings import load_settings

    settings = load_settings(data_dir(), flags=flags)
    configure_logs(settings.logs)

    from d2m_node.node import main

    main(settings)


@click.group()
def config() -> None:
    """Show or check the settings."""


@config.command("show")
@data_dir_option()
@set_option
@click.option("--origin", is_flag=True, help="Say where each value is from.")
@json_option
def config_show(*, flags: Mapping[str, str], origin: bool, as_json: bool) -> None:
    """Print every setting."""
    from d2m_node.settings import SETTINGS, read_configuration

    configuration = read_configuration(data_dir(), flags=flags)
    values = {name: _to_plain(configuration.values.get(name)) for name in SETTINGS}
    origins = {name: configuration.origins.get(name, "not set") for name in SETTINGS}
    if as_json:
        plain = {name: {"value": value, "origin": origins[name]} for name, value in values.items()}
        print_json(plain if origin else values)
        return
    rows = [
        [name, _to_text(value), *([origins[name]] if origin else [])]
        for name, value in values.items()
    ]
    print_table(None, rows)


@config.command("check")
@data_dir_option()
@set_option
@json_option
def config_check(*, flags: Mapping[str, str], as_json: bool) -> None:
    """Check the settings without starting the node."""
    from d2m_node.settings import load_settings

    settings = load_settings(data_dir(), flags=flags)
    for path in (settings.keys.account_file, settings.keys.password_file):
        if not path.is_file():
            raise UserError(f"{path}: no such file; run d2m-node init")
    if as_json:
        print_json({"ok": True})
    else:
        click.echo("the settings are complete")


def _to_plain(value: object) -> object:
    """Turn a setting into what JSON holds."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _to_text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else str(value)
