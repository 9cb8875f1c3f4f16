"""What the operator last said about each role, kept across restarts.

A journal keeps the first value of a key, so each word has a key of its own; the last one counts.
It counts until the next command, or until another value of `enabled` is configured. Beside it
stands which deposit each command led to.
"""

from pathlib import Path
from typing import Final

import msgspec

from d2m_node.ports import JournalPort
from d2m_node.role_control import RoleOptions, RoleState
from protocol.types import Wei

KIND: Final = "role"
_DEPOSITS: Final = "deposit/"
"""Before the payment key of a command; no role is called so."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """One command, and what was configured when it was given."""

    state: RoleState
    is_configured: bool
    """Whether the role was on from the start by the node's settings."""
    dataset: str | None = None
    stake_wei: str | None = None
    """In digits: an amount may be longer than the integers of MessagePack."""

    @property
    def options(self) -> RoleOptions:
        """What the role was switched on with."""
        return RoleOptions(
            dataset=None if self.dataset is None else Path(self.dataset),
            stake_wei=None if self.stake_wei is None else Wei(int(self.stake_wei)),
        )


def make_wish(state: RoleState, options: RoleOptions, *, is_configured: bool) -> Wish:
    """Put a command into a form that can be kept; what it paid is not paid again."""
    return Wish(
        state=state,
        is_configured=is_configured,
        dataset=None if options.dataset is None else str(options.dataset),
        stake_wei=None if options.stake_wei is None else str(options.stake_wei),
    )


async def recall_wish(journal: JournalPort, role: str) -> Wish | None:
    """Return the last word on a role, if there was one."""
    words = await journal.recall_all(KIND, f"{role}/")
    if not words:
        return None
    return msgspec.msgpack.decode(words[max(words)], type=Wish)


async def remember_wish(journal: JournalPort, role: str, wish: Wish) -> None:
    """Keep a word on a role, if it is a new one."""
    words = await journal.recall_all(KIND, f"{role}/")
    encoded = msgspec.msgpack.encode(wish)
    if not words or words[max(words)] != encoded:
        await journal.remember(KIND, f"{role}/{len(words):08d}", encoded)


async def remember_deposit(journal: JournalPort, payment_key: str, deposit: str) -> str:
    """Keep which deposit a command leads to, before it is made; return the first one it led to."""
    stored = await journal.remember(KIND, f"{_DEPOSITS}{payment_key}", deposit.encode())
    return stored.decode()
