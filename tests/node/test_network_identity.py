"""The libp2p identity: made once, kept, and refused where it is not safe."""

from pathlib import Path

import pytest
from libp2p.crypto.secp256k1 import create_new_key_pair as create_secp256k1_key_pair
from libp2p.peer.id import ID

from d2m_node.errors import KeyUnavailable
from d2m_node.network.identity import load_or_create_identity


def test_a_new_identity_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "peer.key"
    load_or_create_identity(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["peer.key"]


def test_the_second_start_finds_the_identity_of_the_first(tmp_path: Path) -> None:
    first, second = (load_or_create_identity(tmp_path / "peer.key") for _ in range(2))
    assert ID.from_pubkey(first.public_key) == ID.from_pubkey(second.public_key)


def test_an_identity_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "peer.key"
    load_or_create_identity(path)
    path.chmod(0o640)
    with pytest.raises(KeyUnavailable, match="chmod 600"):
        load_or_create_identity(path)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\x01\x12\x02ab"])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "peer.key"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(KeyUnavailable, match=str(path)):
        load_or_create_identity(path)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "peer.key"
    path.touch(mode=0o600)
    path.write_bytes(create_secp256k1_key_pair().private_key.serialize())
    with pytest.raises(KeyUnavailable, match="not an Ed25519 key"):
        load_or_create_identity(path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys").touch()
    with pytest.raises(KeyUnavailable, match="keys"):
        load_or_create_identity(tmp_path / "keys" / "peer.key")
