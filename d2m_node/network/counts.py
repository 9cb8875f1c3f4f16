"""What went over the network, counted by those who send and receive it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from d2m_node.measures import NetworkReading


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

    def refuse(self, limit: str) -> None:
        """Count that somebody was turned away or cut off at a limit."""
        self.refusals[limit] += 1

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
