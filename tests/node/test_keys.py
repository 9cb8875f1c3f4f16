"""Keystores and the signer: modes, passwords, and no secret anywhere it should not be."""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2m_node import keys, keystore, private_files
from d2m_node.errors import KeyUnavailable
from d2m_node.keys import (
    LocalSigner,
    change_password,
    create_account,
    finish_change,
    open_signer,
    read_password,
    unlock,
    write_keystore,
)
from d2m_node.keystore import read_keystore
from d2m_node.private_files import write_draft
from d2m_node.settings import read_configuration
from protocol.hashing import keccak
from protocol.signatures import recover_signer
from protocol.types import Digest

PRIVATE_KEY = bytes(range(1, 33))


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_text("correct horse\n")
    return path


def test_an_account_opens_with_its_password(tmp_path: Path, password_file: Path) -> None:
    path = tmp_path / "key.json"
    address = create_account(path, "correct horse", light=True)
    assert open_signer(path, password_file).address == address
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_wrong_password_is_one_line_that_names_its_file(
    tmp_path: Path, password_file: Path
) -> None:
    path = tmp_path / "key.json"
    create_account(path, "battery staple", light=True)
    with pytest.raises(KeyUnavailable) as refused:
        open_signer(path, password_file)
    assert str(refused.value) == f"{path}: the password in {password_file} is wrong"


def test_a_key_is_never_overwritten(tmp_path: Path, password_file: Path) -> None:
    path = tmp_path / "key.json"
    address = create_account(path, "correct horse", light=True)
    with pytest.raises(KeyUnavailable, match="File exists"):
        create_account(path, "correct horse", light=True)
    assert open_signer(path, password_file).address == address


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, password_file: Path) -> None:
    path = tmp_path / "key.json"
    create_account(path, "correct horse", light=True)
    path.chmod(0o640)
    with pytest.raises(KeyUnavailable, match="chmod 600"):
        open_signer(path, password_file)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\nanother line\n"])
def test_a_password_is_the_first_line_and_nothing_else(tmp_path: Path, end: str) -> None:
    path = tmp_path / "password"
    password = "correct\u2028horse\x0bbattery"
    path.write_bytes((password + end).encode())
    path.chmod(0o600)
    assert read_password(path) == password


@pytest.mark.parametrize("content", ["", "not json", "[]", "{}", '{"version": 3}'])
def test_what_is_no_keystore_is_refused(tmp_path: Path, password_file: Path, content: str) -> None:
    path = tmp_path / "key.json"
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(KeyUnavailable, match="keystore"):
        open_signer(path, password_file)


def test_a_missing_key_file_names_the_fix(tmp_path: Path, password_file: Path) -> None:
    with pytest.raises(KeyUnavailable, match="d2m-node init"):
        open_signer(tmp_path / "key.json", password_file)


def test_an_empty_password_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    create_account(path, "correct horse", light=True)
    empty = tmp_path / "empty"
    empty.touch(mode=0o600)
    with pytest.raises(KeyUnavailable, match="no password"):
        open_signer(path, empty)


def test_a_signature_is_recovered_to_the_signers_address() -> None:
    signer = LocalSigner(PRIVATE_KEY)
    digest = keccak(b"something to sign")
    signature = signer.sign_digest(digest)
    assert signature[64] in (27, 28)
    assert recover_signer(digest, signature) == signer.address
    assert recover_signer(Digest(bytes(32)), signature) != signer.address


def test_a_password_file_that_others_may_read_is_refused(
    tmp_path: Path, password_file: Path
) -> None:
    path = tmp_path / "key.json"
    create_account(path, "correct horse", light=True)
    password_file.chmod(0o644)
    with pytest.raises(KeyUnavailable, match=f"run chmod 600 {password_file}"):
        open_signer(path, password_file)


def test_a_password_of_the_systems_own_may_have_any_mode(
    tmp_path: Path, password_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password_file.chmod(0o440)
    monkeypatch.setattr(keys, "_MANAGED_FOLDERS", (tmp_path,))
    assert read_password(password_file) == "correct horse"


def test_a_credential_is_found_under_systemd_and_explained_elsewhere(
    tmp_path: Path, password_file: Path
) -> None:
    (tmp_path / "config.toml").write_text(
        '[keys]\npassword_file = "$CREDENTIALS_DIRECTORY/password"\n'
    )
    inside = read_configuration(tmp_path, environment={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert inside.values["keys.password_file"] == password_file
    outside = read_configuration(tmp_path, environment={}).values["keys.password_file"]
    assert outside == Path("$CREDENTIALS_DIRECTORY/password")
    with pytest.raises(KeyUnavailable, match="for its service alone"):
        read_password(outside)


def change(path: Path, password_file: Path) -> None:
    change_password(path, "correct horse", "battery staple", password_file=password_file)


def test_a_changed_password_is_in_its_file_and_opens_the_account(
    tmp_path: Path, password_file: Path
) -> None:
    path = tmp_path / "key.json"
    address = create_account(path, "correct horse", light=True)
    change(path, password_file)
    assert password_file.read_text() == "battery staple\n"
    assert open_signer(path, password_file).address == address
    with pytest.raises(KeyUnavailable, match="the password is wrong"):
        unlock(path, "correct horse")
    modes = {one.name: one.stat().st_mode & 0o777 for one in tmp_path.iterdir()}
    assert modes == {"key.json": 0o600, "password": 0o600}


def test_a_password_file_that_is_a_link_opens_the_account_after_a_change_that_was_cut_off(
    tmp_path: Path, password_file: Path
) -> None:
    """The command follows the link; so must the node, or it finds the old password alone."""
    path, link = tmp_path / "key.json", tmp_path / "link"
    address = create_account(path, "battery staple", light=True)
    link.symlink_to(password_file)
    write_draft(password_file, b"battery staple\n")
    assert open_signer(path, link).address == address


def test_a_wrong_old_password_changes_nothing(tmp_path: Path, password_file: Path) -> None:
    path = tmp_path / "key.json"
    create_account(path, "something else", light=True)
    before = path.read_bytes()
    with pytest.raises(KeyUnavailable, match="the password is wrong"):
        change(path, password_file)
    assert path.read_bytes() == before
    assert {one.name for one in tmp_path.iterdir()} == {"key.json", "password"}


def run_lines(work: Callable[[], None], count: int) -> bool:
    """Do something in a process that dies before its line ``count``; tell whether it died.

    Lines are those of the modules that touch key files.
    """
    files = {keys.__file__, keystore.__file__, private_files.__file__}
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    left = count

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                os._exit(9)
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        os._exit(0)


def test_a_crash_at_any_line_leaves_a_key_and_a_password_that_fit(
    tmp_path: Path, password_file: Path
) -> None:
    path = tmp_path / "key.json"
    address = create_account(path, "correct horse", light=True)
    before = path.read_bytes()
    line = 0
    while run_lines(lambda: change(path, password_file), line):
        assert open_signer(path, password_file).address == address
        finish_change(path, password_file)
        assert not password_file.with_name("password.new").exists()
        assert open_signer(path, password_file).address == address
        path.write_bytes(before)
        password_file.write_text("correct horse\n")
        line += 1
    assert line > 50
    assert password_file.read_text() == "battery staple\n"


def test_a_crash_at_any_line_leaves_no_half_of_a_new_key(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    line = 0
    while run_lines(lambda: write_keystore(path, PRIVATE_KEY, "correct horse", light=True), line):
        if path.exists():
            assert unlock(path, "correct horse").address == LocalSigner(PRIVATE_KEY).address
            path.unlink()
        line += 1
    assert unlock(path, "correct horse").address == LocalSigner(PRIVATE_KEY).address


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"n": 1 << 24, "r": 64}, "more than 1 GiB"),
        ({"n": 1 << 40}, "n"),
        ({"n": 1000}, "power of two"),
        ({"p": 1 << 20}, "p"),
        ({"salt": "zz"}, "salt"),
        ({"dklen": 1 << 30}, "dklen"),
    ],
)
def test_a_keystore_that_would_take_all_memory_is_refused(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    path = tmp_path / "key.json"
    write_keystore(path, PRIVATE_KEY, "correct horse", light=True)
    content = json.loads(path.read_text())
    content["crypto"]["kdfparams"].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(KeyUnavailable, match=reason):
        read_keystore(path)


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_bytes_are_a_keystore_by_chance(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "key.json")
        path.touch(mode=0o600)
        path.write_bytes(data)
        with pytest.raises(KeyUnavailable):
            read_keystore(path)


ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.mark.parametrize(
    "private_key",
    [b"", bytes(32), bytes(31), b"\x01" * 33, ORDER.to_bytes(32, "big"), b"\xff" * 32],
)
def test_what_is_no_key_is_refused_without_showing_it(private_key: bytes) -> None:
    with pytest.raises(KeyUnavailable):
        LocalSigner(private_key)


def test_a_keystore_and_a_signers_repr_do_not_show_the_key(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    write_keystore(path, PRIVATE_KEY, "correct horse", light=True)
    assert PRIVATE_KEY.hex() not in path.read_text()
    assert json.loads(path.read_text())["version"] == 3
    assert PRIVATE_KEY.hex() not in repr(LocalSigner(PRIVATE_KEY))
