"""Places at which peers are served, so that nobody who is slow can hold them all.

While nobody waits, a peer may take as long as it likes. While others wait, whoever has had its turn
gives way: strangers first, then the slowest. It may come again and go on where it was cut off.
Peers of the address book are let in before strangers.
"""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

from d2m_node.errors import PeerUnreachable
from d2m_node.network.fairness import PeerSlots

ROUNDING_SECONDS: Final = 1e-6
"""A turn that ends so soon is over: who waits for its end wakes when it is."""

IsKnown = Callable[[bytes], bool]
"""Tells whether a peer is of the address book."""


@dataclass(slots=True, eq=False)
class Lane:
    """One answer that is on its way to a peer."""

    peer_id: bytes
    is_known: bool
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    since: float = math.inf
    """When the first bytes were to be sent; until then the peer is waiting for us."""
    sent_bytes: int = 0

    def begin(self) -> None:
        """Let the turn begin: from here on it is the peer that takes its time."""
        self.since = trio.current_time()

    def rate(self, now: float) -> float:
        """Return the bytes that the peer takes a second."""
        return self.sent_bytes / max(ROUNDING_SECONDS, now - self.since)


@dataclass(slots=True, eq=False)
class _Waiter:
    is_known: bool
    let_in: trio.Event = field(default_factory=trio.Event)


class Lanes:
    """A number of places, of which one peer can take only some."""

    def __init__(
        self,
        count: int,
        *,
        per_peer: int,
        turn_seconds: float,
        is_known: IsKnown,
        on_cut: Callable[[bytes], None],
    ) -> None:
        """Give each peer at least a turn; ``on_cut`` is told of each answer that is cut off."""
        self._free = count
        self._peer_slots = PeerSlots(per_peer)
        self._turn_seconds = turn_seconds
        self._is_known = is_known
        self._on_cut = on_cut
        self._taken: list[Lane] = []
        self._waiting: list[_Waiter] = []

    @asynccontextmanager
    async def enter(self, peer_id: bytes) -> AsyncIterator[Lane]:
        """Take a place. Raises PeerUnreachable if the peer has had its turn and others wait."""
        async with self._peer_slots.hold(peer_id):
            lane = Lane(peer_id, self._is_known(peer_id))
            await self._wait_for_place(_Waiter(lane.is_known))
            self._taken.append(lane)
            try:
                with lane.scope:
                    yield lane
            finally:
                self._taken.remove(lane)
                self._hand_on()
        if lane.scope.cancelled_caught:
            raise PeerUnreachable("gives way to others: it has had its turn")

    def make_way(self, wanted: int = 1, *, for_known: bool = True) -> float:
        """Cut off as many as are wanted and have had their turn.

        Returns the seconds until the next one has had it, if there are not enough.
        """
        now = trio.current_time() + ROUNDING_SECONDS
        leaving = sum(lane.scope.cancel_called for lane in self._taken)
        staying = [
            lane
            for lane in self._taken
            # Nobody of the address book gives way to strangers.
            if not lane.scope.cancel_called and (for_known or not lane.is_known)
        ]
        staying.sort(key=lambda lane: (lane.is_known, lane.rate(now)))
        ends = {lane: lane.since + self._turn_seconds for lane in staying}
        for lane in [one for one in staying if ends[one] <= now][: max(0, wanted - leaving)]:
            lane.scope.cancel()
            self._on_cut(lane.peer_id)
            leaving += 1
        if leaving >= wanted:
            return self._turn_seconds
        next_end = min((end for end in ends.values() if end > now), default=math.inf)
        return min(self._turn_seconds, next_end - now)

    async def _wait_for_place(self, waiter: _Waiter) -> None:
        if self._free:
            self._free -= 1
            return
        self._waiting.append(waiter)
        try:
            while not waiter.let_in.is_set():
                known = any(one.is_known for one in self._waiting)
                pause = self.make_way(len(self._waiting), for_known=known)
                with trio.move_on_after(pause):
                    await waiter.let_in.wait()
        except BaseException:
            if waiter.let_in.is_set():
                self._hand_on()
            else:
                self._waiting.remove(waiter)
            raise

    def _hand_on(self) -> None:
        """Give a place to whoever is next."""
        if not self._waiting:
            self._free += 1
            return
        known = (one for one in self._waiting if one.is_known)
        waiter = next(known, self._waiting[0])
        self._waiting.remove(waiter)
        waiter.let_in.set()
