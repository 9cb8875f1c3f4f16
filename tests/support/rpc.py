"""A node's RPC over a real socket, with the node behind it faked."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import trio

from d2m_node.chain.history import History
from d2m_node.errors import ChainUnavailable, UserError
from d2m_node.measures import ChainReading, FeeTotal, NetworkReading, Reach, Reachability, Transfer
from d2m_node.ports import JournalPort, PeerStatus, Ports
from d2m_node.request_file import RequestFile
from d2m_node.role_control import RoleOptions, RoleState
from d2m_node.rpc.herald import Herald
from d2m_node.rpc.methods import RpcContext
from d2m_node.rpc.once import OnceDesk
from d2m_node.rpc.server import serve_rpc
from d2m_node.rpc.status import DiskReading
from d2m_node.settings import RpcSettings
from protocol.events import RecordedEvent
from protocol.hashing import Domain
from protocol.market import MarketState, advance
from protocol.params import ProtocolParams
from protocol.types import Address, BlockNumber, JobId, Wei
from tests.support.market import Journal, MemoryFacts, Store
from tests.support.params import PARAMS

Found = TypeVar("Found")

ACCOUNT = Address(b"\x0a" * 20)
DOMAIN = Domain(31337, Address(b"\x0b" * 20))


class FakeChain:
    """A state that a test sets, and a history that it writes."""

    domain: Domain = DOMAIN
    params: ProtocolParams = PARAMS

    def __init__(self, state: MarketState) -> None:
        self._state = state
        self._shown = trio.Event()
        self.history = History()

    @property
    def state(self) -> MarketState:
        return self._state

    @state.setter
    def state(self, state: MarketState) -> None:
        self._state = state
        self._shown.set()
        self._shown = trio.Event()

    def follow(self, *events: RecordedEvent, block: int) -> None:
        """Follow a block, with what it says."""
        self.history.add(events)
        self.history.publish()
        self.state = advance(self.state, BlockNumber(block))

    def turn(self, block: int) -> None:
        """Take back what was said after a block."""
        self.history.take_back(BlockNumber(block))
        self.history.publish()
        self.state = advance(self.state, BlockNumber(block))

    async def wait_for(self, find: Callable[[MarketState], Found | None]) -> Found:
        while True:
            shown = self._shown
            found = find(self._state)
            if found is not None:
                return found
            await shown.wait()


@dataclass
class FakeNetwork:
    peer_id: bytes = b"\x01\x02"
    known: tuple[PeerStatus, ...] = ()

    def peers(self) -> tuple[PeerStatus, ...]:
        return self.known


@dataclass
class FakeSigner:
    address: Address = ACCOUNT


@dataclass
class FakeDesk:
    """Takes requests as they come; ``failure`` is raised instead, if set."""

    submitted: dict[str, RequestFile] = field(default_factory=dict)
    failure: Exception | None = None

    async def submit(self, request: RequestFile, *, idempotency_key: str) -> JobId:
        if self.failure is not None:
            raise self.failure
        self.submitted[idempotency_key] = request
        return JobId(len(self.submitted))


@dataclass
class FakeModels:
    """Hands out what a test puts here."""

    files: dict[JobId, bytes] = field(default_factory=dict)
    at_peers: dict[JobId, bytes] = field(default_factory=dict)

    async def delivered(self, job_id: JobId) -> bytes | None:
        return self.files.get(job_id)

    async def fetch(self, job_id: JobId) -> bytes:
        if job_id not in self.at_peers:
            raise UserError(f"job {job_id}: it has no model")
        return self.at_peers[job_id]


@dataclass
class FakeRoles:
    on: dict[str, RoleOptions] = field(default_factory=dict)

    draining: set[str] = field(default_factory=set)
    told: dict[str, str] = field(default_factory=dict)
    """What more is said of roles; one of which something is said has failed, if it is off."""
    forced: list[str] = field(default_factory=list)

    def notes(self) -> dict[str, str]:
        return self.told

    def states(self) -> dict[str, RoleState]:
        return {name: self._state_of(name) for name in ("buyer", "seller", "cone")}

    def _state_of(self, name: str) -> RoleState:
        if name not in self.on:
            return RoleState.FAILED if name in self.told else RoleState.OFF
        return RoleState.DRAINING if name in self.draining else RoleState.ON

    async def enable(self, name: str, options: RoleOptions) -> None:
        if name == "seller" and options.dataset is None:
            # As a nursery would hand it over.
            raise ExceptionGroup("role", [UserError("roles.seller.dataset: not set")])
        self.on[name] = options
        self.draining.discard(name)

    async def drain(self, name: str) -> None:
        if name not in self.on:
            raise UserError(f"the {name} role is off: it has nothing to drain")
        self.draining.add(name)

    async def disable(self, name: str, *, is_forced: bool = False) -> None:
        self.on.pop(name, None)
        self.forced += [name] * is_forced


QUIET = ChainReading(
    head_number=0,
    confirmations=0,
    silent_seconds=0.0,
    reorganisations=0,
    open_transactions=0,
    open_blocks=0,
    calls={},
)


QUIET_NETWORK = NetworkReading(
    sent_bytes={},
    received_bytes={},
    verdicts={},
    published=0,
    dropped=0,
    faults=0,
    bans=0,
    denied=0,
    restarts=0,
    relayed_bytes=0,
    dials={},
    queue_lengths={},
    queue_limits={},
)


UNASKED = Reachability(Reach.UNKNOWN)


@dataclass
class FakeFacts:
    """A node that has just started, and keeps up."""

    version: str = "0.0.0"
    backed_up: bool = True
    balance_wei: Wei | None = Wei(10**18)
    reading: ChainReading = QUIET
    fees: tuple[FeeTotal, ...] = ()
    clock_fault: str | None = None
    reach: Reachability = UNASKED
    epsilon_budget: float | None = None
    fetched: tuple[Transfer, ...] = ()
    network: NetworkReading = QUIET_NETWORK

    def uptime_seconds(self) -> float:
        return 75.0

    def is_backed_up(self) -> bool:
        return self.backed_up

    def find_clock_fault(self) -> str | None:
        return self.clock_fault

    async def read_disk(self) -> DiskReading:
        return DiskReading(blob_bytes=2**20, quota_bytes=2**30, free_bytes=2**31)

    def measure_chain(self) -> ChainReading:
        return self.reading

    def measure_network(self) -> NetworkReading:
        return self.network

    def reachability(self) -> Reachability:
        return self.reach

    def transfers(self) -> Sequence[Transfer]:
        return self.fetched

    async def read_fees(self) -> Sequence[FeeTotal]:
        return self.fees

    async def read_balance(self) -> Wei:
        if self.balance_wei is None:
            raise ChainUnavailable("no endpoint answers")
        return self.balance_wei


@dataclass
class FakeNode:
    """What stands behind the socket."""

    chain: FakeChain = field(default_factory=lambda: FakeChain(MarketState()))
    network: FakeNetwork = field(default_factory=FakeNetwork)
    desk: FakeDesk = field(default_factory=FakeDesk)
    models: FakeModels = field(default_factory=FakeModels)
    roles: FakeRoles = field(default_factory=FakeRoles)
    stop: trio.Event = field(default_factory=trio.Event)
    journal: JournalPort = field(default_factory=Journal)
    store: Store = field(default_factory=Store)
    herald: Herald = field(default_factory=lambda: Herald(MemoryFacts()))
    facts: FakeFacts = field(default_factory=FakeFacts)
    account: Address = ACCOUNT

    def context(self) -> RpcContext:
        # Methods touch nothing else of the ports.
        ports = Ports(
            chain=cast(Any, self.chain),
            network=cast(Any, self.network),
            store=cast(Any, self.store),
            signer=cast(Any, FakeSigner(self.account)),
            datasets=cast(Any, None),
            herald=self.herald,
            seal=cast(Any, None),
        )
        return RpcContext(
            ports=ports,
            buyer=self.desk,
            models=self.models,
            roles=self.roles,
            stop=self.stop,
            once=OnceDesk(self.journal),
            herald=self.herald,
            facts=self.facts,
        )


@asynccontextmanager
async def serve_fake_node(
    node: FakeNode, socket: Path, **settings: Any
) -> AsyncGenerator[int | None, None]:
    """Yield the port of the TCP listener, if the settings ask for one."""
    async with trio.open_nursery() as nursery:
        rpc = RpcSettings(socket=socket, tokens=socket.parent / "tokens", **settings)
        port = await nursery.start(serve_rpc, rpc, node.context())
        yield port
        nursery.cancel_scope.cancel()
