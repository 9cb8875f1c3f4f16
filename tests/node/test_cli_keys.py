"""`d2m-node key`, `init` and `run` where passwords and keys are concerned."""

import fcntl
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from d2m_node import cli
from d2m_node.backup import is_backed_up
from d2m_node.keys import LocalSigner, create_account, open_signer, unlock, write_keystore
from d2m_node.storage.database import lock_folder
from tests.support.command import Ended

RAW = bytes(range(1, 33))
OWNER = LocalSigner(RAW).address
MARKET = "0x" + "5f" * 20


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        code = cli.run_command(["--data-dir", str(tmp_path), *arguments])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


def write_password(path: Path, password: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(password + "\n")
    return path


@pytest.fixture
def with_password(tmp_path: Path) -> Path:
    """A data directory whose settings name a password file."""
    (tmp_path / "config.toml").write_text('[keys]\npassword_file = "password"\n')
    return write_password(tmp_path / "password", "correct horse")


def type_in(folder: Path, arguments: Sequence[str], *answers: str) -> tuple[int, str]:
    """Run a command on a terminal of its own, and answer each question; return code and screen."""
    pid, terminal = pty.fork()
    if not pid:
        command = [sys.executable, "-m", "d2m_node", "--data-dir", str(folder), *arguments]
        os.execv(sys.executable, command)
    screen = b""
    left = list(answers)
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # Linux says EIO when the other side is closed
            break
        if not part:
            break
        screen += part
        if screen.endswith(b": ") and left:
            os.write(terminal, left.pop(0).encode() + b"\n")
            screen += b"\n"
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert not left, screen
    return code, screen.decode()


def test_a_password_that_is_typed_is_asked_twice_shown_never_and_kept_nowhere(
    tmp_path: Path,
) -> None:
    init = ("init", "--rpc-url", "http://chain", "--chain-id", "7", "--market", MARKET)
    code, screen = type_in(tmp_path, init, "correct horse", "correct horse")
    assert code == 0, screen
    assert "correct horse" not in screen
    assert "nothing else opens the account" in screen
    assert "d2m-node key export" in screen
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "account.json",
        "config.toml",
        "peer.key",
    ]
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())
    unlock(tmp_path / "account.json", "correct horse")


def test_a_wrong_password_at_the_start_is_one_line_with_code_4(tmp_path: Path) -> None:
    write_keystore(tmp_path / "account.json", RAW, "correct horse", light=True)
    (tmp_path / "config.toml").write_text(f'[chain]\nchain_id = 7\nmarket = "{MARKET}"\n')
    code, screen = type_in(tmp_path, ["run"], "battery staple")
    assert code == 4
    last = screen.strip().splitlines()[-1]
    assert last.endswith("account.json: the password is wrong")
    assert "Traceback" not in screen
    assert "battery" not in screen


def test_a_short_password_is_refused(tmp_path: Path) -> None:
    init = ("init", "--rpc-url", "http://chain", "--chain-id", "7")
    code, screen = type_in(tmp_path, init, "short", "short")
    assert (code, "at least 8 characters" in screen) == (4, True)
    assert not (tmp_path / "account.json").exists()


def run_without_terminal(folder: Path, *arguments: str, stdin: str = "") -> Ended:
    done = subprocess.run(
        [sys.executable, "-m", "d2m_node", "--data-dir", str(folder), *arguments],
        input=stdin, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


def test_without_a_terminal_a_start_names_the_setting(tmp_path: Path) -> None:
    write_keystore(tmp_path / "account.json", RAW, "correct horse", light=True)
    (tmp_path / "config.toml").write_text(f'[chain]\nchain_id = 7\nmarket = "{MARKET}"\n')
    ended = run_without_terminal(tmp_path, "run")
    assert ended.code == 4
    assert ended.err.startswith("d2m-node: keys.password_file: not set")
    assert len(ended.err.splitlines()) == 1


def test_without_a_terminal_init_makes_no_password_by_itself(tmp_path: Path) -> None:
    ended = run_without_terminal(tmp_path, "init", "--rpc-url", "http://chain", "--chain-id", "7")
    assert (ended.code, "--password-file FILE, or --random-password" in ended.err) == (3, True)
    assert list(tmp_path.iterdir()) == []


def test_a_random_password_is_made_if_asked_for(command: Any, tmp_path: Path) -> None:
    ended = command(
        "init", "--rpc-url", "http://chain", "--chain-id", "7", "--random-password", "--json"
    )
    assert ended.code == 0, ended.err
    assert ended.json["password_file"] == str(tmp_path / "password")
    signer = open_signer(tmp_path / "account.json", tmp_path / "password")
    assert ended.json["account"] == "0x" + signer.address.hex()


def test_init_goes_on_where_it_was_cut_off(command: Any, tmp_path: Path) -> None:
    first = command("init", "--network", "devnet", "--json").json
    (tmp_path / "config.toml").unlink()
    assert command("init", "--network", "devnet", "--json").json == first


def test_a_new_key_is_made_once(command: Any, with_password: Path, tmp_path: Path) -> None:
    made = command("key", "new", "--light", "--json")
    signer = open_signer(tmp_path / "account.json", with_password)
    assert made.json == {
        "account": "0x" + signer.address.hex(),
        "path": str(tmp_path / "account.json"),
    }
    again = command("key", "new", "--light")
    assert (again.code, "holds a key already" in again.err) == (3, True)


def test_a_keystore_is_imported_under_the_nodes_own_password(
    command: Any, with_password: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    write_keystore(other, RAW, "battery staple", light=True)
    opening = write_password(tmp_path / "opening", "battery staple")
    imported = command(
        "key", "import", str(other), "--password-file", str(opening), "--light", "--json"
    )
    assert imported.json["account"] == "0x" + OWNER.hex()
    assert open_signer(tmp_path / "account.json", with_password).address == OWNER


def test_a_keystore_with_another_password_is_not_imported(
    command: Any, with_password: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    write_keystore(other, RAW, "battery staple", light=True)
    refused = command("key", "import", str(other), "--password-file", str(with_password))
    assert (refused.code, refused.err) == (4, f"d2m-node: {other}: the password is wrong\n")
    assert not (tmp_path / "account.json").exists()


@pytest.mark.parametrize("prefix", ["", "0x"])
def test_a_raw_key_is_read_from_standard_input(
    with_password: Path, tmp_path: Path, prefix: str
) -> None:
    ended = run_without_terminal(
        tmp_path, "key", "import", "--raw", "--light", stdin=f"{prefix}{RAW.hex()}\n"
    )
    assert ended.code == 0, ended.err
    assert "0x" + OWNER.hex() in ended.out
    assert RAW.hex() not in ended.out + ended.err


@pytest.mark.parametrize("text", ["", "12", "zz" * 32, "00" * 32, "ff" * 32, "11" * 5000])
def test_what_is_no_raw_key_is_refused_without_showing_it(
    with_password: Path, tmp_path: Path, text: str
) -> None:
    ended = run_without_terminal(tmp_path, "key", "import", "--raw", "--light", stdin=text)
    assert (ended.code, "not a private key" in ended.err) == (4, True)
    assert not text or text[:20] not in ended.err
    assert not (tmp_path / "account.json").exists()


def test_an_export_opens_with_its_own_password_and_counts_as_the_backup(
    command: Any, with_password: Path, tmp_path: Path
) -> None:
    account = create_account(tmp_path / "account.json", "correct horse", light=True)
    assert not is_backed_up(tmp_path, account)
    copy = tmp_path / "copy.json"
    own = write_password(tmp_path / "own", "battery staple")
    exported = command("key", "export", "-o", str(copy), "--new-password-file", str(own), "--json")
    assert exported.json == {"account": "0x" + account.hex(), "path": str(copy)}
    assert unlock(copy, "battery staple").address == account
    assert is_backed_up(tmp_path, account)
    again = command("key", "export", "-o", str(copy), "--new-password-file", str(own))
    assert (again.code, "File exists" in again.err) == (4, True)


def test_a_raw_key_is_printed_after_a_confirmation_only(
    with_password: Path, tmp_path: Path
) -> None:
    write_keystore(tmp_path / "account.json", RAW, "correct horse", light=True)
    piped = run_without_terminal(tmp_path, "key", "export", "--raw", stdin="y\n")
    assert (piped.code, "on a terminal only" in piped.err) == (3, True)
    code, screen = type_in(tmp_path, ["key", "export", "--raw"], "n")
    assert (code, RAW.hex() in screen) == (130, False)
    code, screen = type_in(tmp_path, ["key", "export", "--raw"], "y")
    assert (code, RAW.hex() in screen) == (0, True)


def test_a_changed_password_takes_the_place_of_the_old_one(
    command: Any, with_password: Path, tmp_path: Path
) -> None:
    account = create_account(tmp_path / "account.json", "correct horse", light=True)
    code, screen = type_in(tmp_path, ["key", "change-password"], "battery staple", "battery staple")
    assert code == 0, screen
    assert open_signer(tmp_path / "account.json", with_password).address == account
    assert with_password.read_text() == "battery staple\n"


def test_a_new_password_in_a_file_of_its_own_leaves_the_old_file(
    command: Any, with_password: Path, tmp_path: Path
) -> None:
    create_account(tmp_path / "account.json", "correct horse", light=True)
    own = write_password(tmp_path / "own", "battery staple")
    ended = command("key", "change-password", "--new-password-file", str(own))
    assert (ended.code, ended.err) == (0, f"set keys.password_file to {own}\n")
    assert with_password.read_text() == "correct horse\n"
    unlock(tmp_path / "account.json", "battery staple")


@pytest.mark.parametrize("arguments", [("new",), ("import", "--raw"), ("change-password",)])
def test_keys_are_not_changed_under_a_running_node(
    command: Any, with_password: Path, tmp_path: Path, arguments: Sequence[str]
) -> None:
    with lock_folder(tmp_path):
        ended = command("key", *arguments)
    assert ended.code == 4
    assert f"is in use by another d2m-node (pid {os.getpid()})" in ended.err


def test_the_lock_is_free_after_a_refusal(
    command: Any, with_password: Path, tmp_path: Path
) -> None:
    command("key", "change-password")
    descriptor = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_keys_are_shown_without_a_password(command: Any, tmp_path: Path) -> None:
    made = command("init", "--network", "devnet", "--json").json
    shown = command("key", "show", "--json").json
    assert shown["account"] == made["account"]
    assert shown["peer_id"] == made["peer_id"]
    assert shown["peer_id"].startswith("12D3Koo")
    assert shown["is_backed_up"] is False
    confirmed = command("key", "confirm-backup", "--json")
    assert confirmed.json == {"account": made["account"], "is_backed_up": True}
    assert "confirmed" in command("key", "show").out


def test_a_backup_of_another_account_counts_nothing(command: Any, tmp_path: Path) -> None:
    command("init", "--network", "devnet")
    command("key", "confirm-backup")
    (tmp_path / "account.json").unlink()
    account = create_account(tmp_path / "account.json", "correct horse", light=True)
    assert not is_backed_up(tmp_path, account)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["key", "export"], 2, "either -o FILE or --raw"),
        (["key", "import"], 2, "either a keystore file or --raw"),
        (["key", "import", "nowhere.json"], 2, "does not exist"),
        (["key", "show", "--pasword"], 2, "No such option"),
        (["key", "confirm-backup"], 4, "run d2m-node init"),
        (["key", "change-password"], 3, "no terminal"),
    ],
)
def test_a_mistake_with_keys_gives_its_code_and_no_trace(
    command: Any, arguments: Sequence[str], code: int, message: str
) -> None:
    ended = command(*arguments)
    assert (ended.code, message in ended.err) == (code, True), ended.err
    assert "Traceback" not in ended.err
