"""Keystore files, version 3: a private key, encrypted with a password.

What is in the file is checked before it is used: a hostile one could ask for any amount of memory.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from d2m_node.errors import KeyUnavailable
from d2m_node.private_files import check_private, read_bounded
from protocol.types import Address

MAX_KEYSTORE_BYTES: Final = 16 * 1024
MAX_SCRYPT_BYTES: Final = 1 << 30
"""The standard cost needs a quarter of it."""

_LIGHT_SCRYPT_N: Final = 1 << 12
_STANDARD_SCRYPT_N: Final = 1 << 18
_ADDRESS_BYTES: Final = 20

_Hex = Annotated[str, Meta(pattern=r"^(0x)?[0-9a-fA-F]*$", max_length=256)]


class WrongPassword(KeyUnavailable):
    """The password does not open the key."""


class _ScryptParams(Struct, frozen=True):
    n: Annotated[int, Meta(ge=2, le=1 << 24)]
    r: Annotated[int, Meta(ge=1, le=64)]
    p: Annotated[int, Meta(ge=1, le=16)]
    dklen: Literal[32]
    salt: _Hex


class _Pbkdf2Params(Struct, frozen=True):
    c: Annotated[int, Meta(ge=1, le=20_000_000)]
    dklen: Literal[32]
    salt: _Hex
    prf: Literal["hmac-sha256"] = "hmac-sha256"


class _CipherParams(Struct, frozen=True):
    iv: _Hex


class _Crypto(Struct, frozen=True):
    cipher: Literal["aes-128-ctr"]
    cipherparams: _CipherParams
    ciphertext: Annotated[str, Meta(pattern=r"^(0x)?[0-9a-fA-F]{64}$")]
    kdf: Literal["scrypt", "pbkdf2"]
    kdfparams: dict[str, Any]
    mac: Annotated[str, Meta(pattern=r"^(0x)?[0-9a-fA-F]{64}$")]


class _File(Struct, frozen=True):
    version: Literal[3]
    crypto: _Crypto
    address: Annotated[str, Meta(pattern=r"^(0x)?[0-9a-fA-F]{40}$")] | None = None


class Keystore:
    """A keystore that may be decrypted without harm."""

    __slots__ = ("_plain", "_source", "address", "is_light")

    def __init__(self, plain: dict[str, Any], checked: _File, source: Path) -> None:
        self._plain = plain
        self._source = source
        text = checked.address
        self.address = None if text is None else Address(bytes.fromhex(text.removeprefix("0x")))
        """By the file's own word, which is proved by decrypting it; None if it does not say."""
        n = checked.crypto.kdfparams.get("n")
        self.is_light = n == _LIGHT_SCRYPT_N
        """Whether it was made for a devnet, quick to open."""

    def decrypt(self, password: str) -> bytes:
        """Return the private key. Takes a second of one core, unless it is light.

        Raises WrongPassword, and KeyUnavailable if the file contradicts itself.
        """
        from eth_account import Account  # half a second, and most commands need no key

        try:
            return bytes(Account.decrypt(self._plain, password))
        except (ValueError, KeyError, TypeError, NotImplementedError, UnicodeError) as exc:
            if "MAC mismatch" in str(exc):
                raise WrongPassword(f"{self._source}: the password is wrong") from None
            raise KeyUnavailable(
                f"{self._source}: not a keystore of version 3; restore it"
            ) from None


def encrypt_key(private_key: bytes, password: str, *, light: bool = False) -> bytes:
    """Return the content of a keystore file.

    Hashing the password takes about a second of one core, unless ``light``: for devnets, whose
    keys guard nothing.
    """
    from eth_account import Account

    content = Account.encrypt(
        private_key,
        password,
        kdf="scrypt",
        iterations=_LIGHT_SCRYPT_N if light else _STANDARD_SCRYPT_N,
    )
    return json.dumps(content).encode()


def read_keystore(path: Path, *, is_ours: bool = True) -> Keystore:
    """Read and check a keystore file; ``is_ours``: one that only its owner may read.

    Raises KeyUnavailable.
    """
    if is_ours:
        if not path.exists():
            raise KeyUnavailable(f"{path}: no such key file; run d2m-node init")
        check_private(path)
    data = read_bounded(path, MAX_KEYSTORE_BYTES)
    try:
        plain = _lower_keys(msgspec.json.decode(data, type=dict[str, Any]))
        checked = msgspec.convert(plain, _File)
        _check_cost(checked.crypto)
    except (ValueError, RecursionError) as exc:  # msgspec's errors are ValueErrors
        raise KeyUnavailable(
            f"{path}: not a keystore of version 3 ({exc}); restore it from a backup"
        ) from exc
    return Keystore(plain, checked, path)


def _check_cost(crypto: _Crypto) -> None:
    """Raise ValueError if opening the file would take all memory or an hour."""
    if crypto.kdf == "pbkdf2":
        msgspec.convert(crypto.kdfparams, _Pbkdf2Params)
        return
    params = msgspec.convert(crypto.kdfparams, _ScryptParams)
    if params.n & (params.n - 1):
        raise ValueError("scrypt's n is no power of two")
    if 128 * params.n * params.r > MAX_SCRYPT_BYTES:
        raise ValueError("scrypt would need more than 1 GiB")


def _lower_keys(table: Mapping[str, Any]) -> dict[str, Any]:
    """Old files write "Crypto"."""
    return {
        key.lower(): _lower_keys(value) if isinstance(value, dict) else value
        for key, value in table.items()
    }
