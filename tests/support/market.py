"""A market in memory for tests of roles: a chain that turns calls into events, gossip, stores.

Time is blocks: `Market.mine` waits until no task can go on, then folds the next block in.
Calls become the events that the contracts would log, without the contracts' checks but one: a
deposit is burned or returned once.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import trio
import trio.testing
from eth_keys.datatypes import PrivateKey

from d2m_node.calls import (
    ContractCall,
)
from d2m_node.errors import PeerUnreachable, TransactionReverted
from d2m_node.ports import NodeFact, PeerStatus, Ports, Reference, Refusal, Samples, Verdict
from d2m_node.roles.library import NodeLibrary
from d2m_node.roles.post import Post
from d2m_node.roles.refusals import Refusals
from d2m_node.roles.room import Room
from d2m_node.roles.rooms import Rooms
from d2m_node.roles.shift import Shift
from d2m_node.rpc.herald import Herald
from d2m_node.sealing import IdentitySeal
from d2m_node.simulation.nodes.memory import MemoryPastJobs
from protocol.events import (
    Event,
    RecordedEvent,
)
from protocol.hashing import Domain, keccak
from protocol.market import MarketState, advance, apply_event
from protocol.types import Address, BlockNumber, Digest, JobId
from protocol.wire.messages import GossipMessage, MessagesRequest
from tests.support.call_events import events_of, refuse_spent
from tests.support.params import PARAMS

Found = TypeVar("Found")

DOMAIN = Domain(31337, Address(b"\x11" * 20))


async def wait_idle() -> None:
    """Return when every task waits for the test: none runs, and none waits for a thread."""
    threads = trio.to_thread.current_default_thread_limiter()
    await trio.testing.wait_all_tasks_blocked()
    while threads.borrowed_tokens > 0:
        await trio.testing.wait_all_tasks_blocked(cushion=0.001)


class Signer:
    """An account whose key follows from its name."""

    def __init__(self, name: str) -> None:
        self._key = PrivateKey(keccak(name.encode()))

    @property
    def address(self) -> Address:
        return Address(self._key.public_key.to_canonical_address())

    def sign_digest(self, digest: Digest) -> bytes:
        signature = self._key.sign_msg_hash(digest).to_bytes()
        return signature[:64] + bytes([27 + signature[64]])


class Journal:
    def __init__(self) -> None:
        self.values: dict[tuple[str, str], bytes] = {}

    async def remember(self, kind: str, key: str, value: bytes) -> bytes:
        return self.values.setdefault((kind, key), value)

    async def recall(self, kind: str, key: str) -> bytes | None:
        return self.values.get((kind, key))

    async def recall_all(self, kind: str, prefix: str = "") -> dict[str, bytes]:
        found = {k: v for (one, k), v in self.values.items() if one == kind}
        return {k: found[k] for k in sorted(found) if k.startswith(prefix)}


class MemoryFacts:
    """`FactPort` without a disk."""

    def __init__(self) -> None:
        self.facts: list[NodeFact] = []

    async def add(self, kind: str, details: Mapping[str, str], job_id: JobId | None) -> NodeFact:
        number = len(self.facts) + 1
        fact = NodeFact(number=number, kind=kind, job_id=job_id, details=dict(details))
        self.facts.append(fact)
        return fact

    async def latest(self) -> list[NodeFact]:
        return list(self.facts)


class Blobs:
    def __init__(self) -> None:
        self.data: dict[Digest, bytes] = {}
        self.kept_for: dict[Digest, set[Reference]] = {}
        self.refusal: str | None = None
        """Why new jobs are refused, by the test's word."""

    async def put(
        self, data: bytes, reference: Reference, *, digest: Digest | None = None
    ) -> Digest:
        return self.keep(data, reference, digest=digest)

    def keep(self, data: bytes, reference: Reference, digest: Digest | None = None) -> Digest:
        digest = keccak(data) if digest is None else digest
        self.data[digest] = data
        self.kept_for.setdefault(digest, set()).add(reference)
        return digest

    async def get(self, digest: Digest) -> bytes | None:
        return self.data.get(digest)

    async def references(self, digest: Digest) -> frozenset[Reference]:
        return frozenset(self.kept_for.get(digest, ()))

    async def find_refusal(self, _job_id: JobId, _size_bytes: int) -> str | None:
        return self.refusal

    async def check_room(self, size_bytes: int) -> None:
        pass


class KeptRefusals:
    def __init__(self) -> None:
        self.kept: list[Refusal] = []

    async def add(self, refusal: Refusal) -> bool:
        names = [(one.job_id, one.role, one.code) for one in self.kept]
        is_new = (refusal.job_id, refusal.role, refusal.code) not in names
        self.kept += [refusal] * is_new
        return is_new

    async def latest(self, count: int, job_id: JobId | None = None) -> tuple[Refusal, ...]:
        found = [one for one in reversed(self.kept) if job_id in (None, one.job_id)]
        return tuple(found[:count])


@dataclass(frozen=True)
class Store:
    journal: Journal = field(default_factory=Journal)
    blobs: Blobs = field(default_factory=Blobs)
    refusals: KeptRefusals = field(default_factory=KeptRefusals)
    past: MemoryPastJobs = field(default_factory=MemoryPastJobs)
    trusted_from: BlockNumber = BlockNumber(0)


class Market:
    """The chain and the network that all nodes of a test share."""

    def __init__(self) -> None:
        self.state = MarketState()
        self.nodes: dict[bytes, Node] = {}
        self.calls: list[tuple[Address, ContractCall]] = []
        """What was mined, with its sender."""
        self.mined: list[tuple[int, ContractCall]] = []
        """The same, with its block."""
        self.refuses: Callable[[ContractCall], bool] = lambda _: False
        """What the contract refuses, by the test's word."""
        self.refusal = "the test refuses it"
        self.randomness: dict[int, bytes] = {}
        """Of blocks for which the test chooses it."""
        self._waiting: list[tuple[Address, ContractCall, trio.Event]] = []
        self._grown = trio.Event()

    def apply(self, *events: Event) -> None:
        """Let the next block hold these events."""
        for event in events:
            recorded = RecordedEvent(
                block_number=self.state.block_number,
                log_index=0,
                transaction_hash=bytes(32),
                event=event,
            )
            self.state = apply_event(self.state, recorded)

    async def mine(self, count: int = 1) -> None:
        for _ in range(count):
            await wait_idle()
            self.state = advance(self.state, BlockNumber(self.state.block_number + 1))
            mined, self._waiting = self._waiting, []
            for sender, call, is_mined in mined:
                self.calls.append((sender, call))
                self.mined.append((self.state.block_number, call))
                self.apply(*events_of(self.state, sender, call))
                is_mined.set()
            self._grown.set()
            self._grown = trio.Event()
        await wait_idle()

    async def mine_to(self, block: int) -> None:
        await self.mine(block - self.state.block_number)

    async def wait_for(self, find: Callable[[MarketState], Found | None]) -> Found:
        while (found := find(self.state)) is None:
            await self._grown.wait()
        return found

    def send(self, sender: Address, call: ContractCall) -> trio.Event:
        """Put a call on its way; return what tells that it is mined."""
        self._refuse(call)
        is_mined = trio.Event()
        self._waiting.append((sender, call, is_mined))
        return is_mined

    def _refuse(self, call: ContractCall) -> None:
        """Refuse what the contract, or the test, refuses when gas is estimated."""
        refuse_spent(self.state, call)
        if self.refuses(call):
            raise TransactionReverted(call.function, self.refusal)

    def sent(self, kind: type[Found]) -> list[Found]:
        """Mined calls of one kind."""
        return [call for _, call in self.calls if isinstance(call, kind)]


class NodeChain:
    """`ChainPort` of one account."""

    def __init__(self, market: Market, account: Address) -> None:
        self._market = market
        self._account = account
        self._sent: dict[str, trio.Event] = {}

    domain = DOMAIN
    params = PARAMS

    @property
    def state(self) -> MarketState:
        return self._market.state

    async def wait_block(self, number: BlockNumber) -> None:
        await self.wait_for(lambda state: True if state.block_number >= number else None)

    async def wait_for(self, find: Callable[[MarketState], Found | None]) -> Found:
        return await self._market.wait_for(find)

    async def read_randomness(self, number: BlockNumber) -> bytes:
        chosen = self._market.randomness.get(number)
        return chosen or keccak(b"randomness" + number.to_bytes(8, "big"))

    async def read_header(self, number: BlockNumber) -> bytes:
        return b"header" + number.to_bytes(8, "big")

    async def submit(self, call: ContractCall, *, key: str) -> None:
        if key not in self._sent:
            self._sent[key] = self._market.send(self._account, call)
        await self._sent[key].wait()


class Network:
    """`NetworkPort` in memory: gossip floods as far as nodes accept it."""

    def __init__(self, market: Market, peer_id: bytes) -> None:
        self._market = market
        self.peer_id = peer_id
        self.topics: dict[str, Callable[[GossipMessage], Verdict]] = {}
        self.is_deaf = False
        """Hears no gossip; pulls still work."""

    def peers(self) -> Sequence[PeerStatus]:
        return [
            PeerStatus(peer_id=one, multiaddr="", connected=True, last_error=None)
            for one in self._market.nodes
            if one != self.peer_id
        ]

    @asynccontextmanager
    async def join_topic(
        self, topic: str, validate: Callable[[GossipMessage], Verdict]
    ) -> AsyncIterator[trio.MemoryReceiveChannel[GossipMessage]]:
        send, receive = trio.open_memory_channel[GossipMessage](1)
        self.topics[topic] = validate
        with send, receive:
            yield receive
        del self.topics[topic]

    async def publish(self, topic: str, message: GossipMessage) -> None:
        for node in self._market.nodes.values():
            if node.network is not self:
                node.network.deliver(topic, message)

    def deliver(self, topic: str, message: GossipMessage) -> Verdict:
        """Judge a message, and pass it on to everybody if it is accepted."""
        if self.is_deaf or topic not in self.topics:
            return Verdict.IGNORE
        verdict = self.topics[topic](message)
        if verdict is Verdict.ACCEPT:
            for node in self._market.nodes.values():
                if node.network is not self:
                    node.network.deliver(topic, message)
        return verdict

    async def fetch_blob(
        self, digest: Digest, *, sources: Sequence[bytes], max_bytes: int
    ) -> bytes:
        for source in sources:
            node = self._market.nodes[source]
            data = None if self.peer_id in node.refused else await node.read_blob(self, digest)
            if data is not None:
                assert len(data) <= max_bytes
                return data
        raise PeerUnreachable(f"no source has {digest.hex()}")

    async def fetch_messages(
        self, peer_id: bytes, request: MessagesRequest
    ) -> Sequence[GossipMessage]:
        node = self._market.nodes[peer_id]
        if self.peer_id in node.refused:
            raise PeerUnreachable("it does not answer")
        return await node.library.read_messages(self.peer_id, request)


SAMPLES = Samples(inputs=np.zeros((4, 1, 2, 2), dtype=np.uint8), labels=np.zeros(4, dtype=np.int64))


class Datasets:
    """`DatasetPort` with one data set."""

    async def load_samples(self, path: str) -> Samples:
        return SAMPLES

    async def load_tags(self, path: str) -> tuple[str, ...]:
        return ("digits",)


class Node:
    """One node's ports, its rooms, and whom it does not serve."""

    def __init__(self, market: Market, name: str) -> None:
        self.name = name
        self.signer = Signer(name)
        self.seal = IdentitySeal(keccak(b"peer " + name.encode()))
        self.peer_id = self.seal.peer_id
        self.network = Network(market, self.peer_id)
        self.store = Store()
        self.chain = NodeChain(market, self.signer.address)
        self.rooms: dict[JobId, Room] = {}
        self.refused: set[bytes] = set()
        self.library = NodeLibrary(self.store, self.chain, self.rooms)
        self.ports = Ports(
            chain=self.chain,
            network=self.network,  # type: ignore[arg-type]
            store=self.store,
            signer=self.signer,
            datasets=Datasets(),
            herald=Herald(MemoryFacts()),
            seal=self.seal,
        )
        market.nodes[self.peer_id] = self

    async def read_blob(self, reader: Network, digest: Digest) -> bytes | None:
        return await self.library.read_blob(reader.peer_id, digest)

    def post(self, role: str, nursery: trio.Nursery, shift: Shift | None = None) -> Post:
        """Give this node's ports to a role; its rooms live in the nursery."""
        return Post(
            ports=self.ports,
            rooms=Rooms(self.ports, self.rooms, nursery),
            shift=shift or Shift(role),
            refusals=Refusals(role, self.store.refusals),
        )

    def refusals(self) -> list[tuple[JobId, str, str]]:
        """What its roles turned down: job, role, code, in order."""
        return [(one.job_id, one.role, one.code) for one in self.store.refusals.kept]

    def restart(self) -> None:
        """Forget all but what is on disk."""
        self.rooms.clear()
