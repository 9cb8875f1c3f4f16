"""What the network remembers across restarts: where it reached whom, and who misbehaved."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

ADDRESSES_KEPT: Final = 512
ADDRESS_DAYS: Final = 30
BANS_KEPT: Final = 1024
PENALTIES_KEPT: Final = 1024
PENALTY_SECONDS: Final = 3600
"""Faults that were counted so long ago weigh nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachedAddress:
    """An address at which this node reached a peer, and the peer proved its identity."""

    peer_id: bytes
    multiaddr: str
    reached_at: int
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptBan:
    """A peer that this node talks to no more until the ban ends."""

    peer_id: bytes
    reason: str
    ends_at: int
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPenalty:
    """The faults of a peer that is not banned, as they weighed when the last one was counted."""

    peer_id: bytes
    penalty: float
    """0 if they are to be forgotten."""
    counted_at: int
    """Seconds since 1970."""


class AddressStore(Protocol):
    """The addresses, bans and penalties of one node. The storage adapter implements it.

    Methods raise StoreCorrupted and FatalError.
    """

    async def load(self) -> Sequence[ReachedAddress]:
        """Return what is kept, the newest first: at most 512, none older than 30 days."""

    async def save(self, reached: Sequence[ReachedAddress]) -> None:
        """Keep addresses, one for each peer; the oldest of all give way where there are many."""

    async def load_bans(self) -> Sequence[KeptBan]:
        """Return the bans that have not ended, the first to end first: at most 1024."""

    async def save_bans(self, bans: Sequence[KeptBan]) -> None:
        """Keep bans, one for each peer; those that end first give way where there are many."""

    async def load_penalties(self) -> Sequence[KeptPenalty]:
        """Return the penalties, the one counted longest ago first: at most 1024, of an hour."""

    async def save_penalties(self, penalties: Sequence[KeptPenalty]) -> None:
        """Keep penalties, one for each peer; those counted longest ago give way."""
