"""Who comes in: half-open handshakes and strangers are bounded apart from the peers we know.

Without this, whoever opens enough connections and says nothing keeps everybody out, and so does
whoever makes up enough identities.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from weakref import WeakKeyDictionary, WeakSet

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from d2m_node.network.counts import NetworkCounts
from d2m_node.network.lanes import IsKnown

MAX_HANDSHAKES: Final = 64
"""Connections that have not said yet who they are. One more, and the oldest has to go."""


class Handshakes:
    """Inbound connections of one swarm that are not upgraded yet, oldest first."""

    def __init__(self) -> None:
        self._open: dict[trio.CancelScope, None] = {}
        self.on_refused: Callable[[], None] = lambda: None
        """Told of each handshake that had to go."""

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Count a handshake. Raises SwarmException if it takes so long that others push it out."""
        with trio.CancelScope() as scope:
            if len(self._open) >= MAX_HANDSHAKES:
                oldest = next(iter(self._open))
                del self._open[oldest]
                oldest.cancel()
                self.on_refused()
            self._open[scope] = None
            try:
                yield
            finally:
                self._open.pop(scope, None)
        if scope.cancelled_caught:
            raise SwarmException("others that came later are ready first")


_handshakes: WeakKeyDictionary[Swarm, Handshakes] = WeakKeyDictionary()


def handshakes_of(swarm: Swarm) -> Handshakes:
    """Return the one record of a swarm's handshakes."""
    return _handshakes.setdefault(swarm, Handshakes())


class Doorway(INotifee):
    """Lets strangers in up to a number; then another of them has to go, drawn by lot.

    By lot, so that neither those who hold on nor those who knock most often can be sure of a place.
    """

    def __init__(
        self,
        swarm: Swarm,
        counts: NetworkCounts,
        *,
        max_strangers: int,
        is_known: IsKnown,
        drop: Callable[[bytes], None],
    ) -> None:
        """Watch over a swarm that runs already; ``drop`` disconnects a peer soon."""
        self._swarm = swarm
        self._drop = drop
        self._counts = counts
        self._max_strangers = max_strangers
        self._is_known = is_known
        self._leaving: WeakSet[INetConn] = WeakSet()
        """Told to go, and not gone yet: drawn twice, one would leave two places' worth of peers."""
        # The library counts who shakes hands as one who is in; those are counted here.
        swarm._inbound_limiter.total_tokens += 2 * MAX_HANDSHAKES
        handshakes_of(swarm).on_refused = lambda: counts.refuse("handshakes")
        swarm.register_notifee(self)

    async def connected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002
        """Called by libp2p."""
        if not self._is_stranger(conn):
            return
        staying = [one for one in self._swarm.get_connections() if self._is_stranger(one)]
        staying = [one for one in staying if one not in self._leaving]
        if len(staying) > self._max_strangers:
            self._part_with(random.choice([one for one in staying if one is not conn]))  # noqa: S311

    def _part_with(self, unlucky: INetConn) -> None:
        peer_id = unlucky.muxed_conn.peer_id
        self._counts.refuse("strangers", peer_id.to_bytes())
        self._leaving.update(self._swarm.connections.get(peer_id, ()))
        self._drop(peer_id.to_bytes())

    def _is_stranger(self, conn: INetConn) -> bool:
        muxed = conn.muxed_conn
        assert isinstance(muxed, Yamux)
        return not muxed.is_initiator and not self._is_known(muxed.peer_id.to_bytes())

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        """Called by libp2p; of no interest here."""

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        """Called by libp2p; of no interest here."""

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        """Called by libp2p; of no interest here."""

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Called by libp2p; of no interest here."""

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Called by libp2p; of no interest here."""
