"""What went over the network, counted by those who send and receive it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from d2m_node.measures import NetworkReading

MAX_PEERS: Final = 1024
"""Identities are free: the peer that came to a limit longest ago is forgotten."""


class PeerCounts:
    """How often each peer came to which limit."""

    def __init__(self) -> None:
        self._found: dict[bytes, Counter[str]] = {}

    def note(self, peer_id: bytes, limit: str) -> None:
        """Count that a peer came to a limit."""
        counts = self._found.pop(peer_id, None) or Counter()
        if len(self._found) >= MAX_PEERS:
            del self._found[next(iter(self._found))]
        counts[limit] += 1
        self._found[peer_id] = counts

    def find(self, peer_id: bytes) -> Mapping[str, int]:
        """Return a peer's counts by limit."""
        return dict(self._found.get(peer_id, {}))


@dataclass(slots=True)
class NetworkCounts:
    """Owned by the host; see `NetworkReading` for the names."""

    sent_bytes: Counter[str] = field(default_factory=Counter)
    received_bytes: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    dials: Counter[str] = field(default_factory=Counter)
    relayed_bytes: int = 0
    published: int = 0
    dropped: int = 0
    faults: int = 0
    bans: int = 0
    denied: int = 0
    restarts: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    by_peer: PeerCounts = field(default_factory=PeerCounts)

    def refuse(self, limit: str, peer_id: bytes | None = None) -> None:
        """Count that somebody, or a peer that is known by then, was turned away or cut off."""
        self.refusals[limit] += 1
        if peer_id is not None:
            self.by_peer.note(peer_id, limit)

    def deny(self, peer_id: bytes) -> None:
        """Count a request for a blob that got no for an answer."""
        self.denied += 1
        self.by_peer.note(peer_id, "denied")

    def drop_message(self, forwarder: bytes, verdict: str) -> None:
        """Count a message that is not taken from this forwarder: flood, outside."""
        self.verdicts[verdict] += 1
        self.by_peer.note(forwarder, verdict)

    def read(self, queues: Mapping[str, tuple[int, int]]) -> NetworkReading:
        """Copy what is counted, beside each queue's length and limit."""
        return NetworkReading(
            sent_bytes=dict(self.sent_bytes),
            received_bytes=dict(self.received_bytes),
            verdicts=dict(self.verdicts),
            published=self.published,
            dropped=self.dropped,
            faults=self.faults,
            bans=self.bans,
            denied=self.denied,
            restarts=self.restarts,
            relayed_bytes=self.relayed_bytes,
            dials=dict(self.dials),
            refusals=dict(self.refusals),
            queue_lengths={name: length for name, (length, _) in queues.items()},
            queue_limits={name: limit for name, (_, limit) in queues.items()},
        )
