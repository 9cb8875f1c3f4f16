"""A topic's messages go to its audience, however much others subscribe."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from trio.testing import wait_all_tasks_blocked

from d2m_node.network.adapter import Libp2pNetwork
from d2m_node.network.audience import AudienceGossipSub
from d2m_node.ports import TopicPlace, Verdict
from protocol.wire.codec import encode_message
from protocol.wire.messages import GossipMessage
from tests.support.network import (
    PATIENCE_SECONDS,
    Shelf,
    accept,
    build_bitmap,
    connect,
    start_network,
    wait_subscribed,
)

TOPIC = "d2m/2/31337/market/1/votes"
COUNT = 20


@dataclass
class Circle:
    """Two CONE nodes, and a third host whose place they agree on."""

    cones: list[Libp2pNetwork]
    other: Libp2pNetwork
    shelves: list[Shelf]
    received: list[GossipMessage]
    """By the third host: judged there, which comes before all else."""

    def place_other(self, place: TopicPlace) -> None:
        for shelf in self.shelves:
            shelf.places[self.other.peer_id] = place


@dataclass
class Inbox:
    """What reaches a host of gossip, before anything of it is looked at."""

    messages: list[bytes] = field(default_factory=list)
    offers: list[str] = field(default_factory=list)


def watch_inbox(network: Libp2pNetwork) -> Inbox:
    inbox, pubsub, router = Inbox(), network.stack.pubsub, network.stack.router

    async def push_msg(forwarder: ID, message: rpc_pb2.Message) -> None:
        if forwarder != pubsub.my_id:
            inbox.messages.append(message.data)
        await type(pubsub).push_msg(pubsub, forwarder, message)

    async def handle_ihave(offer: rpc_pb2.ControlIHave, sender: ID) -> None:
        inbox.offers.append(offer.topicID)
        await type(router).handle_ihave(router, offer, sender)

    pubsub.push_msg = push_msg  # type: ignore[method-assign]
    router.handle_ihave = handle_ihave  # type: ignore[method-assign]
    return inbox


async def wait_heartbeats(circle: Circle, count: int) -> None:
    """Return when both routers have offered, replayed and mended what they would."""
    left = dict.fromkeys(range(len(circle.cones)), count)
    for number, cone in enumerate(circle.cones):
        router = cone.stack.router

        def beat(router: AudienceGossipSub = router, number: int = number) -> Any:
            left[number] -= 1
            return type(router).mesh_heartbeat(router)

        router.mesh_heartbeat = beat  # type: ignore[method-assign]
    await wait_until(lambda: all(one < 0 for one in left.values()))


async def wait_until(is_true: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while not is_true():
            await wait_all_tasks_blocked(0.01)


def watch_grafts(network: Libp2pNetwork) -> trio.Event:
    """Return what is set when somebody has asked for a place in the mesh."""
    router, handled = network.stack.router, trio.Event()

    async def handle_graft(graft: rpc_pb2.ControlGraft, sender: ID) -> None:
        await type(router).handle_graft(router, graft, sender)
        handled.set()

    router.handle_graft = handle_graft  # type: ignore[method-assign]
    return handled


async def send(network: Libp2pNetwork, receiver: Libp2pNetwork, rpc: rpc_pb2.RPC) -> None:
    """Write an RPC as a host that keeps to no rules would."""
    pubsub = network.stack.pubsub
    assert await Pubsub.write_msg(pubsub, pubsub.peers[ID(receiver.peer_id)], rpc)


def sign_message(network: Libp2pNetwork, message: GossipMessage) -> rpc_pb2.Message:
    """Make the message that a host would gossip."""
    pubsub = network.stack.pubsub
    made = rpc_pb2.Message(
        data=encode_message(message),
        topicIDs=[TOPIC],
        from_id=network.peer_id,
        seqno=pubsub._next_seqno(),
    )
    assert pubsub.sign_key is not None
    made.signature = pubsub.sign_key.sign(b"libp2p-pubsub:" + made.SerializeToString())
    made.key = network.stack.host.get_public_key().serialize()
    return made


@asynccontextmanager
async def open_circle(folder: Path, place: TopicPlace) -> AsyncIterator[Circle]:
    shelves = [Shelf(), Shelf()]
    received: list[GossipMessage] = []

    def judge(message: GossipMessage) -> Verdict:
        received.append(message)
        return Verdict.ACCEPT

    async with (
        start_network(folder / "first", shelves[0], heartbeat_seconds=0.1) as first,
        start_network(folder / "second", shelves[1], heartbeat_seconds=0.1) as second,
        start_network(folder / "other", heartbeat_seconds=0.1) as other,
    ):
        circle = Circle([first, second], other, shelves, received)
        circle.place_other(place)
        await connect(first, second)
        await connect(other, first)
        await connect(other, second)
        async with other.join_topic(TOPIC, judge):
            yield circle


@asynccontextmanager
async def join_pool(circle: Circle) -> AsyncIterator[trio.MemoryReceiveChannel[GossipMessage]]:
    """Let both CONE nodes listen; yield what the second one hears."""
    first, second = circle.cones
    async with first.join_topic(TOPIC, accept), second.join_topic(TOPIC, accept) as heard:
        await wait_subscribed(first, second, TOPIC)
        await wait_subscribed(second, first, TOPIC)
        yield heard


async def count_heard(channel: trio.MemoryReceiveChannel[GossipMessage], numbers: range) -> None:
    found = set()
    with trio.fail_after(PATIENCE_SECONDS):
        while found != set(numbers):
            found.add((await channel.receive()).round_index)  # type: ignore[union-attr]


@pytest.mark.parametrize("place", [TopicPlace.OUTSIDE, TopicPlace.SPEAKER])
async def test_who_subscribes_without_being_of_the_audience_gets_nothing(
    tmp_path: Path, place: TopicPlace
) -> None:
    async with open_circle(tmp_path, place) as circle, join_pool(circle) as heard:
        first, other = circle.cones[0], circle.other
        await wait_subscribed(first, other, TOPIC)
        inbox = watch_inbox(other)
        for number in range(COUNT):
            await first.publish(TOPIC, build_bitmap(number))
        await count_heard(heard, range(COUNT))
        await wait_heartbeats(circle, 4)
        assert inbox == Inbox()
        assert circle.received == []
        for cone in circle.cones:
            mesh = cone.stack.router.mesh[TOPIC]
            assert ID(other.peer_id) not in mesh
            assert not cone.stack.router._pending_messages, "nothing is kept for who may come"


async def test_who_asks_for_messages_by_their_ids_or_for_a_place_in_the_mesh_gets_none(
    tmp_path: Path,
) -> None:
    """The ids are no secret: a sender's name and a number."""
    async with open_circle(tmp_path, TopicPlace.OUTSIDE) as circle, join_pool(circle) as heard:
        first, other = circle.cones[0], circle.other
        await wait_subscribed(first, other, TOPIC)
        inbox = watch_inbox(other)
        await first.publish(TOPIC, build_bitmap(0))
        await count_heard(heard, range(1))
        ids = first.stack.router.mcache.window(TOPIC)
        assert ids
        wanted = rpc_pb2.RPC()
        wanted.control.iwant.append(
            rpc_pb2.ControlIWant(messageIDs=[one.hex().encode() for one in ids])
        )
        wanted.control.graft.append(rpc_pb2.ControlGraft(topicID=TOPIC))
        handled = watch_grafts(first)
        await send(other, first, wanted)
        with trio.fail_after(PATIENCE_SECONDS):
            await handled.wait()
        await wait_heartbeats(circle, 3)
        assert inbox == Inbox()
        assert ID(other.peer_id) not in first.stack.router.mesh[TOPIC]
        circle.place_other(TopicPlace.AUDIENCE)
        await send(other, first, wanted)
        await wait_until(lambda: bool(inbox.messages))


async def test_who_joins_the_audience_hears_from_then_on_and_who_leaves_it_does_not(
    tmp_path: Path,
) -> None:
    """A subscription may come before the chain knows who is of a job, and last longer."""
    async with open_circle(tmp_path, TopicPlace.OUTSIDE) as circle, join_pool(circle) as heard:
        first, other = circle.cones[0], circle.other
        await wait_subscribed(first, other, TOPIC)
        circle.place_other(TopicPlace.AUDIENCE)
        await first.publish(TOPIC, build_bitmap(0))
        await count_heard(heard, range(1))
        await wait_until(lambda: bool(circle.received))
        await wait_until(lambda: ID(other.peer_id) in first.stack.router.mesh[TOPIC])
        circle.place_other(TopicPlace.OUTSIDE)
        await wait_heartbeats(circle, 2)
        assert ID(other.peer_id) not in first.stack.router.mesh[TOPIC]
        inbox = watch_inbox(other)
        await first.publish(TOPIC, build_bitmap(1))
        await count_heard(heard, range(1, 2))
        await wait_heartbeats(circle, 2)
        assert inbox == Inbox()


async def test_a_speaker_that_does_not_subscribe_is_heard_by_the_whole_audience(
    tmp_path: Path,
) -> None:
    async with open_circle(tmp_path, TopicPlace.SPEAKER) as circle, join_pool(circle) as heard:
        await wait_subscribed(circle.other, circle.cones[1], TOPIC)
        for number in range(COUNT):
            await circle.other.publish(TOPIC, build_bitmap(number))
        await count_heard(heard, range(COUNT))


async def test_what_an_outsider_brings_is_not_taken_and_does_not_stop_its_sender(
    tmp_path: Path,
) -> None:
    """Were it taken for seen, whoever is quick could keep a message from its audience."""
    async with open_circle(tmp_path, TopicPlace.OUTSIDE) as circle, join_pool(circle) as heard:
        first, second = circle.cones
        await wait_subscribed(circle.other, second, TOPIC)
        message = sign_message(first, build_bitmap(7))
        brought = rpc_pb2.RPC(publish=[message])
        await send(circle.other, second, brought)
        await wait_until(lambda: "outside" in second.measure().verdicts)
        assert heard.statistics().current_buffer_used == 0
        await send(first, second, brought)
        await count_heard(heard, range(7, 8))
        assert not second.conduct.is_banned(circle.other.peer_id)
        assert second.measure().faults == 0


async def test_what_a_flooder_brings_may_still_come_from_another(tmp_path: Path) -> None:
    async with (
        start_network(tmp_path / "cone", messages_per_second=0.1, max_penalty=1e9) as cone,
        start_network(tmp_path / "flooder") as flooder,
        start_network(tmp_path / "speaker") as speaker,
    ):
        await connect(flooder, cone)
        await connect(speaker, cone)
        async with cone.join_topic(TOPIC, accept) as heard:
            await wait_subscribed(flooder, cone, TOPIC)
            await wait_subscribed(speaker, cone, TOPIC)
            copied = rpc_pb2.RPC(publish=[sign_message(speaker, build_bitmap(9))])
            await flooder.publish(TOPIC, build_bitmap(1))  # all that it may send
            await count_heard(heard, range(1, 2))
            await send(flooder, cone, copied)
            await wait_until(lambda: "flood" in cone.measure().verdicts)
            (told,) = [one for one in cone.peers() if one.peer_id == flooder.peer_id]
            assert (told.turned_away, round(told.penalty)) == ({"flood": 1}, 1)
            await send(speaker, cone, copied)
            await count_heard(heard, range(9, 10))
