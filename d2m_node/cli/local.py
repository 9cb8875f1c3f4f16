"""Commands that work on this node's own directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from d2m_node.cli.options import data_dir, data_dir_option, json_of, set_option
from d2m_node.cli.output import print_json_line, print_result, print_table
from d2m_node.cli.passwords import ask_password, has_terminal
from d2m_node.cli.shapes import ReadyLine, SettingOrigin, SettingsChecked
from d2m_node.errors import KeyUnavailable

if TYPE_CHECKING:
    from d2m_node.settings import NodeSettings


@click.command()
@data_dir_option()
@set_option
@json_of(ReadyLine, help_text="Log JSON to standard error; print one line once the node is ready.")
def run(*, flags: Mapping[str, str], as_json: bool) -> None:
    """Run the node until SIGTERM, Ctrl-C or `d2m-node rpc node.stop`."""
    from d2m_node.logs import configure_logs
    from d2m_node.settings import load_settings

    if as_json:
        flags = {**flags, "logs.format": "json"}
    settings = load_settings(data_dir(), flags=flags)
    configure_logs(settings.logs)

    password = _ask_if_needed(settings)

    from d2m_node.node import Launch, main

    def tell_ready(account: bytes) -> None:
        if as_json:
            line = ReadyLine(
                event="ready", account="0x" + account.hex(), socket=str(settings.rpc.socket)
            )
            print_json_line(msgspec.to_builtins(line))

    main(settings, launch=Launch(password=password, on_ready=tell_ready))


def _ask_if_needed(settings: "NodeSettings") -> str | None:
    """Check who may read the node's files; ask for the password if no file holds it."""
    from d2m_node.keys import NOTHING_TO_OPEN_WITH
    from d2m_node.keystore import read_keystore
    from d2m_node.private_files import check_private

    check_private(settings.data_dir)
    read_keystore(settings.keys.account_file)  # before anybody types a password for nothing
    if settings.keys.password_file is not None:
        return None
    if not has_terminal():
        raise KeyUnavailable(NOTHING_TO_OPEN_WITH)
    return ask_password("Password of the account")


@click.group()
def config() -> None:
    """Show or check the settings."""


@config.command("show")
@data_dir_option()
@set_option
@click.option("--origin", is_flag=True, help="Say where each value is from.")
@json_of(dict[str, object], dict[str, SettingOrigin])
def config_show(*, flags: Mapping[str, str], origin: bool, as_json: bool) -> None:
    """Print every setting."""
    from d2m_node.settings import SETTINGS, read_configuration

    configuration = read_configuration(data_dir(), flags=flags)
    values = {name: _to_plain(configuration.values.get(name)) for name in SETTINGS}
    origins = {name: configuration.origins.get(name, "not set") for name in SETTINGS}
    if as_json:
        plain = {
            name: SettingOrigin(value=value, origin=origins[name]) for name, value in values.items()
        }
        print_result(plain if origin else values)
        return
    rows = [
        [name, _to_text(value), *([origins[name]] if origin else [])]
        for name, value in values.items()
    ]
    print_table(None, rows)


@config.command("check")
@data_dir_option()
@set_option
@json_of(SettingsChecked)
def config_check(*, flags: Mapping[str, str], as_json: bool) -> None:
    """Check the settings, and the files that they name, without starting the node."""
    from d2m_node.keys import read_password
    from d2m_node.keystore import read_keystore
    from d2m_node.settings import load_settings

    settings = load_settings(data_dir(), flags=flags)
    read_keystore(settings.keys.account_file)
    if settings.keys.password_file is not None:
        read_password(settings.keys.password_file)
    if settings.roles.seller.enabled and settings.roles.seller.dataset is not None:
        from d2m_node.training.dataset_file import read_dataset_file

        read_dataset_file(settings.roles.seller.dataset)
    if as_json:
        print_result(SettingsChecked(ok=True))
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
