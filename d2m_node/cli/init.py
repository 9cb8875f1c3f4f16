"""`d2m-node init`: a data directory with everything that `run` needs."""

import json
import secrets
from pathlib import Path
from typing import Final

import click

from d2m_node.cli.options import data_dir, data_dir_option, json_of
from d2m_node.cli.output import print_facts, print_result
from d2m_node.cli.passwords import ask_new_password, has_terminal, read_new_password
from d2m_node.cli.shapes import InitResult
from d2m_node.errors import UserError

DEVNET_CHAIN_ID: Final = 31337
DEVNET_RPC_URL: Final = "http://127.0.0.1:8545"

_CONFIG: Final = """\
# Settings of one d2m-node; `d2m-node config show` lists all of them.

[chain]
chain_id = {chain_id}
{market}
rpc_urls = [{rpc_url}]
{pace}
[keys]
{password_file}
"""
_DEVNET_PACE: Final = """\
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
    help="Its first line protects the account.  [default: ask; devnet: as --random-password]",
)
@click.option(
    "--random-password",
    is_flag=True,
    help="Make a password and keep it in the data directory: the node starts by itself, and "
    "whoever can read the directory has the account.",
)
@json_of(InitResult)
def init(  # noqa: PLR0913 - click passes each option
    *,
    network: str | None,
    rpc_url: str | None,
    chain_id: int | None,
    market: str | None,
    password_file: Path | None,
    random_password: bool,
    as_json: bool,
) -> None:
    """Make a data directory: encrypted keys and a config.toml.

    A password that is typed is kept nowhere: `run` asks for it again.
    """
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
    if random_password and password_file is not None:
        raise click.UsageError("give either --password-file or --random-password")
    if market is not None:
        parse_address(market)
    _make_folder(folder)
    # The keys of a devnet guard nothing, so opening them may be quick, and needs nobody.
    random_password = random_password or (is_devnet and password_file is None)
    password, password_file = _choose_password(folder, password_file, is_random=random_password)
    made = InitResult(
        account=_open_or_create_account(folder / "account.json", password, light=is_devnet),
        peer_id=_open_or_create_peer(folder / "peer.key"),
        data_dir=str(folder),
        config=str(config),
        password_file=None if password_file is None else str(password_file),
    )
    text = _CONFIG.format(
        chain_id=chain_id,
        market=f'market = "{market}"' if market else '# market = "0x…"',
        rpc_url=json.dumps(rpc_url),  # a JSON string is a TOML string
        pace=_DEVNET_PACE if is_devnet else "",
        password_file="# password_file = …: without one, `run` asks for the password"
        if password_file is None
        else f"password_file = {json.dumps(str(password_file))}",
    )
    _write_config(config, text)
    if as_json:
        print_result(made)
    else:
        _say_what_next(made, has_market=market is not None, is_devnet=is_devnet)


def _make_folder(folder: Path) -> None:
    from d2m_node.private_files import check_private

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise UserError(f"{folder}: cannot be made: {exc.strerror}") from exc
    check_private(folder)


def _choose_password(
    folder: Path, password_file: Path | None, *, is_random: bool
) -> tuple[str, Path | None]:
    """Return the password, and the file that holds it, if one does."""
    if password_file is not None:
        return read_new_password(password_file), password_file.absolute()
    if is_random:
        path = _make_password(folder / "password")
        return read_new_password(path), path
    if not has_terminal():
        raise UserError(
            "no terminal to ask for a password; give --password-file FILE, or --random-password "
            "to keep one in the data directory"
        )
    return ask_new_password("New password for the account"), None


def _make_password(path: Path) -> Path:
    """Write a random password for the owner alone. One that is there already is kept."""
    from d2m_node.private_files import write_new

    if not path.exists():
        write_new(path, f"{secrets.token_urlsafe(24)}\n".encode())
    return path


def _open_or_create_account(path: Path, password: str, *, light: bool) -> str:
    """Make an account, unless an earlier `init` was cut off after it; return its address."""
    from d2m_node.keys import create_account, unlock

    if path.exists():
        return "0x" + unlock(path, password).address.hex()
    return "0x" + create_account(path, password, light=light).hex()


def _open_or_create_peer(path: Path) -> str:
    from d2m_node.network.identity import load_or_create_identity, write_peer_id

    return write_peer_id(load_or_create_identity(path))


def _write_config(path: Path, text: str) -> None:
    """Write the settings last and whole: with them the node is set up."""
    from d2m_node.private_files import write_new

    write_new(path, text.encode())


def _say_what_next(made: InitResult, *, has_market: bool, is_devnet: bool) -> None:
    place = made.password_file or "yours: `run` asks for it; nothing else opens the account"
    print_facts(
        [
            ("account", made.account),
            ("peer", made.peer_id),
            ("data directory", made.data_dir),
            ("password", place),
        ]
    )
    steps = [
        f"send {made.account} some money for gas",
        "d2m-node run",
        "d2m-node role enable buyer | seller --dataset FILE | cone --stake 5ether",
    ]
    if not has_market:
        steps.insert(0, f"write the Market contract's address into {made.config}")
    if not is_devnet:
        steps.insert(0, "d2m-node key export -o FILE, and keep it with its password elsewhere")
    click.echo("\nNext:")
    for number, step in enumerate(steps, start=1):
        click.echo(f"  {number}. {step}")
