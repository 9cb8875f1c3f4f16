"""Whether the operator has a copy of the account's key, by the operator's own word."""

from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from d2m_node.private_files import adopt_draft, read_bounded, write_draft
from protocol.types import Address

BACKUP_NAME: Final = "backup.json"
_MAX_BYTES: Final = 4096

HOW_TO_BACK_UP: Final = "d2m-node key export -o FILE, or d2m-node key confirm-backup"

LOCAL_CHAIN_ID: Final = 31337
"""Of development chains, whose keys need no backup."""

How = Literal["export", "confirmed"]


class _Note(Struct, frozen=True, kw_only=True):
    account: str
    at: str
    how: How


def note_backup(folder: Path, account: Address, how: How, at: datetime) -> None:
    """Write down that there is a copy of an account's key. Raises KeyUnavailable."""
    note = _Note(account="0x" + account.hex(), at=at.isoformat(timespec="seconds"), how=how)
    path = folder / BACKUP_NAME
    write_draft(path, msgspec.json.encode(note) + b"\n")
    adopt_draft(path)


def is_backed_up(folder: Path, account: Address) -> bool:
    """Tell whether there is a copy of this account's key; another account's note counts nothing.

    Raises KeyUnavailable if the note is there and cannot be read.
    """
    path = folder / BACKUP_NAME
    if not path.exists():
        return False
    try:
        note = msgspec.json.decode(read_bounded(path, _MAX_BYTES), type=_Note)
    except ValueError:
        # A note that makes no sense says nothing.
        return False
    return note.account == "0x" + account.hex()
