"""A watched node whose parts say what the test wants."""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import httpx
import msgspec
import trio

from d2m_node.clock import ClockFault
from d2m_node.errors import ChainUnavailable, FatalError
from d2m_node.measures import CallTotals, ChainReading, NetworkReading, StoreReading
from d2m_node.ports import PeerStatus, PrivateTraining, Refusal
from d2m_node.privacy_ledger import TRAININGS
from d2m_node.role_control import RoleState
from d2m_node.settings import WatchSettings
from d2m_node.simulation.nodes.memory import MemoryPastJobs
from d2m_node.watch.server import serve_watch
from d2m_node.watch.service import Watch
from d2m_node.watch.sources import Sources
from d2m_node.watch.systemd import Supervisor
from protocol.digest import RoundHeader
from protocol.hashing import Domain
from protocol.market import MarketState, advance
from protocol.types import (
    NO_DIGEST,
    Address,
    BlockNumber,
    Digest,
    JobId,
    RoundIndex,
    UtilityQ20,
    Wei,
)
from tests.support.market import Journal

ACCOUNT = Address(b"\x0a" * 20)
DOMAIN = Domain(31337, Address(b"\x0b" * 20))
PEER = PeerStatus(peer_id=b"\x09", multiaddr="/ip4/1.2.3.4", connected=True, last_error=None)

CHAIN = ChainReading(
    head_number=107,
    confirmations=5,
    silent_seconds=0.5,
    reorganisations=1,
    open_transactions=2,
    open_blocks=3,
    calls={
        "Rounds.tally": CallTotals(confirmed=4, reverted=1, gas=250_000, fees_wei=Wei(3 * 10**15))
    },
)
NETWORK = NetworkReading(
    sent_bytes={"gossip": 10},
    received_bytes={"gossip": 20, "blobs": 1 << 20},
    verdicts={"accept": 7, "flood": 1},
    published=5,
    dropped=0,
    faults=2,
    bans=1,
    denied=4,
    restarts=3,
    relayed_bytes=6,
    dials={"reached": 4, "failed": 5},
    queue_lengths={"publish": 1, "deliver": 9},
    queue_limits={"publish": 256, "deliver": 1024},
)
STORE = StoreReading(blob_bytes=5, quota_bytes=10, kept_bytes=4, free_bytes=1 << 30)
HEADER = RoundHeader(
    job=JobId(1),
    round_index=RoundIndex(0),
    model_digest=Digest(b"\x0a" * 32),
    sampler_digest=Digest(b"\x0b" * 32),
    sampled=0b11,
    available=0b11,
    accepted=0b01,
    utility_before=UtilityQ20(0),
    utility_after=UtilityQ20(3 << 18),
    utilities=(UtilityQ20(1), UtilityQ20(2)),
    domain=DOMAIN,
    previous_digest=NO_DIGEST,
    credit_root=NO_DIGEST,
    credit_sum=1,
).encode()
"""Of a round that reached a utility of 0.75."""


@dataclass
class WatchedChain:
    state: MarketState = field(default_factory=lambda: advance(MarketState(), BlockNumber(102)))
    domain: Domain = DOMAIN
    reading: ChainReading = CHAIN
    balance_wei: Wei | None = Wei(15 * 10**17)

    def measure(self) -> ChainReading:
        return self.reading

    async def read_balance(self) -> Wei:
        if self.balance_wei is None:
            raise ChainUnavailable("no endpoint")
        return self.balance_wei


@dataclass
class WatchedNetwork:
    known: tuple[PeerStatus, ...] = (PEER, replace(PEER, peer_id=b"\x08", connected=False))
    reading: NetworkReading = NETWORK

    def measure(self) -> NetworkReading:
        return self.reading

    def peers(self) -> tuple[PeerStatus, ...]:
        return self.known


@dataclass
class Refused:
    """What roles turned down."""

    kept: list[Refusal] = field(default_factory=list)

    def add(self, role: str, code: str) -> None:
        self.kept.append(
            Refusal(
                job_id=JobId(len(self.kept)),
                role=role,
                code=code,
                reason="",
                block_number=BlockNumber(1),
            )
        )

    async def latest(self, count: int, job_id: JobId | None = None) -> tuple[Refusal, ...]:
        return tuple(self.kept[-count:])


@dataclass
class WatchedStore:
    journal: Journal = field(default_factory=Journal)
    refusals: Refused = field(default_factory=Refused)
    past: MemoryPastJobs = field(default_factory=MemoryPastJobs)
    failure: FatalError | None = None
    writes: int = 0

    async def measure(self) -> StoreReading:
        if self.failure is not None:
            raise self.failure
        return STORE

    async def check_writable(self) -> None:
        self.writes += 1
        if self.failure is not None:
            raise self.failure


@dataclass
class WatchedNode:
    """The parts, and the watch over them."""

    chain: WatchedChain = field(default_factory=WatchedChain)
    network: WatchedNetwork = field(default_factory=WatchedNetwork)
    store: WatchedStore = field(default_factory=WatchedStore)
    roles: dict[str, RoleState] = field(
        default_factory=lambda: {
            "buyer": RoleState.OFF,
            "seller": RoleState.OFF,
            "cone": RoleState.ON,
        }
    )
    calls: Counter[tuple[str, str]] = field(
        default_factory=lambda: Counter({("node.status", "ok"): 3})
    )
    account: Address = ACCOUNT
    clock_fault: ClockFault | None = None

    def sources(self) -> Sources:
        return Sources(
            account=self.account,
            chain=cast(Any, self.chain),
            network=cast(Any, self.network),
            store=cast(Any, self.store),
            roles=lambda: self.roles,
            calls=self.calls,
            clock_fault=lambda: self.clock_fault,
            epsilon_budget=8.0,
        )

    async def spend_epsilon(self, epsilon: float) -> None:
        """Let a private training be written down."""
        private = PrivateTraining(
            noise_multiplier=1.0, max_grad_norm=1.0, sample_rate=0.1, steps=10
        )
        key = f"{'ab' * 32}/31337-0b/1/000000/000000"
        entry = msgspec.msgpack.encode((private, epsilon, 1e-5))
        await self.store.journal.remember(TRAININGS, key, entry)

    def watch(self, supervisor: Supervisor | None = None) -> Watch:
        return Watch(cast(Any, self.store), supervisor or Supervisor(None, 1.0))

    def started_watch(self, supervisor: Supervisor | None = None) -> Watch:
        watch = self.watch(supervisor)
        watch.attach(self.sources())
        watch.note_started()
        return watch


@asynccontextmanager
async def serve_watched_node(
    watch: Watch, **settings: Any
) -> AsyncGenerator[httpx.AsyncClient, None]:
    """Serve a watch on a free port; yield a client of it."""
    listener = WatchSettings(**({"listen": "127.0.0.1:0"} | settings))
    async with trio.open_nursery() as nursery:
        port = await nursery.start(
            serve_watch, listener, watch.health, watch.reader, watch.exposition
        )
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield client
        nursery.cancel_scope.cancel()
