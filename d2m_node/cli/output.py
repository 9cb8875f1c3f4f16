"""What people read: aligned columns and exact amounts; and what programs read: JSON."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Final

import click

LONG_HEX: Final = 20
"""Characters; shorter ones are numbers."""


def print_json(value: object) -> None:
    """Print one JSON document. Bytes and decimals must have become text before."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_line(value: object) -> None:
    """Print one JSON document in one line."""
    click.echo(json.dumps(value, ensure_ascii=False))


def print_result(value: object) -> None:
    """Print a typed value as one JSON document: what `json_of` names."""
    import msgspec

    print_json(msgspec.to_builtins(value))


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one a line."""
    print_table(None, [(name, str(value)) for name, value in facts])


def print_table(header: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> None:
    """Print columns, each as wide as its widest cell; long hashes are cut short on a terminal."""
    lines = rows if header is None else [header, *rows]
    if header is not None and sys.stdout.isatty():
        lines = [[shorten_hex(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def shorten_hex(text: str) -> str:
    """Keep both ends of a long hash or address: what people compare them by."""
    if not text.startswith("0x") or len(text) <= LONG_HEX:
        return text
    return f"{text[:8]}…{text[-6:]}"


def format_wei(amount_wei: int) -> str:
    """Write an amount exactly, in ether where that is shorter."""
    whole, rest = divmod(amount_wei, 10**18)
    decimals = f"{rest:018d}".rstrip("0")
    if len(decimals) > 9:
        return f"{amount_wei} wei"
    return f"{whole}.{decimals} ether" if decimals else f"{whole} ether"


def round_wei(amount_wei: int) -> str:
    """Write an amount for a glance: in ether, to six digits behind the point, never upwards."""
    whole, rest = divmod(amount_wei, 10**18)
    decimals = f"{rest // 10**12:06d}".rstrip("0")
    if amount_wei and not whole and not decimals:
        return f"{amount_wei} wei"
    return f"{whole}.{decimals} ether" if decimals else f"{whole} ether"


def format_amount(amount_wei: int, currency: str) -> str:
    """Write an amount in a job's currency; how many digits a token has, is not known here."""
    return format_wei(amount_wei) if currency == "ether" else f"{amount_wei} of the token"
