"""Keystores and the signer: modes, passwords, and no secret anywhere it should not be."""

import json
from pathlib import Path

import pytest

from d2m_node.errors import KeyUnavailable
from d2m_node.keys import LocalSigner, create_account, open_signer, write_keystore
from protocol.hashing import keccak
from protocol.signatures import recover_signer
from protocol.types import Digest

PRIVATE_KEY = bytes(range(1, 33))


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
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
    empty.touch()
    with pytest.raises(KeyUnavailable, match="no password"):
        open_signer(path, empty)


def test_a_signature_is_recovered_to_the_signers_address() -> None:
    signer = LocalSigner(PRIVATE_KEY)
    digest = keccak(b"something to sign")
    signature = signer.sign_digest(digest)
    assert signature[64] in (27, 28)
    assert recover_signer(digest, signature) == signer.address
    assert recover_signer(Digest(bytes(32)), signature) != signer.address


@pytest.mark.parametrize("private_key", [b"", bytes(32), bytes(31), b"\x01" * 33])
def test_what_is_no_key_is_refused_without_showing_it(private_key: bytes) -> None:
    with pytest.raises(KeyUnavailable):
        LocalSigner(private_key)


def test_a_keystore_and_a_signers_repr_do_not_show_the_key(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    write_keystore(path, PRIVATE_KEY, "correct horse", light=True)
    assert PRIVATE_KEY.hex() not in path.read_text()
    assert json.loads(path.read_text())["version"] == 3
    assert PRIVATE_KEY.hex() not in repr(LocalSigner(PRIVATE_KEY))
