"""The libp2p host: built, hardened, listening, and behind the network port."""

import errno
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio
from libp2p import new_host
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.swarm import Swarm
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_PROTOCOL
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from d2m_node.errors import FatalError, UserError
from d2m_node.measures import NetworkReading
from d2m_node.network.counts import NetworkCounts
from d2m_node.network.gossip import Gossip, Validate
from d2m_node.network.hardening import (
    HardenedGossipSub,
    HardenedPubsub,
    apply_patches,
    guard_streams,
)
from d2m_node.network.identity import load_or_create_identity
from d2m_node.network.peers import Peers, parse_bootstrap
from d2m_node.network.settings import NetworkSettings
from d2m_node.network.streams import StreamClient, StreamServer
from d2m_node.ports import Library, PeerStatus
from protocol.types import Digest
from protocol.wire.messages import GossipMessage, MessagesRequest


class Libp2pNetwork:
    """`MeasuredNetwork` over one libp2p host."""

    def __init__(
        self, host: BasicHost, settings: NetworkSettings, library: Library, tasks: trio.Nursery
    ) -> None:
        self._host = host
        self._settings = settings
        self._tasks = tasks
        self._counts = counts = NetworkCounts()
        self._peers = Peers(host, settings, tasks, counts)
        self._gossip = Gossip(self.peer_id, settings, self._peers.blame, counts)
        self._router = HardenedGossipSub(settings.heartbeat_seconds)
        self._pubsub = HardenedPubsub(
            host,
            self._router,
            judge=self._gossip.judge,
            blame=self._peers.blame,
            first_sequence=settings.first_sequence,
        )
        self._client = StreamClient(host, self._peers, settings, counts)
        StreamServer(host, library, settings, counts)
        guard_streams(
            host,
            max_streams_per_peer=settings.max_streams_per_peer,
            blame=self._peers.blame,
            crash=lambda error: tasks.start_soon(_raise, error),
        )

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Gossip, listen and keep connections while the context is open. Raises UserError."""
        async with (
            background_trio_service(self._pubsub),
            background_trio_service(self._router),
        ):
            await self._pubsub.wait_until_ready()
            await _listen(self._host, self._settings.listen)
            self._peers.set_bootstrap(_check_bootstrap(self._settings))
            self._tasks.start_soon(self._gossip.run_publisher, self._pubsub)
            yield

    @property
    def peer_id(self) -> bytes:
        """This node's libp2p identity."""
        return self._host.get_id().to_bytes()

    @property
    def listening(self) -> Sequence[str]:
        """The multiaddrs we listen on, with real ports, without /p2p."""
        return [str(address) for address in self._host.get_transport_addrs()]

    def peers(self) -> Sequence[PeerStatus]:
        """See `NetworkPort.peers`."""
        return self._peers.statuses()

    def measure(self) -> NetworkReading:
        """See `MeasuredNetwork.measure`."""
        counts, queues = self._counts, self._gossip.measure_queues()
        return NetworkReading(
            sent_bytes=dict(counts.sent_bytes),
            received_bytes=dict(counts.received_bytes),
            verdicts=dict(counts.verdicts),
            published=counts.published,
            dropped=counts.dropped,
            faults=counts.faults,
            bans=counts.bans,
            queue_lengths={name: length for name, (length, _) in queues.items()},
            queue_limits={name: limit for name, (_, limit) in queues.items()},
        )

    def set_address_book(self, addresses: dict[bytes, str]) -> None:
        """See `NetworkPort.set_address_book`."""
        self._peers.set_addresses(addresses)

    def join_topic(
        self, topic: str, validate: Validate
    ) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[GossipMessage]]:
        """See `NetworkPort.join_topic`."""
        return self._gossip.join_topic(self._pubsub, topic, validate)

    async def publish(self, topic: str, message: GossipMessage) -> None:
        """See `NetworkPort.publish`; waits while too many of our messages are queued."""
        await self._gossip.publish(topic, message)

    async def fetch_blob(
        self, digest: Digest, *, sources: Sequence[bytes], max_bytes: int
    ) -> bytes:
        """See `NetworkPort.fetch_blob`."""
        return await self._client.fetch_blob(digest, sources=sources, max_bytes=max_bytes)

    async def fetch_messages(
        self, peer_id: bytes, request: MessagesRequest
    ) -> Sequence[GossipMessage]:
        """See `NetworkPort.fetch_messages`."""
        return await self._client.fetch_messages(peer_id, request)


@asynccontextmanager
async def open_network(settings: NetworkSettings, library: Library) -> AsyncIterator[Libp2pNetwork]:
    """Join the network while the context is open.

    A peer that cannot be reached is tried again for ever and never ends the node.

    Raises
    ------
    KeyUnavailable
        If the identity cannot be loaded or made.
    UserError
        If `listen` or an entry of `bootstrap` is no multiaddr, or the port is taken.
    FatalError
        What the library raises while it serves a peer.
    """
    host = _build_host(load_or_create_identity(settings.identity_path), settings)
    _check_bootstrap(settings)
    _check_listen(settings.listen)
    try:
        async with host.run([]), trio.open_nursery() as tasks:
            try:
                network = Libp2pNetwork(host, settings, library, tasks)
                async with network.run():
                    yield network
            finally:
                tasks.cancel_scope.cancel()
                await _close(host, settings.close_seconds)
    except ExceptionGroup as group:
        # The services are six nurseries deep; one failure leaves as itself.
        only = _find_only_failure(group)
        raise only from only.__cause__


def _build_host(key_pair: KeyPair, settings: NetworkSettings) -> BasicHost:
    apply_patches()
    noise_key = create_noise_key_pair().private_key
    host = new_host(
        key_pair=key_pair,
        # By default plaintext is accepted too.
        sec_opt={NOISE_PROTOCOL: NoiseTransport(key_pair, noise_privkey=noise_key)},
        muxer_opt={TProtocol(YAMUX_PROTOCOL): Yamux},
        connection_config=ConnectionConfig(
            max_connections=settings.max_connections,
            high_watermark=settings.max_connections,
            min_connections=0,
            low_watermark=0,
            dial_timeout=settings.dial_seconds,
        ),
        disable_identify_address_discovery=True,
    )
    swarm = host.get_network()
    assert isinstance(host, BasicHost)
    assert isinstance(swarm, Swarm)
    # Our own limits are settings; the default manager's are not, and it counts wrongly.
    swarm.set_resource_manager(None)
    # Retries and their pauses are ours: stock refuses for a minute to dial who was down once.
    swarm.retry_config = RetryConfig(max_retries=0)
    swarm._negative_peer_cache._ttl = 0.0
    return host


def _check_bootstrap(settings: NetworkSettings) -> dict[bytes, str]:
    try:
        return parse_bootstrap(settings.bootstrap)
    except ValueError as exc:  # the multiaddr library's errors are ValueErrors
        raise UserError(f"network.bootstrap: {exc}") from exc


def _check_listen(listen: str) -> None:
    """Try the address first: libp2p shares a port with another process in silence."""
    try:
        address = Multiaddr(listen)
        family, host = _parse_host(address)
        port = int(address.value_for_protocol("tcp") or 0)
    except (ValueError, LookupError) as exc:
        raise UserError(f"network.listen: {listen!r} is no /ip4/…/tcp/… multiaddr") from exc
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            reason = "in use" if exc.errno == errno.EADDRINUSE else exc.strerror
            raise UserError(f"network.listen: {listen} is not to be had: {reason}") from exc


def _parse_host(address: Multiaddr) -> tuple[socket.AddressFamily, str]:
    names = [protocol.name for protocol in address.protocols()]
    if names == ["ip4", "tcp"]:
        return socket.AF_INET, str(address.value_for_protocol("ip4"))
    if names == ["ip6", "tcp"]:
        return socket.AF_INET6, str(address.value_for_protocol("ip6"))
    raise ValueError(f"{address} is not over TCP")


async def _listen(host: BasicHost, listen: str) -> None:
    if not await host.get_network().listen(Multiaddr(listen)):
        raise UserError(f"network.listen: cannot listen on {listen}")


async def _close(host: BasicHost, seconds: float) -> None:
    """Close all connections at once: one after the other takes stock 0.2 s each."""
    with trio.move_on_after(seconds) as closing:
        closing.shield = True
        async with trio.open_nursery() as goodbyes:
            for connection in host.get_network().get_connections():
                goodbyes.start_soon(connection.close)
        await host.close()


def _find_only_failure(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _raise(error: FatalError) -> None:
    raise error
