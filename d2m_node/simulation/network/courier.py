"""Gossip on its way through a simulated network, in virtual time.

A message goes from its sender straight to all who are subscribed. Whom the sender cannot reach, or
leaves out, hears of it from a node that accepted it and can reach them: so a partition divides, and
a cut link does not. Real nodes pass all gossip on to each other; what that costs in copies is not
counted here, and what is lost by chance is not made up for.

One task delivers everything, in the order of arrival.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import heappop, heappush
from math import ceil, inf
from typing import Final, Protocol

import trio

from d2m_node.ports import Verdict
from d2m_node.simulation.network.links import FabricOptions, Links, as_fraction, draw_word, mix
from protocol.errors import InvalidMessage
from protocol.wire.codec import decode_message, encode_message
from protocol.wire.messages import GossipMessage, PulledMessage

MESSAGES_KEPT: Final = 4096


@dataclass(frozen=True, slots=True)
class Whisper:
    """A message that a hostile node sends to some of its peers only."""

    message: GossipMessage
    receivers: Collection[bytes]


Outgoing = Callable[[str, GossipMessage], Sequence[GossipMessage | Whisper]]
"""What a hostile node sends instead of a message that it was about to gossip on a topic."""


@dataclass(frozen=True, slots=True)
class CheckedMessage:
    """A message as it arrives: encoded and decoded, or what is wrong with it."""

    message: PulledMessage | None
    size_bytes: int
    fault: str = ""


@lru_cache(maxsize=MESSAGES_KEPT)
def check_message(message: PulledMessage) -> CheckedMessage:
    """Send a message through the codec, once for all who get it: messages never change."""
    data = encode_message(message)
    try:
        decoded = decode_message(data)
    except InvalidMessage as error:
        return CheckedMessage(None, len(data), str(error))
    if not isinstance(decoded, PulledMessage):
        return CheckedMessage(None, len(data), f"{type(decoded).__name__} is no answer")
    return CheckedMessage(decoded, len(data))


@dataclass(slots=True)
class Traffic:
    """What was sent, by kind and topic: gossip counts each copy, blobs and messages each answer.

    Answers have no topic: theirs is empty.
    """

    messages: Counter[tuple[str, str]] = field(default_factory=Counter)
    bytes: Counter[tuple[str, str]] = field(default_factory=Counter)
    published: Counter[str] = field(default_factory=Counter)
    """Gossiped messages by their type, each once."""

    def count(self, kind: str, topic: str, messages: int, size_bytes: int) -> None:
        """Count messages that have a size together."""
        self.messages[kind, topic] += messages
        self.bytes[kind, topic] += size_bytes


class Mailbox(Protocol):
    """A node, as far as gossip goes."""

    peer_id: bytes
    chance: int
    """64 bits of its own."""
    closed_at: float
    """When it ended; infinity before that."""

    def may_tell(self, topic: str, reader: "Mailbox") -> bool:
        """Tell whether another node is of a topic's audience, as far as this one knows."""

    def turns_away(self, sender: "Mailbox") -> bool:
        """Tell whether it takes nothing from another node."""

    def take(self, topic: str, content: CheckedMessage, sender: "Mailbox") -> Verdict:
        """Judge a message that has arrived, and deliver it to whom it is for."""


@dataclass(slots=True, eq=False, kw_only=True)
class Parcel:
    """A message on its way."""

    topic: str
    content: CheckedMessage
    departs_at: float
    chance: int
    """64 bits of its own."""
    holders: list[Mailbox] = field(default_factory=list)
    """Who accepted it, and can pass it on."""
    missing: list[Mailbox] = field(default_factory=list)
    """Who was subscribed, and is not yet sent a copy."""


class Courier:
    """Takes messages from nodes to subscribers. See the module's text."""

    def __init__(self, options: FabricOptions, links: Links, traffic: Traffic) -> None:
        self._options = options
        self._links = links
        self._traffic = traffic
        self._subscribers: dict[str, dict[Mailbox, None]] = {}
        self._sent: Counter[bytes] = Counter()
        """Messages by peer, across its restarts."""
        self._due: dict[int, list[tuple[Mailbox, Parcel, Mailbox]]] = {}
        """By the tick of arrival: to whom, what, from whom."""
        self._ticks: list[int] = []
        self._nap: trio.CancelScope | None = None

    def subscribe(self, topic: str, reader: Mailbox) -> None:
        """Bring a topic's messages to a node from now on."""
        self._subscribers.setdefault(topic, {})[reader] = None

    def unsubscribe(self, topic: str, reader: Mailbox) -> None:
        """Bring it no more of them."""
        del self._subscribers[topic][reader]

    def send(
        self, sender: Mailbox, topic: str, letter: GossipMessage | Whisper, departs_at: float
    ) -> CheckedMessage:
        """Send a message to all subscribers, or to those that are named; return it as it arrives.

        It is gone if its sender ends before it departs.
        """
        receivers = letter.receivers if isinstance(letter, Whisper) else None
        message = letter.message if isinstance(letter, Whisper) else letter
        content = check_message(message)
        number = self._sent[sender.peer_id]
        self._sent[sender.peer_id] += 1
        parcel = Parcel(
            topic=topic,
            content=content,
            departs_at=departs_at,
            chance=draw_word(b"gossip", self._options.seed, sender.peer_id, number),
        )
        subscribers = self._subscribers.get(topic, ())
        readers = [one for one in subscribers if one is not sender and sender.may_tell(topic, one)]
        for reader in readers:
            is_meant = receivers is None or reader.peer_id in receivers
            if is_meant and self._links.is_open(sender.peer_id, reader.peer_id):
                self._post(reader, parcel, sender, departs_at)
            else:
                parcel.missing.append(reader)
        self._traffic.published[type(message).__name__] += 1
        copies = len(readers) - len(parcel.missing)
        self._traffic.count("gossip", topic, copies, copies * content.size_bytes)
        return content

    async def run(self) -> None:
        """Deliver what is sent, until cancelled."""
        while True:
            first = self._ticks[0] * self._options.tick_seconds if self._ticks else inf
            with trio.CancelScope(deadline=first) as self._nap:
                await trio.sleep_forever()
            self._nap = None
            # The first tick is due, even if a rounding error of the clock says that it is not.
            for reader, parcel, sender in self._due.pop(heappop(self._ticks)):
                self._deliver(reader, parcel, sender)

    def _post(self, reader: Mailbox, parcel: Parcel, sender: Mailbox, departs_at: float) -> None:
        delay = self._links.find_delay(sender.peer_id, reader.peer_id)
        if not self._links.is_by_chance:
            self._schedule(departs_at + delay, reader, parcel, sender)
            return
        chance = mix(parcel.chance ^ sender.chance ^ mix(reader.chance))
        if as_fraction(chance) < self._links.find_loss(sender.peer_id, reader.peer_id):
            return
        jitter = self._options.jitter_seconds
        arrives_at = departs_at + delay + jitter * as_fraction(mix(chance + 1))
        self._schedule(arrives_at, reader, parcel, sender)
        if as_fraction(mix(chance + 2)) < self._options.duplicate:  # it went another way, too
            self._schedule(arrives_at + delay, reader, parcel, sender)

    def _schedule(
        self, arrives_at: float, reader: Mailbox, parcel: Parcel, sender: Mailbox
    ) -> None:
        tick = ceil(arrives_at / self._options.tick_seconds)
        due = self._due.get(tick)
        if due is None:
            due = self._due[tick] = []
            heappush(self._ticks, tick)
            if self._nap is not None and self._ticks[0] == tick:
                self._nap.deadline = tick * self._options.tick_seconds
        due.append((reader, parcel, sender))

    def _deliver(self, reader: Mailbox, parcel: Parcel, sender: Mailbox) -> None:
        if reader.closed_at < inf or sender.closed_at < parcel.departs_at:
            return
        if not self._can_bring(reader, sender):
            if not any(self._pass_on(reader, parcel, holder) for holder in parcel.holders):
                parcel.missing.append(reader)
        elif reader.take(parcel.topic, parcel.content, sender) is Verdict.ACCEPT:
            parcel.holders.append(reader)
            if parcel.missing:
                parcel.missing = [
                    one for one in parcel.missing if not self._pass_on(one, parcel, reader)
                ]

    def _pass_on(self, reader: Mailbox, parcel: Parcel, holder: Mailbox) -> bool:
        """Bring a message to a node from another one than its sender, if that one can."""
        if holder.closed_at < inf or not self._can_bring(reader, holder):
            return False
        self._post(reader, parcel, holder, trio.current_time())
        self._traffic.count("gossip", parcel.topic, 1, parcel.content.size_bytes)
        return True

    def _can_bring(self, reader: Mailbox, sender: Mailbox) -> bool:
        is_open = self._links.is_open(sender.peer_id, reader.peer_id)
        return is_open and not reader.turns_away(sender)
