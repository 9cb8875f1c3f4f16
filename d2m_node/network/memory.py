"""What is kept on disk of peers: where they were reached, their faults, and who is banned.

The address cache is for a start without any other help.
"""

import math
import time
from typing import Final

import trio

from d2m_node.address_store import (
    BANS_KEPT,
    PENALTIES_KEPT,
    AddressStore,
    KeptBan,
    KeptPenalty,
    ReachedAddress,
)
from d2m_node.network.addresses import Source, check_address
from d2m_node.network.book import AddressBook
from d2m_node.network.conduct import Conduct

FRESH_SECONDS: Final = 3600
"""An address that was noted so shortly ago is not written again."""
GATHER_SECONDS: Final = 2.0
"""Addresses of so long are written at once: each write is synced to the disk."""
MAX_NOTED: Final = 4096
MAX_REASON: Final = 200
"""Characters kept of why a peer was banned; some reasons quote it."""


class AddressMemory:
    """Only what this node dialled itself gets in, so nobody can fill it with words."""

    def __init__(self, store: AddressStore) -> None:
        self._store = store
        self._noted: dict[bytes, ReachedAddress] = {}
        self._unsaved: set[bytes] = set()
        self._unsaved_bans: dict[bytes, KeptBan] = {}
        self._unsaved_penalties: dict[bytes, KeptPenalty] = {}
        self._news = trio.Event()
        self._stop = trio.Event()

    async def load(self, book: AddressBook) -> None:
        """Fill the address book. Raises StoreCorrupted, FatalError."""
        for reached in reversed(await self._store.load()):
            try:
                check_address(reached.multiaddr)
            except ValueError:
                continue  # an older version may have dialled what this one does not
            self._noted[reached.peer_id] = reached
            book.add(Source.CACHE, reached.peer_id, reached.multiaddr)

    async def load_conduct(self, conduct: Conduct) -> None:
        """Go on with bans and penalties of earlier runs, and keep new ones.

        Raises StoreCorrupted, FatalError.
        """
        now = time.time()
        for one in await self._store.load_penalties():
            conduct.resume_penalty(one.peer_id, one.penalty, now - one.counted_at)
        for ban in await self._store.load_bans():
            conduct.resume_ban(ban.peer_id, ban.reason, ban.ends_at - now)
        conduct.keep_ban, conduct.keep_penalty = self.note_ban, self.note_penalty

    def note_ban(self, peer_id: bytes, reason: str, seconds: float) -> None:
        """Note that a peer is banned for so long."""
        if len(self._unsaved_bans) >= BANS_KEPT:
            del self._unsaved_bans[next(iter(self._unsaved_bans))]
        ends_at = math.ceil(time.time() + seconds)
        ban = KeptBan(peer_id=peer_id, reason=reason[:MAX_REASON], ends_at=ends_at)
        self._unsaved_bans[peer_id] = ban
        self._news.set()

    def note_penalty(self, peer_id: bytes, penalty: float) -> None:
        """Note what a peer's faults weigh now."""
        self._unsaved_penalties.pop(peer_id, None)
        if len(self._unsaved_penalties) >= PENALTIES_KEPT:
            del self._unsaved_penalties[next(iter(self._unsaved_penalties))]
        self._unsaved_penalties[peer_id] = KeptPenalty(
            peer_id=peer_id, penalty=penalty, counted_at=int(time.time())
        )
        self._news.set()

    def find(self, peer_id: bytes) -> str | None:
        """Return where a peer was reached last."""
        noted = self._noted.get(peer_id)
        return noted.multiaddr if noted else None

    def note_reached(self, peer_id: bytes, multiaddr: str) -> None:
        """Note that a peer proved itself at an address."""
        now = int(time.time())
        before = self._noted.pop(peer_id, None)
        is_fresh = before is not None and now - before.reached_at < FRESH_SECONDS
        if before is not None and before.multiaddr == multiaddr and is_fresh:
            self._noted[peer_id] = before
            return
        if len(self._noted) >= MAX_NOTED:
            del self._noted[next(iter(self._noted))]
        self._noted[peer_id] = ReachedAddress(peer_id=peer_id, multiaddr=multiaddr, reached_at=now)
        self._unsaved.add(peer_id)
        self._news.set()

    async def run(self) -> None:
        """Write what is noted, until told to stop. Raises StoreCorrupted, FatalError."""
        while not self._stop.is_set():
            await self._news.wait()
            with trio.move_on_after(GATHER_SECONDS):
                await self._stop.wait()
            await self._save()

    def stop(self) -> None:
        """Write the last of it, and end `run`."""
        self._stop.set()
        self._news.set()

    async def _save(self) -> None:
        unsaved, self._unsaved, self._news = self._unsaved, set(), trio.Event()
        reached = [self._noted[peer_id] for peer_id in unsaved if peer_id in self._noted]
        bans, self._unsaved_bans = list(self._unsaved_bans.values()), {}
        penalties, self._unsaved_penalties = list(self._unsaved_penalties.values()), {}
        if reached:
            await self._store.save(reached)
        if bans:
            await self._store.save_bans(bans)
        if penalties:
            await self._store.save_penalties(penalties)
