"""Gossip among real hosts on loopback: who gets what, and who is blamed."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from d2m_node.network.adapter import Libp2pNetwork
from d2m_node.ports import Verdict
from protocol.wire.codec import encode_message
from protocol.wire.messages import BlobHeader, GossipMessage
from tests.support.network import (
    PATIENCE_SECONDS,
    Watch,
    accept,
    build_bitmap,
    connect,
    start_network,
    start_networks,
    wait_gossiping,
    wait_subscribed,
)

TOPIC = "d2m/1/31337/market/1/votes"

Channel = trio.MemoryReceiveChannel[GossipMessage]


@asynccontextmanager
async def join_all(networks: list[Libp2pNetwork]) -> AsyncIterator[list[Channel]]:
    """Subscribe all to the topic, and wait until all know."""
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(network.join_topic(TOPIC, accept))
            for network in networks
        ]
        for network in networks:
            for other in networks:
                if other is not network:
                    await wait_subscribed(network, other, TOPIC)
        yield channels


async def receive(channel: Channel, count: int) -> list[int]:
    """Receive messages; return their numbers in the order of arrival."""
    with trio.fail_after(PATIENCE_SECONDS):
        return [(await channel.receive()).round_index for _ in range(count)]  # type: ignore[union-attr]


async def test_each_of_five_hosts_hears_the_other_four_and_not_itself(tmp_path: Path) -> None:
    async with start_networks(tmp_path, "abcde") as networks, join_all(networks) as channels:
        for number, network in enumerate(networks):
            await network.publish(TOPIC, build_bitmap(number))
        for own, channel in enumerate(channels):
            assert sorted(await receive(channel, 4)) == [n for n in range(5) if n != own]
        for channel in channels:
            with pytest.raises(trio.WouldBlock):
                channel.receive_nowait()


@asynccontextmanager
async def start_line(
    folder: Path, verdict: Verdict, **changes: float
) -> AsyncIterator[tuple[Libp2pNetwork, Libp2pNetwork, Channel, Channel]]:
    """Three hosts in a line; the middle gives ``verdict`` on odd numbers and accepts the rest."""

    def judge(message: GossipMessage) -> Verdict:
        return verdict if message.round_index % 2 else Verdict.ACCEPT  # type: ignore[union-attr]

    async with (
        start_network(folder / "speaker") as speaker,
        start_network(folder / "middle", **changes) as middle,
        start_network(folder / "listener") as listener,
    ):
        await connect(speaker, middle)
        await connect(middle, listener)
        async with (
            middle.join_topic(TOPIC, judge) as at_middle,
            listener.join_topic(TOPIC, accept) as at_listener,
        ):
            await wait_subscribed(speaker, middle, TOPIC)
            await wait_subscribed(middle, listener, TOPIC)
            await middle.stack.pubsub.wait_for_mesh(
                listener.stack.host.get_id(), TOPIC, PATIENCE_SECONDS
            )
            yield speaker, middle, at_middle, at_listener


async def test_messages_are_counted_by_what_was_made_of_them(tmp_path: Path) -> None:
    async with start_line(tmp_path, Verdict.REJECT) as (speaker, middle, at_middle, _):
        for number in (1, 2, 4):
            await speaker.publish(TOPIC, build_bitmap(number))
        assert await receive(at_middle, 2) == [2, 4]
        said, heard = speaker.measure(), middle.measure()
    assert heard.verdicts == {"accept": 2, "reject": 1}
    assert heard.faults == 1
    assert said.published == 3
    assert said.sent_bytes["gossip"] == heard.received_bytes["gossip"] > 0
    assert heard.queue_lengths == {"publish": 0, "deliver": 0}
    assert heard.queue_limits["publish"] == 256


async def test_a_peer_that_keeps_sending_rejected_messages_is_banned(tmp_path: Path) -> None:
    async with start_line(tmp_path, Verdict.REJECT, max_penalty=2.5) as (speaker, middle, *_):
        gone = Watch(middle, speaker.peer_id)
        for number in (1, 3, 5):
            await speaker.publish(TOPIC, build_bitmap(number))
        with trio.fail_after(PATIENCE_SECONDS):
            await gone.disconnected_event.wait()
        assert middle.conduct.is_banned(speaker.peer_id)


async def test_a_peer_that_sends_ignored_messages_is_not_penalised(tmp_path: Path) -> None:
    async with start_line(tmp_path, Verdict.IGNORE, max_penalty=1.0) as line:
        speaker, middle, at_middle, _ = line
        for number in (1, 3, 5, 6):
            await speaker.publish(TOPIC, build_bitmap(number))
        assert await receive(at_middle, 1) == [6]
        assert not middle.conduct.is_banned(speaker.peer_id)


async def test_a_banned_peer_that_comes_back_is_turned_away(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["hostile_seller", "cone"], max_penalty=1.0) as networks:
        hostile_seller, cone = networks
        gone = Watch(cone, hostile_seller.peer_id)
        cone.stack.peers.blame(hostile_seller.peer_id, "test")
        with trio.fail_after(PATIENCE_SECONDS):
            await gone.disconnected_event.wait()
            gone = Watch(cone, hostile_seller.peer_id)  # it dials again by itself
            await gone.connected_event.wait()
            await gone.disconnected_event.wait()


async def test_penalties_fade_with_time(tmp_path: Path) -> None:
    settings = {"max_penalty": 2.0, "penalty_half_life_seconds": 1e-6}
    async with start_network(tmp_path / "cone", **settings) as cone:
        for _ in range(5):
            cone.stack.peers.blame(b"peer", "test")
        assert not cone.conduct.is_banned(b"peer")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        encode_message(build_bitmap(1)) + b"\x00",
        encode_message(BlobHeader(available=True, size_bytes=1)),
        bytes(65 * 1024),
    ],
    ids=["empty", "no MessagePack", "trailing byte", "no gossip", "too large"],
)
async def test_a_malformed_message_is_blamed_on_its_forwarder(
    tmp_path: Path, payload: bytes
) -> None:
    async with (
        start_networks(tmp_path, ["hostile_seller", "cone"], max_penalty=1.0) as networks,
        join_all(networks),
    ):
        hostile_seller, cone = networks
        gone = Watch(cone, hostile_seller.peer_id)
        await hostile_seller.stack.pubsub.publish(TOPIC, payload)
        with trio.fail_after(PATIENCE_SECONDS):
            await gone.disconnected_event.wait()


async def test_a_peer_over_its_quota_is_banned(tmp_path: Path) -> None:
    limits = {"messages_per_second": 1.0, "max_penalty": 5.0}
    async with (
        start_networks(tmp_path, ["flooder", "cone"], **limits) as networks,
        join_all(networks) as (_, at_cone),
    ):
        flooder, cone = networks
        gone = Watch(cone, flooder.peer_id)
        for number in range(20):
            await flooder.publish(TOPIC, build_bitmap(number))
        with trio.fail_after(PATIENCE_SECONDS):
            await gone.disconnected_event.wait()
        assert await receive(at_cone, 10) == list(range(10))


async def test_a_message_reaches_a_peer_that_joins_shortly_after(tmp_path: Path) -> None:
    async with (
        start_network(tmp_path / "early_seller") as early_seller,
        early_seller.join_topic(TOPIC, accept),
        start_network(tmp_path / "late_cone") as late_cone,
        late_cone.join_topic(TOPIC, accept) as channel,
    ):
        await early_seller.stack.pubsub.publish(TOPIC, encode_message(build_bitmap(1)))
        await connect(late_cone, early_seller)
        assert await receive(channel, 1) == [1]


async def test_messages_sent_right_after_a_restart_are_not_taken_for_copies(
    tmp_path: Path,
) -> None:
    async with start_network(tmp_path / "cone") as cone, cone.join_topic(TOPIC, accept) as heard:
        for start in (0, 10):
            async with start_network(tmp_path / "seller") as seller:
                await connect(seller, cone)
                await wait_gossiping(cone, seller)
                await wait_subscribed(seller, cone, TOPIC)
                for number in range(10):
                    await seller.publish(TOPIC, build_bitmap(start + number))
                assert sorted(await receive(heard, 10)) == list(range(start, start + 10))
