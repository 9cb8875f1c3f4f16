"""One node's `NetworkPort` on a simulated network."""

import contextvars
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from math import inf

import trio

from d2m_node.errors import PeerUnreachable, StreamTimeout, TransientError
from d2m_node.measures import NetworkReading
from d2m_node.network.conduct import Conduct
from d2m_node.network.counts import NetworkCounts
from d2m_node.network.fairness import Uplink
from d2m_node.network.serving import MAX_BATCH_COUNT
from d2m_node.ports import NO_RIVALS, Library, PeerStatus, TopicPlace, Verdict
from d2m_node.simulation.network.courier import (
    CheckedMessage,
    Courier,
    Mailbox,
    Outgoing,
    Traffic,
    check_message,
)
from d2m_node.simulation.network.links import FabricOptions, Links, draw_word
from d2m_node.simulation.nodes.memory import hash_blob
from protocol.types import Digest
from protocol.wire.messages import GossipMessage, MessagesRequest, PulledMessage

Validate = Callable[[GossipMessage], Verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all ports of a fabric stand on."""

    options: FabricOptions
    links: Links
    traffic: Traffic
    courier: Courier
    ports: Mapping[bytes, "FabricPort"]
    """Those that are open."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Subscription:
    """One reader of a topic; a node with two roles may have two."""

    validate: Validate
    context: contextvars.Context
    """Of the reader: what is logged while its rules run is of its node."""
    send: trio.MemorySendChannel[GossipMessage]
    overflow: trio.MemoryReceiveChannel[GossipMessage]
    counts: NetworkCounts

    def judge(self, message: GossipMessage) -> Verdict:
        verdict = self.context.run(self.validate, message)
        if verdict is Verdict.ACCEPT:
            try:
                self.send.send_nowait(message)
            except trio.WouldBlock:
                self.counts.dropped += 1
                self.overflow.receive_nowait()
                self.send.send_nowait(message)
        return verdict


class FabricPort:
    """`NetworkPort` of one node, from its start to its end.

    Faults, bans, queues and uploads are the daemon's. A stream breaks if the other node ends, and
    times out if their link is cut. A blob comes whole, from one source after another.
    """

    def __init__(
        self, ground: Ground, peer_id: bytes, library: Library, outgoing: Outgoing | None
    ) -> None:
        self._ground = ground
        self._limits = ground.options.limits
        self._library = library
        self._outgoing = outgoing
        self._counts = NetworkCounts()
        self._conduct = Conduct(self._limits, self._counts)
        self._conduct.on_ban = self._note_ban
        self._has_banned = False
        self._uplink = Uplink(ground.options.bytes_per_second)
        self._streams: dict[trio.CancelScope, None] = {}
        """Of others, to this node."""
        self._subscriptions: dict[str, list[_Subscription]] = {}
        self._book: dict[bytes, str] = {}
        self._line = trio.Lock()  # first come, first published
        self._idle_at = -inf
        """When the last message that is queued will have been sent."""
        self.peer_id = peer_id
        self.chance = draw_word(b"peer", ground.options.seed, peer_id)
        self.closed_at = inf

    def close(self) -> None:
        """End: nothing is sent, taken or served any more."""
        self.closed_at = trio.current_time()
        for stream in self._streams:
            stream.cancel()

    def peers(self) -> Sequence[PeerStatus]:
        """See `NetworkPort.peers`: every peer of the address book."""
        return [
            PeerStatus(
                peer_id=peer_id,
                multiaddr=address,
                connected=self._is_connected(peer_id),
                last_error=self._conduct.explain_ban(peer_id),
            )
            for peer_id, address in sorted(self._book.items())
        ]

    def set_address_book(
        self,
        addresses: Mapping[bytes, str],
        needed: Collection[bytes] = (),  # noqa: ARG002
        rivals: Mapping[bytes, Sequence[str]] = NO_RIVALS,  # noqa: ARG002
    ) -> None:
        """Note whom `peers` lists; the fabric connects all nodes, whatever the book says."""
        self._book = {one: addresses[one] for one in addresses if one != self.peer_id}

    def measure(self) -> NetworkReading:
        """See `MeasuredNetwork.measure`."""
        limits = self._limits
        subscriptions = [one for readers in self._subscriptions.values() for one in readers]
        lengths = [one.send.statistics().current_buffer_used for one in subscriptions]
        backlog = max(0.0, self._idle_at - trio.current_time())
        waiting = round(backlog / limits.publish_pause_seconds)
        return self._counts.read(
            {
                "publish": (waiting, limits.publish_queue_length),
                "deliver": (max(lengths, default=0), limits.queue_length),
            }
        )

    @asynccontextmanager
    async def join_topic(
        self, topic: str, validate: Validate
    ) -> AsyncIterator[trio.MemoryReceiveChannel[GossipMessage]]:
        """See `NetworkPort.join_topic`."""
        send, receive = trio.open_memory_channel[GossipMessage](self._limits.queue_length)
        overflow = receive.clone()
        subscription = _Subscription(
            validate=validate,
            context=contextvars.copy_context(),
            send=send,
            overflow=overflow,
            counts=self._counts,
        )
        readers = self._subscriptions.setdefault(topic, [])
        with send, overflow, receive:
            readers.append(subscription)
            self._ground.courier.subscribe(topic, self)
            try:
                yield receive
            finally:
                readers.remove(subscription)
                if not readers:
                    self._ground.courier.unsubscribe(topic, self)

    def may_tell(self, topic: str, reader: Mailbox) -> bool:
        """Tell whether another node is of a topic's audience, as far as this one knows."""
        return self._library.place_in(topic, reader.peer_id) is TopicPlace.AUDIENCE

    def turns_away(self, sender: Mailbox) -> bool:
        """Tell whether nothing is taken from a node, because it is banned."""
        return self._has_banned and self._conduct.is_banned(sender.peer_id)

    def take(self, topic: str, content: CheckedMessage, sender: Mailbox) -> Verdict:
        """Judge a message that has arrived, and deliver it to whom it is for."""
        self._counts.received_bytes["gossip"] += content.size_bytes
        verdict = self._judge(topic, content, sender)
        self._counts.verdicts[verdict.value] += 1
        return verdict

    def _judge(self, topic: str, content: CheckedMessage, sender: Mailbox) -> Verdict:
        readers = self._subscriptions.get(topic)
        if not readers:
            return Verdict.IGNORE
        message = content.message
        if not isinstance(message, GossipMessage):
            fault = content.fault or f"{type(message).__name__} is not for gossip"
            self._conduct.blame(sender.peer_id, fault)
            return Verdict.REJECT
        verdicts = [reader.judge(message) for reader in readers]
        if Verdict.REJECT in verdicts:
            self._conduct.blame(sender.peer_id, f"{type(message).__name__} against the rules")
            return Verdict.REJECT
        return Verdict.ACCEPT if Verdict.ACCEPT in verdicts else Verdict.IGNORE

    async def publish(self, topic: str, message: GossipMessage) -> None:
        """See `NetworkPort.publish`; waits while too many of our messages are queued."""
        pause = self._limits.publish_pause_seconds
        async with self._line:
            backlog = self._idle_at - trio.current_time()
            await trio.sleep(max(0.0, backlog - pause * self._limits.publish_queue_length))
            letters = [message] if self._outgoing is None else self._outgoing(topic, message)
            for letter in letters:
                departs_at = max(trio.current_time(), self._idle_at)
                self._idle_at = departs_at + pause
                content = self._ground.courier.send(self, topic, letter, departs_at)
                self._counts.published += 1
                self._counts.sent_bytes["gossip"] += content.size_bytes

    async def fetch_blob(
        self, digest: Digest, *, sources: Sequence[bytes], max_bytes: int
    ) -> bytes:
        """See `NetworkPort.fetch_blob`."""
        failures = []
        for source in sources:
            try:
                blob = await self._fetch_from(source, digest, max_bytes)
            except TransientError as error:
                failures.append(f"peer {source.hex()}: {error}")
                continue
            if hash_blob(blob) == digest:
                return blob
            self._conduct.blame(source, "sent another blob than was asked for")
            failures.append(f"peer {source.hex()}: wrong bytes")
        raise PeerUnreachable(f"blob {digest.hex()}: {'; '.join(failures) or 'no source'}")

    async def _fetch_from(self, source: bytes, digest: Digest, max_bytes: int) -> bytes:
        server = await self._reach(source)
        with self._stream_to(server):
            blob = await server._library.read_blob(self.peer_id, digest)
            if blob is not None and len(blob) <= max_bytes:
                await server._upload(self.peer_id, len(blob))
            await self._travel_from(server)
        if blob is None:
            server._counts.denied += 1
            raise PeerUnreachable("does not have the blob, or not for us")
        if len(blob) > max_bytes:
            raise PeerUnreachable(f"blob of {len(blob)} bytes, at most {max_bytes} are allowed")
        self._count_answer(server, "blobs", len(blob))
        return blob

    async def fetch_messages(
        self, peer_id: bytes, request: MessagesRequest
    ) -> Sequence[PulledMessage]:
        """See `NetworkPort.fetch_messages`."""
        server = await self._reach(peer_id)
        with self._stream_to(server):
            found = await server._library.read_messages(self.peer_id, request)
            batch = [check_message(one) for one in found[:MAX_BATCH_COUNT]]
            await self._travel_from(server)
        self._count_answer(server, "messages", sum(one.size_bytes for one in batch))
        faults = [fault for one in batch if (fault := _find_fault(one, request))]
        if faults:
            self._conduct.blame(peer_id, faults[0])
            raise PeerUnreachable(f"peer {peer_id.hex()}: {faults[0]}")
        return [one.message for one in batch if one.message is not None]

    async def _reach(self, peer_id: bytes) -> "FabricPort":
        """Return a peer when our question has arrived there. Raises PeerUnreachable."""
        ban = self._conduct.explain_ban(peer_id)
        if ban is not None:
            raise PeerUnreachable(f"the peer is {ban}")
        if not self._ground.links.is_open(self.peer_id, peer_id):
            await trio.sleep(self._limits.dial_seconds)
            raise PeerUnreachable("the peer does not answer")
        await self._travel(peer_id)
        server = self._ground.ports.get(peer_id)
        if server is None or server._conduct.is_banned(self.peer_id):
            await self._travel(peer_id)
            raise PeerUnreachable("the peer takes no connection")
        return server

    @contextmanager
    def _stream_to(self, server: "FabricPort") -> Iterator[None]:
        """Ask a peer for as long as it is there. Raises PeerUnreachable when it ends."""
        with trio.CancelScope() as stream:
            server._streams[stream] = None
            try:
                yield
            finally:
                del server._streams[stream]
        if stream.cancelled_caught:
            raise PeerUnreachable("the stream broke")

    async def _travel_from(self, server: "FabricPort") -> None:
        """Wait for what a peer has sent. Raises StreamTimeout if the link is cut meanwhile."""
        await self._travel(server.peer_id)
        if not self._ground.links.is_open(self.peer_id, server.peer_id):
            await trio.sleep(self._limits.io_seconds)
            raise StreamTimeout("the peer stopped sending")

    async def _travel(self, peer_id: bytes) -> None:
        await trio.sleep(self._ground.links.find_delay(self.peer_id, peer_id))

    async def _upload(self, peer_id: bytes, size_bytes: int) -> None:
        """Send a blob to a peer, by pieces, when it is its turn."""
        step = self._uplink.piece_bytes
        for offset in range(0, size_bytes, step):
            await self._uplink.take_turn(peer_id, min(step, size_bytes - offset))

    def _count_answer(self, server: "FabricPort", kind: str, size_bytes: int) -> None:
        self._counts.received_bytes[kind] += size_bytes
        server._counts.sent_bytes[kind] += size_bytes
        self._ground.traffic.count(kind, "", 1, size_bytes)

    def _is_connected(self, peer_id: bytes) -> bool:
        server = self._ground.ports.get(peer_id)
        return (
            server is not None
            and self._ground.links.is_open(self.peer_id, peer_id)
            and not self._conduct.is_banned(peer_id)
            and not server._conduct.is_banned(self.peer_id)
        )

    def _note_ban(self, _peer_id: bytes) -> None:
        self._has_banned = True


def _find_fault(content: CheckedMessage, request: MessagesRequest) -> str:
    """Say what is wrong with a message of an answer; nothing if it is empty."""
    message = content.message
    if message is None:
        return content.fault
    kind = message.__struct_config__.tag
    is_asked_for = (kind, message.job_id) == (request.kind, request.job_id)
    return "" if is_asked_for else f"{type(message).__name__} was not asked for"
