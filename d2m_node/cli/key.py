"""`d2m-node key`: the account's key file, its password, its copies."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from d2m_node.cli.options import data_dir, data_dir_option, json_of
from d2m_node.cli.output import print_facts, print_result
from d2m_node.cli.passwords import (
    ask_new_password,
    ask_password,
    has_terminal,
    read_new_password,
)
from d2m_node.cli.shapes import Confirmed, KeyResult, KeyView, RawKey
from d2m_node.errors import KeyUnavailable, UserError

if TYPE_CHECKING:
    from d2m_node.keys import LocalSigner
    from d2m_node.settings import KeySettings

MAX_RAW_KEY_CHARACTERS: Final = 80

_password_file = click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The password of the key as it is.  [default: keys.password_file, else ask]",
)
_new_password_file = click.option(
    "--new-password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The new password.  [default: ask twice]",
)


@click.group()
def key() -> None:
    """Make, import, export or show the node's keys; change the password.

    Passwords are typed without echo or read from files. Keys are never logged.
    """


@key.command("new")
@data_dir_option()
@_new_password_file
@click.option("--light", is_flag=True, help="Quick to open and quick to guess: for devnets.")
@json_of(KeyResult)
def key_new(*, new_password_file: Path | None, light: bool, as_json: bool) -> None:
    """Make a new account where there is none. A key that exists is never overwritten."""
    from d2m_node.keys import create_account

    with _exclusive() as settings:
        _check_vacant(settings)
        password = _find_new_password(settings, new_password_file)
        account = create_account(settings.account_file, password, light=light)
    _report_key(account, settings.account_file, as_json=as_json)


@key.command("import")
@data_dir_option()
@click.argument(
    "file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--raw", is_flag=True, help="Ask for 64 hexadecimal digits, or read them from standard input."
)
@_password_file
@_new_password_file
@click.option("--light", is_flag=True, help="Quick to open and quick to guess: for devnets.")
@json_of(KeyResult)
def key_import(  # noqa: PLR0913 - click passes each option
    *,
    file: Path | None,
    raw: bool,
    password_file: Path | None,
    new_password_file: Path | None,
    light: bool,
    as_json: bool,
) -> None:
    """Take the account of a keystore file (version 3), or of a raw key, where there is none.

    --password-file opens FILE. The account is then protected by the password in
    keys.password_file or --new-password-file, else by one that is asked for.
    """
    from d2m_node.keys import LocalSigner, read_password, write_keystore
    from d2m_node.keystore import read_keystore

    if raw == (file is not None):
        raise click.UsageError("give either a keystore file or --raw")
    with _exclusive() as settings:
        _check_vacant(settings)
        if file is None:
            private_key = _read_raw_key()
        else:
            keystore = read_keystore(file, is_ours=False)
            opening = read_password(password_file) if password_file else None
            private_key = keystore.decrypt(opening or ask_password(f"Password of {file}"))
        account = LocalSigner(private_key).address
        password = _find_new_password(settings, new_password_file)
        write_keystore(settings.account_file, private_key, password, light=light)
    _report_key(account, settings.account_file, as_json=as_json)


@key.command("export")
@data_dir_option()
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A keystore file to write; it must not exist.",
)
@click.option("--raw", is_flag=True, help="Print the key itself, after a confirmation.")
@_password_file
@_new_password_file
@json_of(KeyResult, RawKey)
def key_export(
    *,
    output: Path | None,
    raw: bool,
    password_file: Path | None,
    new_password_file: Path | None,
    as_json: bool,
) -> None:
    """Write a copy of the account's key, encrypted with a password of its own.

    Asks for no new password if --new-password-file gives one. Counts as the backup.
    """
    from d2m_node.backup import note_backup
    from d2m_node.keys import write_keystore
    from d2m_node.keystore import read_keystore

    if raw == (output is not None):
        raise click.UsageError("give either -o FILE or --raw")
    if raw and not has_terminal():
        raise UserError("--raw: the key is printed after a confirmation on a terminal only")
    settings = _key_settings()
    private_key = read_keystore(settings.account_file).decrypt(
        _find_password(settings, password_file)
    )
    if output is None:
        _print_raw_key(private_key, as_json=as_json)
        return
    output = output.absolute()
    if new_password_file is not None:
        password = read_new_password(new_password_file)
    else:
        password = ask_new_password("New password for the copy")
    write_keystore(output, private_key, password)
    account = _signer(private_key).address
    note_backup(data_dir(), account, "export", datetime.now(UTC))
    _report_key(account, output, as_json=as_json)


@key.command("change-password")
@data_dir_option()
@_password_file
@_new_password_file
@json_of(KeyResult)
def key_change_password(
    *, password_file: Path | None, new_password_file: Path | None, as_json: bool
) -> None:
    """Protect the account with another password.

    The new one also goes into keys.password_file, if that is set; with --new-password-file it does
    not, and that file is for the setting to name. Cut off at any point, the account still opens.
    """
    from d2m_node.keys import change_password, finish_change, is_managed

    with _exclusive() as settings:
        kept = settings.password_file
        if kept is not None and kept.exists():
            kept = kept.resolve()
            finish_change(settings.account_file, kept)
        old = _find_password(settings, password_file)
        updated = kept if new_password_file is None else None
        if updated is not None and is_managed(updated):
            raise UserError(
                f"{updated}: the system keeps this password; give --new-password-file, then put "
                "the new one where the system takes it from"
            )
        if new_password_file is not None:
            new = read_new_password(new_password_file)
        else:
            new = ask_new_password("New password for the account")
        account = change_password(settings.account_file, old, new, password_file=updated)
    _report_key(account, settings.account_file, as_json=as_json)
    if new_password_file is not None and kept not in (None, new_password_file.resolve()):
        click.echo(f"set keys.password_file to {new_password_file.absolute()}", err=True)


@key.command("confirm-backup")
@data_dir_option()
@json_of(Confirmed)
def key_confirm_backup(*, as_json: bool) -> None:
    """Say that a copy of the key file and its password is somewhere safe; ends the reminders."""
    from d2m_node.backup import note_backup
    from d2m_node.keystore import read_keystore

    path = _key_settings().account_file
    account = read_keystore(path).address
    if account is None:
        raise UserError(f"{path}: does not name its account; run d2m-node key export instead")
    note_backup(data_dir(), account, "confirmed", datetime.now(UTC))
    if as_json:
        print_result(Confirmed(account="0x" + account.hex(), is_backed_up=True))
    else:
        click.echo(f"noted: 0x{account.hex()} has a backup")


@key.command("show")
@data_dir_option()
@json_of(KeyView)
def key_show(*, as_json: bool) -> None:
    """Show the account and the peer's identity; asks for no password."""
    from d2m_node.backup import is_backed_up
    from d2m_node.keystore import read_keystore
    from d2m_node.network.identity import load_or_create_identity, write_peer_id

    settings = _key_settings()
    account = None
    if settings.account_file.exists():
        account = read_keystore(settings.account_file).address
    peer_file = data_dir() / "peer.key"
    view = KeyView(
        account=None if account is None else "0x" + account.hex(),
        account_file=str(settings.account_file),
        password_file=None if settings.password_file is None else str(settings.password_file),
        peer_id=write_peer_id(load_or_create_identity(peer_file)) if peer_file.exists() else None,
        peer_file=str(peer_file),
        is_backed_up=account is not None and is_backed_up(data_dir(), account),
    )
    if as_json:
        print_result(view)
        return
    print_facts(
        [
            ("account", view.account or "none; run d2m-node key new"),
            ("key file", view.account_file),
            ("password", view.password_file or "asked for by run"),
            ("backup", "confirmed" if view.is_backed_up else "none yet; run d2m-node key export"),
            ("peer", view.peer_id or "made at the first start"),
            ("key file of the peer", view.peer_file),
        ]
    )


def _key_settings() -> "KeySettings":
    """Return the section; the rest of the settings may be incomplete."""
    from d2m_node.settings import KeySettings, read_configuration

    values = read_configuration(data_dir()).values
    account_file, password_file = values["keys.account_file"], values["keys.password_file"]
    assert isinstance(account_file, Path)
    assert isinstance(password_file, Path | None)
    return KeySettings(account_file=account_file, password_file=password_file)


@contextmanager
def _exclusive() -> Iterator["KeySettings"]:
    """Hold the lock of the data directory: no node runs while its key changes."""
    from d2m_node.storage.database import lock_folder

    with lock_folder(data_dir()):
        yield _key_settings()


def _check_vacant(settings: "KeySettings") -> None:
    if settings.account_file.exists():
        raise UserError(
            f"{settings.account_file} holds a key already; move it away first, it may own money"
        )


def _find_password(settings: "KeySettings", password_file: Path | None) -> str:
    """Return the password of the account as it is."""
    from d2m_node.keys import read_password

    if password_file is not None:
        return read_password(password_file)
    if settings.password_file is not None and settings.password_file.exists():
        return read_password(settings.password_file)
    return ask_password("Password of the account")


def _find_new_password(settings: "KeySettings", new_password_file: Path | None) -> str:
    """Return what is to protect a key that is written now."""
    if new_password_file is not None:
        return read_new_password(new_password_file)
    if settings.password_file is not None and settings.password_file.exists():
        return read_new_password(settings.password_file)
    return ask_new_password("New password for the account")


def _read_raw_key() -> bytes:
    """Take a key from a prompt without echo, or from the first line of standard input."""
    if has_terminal():
        text = click.prompt("Private key", hide_input=True, err=True)
    else:
        text = sys.stdin.readline(MAX_RAW_KEY_CHARACTERS)
    try:
        return bytes.fromhex(text.strip().removeprefix("0x"))
    except ValueError:
        raise KeyUnavailable("not a private key: write 64 hexadecimal digits") from None


def _print_raw_key(private_key: bytes, *, as_json: bool) -> None:
    account = "0x" + _signer(private_key).address.hex()
    click.confirm(
        f"Whoever sees the key has all money of {account}. Print it", abort=True, err=True
    )
    if as_json:
        print_result(RawKey(account=account, private_key=private_key.hex()))
    else:
        click.echo(private_key.hex())


def _signer(private_key: bytes) -> "LocalSigner":
    from d2m_node.keys import LocalSigner

    return LocalSigner(private_key)


def _report_key(account: bytes, path: Path, *, as_json: bool) -> None:
    if as_json:
        print_result(KeyResult(account="0x" + account.hex(), path=str(path)))
    else:
        print_facts([("account", "0x" + account.hex()), ("key file", path)])
