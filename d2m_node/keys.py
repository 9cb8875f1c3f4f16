"""The node's chain account: the signer that holds its key, and what may happen to its files.

Key files have mode 0600. No secret is ever logged, shown by `repr`, or part of an error.
"""

import secrets
from pathlib import Path
from typing import Final

from eth_keys.constants import SECPK1_N
from eth_keys.datatypes import PrivateKey

from d2m_node.errors import KeyUnavailable
from d2m_node.keystore import WrongPassword, encrypt_key, read_keystore
from d2m_node.private_files import (
    adopt_draft,
    check_private,
    draft_of,
    read_bounded,
    write_draft,
    write_new,
)
from d2m_node.settings import CREDENTIALS, KeySettings
from protocol.types import Address, Digest

PRIVATE_KEY_BYTES: Final = 32
MAX_PASSWORD_BYTES: Final = 1024
MIN_PASSWORD_CHARACTERS: Final = 8
"""Of new passwords; old ones open what they opened."""

NOTHING_TO_OPEN_WITH: Final = (
    "keys.password_file: not set, and there is no terminal to ask for the password; "
    "name a file whose first line it is"
)
_MANAGED_FOLDERS: Final = (Path("/run/credentials"), Path("/run/secrets"))
"""systemd and container engines guard these themselves, and choose the modes."""


class LocalSigner:
    """`SignerPort` with the key in this process."""

    __slots__ = ("_address", "_key")

    def __init__(self, private_key: bytes) -> None:
        """Take a key of 32 bytes. Raises KeyUnavailable if it is none."""
        if len(private_key) != PRIVATE_KEY_BYTES or not any(private_key):
            raise KeyUnavailable("not a private key: it has 32 bytes, not all zero")
        # Checked here, because the library would show the number in its error.
        if int.from_bytes(private_key, "big") >= SECPK1_N:
            raise KeyUnavailable("not a private key: it is not below the order of the curve")
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
    """Encrypt a key into a new keystore file, and check that it opens. See `create_account`."""
    if path.exists():
        raise KeyUnavailable(f"{path}: cannot be written: File exists")
    write_new(path, encrypt_key(private_key, password, light=light))
    if read_keystore(path).decrypt(password) != private_key:
        raise KeyUnavailable(f"{path}: does not open with its password; is the disk sound?")


def open_account(settings: KeySettings, password: str | None = None) -> LocalSigner:
    """Decrypt the account by the password that was typed, or by the one in the settings' file.

    Raises KeyUnavailable; see `open_signer`.
    """
    if password is not None:
        return unlock(settings.account_file, password)
    if settings.password_file is None:
        raise KeyUnavailable(NOTHING_TO_OPEN_WITH)
    return open_signer(settings.account_file, settings.password_file)


def open_signer(path: Path, password_file: Path) -> LocalSigner:
    """Decrypt a keystore file. Takes about a second of one core: call it in a worker thread.

    A change of the password may have been cut off between the two files: then the password that
    was about to take its place opens the account.

    Raises KeyUnavailable, in one line that says what to do.
    """
    keystore = read_keystore(path)
    password = read_password(password_file)
    try:
        return LocalSigner(keystore.decrypt(password))
    except WrongPassword:
        pending = draft_of(password_file.resolve())
        if not pending.is_file():
            raise KeyUnavailable(f"{path}: the password in {password_file} is wrong") from None
        return unlock(path, read_password(pending))


def unlock(path: Path, password: str) -> LocalSigner:
    """Decrypt a keystore file with a password. Raises KeyUnavailable; see `open_signer`."""
    return LocalSigner(read_keystore(path).decrypt(password))


def read_password(path: Path) -> str:
    """Return the first line of a password file. Raises KeyUnavailable."""
    if str(path).startswith(CREDENTIALS):
        raise KeyUnavailable(
            f"keys.password_file: {path}: systemd sets {CREDENTIALS} for its service alone; "
            "elsewhere name the file itself"
        )
    if not path.exists():
        raise KeyUnavailable(f"{path}: cannot read the password: no such file")
    if not is_managed(path):
        check_private(path)
    try:
        # Not splitlines: a password may hold other characters that Unicode counts as line ends.
        line = read_bounded(path, MAX_PASSWORD_BYTES).decode().partition("\n")[0].removesuffix("\r")
    except UnicodeDecodeError as exc:
        raise KeyUnavailable(f"{path}: the password is not UTF-8 text") from exc
    if not line:
        raise KeyUnavailable(f"{path}: no password in its first line")
    return line


def is_managed(path: Path) -> bool:
    """Tell whether the system hands a secret over in this file: its mode is not ours to judge."""
    return any(folder in path.resolve().parents for folder in _MANAGED_FOLDERS)


def check_new_password(password: str) -> None:
    """Refuse a password that guards nothing. Raises KeyUnavailable."""
    if len(password) < MIN_PASSWORD_CHARACTERS:
        raise KeyUnavailable(f"a password has at least {MIN_PASSWORD_CHARACTERS} characters")


def change_password(path: Path, old: str, new: str, *, password_file: Path | None) -> Address:
    """Encrypt an account anew; a password file, if the node reads one, gets the new password.

    Both files are complete beside the old ones before either takes its place, the keystore first:
    whenever this is cut off, the password file or its draft opens the keystore (`open_signer`).

    Raises KeyUnavailable.
    """
    keystore = read_keystore(path)
    private_key = keystore.decrypt(old)
    draft = write_draft(path, encrypt_key(private_key, new, light=keystore.is_light))
    if read_keystore(draft).decrypt(new) != private_key:
        raise KeyUnavailable(f"{draft}: does not open with the new password; nothing was changed")
    if password_file is not None:
        write_draft(password_file, f"{new}\n".encode())
    adopt_draft(path)
    if password_file is not None:
        adopt_draft(password_file)
    return LocalSigner(private_key).address


def finish_change(path: Path, password_file: Path) -> None:
    """Complete a change of the password that was cut off. Raises KeyUnavailable.

    For whoever holds the data directory's lock.
    """
    pending = draft_of(password_file)
    if not pending.is_file():
        return
    keystore = read_keystore(path)
    try:
        keystore.decrypt(read_password(password_file))
    except WrongPassword:
        keystore.decrypt(read_password(pending))
        adopt_draft(password_file)
    else:
        pending.unlink(missing_ok=True)
