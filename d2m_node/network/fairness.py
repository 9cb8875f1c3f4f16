"""Who is served next: limits per peer, and an upload rate shared by turns."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

PIECE_BYTES: Final = 1024 * 1024
MIN_PIECE_BYTES: Final = 16 * 1024


class PeerSlots:
    """A limit on what is done at once with each peer; those beyond wait."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._limiters: dict[bytes, trio.CapacityLimiter] = {}

    @asynccontextmanager
    async def hold(self, peer_id: bytes) -> AsyncIterator[None]:
        """Hold one of the peer's slots while the context is open."""
        limiter = self._limiters.setdefault(peer_id, trio.CapacityLimiter(self._count))
        try:
            async with limiter:
                yield
        finally:
            if not limiter.borrowed_tokens and not limiter.statistics().tasks_waiting:
                self._limiters.pop(peer_id, None)


class Uplink:
    """An upload rate. Peers wait in line with one piece each, however many streams they have."""

    def __init__(self, bytes_per_second: int) -> None:
        """Limit to a rate; 0 is no limit."""
        self._rate = bytes_per_second
        self._turns = PeerSlots(1)
        self._line = trio.Lock()  # first come, first served
        self._free_at = -1.0

    @property
    def piece_bytes(self) -> int:
        """How much to send per turn: so little that even 64 peers wait only seconds for theirs."""
        if not self._rate:
            return PIECE_BYTES
        return min(PIECE_BYTES, max(MIN_PIECE_BYTES, self._rate // 8))

    async def take_turn(self, peer_id: bytes, size_bytes: int) -> None:
        """Wait until so much may be sent."""
        if not self._rate:
            return
        async with self._turns.hold(peer_id), self._line:
            now = trio.current_time()
            await trio.sleep(max(0.0, self._free_at - now))
            self._free_at = max(now, self._free_at) + size_bytes / self._rate
