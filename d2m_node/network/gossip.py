"""Topics ↔ bounded channels: every message is judged before it is delivered or forwarded."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
import trio
from libp2p.pubsub.pubsub import Pubsub

from d2m_node.network.audience import FindPlace
from d2m_node.network.counts import NetworkCounts
from d2m_node.network.hardening import Blame
from d2m_node.network.settings import NetworkSettings
from d2m_node.ports import TopicPlace, Verdict
from protocol.errors import InvalidMessage
from protocol.wire.codec import decode_message, encode_message
from protocol.wire.messages import GossipMessage

log = structlog.get_logger(__name__)

Validate = Callable[[GossipMessage], Verdict]

BURST_SECONDS = 10.0
LEAVE_SECONDS = 1.0
MAX_ALLOWANCES = 1024
"""Peers come and go; the one remembered longest is forgotten."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Subscription:
    """One reader of a topic; a node with two roles may have two."""

    validate: Validate
    send: trio.MemorySendChannel[GossipMessage]
    counts: NetworkCounts
    overflow: trio.MemoryReceiveChannel[GossipMessage]

    def judge(self, message: GossipMessage) -> Verdict:
        try:
            verdict = self.validate(message)
        except Exception:  # our bug: the peer is not to blame, the node goes on
            log.exception("validator_failed", message=type(message).__name__)
            return Verdict.IGNORE
        if verdict is Verdict.ACCEPT:
            self._deliver(message)
        return verdict

    def _deliver(self, message: GossipMessage) -> None:
        try:
            self.send.send_nowait(message)
        except trio.WouldBlock:
            self.counts.dropped += 1
            self.overflow.receive_nowait()
            self.send.send_nowait(message)


@dataclass(slots=True)
class _Allowance:
    """A bucket of messages that a peer may still send, refilled with time."""

    left: float
    since: float


class Gossip:
    """Joins topics, judges what arrives, and paces what we publish."""

    def __init__(
        self,
        own_id: bytes,
        settings: NetworkSettings,
        blame: Blame,
        counts: NetworkCounts,
        find_place: FindPlace,
    ) -> None:
        self._own_id = own_id
        self._settings = settings
        self._blame = blame
        self._counts = counts
        self._find_place = find_place
        self._topics: dict[str, list[_Subscription]] = {}
        self._allowances: dict[bytes, _Allowance] = {}
        self._pubsub: Pubsub | None = None
        self.next_sequence = settings.first_sequence
        """Of the first message over the next stack; None leaves it to the clock."""
        self._outgoing, self._queue = trio.open_memory_channel[tuple[str, bytes]](
            settings.publish_queue_length
        )

    async def publish(self, topic: str, message: GossipMessage) -> None:
        """Queue a message; waits while the queue is full."""
        await self._outgoing.send((topic, encode_message(message)))

    async def run_publisher(self, pubsub: Pubsub) -> None:
        """Send what is queued, with a pause after each, until cancelled.

        What is taken while the network fails may be lost: each phase ends with a pull.
        """
        while True:
            topic, data = await self._queue.receive()
            await pubsub.publish(topic, data)
            self._counts.published += 1
            self._counts.sent_bytes["gossip"] += len(data)
            await trio.sleep(self._settings.publish_pause_seconds)

    async def attach(self, pubsub: Pubsub) -> None:
        """Speak over a new stack; join what was joined before."""
        self._pubsub = pubsub
        for topic in tuple(self._topics):
            await pubsub.subscribe(topic)

    def detach(self) -> None:
        """The stack is gone."""
        if self._pubsub is not None:
            self.next_sequence = self._pubsub.counter
        self._pubsub = None

    @asynccontextmanager
    async def join_topic(
        self, topic: str, validate: Validate
    ) -> AsyncIterator[trio.MemoryReceiveChannel[GossipMessage]]:
        """Subscribe while the context is open; see `NetworkPort.join_topic`."""
        send, receive = trio.open_memory_channel[GossipMessage](self._settings.queue_length)
        overflow = receive.clone()
        subscription = _Subscription(
            validate=validate, send=send, overflow=overflow, counts=self._counts
        )
        with send, overflow, receive:
            self._topics.setdefault(topic, []).append(subscription)
            try:
                await self._subscribe(topic)
                yield receive
            finally:
                await self._leave(topic, subscription)

    def judge(
        self, forwarder: bytes, origin: bytes, topics: Sequence[str], data: bytes
    ) -> Verdict | None:
        """Decode, validate and deliver one message; blame the forwarder of a bad one.

        Return None for what is not taken from this forwarder, and may be from another: else who
        floods, or has no place on a topic, could make this node take a message for a copy.
        """
        if origin == self._own_id:
            return Verdict.IGNORE
        self._counts.received_bytes["gossip"] += len(data)
        if not self._is_within_allowance(forwarder):
            self._counts.drop_message(forwarder, "flood")
            self._blame(forwarder, "too many messages")
            return None
        if not self._is_heard(forwarder, origin, topics):
            self._counts.drop_message(forwarder, "outside")
            return None
        verdict = self._judge_content(forwarder, topics, data)
        self._counts.verdicts[verdict.value] += 1
        return verdict

    def _is_heard(self, forwarder: bytes, origin: bytes, topics: Sequence[str]) -> bool:
        """Tell whether a peer may bring a message: the audience any, a speaker its own."""
        places = {self._find_place(topic, forwarder) for topic in topics}
        if TopicPlace.OUTSIDE in places:
            return False
        return TopicPlace.SPEAKER not in places or forwarder == origin

    def measure_queues(self) -> dict[str, tuple[int, int]]:
        """Return length and limit of the queues: what waits to be published, and to be taken."""
        settings = self._settings
        lengths = [
            subscription.send.statistics().current_buffer_used
            for subscriptions in self._topics.values()
            for subscription in subscriptions
        ]
        waiting = self._queue.statistics().current_buffer_used
        return {
            "publish": (waiting, settings.publish_queue_length),
            "deliver": (max(lengths, default=0), settings.queue_length),
        }

    def _judge_content(self, forwarder: bytes, topics: Sequence[str], data: bytes) -> Verdict:
        try:
            subscriptions = self._find_subscriptions(topics)
            if not subscriptions:
                return Verdict.IGNORE
            message = _decode(data)
        except InvalidMessage as exc:
            self._blame(forwarder, str(exc))
            return Verdict.REJECT
        verdicts = {subscription.judge(message) for subscription in subscriptions}
        if Verdict.REJECT in verdicts:
            self._blame(forwarder, f"{type(message).__name__} against the rules")
            return Verdict.REJECT
        return Verdict.ACCEPT if Verdict.ACCEPT in verdicts else Verdict.IGNORE

    async def _subscribe(self, topic: str) -> None:
        """Join now; without a stack, or if it is failing, the next one does it."""
        if self._pubsub is None:
            return
        try:
            await self._pubsub.subscribe(topic)
        except Exception as exc:  # noqa: BLE001 - libp2p lets errors of any layer through
            log.info("subscribing_failed", topic=topic, error=repr(exc))

    async def _leave(self, topic: str, subscription: _Subscription) -> None:
        subscriptions = self._topics[topic]
        subscriptions.remove(subscription)
        if subscriptions:
            return
        del self._topics[topic]
        if self._pubsub is None:
            return
        with trio.move_on_after(LEAVE_SECONDS) as leaving:
            leaving.shield = True
            try:
                await self._pubsub.unsubscribe(topic)
            except Exception as exc:  # noqa: BLE001 - libp2p lets errors of any layer through
                log.info("leaving_failed", topic=topic, error=repr(exc))

    def _find_subscriptions(self, topics: Sequence[str]) -> Sequence[_Subscription]:
        if len(topics) != 1:
            raise InvalidMessage(f"one message on {len(topics)} topics")
        return tuple(self._topics.get(topics[0], ()))

    def _is_within_allowance(self, peer_id: bytes) -> bool:
        now = trio.current_time()
        rate = self._settings.messages_per_second
        if len(self._allowances) > MAX_ALLOWANCES:
            del self._allowances[next(iter(self._allowances))]
        bucket = self._allowances.setdefault(peer_id, _Allowance(rate * BURST_SECONDS, now))
        bucket.left = min(rate * BURST_SECONDS, bucket.left + rate * (now - bucket.since)) - 1.0
        bucket.since = now
        if bucket.left >= 0.0:
            return True
        bucket.left = 0.0
        return False


def _decode(data: bytes) -> GossipMessage:
    message = decode_message(data)
    if not isinstance(message, GossipMessage):
        raise InvalidMessage(f"{type(message).__name__} is not for gossip")
    return message
