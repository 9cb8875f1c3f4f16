"""The node's libp2p identity: one Ed25519 key in a file only its owner may read."""

import os
import stat
from pathlib import Path

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair, KeyType
from libp2p.crypto.serialization import deserialize_private_key
from libp2p.peer.id import ID

from d2m_node.errors import KeyUnavailable


def load_or_create_identity(path: Path) -> KeyPair:
    """Load the identity, or make a new one where there is no file.

    Raises
    ------
    KeyUnavailable
        If the file cannot be read or written, holds no Ed25519 key, or others may read it.
    """
    try:
        if not path.exists():
            _create(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KeyUnavailable(f"{path}: others may read this key; run chmod 600 {path}")
        encoded = path.read_bytes()
    except OSError as exc:
        raise KeyUnavailable(f"{path}: {exc.strerror}") from exc
    return _decode(path, encoded)


def write_peer_id(key_pair: KeyPair) -> str:
    """Write an identity as multiaddrs do: after /p2p/."""
    return str(ID.from_pubkey(key_pair.public_key))


def _create(path: Path) -> None:
    """Write a new key under another name first, so that a crash leaves no half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(create_new_key_pair().private_key.serialize())
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


def _decode(path: Path, encoded: bytes) -> KeyPair:
    try:
        private_key = deserialize_private_key(encoded)
    except Exception as exc:  # protobuf, KeyError or ValueError, as the bytes fall
        raise KeyUnavailable(f"{path}: no libp2p private key") from exc
    if private_key.get_type() is not KeyType.Ed25519:
        raise KeyUnavailable(f"{path}: not an Ed25519 key")
    return KeyPair(private_key, private_key.get_public_key())
