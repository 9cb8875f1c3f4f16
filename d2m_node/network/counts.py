"""What went over the network, counted by those who send and receive it."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class NetworkCounts:
    """Owned by the host; see `d2m_node.measures.NetworkReading` for the names."""

    sent_bytes: Counter[str] = field(default_factory=Counter)
    received_bytes: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    published: int = 0
    dropped: int = 0
    faults: int = 0
    bans: int = 0
    restarts: int = 0
