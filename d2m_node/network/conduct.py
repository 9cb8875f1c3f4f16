"""Who misbehaved: faults that fade, and bans that end."""

import math
from collections.abc import Callable, Mapping

import structlog
import trio
from libp2p.peer.id import ID

from d2m_node.network.counts import NetworkCounts
from d2m_node.network.settings import NetworkSettings

log = structlog.get_logger(__name__)

MAX_REMEMBERED = 1024
"""Identities are free: what strangers make us remember is bounded. The ban that was put first is
forgotten, and the smallest penalty: nobody gets rid of its own by making up others."""

LEAST_PENALTY = 0.05
"""Below it, faults are forgotten."""


class Conduct:
    """Penalties and bans by peer.

    Outlives a restart of the network; what is kept of it, one of the node.
    """

    def __init__(self, settings: NetworkSettings, counts: NetworkCounts) -> None:
        self._settings = settings
        self._counts = counts
        self._penalties: dict[bytes, tuple[float, float]] = {}
        self._bans: dict[bytes, tuple[float, str]] = {}
        self._denied = frozenset(ID.from_string(entry).to_bytes() for entry in settings.deny)
        self.on_ban: Callable[[bytes], None] = lambda _: None
        """Disconnects a peer."""
        self.keep_ban: Callable[[bytes, str, float], None] = lambda *_: None
        """Keeps a ban over the end of the node: the peer, the reason, the seconds."""
        self.keep_penalty: Callable[[bytes, float], None] = lambda *_: None
        """Keeps a peer's penalty of now over the end of the node; zero if it is to be forgotten."""

    def blame(self, peer_id: bytes, reason: str) -> None:
        """Count a fault; one too many and the peer is disconnected and banned for a while."""
        now = trio.current_time()
        self._counts.faults += 1
        score = self._current(peer_id, now) + 1.0
        log.info("peer_penalised", peer=peer_id, reason=reason, penalty=round(score, 1))
        if score < self._settings.max_penalty:
            self._put_penalty(peer_id, score, now)
            self.keep_penalty(peer_id, score)
            return
        self.ban(peer_id, reason)

    def ban(self, peer_id: bytes, reason: str) -> None:
        """Disconnect a peer, and talk to it no more for a while."""
        seconds = self._settings.ban_seconds
        if self._penalties.pop(peer_id, None) is not None:
            self.keep_penalty(peer_id, 0.0)
        self._counts.bans += 1
        self._put_ban(peer_id, reason, seconds)
        log.warning("peer_banned", peer=peer_id, reason=reason, seconds=seconds)
        self.keep_ban(peer_id, reason, seconds)
        self.on_ban(peer_id)

    def resume_ban(self, peer_id: bytes, reason: str, seconds_left: float) -> None:
        """Go on with a ban of an earlier run: never longer than a new one, if clocks were set."""
        self._put_ban(peer_id, reason, min(seconds_left, self._settings.ban_seconds))

    def resume_penalty(self, peer_id: bytes, penalty: float, seconds_ago: float) -> None:
        """Go on with a penalty of an earlier run: it has faded since it was counted.

        It bans nobody, whatever the store says, and fades no less if clocks were set.
        """
        now = trio.current_time()
        penalty = self._fade(penalty, max(0.0, seconds_ago))
        penalty = min(penalty, math.nextafter(self._settings.max_penalty, 0.0))
        if penalty >= LEAST_PENALTY:
            self._put_penalty(peer_id, penalty, now)

    def _put_penalty(self, peer_id: bytes, penalty: float, now: float) -> None:
        self._penalties.pop(peer_id, None)
        if len(self._penalties) >= MAX_REMEMBERED:
            del self._penalties[min(self._penalties, key=lambda one: self._current(one, now))]
        self._penalties[peer_id] = penalty, now

    def _put_ban(self, peer_id: bytes, reason: str, seconds: float) -> None:
        now = trio.current_time()
        self._bans = {peer: ban for peer, ban in self._bans.items() if ban[0] > now}
        if len(self._bans) >= MAX_REMEMBERED:
            del self._bans[next(iter(self._bans))]
        self._bans[peer_id] = now + seconds, reason

    def is_banned(self, peer_id: bytes) -> bool:
        """Say whether the peer has to wait before we talk to it again."""
        return self.explain_ban(peer_id) is not None

    def explain_ban(self, peer_id: bytes) -> str | None:
        """Say why a peer may not come in, and for how long."""
        if peer_id in self._denied:
            return "denied by network.deny"
        end, reason = self._bans.get(peer_id, (0.0, ""))
        left = end - trio.current_time()
        return f"banned for another {math.ceil(left)} s: {reason}" if left > 0.0 else None

    def bans(self) -> Mapping[bytes, str]:
        """Return every peer that may not come in, and why."""
        reasons = {peer: self.explain_ban(peer) for peer in {*self._denied, *self._bans}}
        return {peer: reason for peer, reason in reasons.items() if reason is not None}

    def ban_seconds(self, peer_id: bytes) -> float | None:
        """Return for how long a peer is still banned; None if it is not, or denied for ever."""
        left = self._bans.get(peer_id, (0.0, ""))[0] - trio.current_time()
        return left if left > 0.0 else None

    def penalties(self) -> Mapping[bytes, float]:
        """Return the faults of each peer that has some, weighted by age."""
        now = trio.current_time()
        found = {peer: self._current(peer, now) for peer in self._penalties}
        return {peer: penalty for peer, penalty in found.items() if penalty >= LEAST_PENALTY}

    def _current(self, peer_id: bytes, now: float) -> float:
        score, since = self._penalties.get(peer_id, (0.0, now))
        return self._fade(score, now - since)

    def _fade(self, penalty: float, seconds: float) -> float:
        return penalty * math.exp2(-seconds / self._settings.penalty_half_life_seconds)
