"""The node's chain account: a keystore file (version 3), and the signer that holds its key.

Key files have mode 0600. No secret is ever logged, shown by `repr`, or part of an error.
"""

import json
import os
import secrets
from pathlib import Path
from typing import Any

from eth_keys.datatypes import PrivateKey

from d2m_node.errors import KeyUnavailable
from protocol.types import Address, Digest

PRIVATE_KEY_BYTES = 32
_LIGHT_SCRYPT_N = 1 << 12
_STANDARD_SCRYPT_N = 1 << 18


class LocalSigner:
    """`SignerPort` with the key in this process."""

    __slots__ = ("_address", "_key")

    def __init__(self, private_key: bytes) -> None:
        """Take a key of 32 bytes. Raises KeyUnavailable if it is none."""
        if len(private_key) != PRIVATE_KEY_BYTES or not any(private_key):
            raise KeyUnavailable("not a private key: it has 32 bytes, not all zero")
        self._key = PrivateKey(private_key)
        self._address = Address(self._key.public_key.to_canonical_address())

    def __repr__(self) -> str:
        return f"LocalSigner(0x{self._address.hex()})"

    @property
    def address(self) -> Address:
        """The chain account."""
        return self._address

    def sign_digest(self, digest: Digest) -> bytes:
        """Sign 32 bytes; 65 bytes ``r | s | v`` with v 27 or 28, s in the lower half."""
        signature = self._key.sign_msg_hash(digest).to_bytes()
        return signature[:64] + bytes([signature[64] + 27])


def create_account(path: Path, password: str, *, light: bool = False) -> Address:
    """Make a new key and write it to a keystore file that does not exist yet.

    Hashing the password takes about a second of one core, unless ``light``: for devnets, whose
    keys guard nothing. Raises KeyUnavailable if the file exists or cannot be written.
    """
    private_key = secrets.token_bytes(PRIVATE_KEY_BYTES)
    write_keystore(path, private_key, password, light=light)
    return LocalSigner(private_key).address


def write_keystore(path: Path, private_key: bytes, password: str, *, light: bool = False) -> None:
    """Encrypt a key into a new keystore file. See `create_account`."""
    from eth_account import Account  # half a second, and most commands need no key

    content = Account.encrypt(
        private_key,
        password,
        kdf="scrypt",
        iterations=_LIGHT_SCRYPT_N if light else _STANDARD_SCRYPT_N,
    )
    try:
        # O_EXCL: a key is never overwritten.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        raise KeyUnavailable(f"{path}: cannot write the key file: {exc.strerror}") from exc


def open_signer(path: Path, password_file: Path) -> LocalSigner:
    """Decrypt a keystore file. Takes about a second of one core: call it in a worker thread.

    Raises KeyUnavailable, in one line that says what to do.
    """
    from eth_account import Account

    content = _read_keystore(path)
    password = read_password(password_file)
    try:
        private_key = bytes(Account.decrypt(content, password))
    except (ValueError, KeyError, TypeError, NotImplementedError) as exc:
        if "MAC mismatch" in str(exc):
            raise KeyUnavailable(f"{path}: the password in {password_file} is wrong") from None
        raise KeyUnavailable(f"{path}: not a keystore of version 3; restore it") from None
    return LocalSigner(private_key)


def read_password(path: Path) -> str:
    """Return the first line of a password file. Raises KeyUnavailable."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise KeyUnavailable(f"{path}: cannot read the password: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise KeyUnavailable(f"{path}: the password is not UTF-8 text") from exc
    if not lines or not lines[0]:
        raise KeyUnavailable(f"{path}: no password in its first line")
    return lines[0]


def _read_keystore(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_mode & 0o077:
            raise KeyUnavailable(f"{path}: others may read this key file; run chmod 600 on it")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise KeyUnavailable(
            f"{path}: cannot read the key file: {exc.strerror}; run d2m-node init"
        ) from exc
    except ValueError as exc:
        raise KeyUnavailable(f"{path}: not a keystore; restore it from a backup") from exc
    if not isinstance(content, dict):
        raise KeyUnavailable(f"{path}: not a keystore; restore it from a backup")
    return content
