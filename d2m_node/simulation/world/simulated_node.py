"""One node of a simulation: the roles' own code over simulated ports.

What outlives a crash is here: the store, the keys of sent calls, the stream of randomness. A life
is one call of `live`; to crash a node is to cancel it. The daemon's counterpart is `node.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog
import trio
from structlog.contextvars import bound_contextvars

from d2m_node.calls import AppealDecision, BindPeer, ContractCall
from d2m_node.errors import TransactionReverted, TransientError
from d2m_node.logs import log_scope
from d2m_node.ports import ChainPort, NetworkPort, Ports, Samples, TrainerPort
from d2m_node.request_file import RequestFile
from d2m_node.roles.buyer import run_buyer
from d2m_node.roles.cone import run_cone
from d2m_node.roles.desk import BuyerDesk
from d2m_node.roles.executor import Executor
from d2m_node.roles.library import NodeLibrary
from d2m_node.roles.payday import run_payday
from d2m_node.roles.policies import ConePolicy, JobLimits, SellerPolicy
from d2m_node.roles.post import Post
from d2m_node.roles.promises import OpenPromises
from d2m_node.roles.refusals import Refusals
from d2m_node.roles.room import Room
from d2m_node.roles.rooms import Rooms
from d2m_node.roles.runner import RoleRunner, Start, Starter
from d2m_node.roles.seller import run_seller
from d2m_node.rpc.herald import Herald, ToldRefusals
from d2m_node.simulation.chain.ledger import Ledger
from d2m_node.simulation.chain.pool import SentCalls
from d2m_node.simulation.hostile.ports import wrap_chain, wrap_library, wrap_network
from d2m_node.simulation.network.fabric import Fabric
from d2m_node.simulation.nodes.identities import Identity, SeededEntropy
from d2m_node.simulation.nodes.memory import BlobPool, MemoryStore
from d2m_node.simulation.nodes.names import role_of
from d2m_node.simulation.report.record import Record
from protocol.types import JobId, Wei
from protocol.wire.messages import GossipMessage

OWN_DATA: Final = "/data"
"""Path under which a seller finds its data."""
STAKE_WEI: Final = Wei(5 * 10**18)
RESTART_SECONDS: Final = 5.0
"""After which a supervisor starts a node again that could not go on."""

log = structlog.get_logger(__name__)


class SharedDatasets:
    """`DatasetPort` over samples in memory, by path."""

    def __init__(self, samples: Mapping[str, Samples], tags: tuple[str, ...]) -> None:
        self._samples = samples
        self._tags = tags

    async def load_samples(self, path: str) -> Samples:
        """Return the samples under a path."""
        await trio.lowlevel.checkpoint()
        return self._samples[path]

    async def load_tags(self, path: str) -> tuple[str, ...]:  # noqa: ARG002 - all have the same
        """Return the tags of all data."""
        await trio.lowlevel.checkpoint()
        return self._tags


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all nodes of a simulation share."""

    ledger: Ledger
    fabric: Fabric
    record: Record
    blobs: BlobPool
    confirmations: int
    has_appeals: bool
    """Whether honest nodes appeal, as they should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What one node works with."""

    identity: Identity
    kind: str | None
    """Of its attack; None if it is honest."""
    datasets: SharedDatasets
    make_trainer: Callable[[], TrainerPort]
    make_executor: Callable[[ChainPort], Executor]
    chain_delay_seconds: float


class RecordedNetwork:
    """A node's network; what it gossips goes on record."""

    def __init__(self, inner: NetworkPort, record: Record, name: str) -> None:
        self._inner = inner
        self._record = record
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def publish(self, topic: str, message: GossipMessage) -> None:
        """Note a message, then gossip it."""
        self._record.note_statement(self._name, message)
        await self._inner.publish(topic, message)


class UnappealingChain:
    """The chain of a node that takes every decision as it is."""

    def __init__(self, inner: ChainPort) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def submit(self, call: ContractCall, *, key: str) -> None:
        """Send a call, unless it is an appeal."""
        if not isinstance(call, AppealDecision):
            await self._inner.submit(call, key=key)


class SimulatedNode:
    """A node, alive or not."""

    def __init__(self, surroundings: Surroundings, equipment: Equipment) -> None:
        self._around = surroundings
        self._equipment = equipment
        self.name = equipment.identity.name
        self.identity = equipment.identity
        self.kind = equipment.kind
        self.store = MemoryStore(surroundings.blobs)
        self._sent = SentCalls()
        self._entropy = SeededEntropy(equipment.identity.secret)
        self._request: RequestFile | None = None
        self._life: trio.CancelScope | None = None
        self._is_wanted = True
        self._changed = trio.Event()

    async def run(self) -> None:
        """Live, life after life, until cancelled. Whoever cannot go on is started again."""
        while True:
            while not self._is_wanted:
                await self._changed.wait()
            try:
                with trio.CancelScope() as self._life:
                    await self._live()
            except* TransientError as failures:
                reasons = sorted({str(one) for one in _list_leaves(failures)})
                self._around.record.note("node_failed", node=self.name, reasons=list(reasons))
                self._life = None
                await trio.sleep(RESTART_SECONDS)
            finally:
                self._life = None

    def ask(self, request: RequestFile) -> None:
        """Let a buyer bid for a request; after a crash it asks for the same again."""
        self._request = request
        self._wake()

    def crash(self) -> None:
        """End the node where it stands; it starts again when it is told to."""
        self._is_wanted = False
        if self._life is not None:
            self._life.cancel()

    def start(self) -> None:
        """Let a node that crashed start again."""
        self._is_wanted = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _live(self) -> None:
        around, kit = self._around, self._equipment
        open_rooms: dict[JobId, Room] = {}
        delay = kit.chain_delay_seconds
        with log_scope(is_new_task=True), bound_contextvars(node=self.name):
            async with around.ledger.open_view(
                kit.identity.account, self._sent, delay, confirmations=around.confirmations
            ) as honest_chain:
                chain = wrap_chain(honest_chain, kit.kind, kit.identity.account)
                if not around.has_appeals:
                    chain = cast("ChainPort", UnappealingChain(chain))
                library = wrap_library(NodeLibrary(self.store, chain, open_rooms), kit.kind)
                async with around.fabric.open_port(kit.identity.peer_id, library) as port:
                    recorded = RecordedNetwork(port, around.record, self.name)
                    network = cast("NetworkPort", recorded)
                    await self._work(
                        self._gather_ports(
                            chain,
                            wrap_network(network, kit.kind, kit.identity.signer, chain.domain),
                            await Herald.open(self.store.facts),
                        ),
                        open_rooms,
                    )

    def _gather_ports(self, chain: ChainPort, network: NetworkPort, herald: Herald) -> Ports:
        return Ports(
            chain=chain,
            network=network,
            store=self.store,
            signer=self.identity.signer,
            datasets=self._equipment.datasets,
            herald=herald,
            seal=self.identity.seal,
            entropy=self._entropy,
        )

    async def _work(self, ports: Ports, open_rooms: dict[JobId, Room]) -> None:
        """Bind the peer to the account, and play the node's role, until cancelled."""
        herald = ports.herald
        assert isinstance(herald, Herald), "the simulation opened it"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_payday, ports)
            await self._bind_peer(ports)
            desk = BuyerDesk(ports, lag_blocks=self._around.confirmations)
            rooms = Rooms(ports, open_rooms, nursery)
            starters = self._make_starters(ports, rooms, desk, herald)
            wanted = dict.fromkeys(starters, True)
            runner = RoleRunner(
                starters, wanted, (self.store.journal, herald), OpenPromises(ports, desk), nursery
            )
            await runner.restore()
            while self._request is None:
                await self._changed.wait()
            await self._submit(desk, self._request)
            await trio.sleep_forever()

    async def _submit(self, desk: BuyerDesk, request: RequestFile) -> None:
        """Bid; the market may refuse a bid that comes late."""
        try:
            await desk.submit(request, idempotency_key="bid")
        except TransactionReverted as refusal:
            self._around.record.note("bid_refused", node=self.name, reason=refusal.reason)

    async def _bind_peer(self, ports: Ports) -> None:
        """Name this node's peer on the chain, once."""
        entry = ports.chain.state.peers.get(ports.signer.address)
        if entry is None or entry.peer_id != ports.network.peer_id:
            call = BindPeer(
                peer_id=ports.network.peer_id, multiaddr=f"/memory/{self.name}".encode()
            )
            await ports.chain.submit(call, key="bind-peer")

    def _make_starters(
        self, ports: Ports, rooms: Rooms, desk: BuyerDesk, herald: Herald
    ) -> dict[str, Starter]:
        kit = self._equipment
        limits = JobLimits(lag_blocks=self._around.confirmations)

        def post(start: Start) -> Post:
            refusals = Refusals(start.shift.role, ToldRefusals(ports.store.refusals, herald))
            return Post(ports=ports, rooms=rooms, shift=start.shift, refusals=refusals)

        async def buyer(start: Start, task_status: trio.TaskStatus[None]) -> None:
            await run_buyer(post(start), desk, task_status=task_status)

        async def seller(start: Start, task_status: trio.TaskStatus[None]) -> None:
            policy = SellerPolicy(dataset_path=OWN_DATA, limits=limits)
            await run_seller(post(start), policy, kit.make_trainer(), task_status=task_status)

        async def cone(start: Start, task_status: trio.TaskStatus[None]) -> None:
            policy = ConePolicy(stake_wei=STAKE_WEI, limits=limits)
            executor = kit.make_executor(ports.chain)
            await run_cone(post(start), policy, executor, task_status=task_status)

        role = role_of(self.name)
        return {role: {"buyer": buyer, "seller": seller, "cone": cone}[role]}


def _list_leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for one in group.exceptions:
        leaves += _list_leaves(one) if isinstance(one, BaseExceptionGroup) else [one]
    return leaves
