"""Several libp2p hosts in one process: start, connect, and wait for facts about them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from libp2p.abc import INetConn, INetwork
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

from d2m_node.address_store import AddressStore, KeptBan, KeptPenalty, ReachedAddress
from d2m_node.network.adapter import Libp2pNetwork, open_network
from d2m_node.network.settings import NetworkSettings
from d2m_node.ports import Library, TopicPlace, Verdict
from protocol.types import Digest
from protocol.wire.messages import AvailabilityBitmap, GossipMessage, MessagesRequest

LOCAL = "/ip4/127.0.0.1/tcp/0"
PATIENCE_SECONDS = 20.0
"""For what takes milliseconds on a quiet machine."""


class Shelf:
    """A library of what it is given, for all but those in ``refused``."""

    def __init__(self) -> None:
        self.blobs: dict[bytes, bytes] = {}
        self.messages: list[GossipMessage] = []
        self.refused: set[bytes] = set()
        self.reads: list[bytes] = []
        self.asked: list[MessagesRequest] = []
        self.failure: Exception | None = None
        self.places: dict[bytes, TopicPlace] = {}
        """Of peers that are not of the audience of every topic."""

    def place_in(self, topic: str, peer_id: bytes) -> TopicPlace:
        return self.places.get(peer_id, TopicPlace.AUDIENCE)

    async def admits(self, peer_id: bytes, digest: Digest) -> bool:
        if self.failure is not None:
            raise self.failure
        return peer_id not in self.refused and digest in self.blobs

    async def read_blob(self, peer_id: bytes, digest: Digest) -> bytes | None:
        self.reads.append(digest)
        if self.failure is not None:
            raise self.failure
        return None if peer_id in self.refused else self.blobs.get(digest)

    async def read_messages(
        self, peer_id: bytes, request: MessagesRequest
    ) -> Sequence[GossipMessage]:
        self.asked.append(request)
        return self.messages


class Notebook:
    """A store of addresses, bans and penalties that lasts as long as the test."""

    def __init__(self) -> None:
        self.kept: dict[bytes, ReachedAddress] = {}
        self.bans: dict[bytes, KeptBan] = {}
        self.penalties: dict[bytes, KeptPenalty] = {}

    async def load(self) -> Sequence[ReachedAddress]:
        return sorted(self.kept.values(), key=lambda one: -one.reached_at)

    async def save(self, reached: Sequence[ReachedAddress]) -> None:
        self.kept |= {one.peer_id: one for one in reached}

    async def load_bans(self) -> Sequence[KeptBan]:
        return list(self.bans.values())

    async def save_bans(self, bans: Sequence[KeptBan]) -> None:
        self.bans |= {one.peer_id: one for one in bans}

    async def load_penalties(self) -> Sequence[KeptPenalty]:
        return list(self.penalties.values())

    async def save_penalties(self, penalties: Sequence[KeptPenalty]) -> None:
        self.penalties |= {one.peer_id: one for one in penalties}


def accept(_message: GossipMessage) -> Verdict:
    return Verdict.ACCEPT


def build_bitmap(number: int) -> AvailabilityBitmap:
    """Build a message that differs from others by its number."""
    return AvailabilityBitmap(
        job_id=1,
        round_index=number,
        attempt=0,
        cone_index=0,
        bitmap=bytes(32),
        signature=bytes(65),
    )


def build_settings(identity_path: Path, **changes: Any) -> NetworkSettings:
    fields = {
        "identity_path": identity_path,
        "listen": LOCAL,
        "redial_seconds": 0.05,
        "dial_private": True,
    }
    return NetworkSettings(**(fields | changes))


@asynccontextmanager
async def start_network(
    identity_path: Path,
    library: Library | None = None,
    addresses: AddressStore | None = None,
    **changes: Any,
) -> AsyncIterator[Libp2pNetwork]:
    settings = build_settings(identity_path, **changes)
    async with open_network(settings, library or Shelf(), addresses or Notebook()) as network:
        yield network


@asynccontextmanager
async def start_networks(
    folder: Path, names: Sequence[str], **changes: Any
) -> AsyncIterator[list[Libp2pNetwork]]:
    """Start one host per name; every one knows all others and is connected with them."""
    if not names:
        yield []
        return
    async with (
        start_network(folder / names[0], **changes) as first,
        start_networks(folder, names[1:], **changes) as others,
    ):
        for other in others:
            await connect(first, other)
        yield [first, *others]


async def connect(dialer: Libp2pNetwork, listener: Libp2pNetwork) -> None:
    """Put the listener into the dialer's address book, and wait until both know."""
    known = {p.peer_id: p.multiaddr for p in dialer.peers() if p.multiaddr}
    dialer.set_address_book(known | {listener.peer_id: listener.listening[0]})
    await wait_gossiping(dialer, listener)
    await wait_gossiping(listener, dialer)


async def wait_gossiping(network: Libp2pNetwork, other: Libp2pNetwork) -> None:
    """Wait until gossip to the other peer can be sent."""
    await network.stack.pubsub.wait_for_peer(ID(other.peer_id), PATIENCE_SECONDS)


async def wait_subscribed(network: Libp2pNetwork, other: Libp2pNetwork, topic: str) -> None:
    """Wait until the network knows that the other peer is subscribed."""
    await network.stack.pubsub.wait_for_subscription(ID(other.peer_id), topic, PATIENCE_SECONDS)


class Watch:
    """Events of connections with one peer."""

    def __init__(self, network: Libp2pNetwork, peer_id: bytes) -> None:
        self._peer_id = peer_id
        self.connected_event = trio.Event()
        self.disconnected_event = trio.Event()
        network.stack.host.get_network().register_notifee(self)  # type: ignore[arg-type]

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        if conn.muxed_conn.peer_id.to_bytes() == self._peer_id:
            self.connected_event.set()

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        if conn.muxed_conn.peer_id.to_bytes() == self._peer_id:
            self.disconnected_event.set()

    async def _ignore(self, *_arguments: object) -> None:
        pass

    opened_stream = closed_stream = listen = listen_close = _ignore


async def open_raw_stream(network: Libp2pNetwork, peer_id: bytes, protocol: str) -> Any:
    """Open a stream on which a hostile peer may write what it likes."""
    return await network.stack.host.new_stream(ID(peer_id), [TProtocol(protocol)])
