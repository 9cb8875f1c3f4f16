"""The network port over libp2p, supervised: whatever kills the stack restarts it.

trio tasks of one network:

open_network
└── Libp2pNetwork.run              one stack after another, all of one identity
    └── host.run                   swarm, connections, stream handlers
        └── Stack.run              pubsub, router
            ├── publisher
            └── peers              dials whoever is due
"""

import traceback
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

import structlog
import trio
from libp2p.crypto.keys import KeyPair
from libp2p.peer.id import ID

from d2m_node.address_store import AddressStore
from d2m_node.errors import FatalError, PeerUnreachable, UserError
from d2m_node.measures import NetworkReading, Reach, Reachability, Transfer
from d2m_node.network.addresses import Source
from d2m_node.network.book import AddressBook, offline_statuses
from d2m_node.network.conduct import Conduct
from d2m_node.network.counts import NetworkCounts
from d2m_node.network.gossip import Gossip, Validate
from d2m_node.network.host import build_host, check_listen, close_host, fix_port
from d2m_node.network.identity import load_or_create_identity
from d2m_node.network.lan import Lan
from d2m_node.network.lasting import Lasting
from d2m_node.network.memory import AddressMemory
from d2m_node.network.naming import parse_bootstrap
from d2m_node.network.settings import NetworkSettings
from d2m_node.network.stack import Stack
from d2m_node.ports import NO_RIVALS, Library, PeerStatus, SealPort
from d2m_node.sealing import IdentitySeal
from protocol.types import Digest
from protocol.wire.messages import GossipMessage, MessagesRequest, PulledMessage

log = structlog.get_logger(__name__)

SETTLED_SECONDS = 60.0
"""A stack that lived so long was a good one: the next pause is the shortest again."""


class Libp2pNetwork:
    """`MeasuredNetwork` over one stack after another.

    Subscriptions, messages to publish, the address book, penalties and counts outlive a stack.
    What was being fetched fails with PeerUnreachable, so that it is tried again.
    """

    def __init__(
        self,
        key_pair: KeyPair,
        settings: NetworkSettings,
        library: Library,
        addresses: AddressStore,
    ) -> None:
        self._key_pair = key_pair
        self._seal = IdentitySeal(key_pair.private_key.to_bytes())
        self._settings = settings
        self._peer_id = ID.from_pubkey(key_pair.public_key).to_bytes()
        _check_denied(settings)
        _check_relays(settings)
        self._book = AddressBook(self._peer_id, settings)
        self._book.replace(Source.BOOTSTRAP, _check_bootstrap(settings))
        self._memory = AddressMemory(addresses)
        self._counts = NetworkCounts()
        self._conduct = Conduct(settings, self._counts)
        self._gossip = Gossip(
            self._peer_id, settings, self._conduct.blame, self._counts, library.place_in
        )
        self._lasting = Lasting(
            settings=settings,
            key_pair=key_pair,
            library=library,
            conduct=self._conduct,
            gossip=self._gossip,
            counts=self._counts,
            book=self._book,
            memory=self._memory,
        )
        self._listen = settings.listen
        self._listening: Sequence[str] = ()
        self._stack: Stack | None = None
        self._stop = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run stacks until stopped.

        Raises UserError if the first one cannot start, FatalError from any.
        """
        shortest = pause = self._settings.restart_seconds
        while not self._stop.is_set():
            started_at = trio.current_time()
            try:
                await self._run_stack(task_status)
            except Exception as exc:  # noqa: BLE001 - whatever it is, a node without a network earns nothing
                failure = _find_failure(exc)
                if isinstance(failure, FatalError) or not self._listening:
                    raise failure from failure.__cause__
                self._report(failure, pause)
            if self._stop.is_set():
                return
            self._counts.restarts += 1
            if trio.current_time() - started_at > SETTLED_SECONDS:
                pause = shortest
            with trio.move_on_after(pause):
                await self._stop.wait()
            pause = min(2 * pause, self._settings.max_restart_seconds)

    async def remember(self, tasks: trio.Nursery) -> None:
        """Read addresses, bans and penalties, and keep them from now on. Raises FatalError."""
        await self._memory.load(self._book)
        await self._memory.load_conduct(self._conduct)
        tasks.start_soon(self._memory.run)

    async def run_lan(self) -> None:
        """Tell the local network of this node, and hear of others, until cancelled."""
        await Lan(str(ID(self._peer_id)), self._settings, self._book, lambda: self._listening).run()

    def stop(self) -> None:
        """Say goodbye to all peers and end `run`."""
        self._memory.stop()
        self._stop.set()

    def _report(self, failure: Exception, pause: float) -> None:
        *_, place = traceback.extract_tb(failure.__traceback__)
        log.error(
            "network_failed",
            error=repr(failure),
            place=f"{place.filename}:{place.lineno}",
            retry_seconds=pause,
        )

    async def _run_stack(self, task_status: trio.TaskStatus[None]) -> None:
        host = build_host(self._key_pair, self._settings)
        async with host.run([]), trio.open_nursery() as tasks:
            stack = Stack(host, tasks, self._lasting)
            try:
                async with stack.run(self._listen):
                    self._take_over(stack, task_status)
                    await self._stop.wait()
            finally:
                self._stack = None
                stack.end_borrowing()
                tasks.cancel_scope.cancel()
                await close_host(host, self._settings.close_seconds)

    def _take_over(self, stack: Stack, task_status: trio.TaskStatus[None]) -> None:
        """Let the new stack serve; at the first one the network is open."""
        is_first = not self._listening
        self._listening = stack.listening
        # What others know of us must stay true: never another port.
        self._listen = fix_port(self._listen, stack.listening[0])
        self._conduct.on_ban = stack.peers.drop
        self._stack = stack
        if is_first:
            task_status.started()
        else:
            log.info("network_restarted", restarts=self._counts.restarts)

    @property
    def stack(self) -> Stack:
        """The stack of now. Raises PeerUnreachable while it is restarted."""
        if self._stack is None:
            raise PeerUnreachable("the network is being restarted")
        return self._stack

    @property
    def conduct(self) -> Conduct:
        """Who misbehaved."""
        return self._conduct

    @contextmanager
    def _borrow(self) -> Iterator[Stack]:
        stack = self.stack
        with stack.borrow():
            yield stack

    @property
    def seal(self) -> SealPort:
        """Opens what is sealed to this node's identity."""
        return self._seal

    @property
    def peer_id(self) -> bytes:
        """This node's libp2p identity."""
        return self._peer_id

    @property
    def listening(self) -> Sequence[str]:
        """The multiaddrs we listen on, with real ports, without /p2p."""
        return self._listening

    def peers(self) -> Sequence[PeerStatus]:
        """See `NetworkPort.peers`."""
        if self._stack is None:
            return offline_statuses(self._book, "the network is restarting")
        return self._stack.peers.statuses()

    def measure(self) -> NetworkReading:
        """See `MeasuredNetwork.measure`."""
        return self._counts.read(self._gossip.measure_queues())

    def reachability(self) -> Reachability:
        """See `MeasuredNetwork.reachability`."""
        return Reachability(Reach.UNKNOWN) if self._stack is None else self._stack.reachability()

    def transfers(self) -> Sequence[Transfer]:
        """See `MeasuredNetwork.transfers`."""
        return () if self._stack is None else self._stack.client.transfers()

    def set_address_book(
        self,
        addresses: Mapping[bytes, str],
        needed: Collection[bytes] = (),
        rivals: Mapping[bytes, Sequence[str]] = NO_RIVALS,
    ) -> None:
        """See `NetworkPort.set_address_book`."""
        self._book.set_needed(needed)
        self._book.replace(Source.REGISTRY, addresses, rivals)

    def join_topic(
        self, topic: str, validate: Validate
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[GossipMessage]]:
        """See `NetworkPort.join_topic`."""
        return self._gossip.join_topic(topic, validate)

    async def publish(self, topic: str, message: GossipMessage) -> None:
        """See `NetworkPort.publish`; waits while too many of our messages are queued."""
        await self._gossip.publish(topic, message)

    async def fetch_blob(
        self, digest: Digest, *, sources: Sequence[bytes], max_bytes: int
    ) -> bytes:
        """See `NetworkPort.fetch_blob`."""
        with self._borrow() as stack:
            return await stack.client.fetch_blob(digest, sources=sources, max_bytes=max_bytes)

    async def fetch_messages(
        self, peer_id: bytes, request: MessagesRequest
    ) -> Sequence[PulledMessage]:
        """See `NetworkPort.fetch_messages`."""
        with self._borrow() as stack:
            return await stack.client.fetch_messages(peer_id, request)


@asynccontextmanager
async def open_network(
    settings: NetworkSettings, library: Library, addresses: AddressStore
) -> AsyncIterator[Libp2pNetwork]:
    """Join the network while the context is open.

    A peer that cannot be reached is tried again for ever and never ends the node, and neither does
    a stack that fails.

    Raises
    ------
    KeyUnavailable
        If the identity cannot be loaded or made.
    UserError
        If `listen`, an entry of `bootstrap` or one of `deny` is malformed, or the port is taken.
    FatalError
        What the library raises while it serves a peer, or the store of addresses and bans.
    """
    key_pair = load_or_create_identity(settings.identity_path)
    network = Libp2pNetwork(key_pair, settings, library, addresses)
    check_listen(settings.listen)
    try:
        async with trio.open_nursery() as tasks:
            await network.remember(tasks)
            await tasks.start(network.run)
            async with trio.open_nursery() as search:
                if settings.lan:
                    search.start_soon(network.run_lan)
                yield network
                search.cancel_scope.cancel()
            network.stop()
    except ExceptionGroup as group:
        # One failure leaves as itself.
        failure = _find_failure(group)
        raise failure from failure.__cause__


def _check_bootstrap(settings: NetworkSettings) -> dict[bytes, str]:
    try:
        return parse_bootstrap(settings.bootstrap)
    except ValueError as exc:  # the multiaddr library's errors are ValueErrors
        raise UserError(f"network.bootstrap: {exc}") from exc


def _check_relays(settings: NetworkSettings) -> None:
    try:
        parse_bootstrap(settings.relay.through)
    except ValueError as exc:
        raise UserError(f"network.relay.through: {exc}") from exc


def _check_denied(settings: NetworkSettings) -> None:
    for entry in settings.deny:
        try:
            ID.from_string(entry)
        except ValueError as exc:
            raise UserError(f"network.deny: {entry!r} is no peer id") from exc


def _find_failure(error: Exception) -> Exception:
    """Find the FatalError among several failures, or the only one under nested groups."""
    if not isinstance(error, ExceptionGroup):
        return error
    fatal, _ = error.split(FatalError)
    if fatal is not None:
        error = fatal
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
