"""What the adapters can say about themselves: how much they did, and how long their queues are.

Counts are those since the start of the process, and never go down. Reading costs next to nothing,
unless a method waits; then it says what it raises.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from d2m_node.ports import ChainPort, NetworkPort, StorePort
from protocol.types import Digest, JobId, Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTotals:
    """What this run's transactions of one contract function came to."""

    confirmed: int
    reverted: int
    gas: int
    fees_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainReading:
    """The chain adapter at one moment."""

    head_number: int
    """The newest block that an endpoint named."""
    confirmations: int
    """How far below the head a block must be to be followed."""
    silent_seconds: float
    """Since an endpoint last answered."""
    reorganisations: int
    open_transactions: int
    """Signed and not yet mined."""
    open_blocks: int
    """Followed since the oldest of those was first sent; 0 without any."""
    calls: Mapping[str, CallTotals]
    """By "Contract.function"; a bounded set."""

    @property
    def target_number(self) -> int:
        """The newest block that counts."""
        return self.head_number - self.confirmations


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkReading:
    """The network adapter at one moment. Kinds of traffic: gossip, blobs, messages."""

    sent_bytes: Mapping[str, int]
    received_bytes: Mapping[str, int]
    verdicts: Mapping[str, int]
    """Messages of others by what was made of them: accept, ignore, reject, flood, outside."""
    published: int
    dropped: int
    """Messages that gave way to newer ones because a role did not take them in time."""
    faults: int
    bans: int
    denied: int
    """Requests for blobs that got no for an answer: not here, or not for the peer."""
    restarts: int
    """Of the network alone, after it failed."""
    relayed_bytes: int
    """Carried between others, as a relay."""
    dials: Mapping[str, int]
    """Peers dialled, by the result: reached, failed."""
    queue_lengths: Mapping[str, int]
    """publish: own messages that wait; deliver: of the fullest subscription."""
    queue_limits: Mapping[str, int]
    refusals: Mapping[str, int] = field(default_factory=dict)
    """Who was turned away or cut off, by the limit: handshakes, strangers, streams, slow."""

    @property
    def turned_away(self) -> Mapping[str, int]:
        """All that was not taken, or not given: the refusals, and flood, outside, denied."""
        dropped = {name: self.verdicts.get(name, 0) for name in ("flood", "outside")}
        return {**self.refusals, **dropped, "denied": self.denied}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReading:
    """The store at one moment."""

    blob_bytes: int
    quota_bytes: int
    kept_bytes: int
    """Of the blobs, what no collection would free, and what is promised to jobs."""
    free_bytes: int
    """What the disk would still take, less the reserve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeeTotal:
    """What the account's transactions of one function cost, for one job or for none."""

    job_id: JobId | None
    call: str
    """ "Contract.function", or "other"."""
    count: int
    fees_wei: Wei


class Reach(Enum):
    """Whether others can connect to this node."""

    UNKNOWN = "unknown"
    """Nobody could be asked yet."""
    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"
    RELAYED = "relayed"
    """Not directly, but through a relay."""


@dataclass(frozen=True, slots=True)
class Reachability:
    """What peers found that were asked to connect back."""

    reach: Reach
    advice: str | None = None
    """What to do, if there is something to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A blob that is being fetched."""

    digest: Digest
    received_bytes: int
    size_bytes: int | None
    """None until a source has said it."""
    source_count: int
    """Peers that are asked for it."""


class MeasuredChain(ChainPort, Protocol):
    """The chain port, and its measures."""

    def measure(self) -> ChainReading:
        """Return the measures of now."""

    async def read_fees(self) -> Sequence[FeeTotal]:
        """Return what was paid for gas as long as the data directory remembers."""

    async def read_balance(self) -> Wei:
        """Return the account's ether as of the newest block. Raises ChainUnavailable."""


class MeasuredNetwork(NetworkPort, Protocol):
    """The network port, and its measures."""

    def measure(self) -> NetworkReading:
        """Return the measures of now."""

    def reachability(self) -> Reachability:
        """Say whether others can connect to this node, as far as they told."""

    def transfers(self) -> Sequence[Transfer]:
        """List the blobs that are being fetched."""


class MeasuredStore(StorePort, Protocol):
    """The store port, and its measures."""

    async def measure(self) -> StoreReading:
        """Return the measures of now. Raises FatalError."""

    async def check_writable(self) -> None:
        """Write something durably. Raises FatalError that says why it cannot be."""
