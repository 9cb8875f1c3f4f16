"""What stock py-libp2p does to a node that trusts it, and that ours does not: trap by trap.

Each trap has a test that shows stock falling into it, and fails once an upgrade mends that, and a
test that shows the same being done to our stack. What the patches do beyond these is tested in
`test_network_hardening.py`.

 1. An exception in a stream handler ends the whole host.
 2. Malformed protobuf, or a garbage key, on the gossip stream ends the node.
 3. A validator that raises ends the node.
 4. Of a hundred messages published at once, 32 or fewer are delivered, and nobody is told.
 5. A peer that was down once cannot be dialled for a minute.
 6. Leaving a host leaves its sockets open; closing one can hang for ever.
 7. Two hosts share one port, and neither is told.
 8. A receiver that pauses for five seconds sees a clean end of a truncated stream.
 9. What a peer sends beyond its window is kept, however much it is.
10. Fewer peers may come in than the limit says.
11. Errors leave as groups within groups.
12. The log of the library is hidden from the application.
"""

import gc
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamEOF, StreamError, StreamReset
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.pubsub.pb import rpc_pb2
from libp2p.stream_muxer.yamux import yamux
from multiaddr import Multiaddr
from trio.testing import wait_all_tasks_blocked

from d2m_node.errors import PeerUnreachable, StoreCorrupted, UserError
from d2m_node.network import hardening
from d2m_node.network.peer_stream import PeerStream
from d2m_node.ports import Verdict
from protocol.hashing import keccak
from protocol.wire.messages import GossipMessage
from tests.support.flood import start_flooded
from tests.support.network import (
    LOCAL,
    PATIENCE_SECONDS,
    Shelf,
    Watch,
    accept,
    build_bitmap,
    connect,
    open_raw_stream,
    start_network,
    start_networks,
    wait_gossiping,
    wait_subscribed,
)
from tests.support.stock import (
    STOCK_LOG_PROPAGATES,
    StockGossip,
    Unpatched,
    build_stock_host,
    connect_subscribed,
    run_stock_gossip,
    run_stock_hosts,
)

TOPIC = "d2m/1/31337/market/1/votes"
TEST_PROTOCOL = TProtocol("/test")


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Unpatched]:
    """Undo all patches, and sweep up what stock leaves open before another test is warned of it."""
    unpatched = Unpatched(monkeypatch)
    unpatched.restore_all()
    yield unpatched
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


# --- 1. An exception in a stream handler ends the whole host --------------------------------------


async def fail(stream: Any) -> None:
    await stream.read(1)
    raise KeyError("hostile bytes")


async def provoke_stock_handler() -> None:
    server, client = build_stock_host(), build_stock_host()
    server.set_stream_handler(TEST_PROTOCOL, fail)
    async with run_stock_hosts(server, client):
        stream = await client.new_stream(server.get_id(), [TEST_PROTOCOL])
        await stream.write(b"x")
        await trio.sleep_forever()


async def test_1_a_failing_stream_handler_ends_a_stock_host(stock: Unpatched) -> None:
    with trio.fail_after(PATIENCE_SECONDS), pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        await provoke_stock_handler()


async def test_1_a_failing_stream_handler_costs_its_stream_only(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["client", "server"]) as (client, server):
        server.stack.host.set_stream_handler(TEST_PROTOCOL, fail)
        for _ in range(2):
            stream = await open_raw_stream(client, server.peer_id, TEST_PROTOCOL)
            await stream.write(b"x")
            with trio.fail_after(PATIENCE_SECONDS), pytest.raises(StreamError):
                await stream.read(1)
        assert client.stack.peers.is_connected(server.peer_id)
        assert server.measure().restarts == 0


# --- 2. Malformed protobuf, or a garbage key, on the gossip stream ends the node ------------------

BAD_KEY = rpc_pb2.Message(
    data=b"x",
    topicIDs=[TOPIC],
    from_id=b"nobody",
    seqno=b"1",
    key=b"\x08\x01\x12\x01x",
    signature=b"s",
)
MALFORMED = {
    "protobuf": b"\xff" * 20,
    "key": rpc_pb2.RPC(publish=[BAD_KEY]).SerializeToString(),
}


async def write_rpc(stream: Any, rpc: bytes) -> None:
    await stream.write(bytes([len(rpc) & 0x7F | 0x80, len(rpc) >> 7]) + rpc)


async def send_to_stock_gossip(rpc: bytes) -> None:
    sender = build_stock_host()
    async with run_stock_gossip() as listener, run_stock_hosts(sender):
        await listener.pubsub.subscribe(TOPIC)
        target = PeerInfo(listener.host.get_id(), listener.host.get_transport_addrs())
        await sender.connect(target)
        stream = await sender.new_stream(target.peer_id, [hardening.GOSSIP_PROTOCOL])
        await write_rpc(stream, rpc)
        await trio.sleep_forever()


@pytest.mark.parametrize("malformed", MALFORMED)
async def test_2_malformed_gossip_ends_a_stock_host(stock: Unpatched, malformed: str) -> None:
    with trio.fail_after(PATIENCE_SECONDS), pytest.raises(ExceptionGroup):
        await send_to_stock_gossip(MALFORMED[malformed])


@pytest.mark.parametrize("malformed", MALFORMED)
async def test_2_malformed_gossip_is_blamed_on_its_sender(tmp_path: Path, malformed: str) -> None:
    async with start_networks(tmp_path, ["hostile_seller", "cone"], max_penalty=1.0) as networks:
        hostile_seller, cone = networks
        gone = Watch(cone, hostile_seller.peer_id)
        async with cone.join_topic(TOPIC, accept):
            stream = await open_raw_stream(hostile_seller, cone.peer_id, hardening.GOSSIP_PROTOCOL)
            await write_rpc(stream, MALFORMED[malformed])
            with trio.fail_after(PATIENCE_SECONDS):
                await gone.disconnected_event.wait()
        assert cone.measure().restarts == 0


# --- 3. A validator that raises ends the node -----------------------------------------------------


def break_down(*_arguments: object) -> bool:
    raise KeyError("a bug of ours")


async def publish_to_broken_stock_validator() -> None:
    async with run_stock_gossip() as listener, run_stock_gossip() as speaker:
        await listener.pubsub.subscribe(TOPIC)
        listener.pubsub.set_topic_validator(TOPIC, break_down, is_async_validator=False)
        await connect_subscribed(speaker, listener, TOPIC)
        await speaker.pubsub.publish(TOPIC, b"x")
        await trio.sleep_forever()


async def test_3_a_validator_that_raises_ends_a_stock_host(stock: Unpatched) -> None:
    with trio.fail_after(PATIENCE_SECONDS), pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        await publish_to_broken_stock_validator()


async def test_3_a_validator_that_raises_loses_its_message_and_nothing_else(
    tmp_path: Path,
) -> None:
    def judge(message: GossipMessage) -> Verdict:
        if message.round_index == 1:  # type: ignore[union-attr]
            raise KeyError("a bug of ours")
        return Verdict.ACCEPT

    async with (
        start_networks(tmp_path, ["seller", "cone"]) as (seller, cone),
        cone.join_topic(TOPIC, judge) as heard,
    ):
        await wait_subscribed(seller, cone, TOPIC)
        for number in (1, 2):
            await seller.publish(TOPIC, build_bitmap(number))
        with trio.fail_after(PATIENCE_SECONDS):
            assert await heard.receive() == build_bitmap(2)
        assert not cone.conduct.is_banned(seller.peer_id)
        assert cone.measure().restarts == 0


# --- 4. Of a hundred messages published at once, 32 or fewer are delivered ------------------------


async def count_delivered(speaker: StockGossip, listener: StockGossip, sent: int) -> int:
    """Publish as fast as it goes, then count what is there when all is quiet."""
    subscription = await listener.pubsub.subscribe(TOPIC)
    await connect_subscribed(speaker, listener, TOPIC)
    for number in range(sent):
        await speaker.pubsub.publish(TOPIC, str(number).encode())
    with trio.fail_after(PATIENCE_SECONDS):
        await subscription.get()
        await wait_all_tasks_blocked(0.3)
    queue = listener.pubsub.subscribed_topics_send[TOPIC]
    return 1 + queue.statistics().current_buffer_used


async def test_4_stock_delivers_few_of_a_hundred_messages_at_once(stock: Unpatched) -> None:
    """With stock's limit of rates, which drops even more, switched off."""
    async with (
        run_stock_gossip(spam_protection_enabled=False) as listener,
        run_stock_gossip(spam_protection_enabled=False) as speaker,
    ):
        assert await count_delivered(speaker, listener, 100) < 50


async def test_4_a_hundred_messages_at_once_all_arrive(tmp_path: Path) -> None:
    async with (
        start_networks(tmp_path, ["seller", "cone"]) as (seller, cone),
        cone.join_topic(TOPIC, accept) as heard,
    ):
        await wait_subscribed(seller, cone, TOPIC)
        for number in range(100):
            await seller.publish(TOPIC, build_bitmap(number))
        with trio.fail_after(PATIENCE_SECONDS):
            arrived = {(await heard.receive()).round_index for _ in range(100)}  # type: ignore[union-attr]
        assert arrived == set(range(100))


# --- 5. A peer that was down once cannot be dialled for a minute ----------------------------------

NOBODY = Multiaddr("/ip4/127.0.0.1/tcp/9")
"""The discard port: nothing listens there."""


async def test_5_stock_refuses_for_a_minute_to_dial_who_was_down_once(stock: Unpatched) -> None:
    host = build_stock_host()
    target = ID.from_pubkey(create_new_key_pair().public_key)
    async with host.run([]):
        for reason in ("unable to connect", "negative cache"):
            host.get_peerstore().add_addrs(target, [NOBODY], 60)
            with pytest.raises(SwarmException, match=reason):
                await host.get_network().dial_peer(target)


async def test_5_a_peer_that_was_down_is_dialled_as_soon_as_it_is_back(tmp_path: Path) -> None:
    async with start_network(tmp_path / "peer") as peer:
        peer_id, address = peer.peer_id, peer.listening[0]
    async with start_network(tmp_path / "node") as node:
        node.set_address_book({peer_id: address})
        with trio.fail_after(PATIENCE_SECONDS):
            while node.peers()[0].last_error is None:  # noqa: ASYNC110 - a failed dial has no event
                await trio.sleep(0.01)
        async with start_network(tmp_path / "peer", listen=address):
            await wait_gossiping(node, peer)


# --- 6. Leaving a host leaves its sockets open; closing one can hang for ever ---------------------


def find_sockets(port: int) -> list[Any]:
    """List this process's TCP sockets with a port, at either end."""
    found = psutil.Process().net_connections("tcp")
    return [
        one for one in found if one.laddr.port == port or (one.raddr and one.raddr.port == port)
    ]


async def stop_reading(host: BasicHost) -> None:
    """Let a host's only connection read nothing any more."""

    async def read_nothing(_count: int) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    (connection,) = host.get_network().get_connections()
    connection.muxed_conn.secured_conn.read = read_nothing


async def write_for_ever(host: BasicHost) -> None:
    """Send frames of a stream that nobody has opened over a host's only connection."""
    (connection,) = host.get_network().get_connections()
    while True:
        frame = struct.pack("!BBHII", 0, 0, 0, 999, 60000) + bytes(60000)
        await connection.muxed_conn._write_frame(frame)


async def test_6_a_stock_host_that_is_left_leaves_its_sockets_open(stock: Unpatched) -> None:
    listener, dialer = build_stock_host(), build_stock_host()
    async with run_stock_hosts(listener, dialer):
        (address,) = listener.get_transport_addrs()
    assert find_sockets(int(address.value_for_protocol("tcp") or 0))


async def test_6_a_stock_host_waits_for_ever_to_say_goodbye(stock: Unpatched) -> None:
    cone, stalling_seller = build_stock_host(), build_stock_host()
    closed = trio.Event()

    async def close() -> None:
        await cone.close()
        closed.set()

    async with run_stock_hosts(cone, stalling_seller), trio.open_nursery() as nursery:
        await stop_reading(stalling_seller)
        nursery.start_soon(write_for_ever, cone)
        await wait_all_tasks_blocked(0.1)
        nursery.start_soon(close)
        await wait_all_tasks_blocked(0.5)
        assert not closed.is_set()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_stalled", [False, True])
async def test_6_a_network_that_is_left_leaves_nothing_open(
    tmp_path: Path, is_stalled: bool
) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        async with start_network(tmp_path / "stalling_seller") as stalling_seller:
            async with start_network(tmp_path / "cone", close_seconds=0.5) as cone:
                port = int(cone.listening[0].rpartition("/")[2])
                await connect(stalling_seller, cone)
                if is_stalled:
                    await stop_reading(stalling_seller.stack.host)
                    cone.stack.tasks.start_soon(write_for_ever, cone.stack.host)
                    await wait_all_tasks_blocked(0.1)
            assert [one for one in find_sockets(port) if one.laddr.port == port] == []


# --- 7. Two hosts share one port, and neither is told ---------------------------------------------


async def test_7_two_stock_hosts_share_a_port_in_silence(stock: Unpatched) -> None:
    first, second = build_stock_host(), build_stock_host()
    async with run_stock_hosts(first), second.run(first.get_transport_addrs()):
        assert second.get_transport_addrs() == first.get_transport_addrs()


async def test_7_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    async with start_network(tmp_path / "first") as first:
        with pytest.raises(UserError, match=r"network\.listen: .* in use") as caught:
            async with start_network(tmp_path / "second", listen=first.listening[0]):
                pytest.fail("two hosts share a port")
        assert "\n" not in str(caught.value)


# --- 8. A receiver that pauses for five seconds sees a clean end of a truncated stream ------------

BLOB = bytes(range(256)) * 40_000


@pytest.fixture
def is_hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the five seconds that yamux waits for a window."""
    hasty = SimpleNamespace(**vars(trio))
    hasty.move_on_after = lambda seconds: trio.move_on_after(min(seconds, 0.2))
    monkeypatch.setattr(yamux, "trio", hasty)


async def test_8_a_stock_receiver_that_pauses_sees_a_clean_end(
    stock: Unpatched, is_hasty: None
) -> None:
    sender, receiver = build_stock_host(), build_stock_host()
    given_up = trio.Event()

    async def send(stream: Any) -> None:
        with pytest.raises(StreamReset):
            await stream.write(BLOB)
        await stream.close()
        given_up.set()

    sender.set_stream_handler(TEST_PROTOCOL, send)
    async with run_stock_hosts(sender, receiver):
        stream = await receiver.new_stream(sender.get_id(), [TEST_PROTOCOL])
        received = 0
        with trio.fail_after(PATIENCE_SECONDS):
            await given_up.wait()
            with suppress(StreamEOF):
                while True:
                    received += len(await stream.read(2**20))
    assert 0 < received < len(BLOB)


async def test_8_a_receiver_that_pauses_gets_the_rest_from_the_next_source(
    tmp_path: Path, is_hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first read that comes too late for its sender: both sources have given up once."""
    library = Shelf()
    library.blobs[keccak(BLOB)] = BLOB
    async with (
        start_network(tmp_path / "asker") as asker,
        start_network(tmp_path / "cone", library) as cone,
    ):
        await connect(asker, cone)
        given_up = watch_sending(monkeypatch)
        read = pause_first_read(monkeypatch, given_up)
        with trio.fail_after(PATIENCE_SECONDS):
            got = await asker.fetch_blob(
                keccak(BLOB), sources=[cone.peer_id, cone.peer_id], max_bytes=len(BLOB)
            )
        assert got == BLOB
        assert read.is_set()
        assert asker.measure().faults == 0


def watch_sending(monkeypatch: pytest.MonkeyPatch) -> trio.Event:
    """Tell when a sender has given a stream up."""
    given_up, send = trio.Event(), PeerStream.send

    async def watch(self: PeerStream, data: bytes) -> None:
        try:
            await send(self, data)
        except Exception:
            given_up.set()
            raise

    monkeypatch.setattr(PeerStream, "send", watch)
    return given_up


def pause_first_read(monkeypatch: pytest.MonkeyPatch, until: trio.Event) -> trio.Event:
    """Let whoever reads a blob first wait for an event; tell when it has."""
    paused, receive = trio.Event(), PeerStream.receive_into

    async def pause(self: PeerStream, into: memoryview) -> int:
        if not paused.is_set():
            paused.set()
            await until.wait()
        return await receive(self, into)

    monkeypatch.setattr(PeerStream, "receive_into", pause)
    return paused


# --- 9. What a peer sends beyond its window is kept, however much it is ---------------------------


async def test_9_stock_buffers_all_that_a_peer_sends_beyond_its_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Unpatched(monkeypatch).restore("_read_data_body", "recv_window", "read_exactly")
    async with start_flooded(tmp_path) as flooded:
        await flooded.flood(1)
        assert not flooded.is_cut_off
        assert flooded.most_unread > 7 * 2**20


async def test_9_a_peer_that_ignores_its_window_is_cut_off(tmp_path: Path) -> None:
    async with start_flooded(tmp_path) as flooded:
        await flooded.flood(1)
        assert flooded.is_cut_off
        assert flooded.most_unread <= 256 * 1024 + 65000, "the first window, and one frame"


# --- 10. Fewer peers may come in than the limit says ----------------------------------------------


async def test_10_stock_lets_fewer_in_than_its_limit_says(stock: Unpatched) -> None:
    limits = ConnectionConfig(
        max_connections=4, high_watermark=4, min_connections=3, low_watermark=3
    )
    host = build_stock_host(connection_config=limits)
    visitor, refused = build_stock_host(), build_stock_host()
    async with run_stock_hosts(host, visitor), refused.run([Multiaddr(LOCAL)]):
        with trio.fail_after(PATIENCE_SECONDS), pytest.raises(SwarmException):
            await refused.connect(PeerInfo(host.get_id(), host.get_transport_addrs()))
    default = build_stock_host()
    async with run_stock_hosts(default):
        assert default.get_network()._inbound_limiter.total_tokens == 250


async def test_10_as_many_come_in_as_the_limit_says(tmp_path: Path) -> None:
    async with (
        start_network(tmp_path / "cone", max_connections=2) as cone,
        start_network(tmp_path / "first") as first,
        start_network(tmp_path / "second") as second,
    ):
        await connect(first, cone)
        await connect(second, cone)


# --- 11. Errors leave as groups within groups -----------------------------------------------------


def measure_depth(error: BaseException) -> int:
    if not isinstance(error, BaseExceptionGroup):
        return 0
    return 1 + max(measure_depth(one) for one in error.exceptions)


async def test_11_an_error_leaves_stock_as_groups_within_groups(stock: Unpatched) -> None:
    with trio.fail_after(PATIENCE_SECONDS), pytest.raises(ExceptionGroup) as caught:
        await publish_to_broken_stock_validator()
    assert measure_depth(caught.value) > 2


async def test_11_a_library_that_cannot_go_on_ends_the_network_as_itself(tmp_path: Path) -> None:
    library = Shelf()
    library.failure = StoreCorrupted("the blob folder is gone")

    async def ask_broken_cone() -> None:
        async with (
            start_network(tmp_path / "asker") as asker,
            start_network(tmp_path / "broken_cone", library) as broken_cone,
        ):
            await connect(asker, broken_cone)
            with pytest.raises(PeerUnreachable):
                await asker.fetch_blob(keccak(b"x"), sources=[broken_cone.peer_id], max_bytes=1)
            await trio.sleep_forever()

    with trio.fail_after(PATIENCE_SECONDS), pytest.raises(StoreCorrupted):
        await ask_broken_cone()


# --- 12. The log of the library is hidden from the application ------------------------------------


def test_12_stock_hides_its_log() -> None:
    assert not STOCK_LOG_PROPAGATES


def test_12_the_log_of_the_library_is_not_hidden() -> None:
    hardening.apply_patches()
    assert logging.getLogger("libp2p").propagate
