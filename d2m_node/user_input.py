"""What people write by hand: TOML tables, amounts and sizes, with errors that name the key."""

import difflib
import re
import tomllib
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NewType

import msgspec

from d2m_node.errors import UserError
from protocol.types import Address, Wei

MAX_FILE_BYTES: Final = 256 * 1024

WEI_PER_UNIT: Final = {"wei": 1, "gwei": 10**9, "ether": 10**18}

MAX_AMOUNT_CHARACTERS: Final = 80
"""The largest amount of a chain, 2**256 - 1 wei, has 78 digits."""

MAX_EXPONENT: Final = 100
"""Numbers with a point lie between 10**-100 and 10**100; longer powers stall what computes."""

BYTES_PER_UNIT: Final = {
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}

MAX_BYTE_COUNT: Final = 2**60

ByteCount = NewType("ByteCount", int)

_MAX_BITS: Final = 256

_AMOUNT = re.compile(r"([0-9]+)(?:\.([0-9]+))? *([a-z]*)")
_BYTE_COUNT = re.compile(r"([0-9]{1,20}) *([A-Za-z]*)")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


def read_file(path: Path, max_bytes: int) -> bytes:
    """Read a file that is not larger. Raises UserError that names it."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as exc:
        raise UserError(f"{path}: cannot be read: {exc.strerror}") from exc
    if len(data) > max_bytes:
        raise UserError(f"{path}: longer than {max_bytes} bytes")
    return data


def read_toml(path: Path) -> dict[str, object]:
    """Read a TOML file; numbers with a point become exact decimals.

    Raises UserError that names the file.
    """
    data = read_file(path, MAX_FILE_BYTES)
    try:
        table = tomllib.loads(data.decode(), parse_float=parse_decimal)
        _check_whole_numbers(table)
    except (ValueError, RecursionError) as exc:  # bad UTF-8 and bad TOML are ValueErrors
        raise UserError(f"{path}: no TOML: {exc}") from exc
    return table


def _check_whole_numbers(table: dict[str, object]) -> None:
    """Raise ValueError for a number too long to print: Python refuses to."""
    pending: list[object] = [table]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise ValueError(f"a whole number has at most {_MAX_BITS} bits")


def parse_decimal(text: str) -> Decimal:
    """Read a number with a point, an infinity or a NaN, without rounding.

    Raises ValueError if it is none, or too large or small to compute with.
    """
    try:
        value = Decimal(text)
    except InvalidOperation as exc:
        raise ValueError(f"{text[:40]} is no number to compute with") from exc
    if not is_moderate(value):
        raise ValueError(f"{text[:40]} is too large or too small to compute with")
    return value


def is_moderate(value: Decimal) -> bool:
    """Tell whether a number is not so large or small that computing with it fails or stalls."""
    return not value.is_finite() or not value or abs(value.adjusted()) <= MAX_EXPONENT


def expand_home(path: str | Path) -> Path:
    """Replace a leading "~" or "~user". Raises UserError if there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as exc:
        raise UserError(f"{path}: {exc}".rstrip(".")) from exc


def explain_unknown_key(key: str, known: Iterable[str]) -> str:
    """Say that a key is unknown, and which known one looks most like it."""
    known = sorted(known)
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown key {key!r}; {hint}"


def explain_mismatch(error: msgspec.ValidationError, prefix: str = "") -> str:
    """Turn "Expected `int` - at `$.a.b`" into "prefix.a.b: expected `int`"."""
    message, _, place = str(error).partition(" - at `$")
    place = prefix + place.removesuffix("`")
    message = message[:1].lower() + message[1:]
    return f"{place.lstrip('.')}: {message}" if place else message


def parse_wei(amount: object) -> Wei:
    """Read an amount: a whole number of wei, or text like "5ether", "0.5ether", "1000gwei".

    Raises UserError.
    """
    if isinstance(amount, int) and not isinstance(amount, bool):
        if not 0 <= amount < 1 << _MAX_BITS:
            raise UserError(f"an amount is a whole number of wei below 2^{_MAX_BITS}")
        return Wei(amount)
    if isinstance(amount, str) and len(amount) > MAX_AMOUNT_CHARACTERS:
        raise UserError(f"an amount has at most {MAX_AMOUNT_CHARACTERS} characters")
    match = _AMOUNT.fullmatch(amount.strip()) if isinstance(amount, str) else None
    if match is None or (match[3] or "wei") not in WEI_PER_UNIT:
        units = ", ".join(WEI_PER_UNIT)
        raise UserError(f'{amount!r} is no amount; write "5ether" (units: {units}) or whole wei')
    decimals = match[2] or ""
    # Integers throughout: decimal arithmetic would round beyond 28 digits.
    wei, rest = divmod(
        int(match[1] + decimals) * WEI_PER_UNIT[match[3] or "wei"], 10 ** len(decimals)
    )
    if rest:
        raise UserError(f"{amount!r} is not a whole number of wei")
    return Wei(wei)


def parse_byte_count(amount: object) -> ByteCount:
    """Read a size: a whole number of bytes, or text like "20GiB", "500MB".

    Raises UserError.
    """
    if isinstance(amount, int) and not isinstance(amount, bool) and 0 <= amount <= MAX_BYTE_COUNT:
        return ByteCount(amount)
    match = _BYTE_COUNT.fullmatch(amount.strip()) if isinstance(amount, str) else None
    unit = None if match is None else BYTES_PER_UNIT.get((match[2] or "B").lower())
    if match is None or unit is None or int(match[1]) * unit > MAX_BYTE_COUNT:
        units = ", ".join(("B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"))
        raise UserError(f'{amount!r} is no size; write "20GiB" (units: {units}) or whole bytes')
    return ByteCount(int(match[1]) * unit)


def parse_address(text: object) -> Address:
    """Read "0x" and 40 hexadecimal digits. Raises UserError."""
    if not isinstance(text, str) or not _ADDRESS.fullmatch(text):
        raise UserError(f'{text!r} is no address; write "0x" and 40 hexadecimal digits')
    return Address(bytes.fromhex(text[2:]))


def parse_listen_address(text: str) -> tuple[str, int]:
    """Read "127.0.0.1:9394" or "[::1]:9394" into an IP address and a port. Raises UserError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    try:
        address = str(ip_address("127.0.0.1" if host == "localhost" else host))
        number = int(port) if port.isascii() and port.isdecimal() else -1
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 16:
        raise UserError(f'{text!r} is no address; write one like "127.0.0.1:9394"')
    return address, number
