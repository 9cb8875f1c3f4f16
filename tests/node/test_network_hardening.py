"""Why each change to stock py-libp2p is there.

Where it can be had at a test's price, a test shows stock failing first: it fails itself once an
upgrade makes the change needless. What stock does to a node is in `test_network_traps.py`.
"""

import gc
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p import new_host
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.exceptions import StreamFailure
from libp2p.network.exceptions import SwarmException
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.stream_muxer.yamux import yamux
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream
from multiaddr import Multiaddr

from d2m_node.network import hardening, muxing
from d2m_node.ports import Verdict
from protocol.hashing import keccak
from protocol.wire.codec import encode_message
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
from tests.support.stock import Unpatched, build_stock_host

TOPIC = "d2m/1/31337/market/1/votes"


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> Unpatched:
    return Unpatched(monkeypatch)


@pytest.fixture
def leaks() -> Iterator[None]:
    """Sweep up the sockets that stock leaves open before another test is warned of them."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


async def test_stock_sequence_numbers_start_at_the_second(tmp_path: Path) -> None:
    host = build_stock_host()
    stock_pubsub = Pubsub(host, GossipSub([hardening.GOSSIP_PROTOCOL], 6, 4, 12))
    assert abs(stock_pubsub.counter - time.time()) < 60
    async with start_network(tmp_path / "node") as node:
        assert abs(node.stack.pubsub.counter - time.time_ns()) < 60 * 10**9
    async with start_network(tmp_path / "node", first_sequence=2**61) as node:
        assert node.stack.pubsub.counter == 2**61


async def test_stock_never_gives_an_inbound_slot_back(tmp_path: Path, stock: Unpatched) -> None:
    stock.restore("upgrade_inbound_raw_conn")
    async with start_network(tmp_path / "cone", max_connections=2) as cone:
        await _visit(tmp_path, cone)
        assert cone.stack.host.get_network()._inbound_limiter.borrowed_tokens == 1


async def test_more_peers_may_come_and_go_than_fit_at_once(tmp_path: Path) -> None:
    async with start_network(tmp_path / "cone", max_connections=2) as cone:
        for _ in range(4):
            await _visit(tmp_path, cone)


async def test_a_frame_larger_than_any_window_is_not_read(tmp_path: Path) -> None:
    async with start_flooded(tmp_path) as flooded:
        await flooded.flood(1, frame_bytes=muxing.WINDOW_BYTES + 1)
        assert flooded.is_cut_off
        assert flooded.most_unread < 100, "what opened the stream"


async def test_windows_of_many_streams_add_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muxing, "MAX_UNREAD_BYTES", 2 * 2**20)
    async with start_flooded(tmp_path) as flooded:
        await flooded.flood(30)
        assert flooded.is_cut_off
        assert flooded.most_unread <= 2 * 2**20


async def test_who_holds_more_than_a_window_goes_when_all_together_hold_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muxing, "MAX_ALL_UNREAD_BYTES", 2**20)
    async with start_flooded(tmp_path) as flooded:
        await flooded.flood(30)
        assert flooded.is_cut_off
        assert flooded.most_unread <= muxing.WINDOW_BYTES + 65000


@pytest.mark.parametrize("who", ["the peer", "we"])
@pytest.mark.parametrize(("unpatched", "kept"), [(False, 0), (True, 5000)])
async def test_what_nobody_will_read_of_a_reset_stream_is_forgotten(
    tmp_path: Path, stock: Unpatched, unpatched: bool, kept: int, who: str
) -> None:
    if unpatched:
        stock.restore("_finalize_stream_locked", "reset")
    arrived: list[INetStream] = []
    async with start_networks(tmp_path, ["hostile_seller", "cone"]) as (seller, cone):

        async def never_read(stream: INetStream) -> None:
            arrived.append(stream)
            await trio.sleep_forever()

        cone.stack.host.set_stream_handler(TProtocol("/test"), never_read)
        sent = await open_raw_stream(seller, cone.peer_id, "/test")
        await sent.write(bytes(5000))
        if who == "the peer":
            await sent.reset()
        # A stream opened after all of it: its answer says that the rest has been taken in.
        await open_raw_stream(seller, cone.peer_id, "/test")
        first: Any = arrived[0]
        if who == "we":
            await first.reset()
        muxed = first.muxed_stream.conn
        stream_id = first.muxed_stream.stream_id
        assert len(muxed.stream_buffers.get(stream_id, b"")) == kept
        assert (stream_id in muxed.streams) == bool(kept)


async def test_what_came_before_the_end_is_read_though_a_reset_follows(tmp_path: Path) -> None:
    came: list[bytes] = []
    may_read, has_read = trio.Event(), trio.Event()
    async with start_networks(tmp_path, ["seller", "cone"]) as (seller, cone):

        async def read_late(stream: INetStream) -> None:
            await may_read.wait()
            came.append(await stream.read(5000))
            has_read.set()

        cone.stack.host.set_stream_handler(TProtocol("/test"), read_late)
        sent = await open_raw_stream(seller, cone.peer_id, "/test")
        await sent.write(bytes(5000))
        await sent.close()
        await sent.reset()
        await open_raw_stream(seller, cone.peer_id, "/test")
        may_read.set()
        with trio.fail_after(PATIENCE_SECONDS):
            await has_read.wait()
    assert came[0] == bytes(5000)


async def test_a_full_frame_fits_one_noise_message() -> None:
    hardening.apply_patches()
    assert yamux.MAX_MESSAGE_SIZE == 65535 - 16


@pytest.mark.parametrize(("unpatched", "most"), [(False, 25), (True, 10**6)])
async def test_window_updates_are_few(
    tmp_path: Path, stock: Unpatched, unpatched: bool, most: int
) -> None:
    if unpatched:
        stock.restore("_auto_tune_and_send_window_update")
    library = Shelf()
    blob = bytes(10_000_000)
    library.blobs[keccak(blob)] = blob
    counts: list[int] = []
    async with (
        start_network(tmp_path / "asker") as asker,
        start_network(tmp_path / "cone", library) as cone,
    ):
        await connect(asker, cone)
        stock_update = YamuxStream.send_window_update

        async def count(self: YamuxStream, increment: int, skip_lock: bool = False) -> None:
            counts.append(increment)
            await stock_update(self, increment, skip_lock)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(YamuxStream, "send_window_update", count)
            await asker.fetch_blob(keccak(blob), sources=[cone.peer_id], max_bytes=len(blob))
    assert len(counts) <= most
    if unpatched:
        assert len(counts) > 25, "stock has learnt it"


async def test_a_peer_that_stops_answering_is_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muxing, "KEEPALIVE_SECONDS", 0.05)
    monkeypatch.setattr(muxing, "PONG_SECONDS", 0.2)
    async with start_networks(tmp_path, ["node", "stopped_peer"]) as (node, stopped_peer):
        gone = Watch(node, stopped_peer.peer_id)
        silence = trio.Event()
        stock_write = Yamux._write_frame

        async def write(self: Yamux, data: bytes) -> None:
            if self.peer_id.to_bytes() == node.peer_id:
                await silence.wait()
            await stock_write(self, data)

        monkeypatch.setattr(Yamux, "_write_frame", write)
        with trio.fail_after(PATIENCE_SECONDS):
            await gone.disconnected_event.wait()
        silence.set()


async def test_live_peers_are_kept_by_the_keepalive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muxing, "KEEPALIVE_SECONDS", 0.01)
    pinged = trio.Event()
    whole_write = muxing._write_whole_frame

    async def write(self: Yamux, data: bytes) -> None:
        await whole_write(self, data)
        if self._ping_id >= 3:
            pinged.set()

    async with start_networks(tmp_path, ["node", "peer"]) as (node, peer):
        monkeypatch.setattr(Yamux, "_write_frame", write)
        with trio.fail_after(PATIENCE_SECONDS):
            await pinged.wait()
        assert node.stack.peers.is_connected(peer.peer_id)


async def test_plaintext_is_refused(tmp_path: Path) -> None:
    key_pair = create_new_key_pair()
    plain = new_host(
        key_pair=key_pair, sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(key_pair)}
    )
    async with start_network(tmp_path / "node") as node, plain.run([]):
        target = PeerInfo(ID(node.peer_id), [Multiaddr(node.listening[0])])
        with trio.fail_after(PATIENCE_SECONDS), pytest.raises(SwarmException):
            await plain.connect(target)


async def test_stock_accepts_plaintext(leaks: None) -> None:
    key_pair = create_new_key_pair()
    plain = new_host(
        key_pair=key_pair, sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(key_pair)}
    )
    host = build_stock_host()
    async with host.run([Multiaddr(LOCAL)]), plain.run([]):
        await plain.connect(PeerInfo(host.get_id(), host.get_transport_addrs()))


async def test_garbage_on_the_port_harms_nobody(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["node", "peer"]) as (node, peer):
        port = int(node.listening[0].rpartition("/")[2])
        for garbage in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(1000), b"\x13/multistream/1.0.0\n"):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(garbage)
            await stream.aclose()
        async with start_network(tmp_path / "late") as late:
            await connect(late, node)
        assert node.stack.peers.is_connected(peer.peer_id)


async def test_own_messages_reach_subscribers_outside_the_mesh(tmp_path: Path) -> None:
    async with (
        start_networks(tmp_path, ["seller", "cone"], heartbeat_seconds=3600.0) as (seller, cone),
        cone.join_topic(TOPIC, accept) as heard,
    ):
        await wait_subscribed(seller, cone, TOPIC)
        await seller.publish(TOPIC, build_bitmap(1))
        with trio.fail_after(PATIENCE_SECONDS):
            await heard.receive()


async def test_messages_of_others_go_to_the_mesh_only(tmp_path: Path) -> None:
    async with (
        start_networks(tmp_path, ["seller", "cone"]) as (seller, cone),
        cone.join_topic(TOPIC, accept),
    ):
        await wait_subscribed(seller, cone, TOPIC)
        seller.stack.router.mesh[TOPIC] = set()
        own, other, receiver = ID(seller.peer_id), ID(b"other"), ID(cone.peer_id)
        assert set(seller.stack.router._get_peers_to_send([TOPIC], own, own)) == {receiver}
        assert set(seller.stack.router._get_peers_to_send([TOPIC], other, other)) == set()


async def test_stock_leaves_a_peer_deaf_whose_gossip_stream_failed_once(tmp_path: Path) -> None:
    host = build_stock_host()
    stock_pubsub = Pubsub(host, GossipSub([hardening.GOSSIP_PROTOCOL], 6, 4, 12))
    host.new_stream = _fail_first(host.new_stream)  # type: ignore[method-assign]
    await stock_pubsub._handle_new_peer_with_retry(ID(b"peer"))  # returns: it has given up


async def test_a_gossip_stream_that_failed_is_opened_again(tmp_path: Path) -> None:
    async with start_network(tmp_path / "a") as a, start_network(tmp_path / "b") as b:
        a.stack.host.new_stream = _fail_first(a.stack.host.new_stream)  # type: ignore[method-assign]
        await connect(a, b)


async def test_new_peers_are_not_asked_who_they_are(tmp_path: Path) -> None:
    async with start_networks(tmp_path, "ab") as (a, b):
        assert not a.stack.host._identify_inflight
        assert not a.stack.host.get_peerstore().get_protocols(ID(b.peer_id))


async def test_addresses_that_strangers_offer_are_not_dialled(tmp_path: Path) -> None:
    async with start_network(tmp_path / "node") as node:
        await node.stack.router._do_px([rpc_pb2.PeerInfo(peerID=b"x", signedPeerRecord=b"y")])
        await node.stack.host.get_network().auto_connector.maybe_connect()


async def test_rpcs_carry_no_address_record(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["seller", "cone"]) as (seller, _):
        assert not seller.stack.pubsub.get_hello_packet().HasField("senderRecord")
        written: list[bytes] = []

        class Recorder:
            async def write(self, data: bytes) -> None:
                written.append(data)

        rpc = rpc_pb2.RPC(senderRecord=b"")
        await seller.stack.pubsub.write_msg(Recorder(), rpc)  # type: ignore[arg-type]
        assert written == [b"\x00"]


async def test_what_only_modes_that_are_off_need_is_not_kept(tmp_path: Path) -> None:
    async with start_network(tmp_path / "seller") as seller:
        await seller.stack.pubsub.publish(TOPIC, encode_message(build_bitmap(1)))
        assert not seller.stack.router.recent_message_deliveries
        assert not seller.stack.router.equivocation_detection


async def test_a_bad_message_is_judged_for_each_who_forwards_it(tmp_path: Path) -> None:
    judged: list[bytes] = []

    def judge(forwarder: bytes, _origin: bytes, _topics: Sequence[str], _data: bytes) -> Verdict:
        judged.append(forwarder)
        return Verdict.REJECT

    async with start_network(tmp_path / "cone") as cone, start_network(tmp_path / "seller") as s:
        cone.stack.pubsub._judge = judge
        message = rpc_pb2.Message(data=b"x", topicIDs=[TOPIC], from_id=s.peer_id, seqno=bytes(8))
        key = s.stack.host.get_private_key()
        message.signature = key.sign(b"libp2p-pubsub:" + message.SerializeToString())
        for forwarder in (b"first", b"second"):
            await cone.stack.pubsub.push_msg(ID(forwarder), message)
    assert judged == [b"first", b"second"]


async def _visit(folder: Path, cone: Any) -> None:
    """Connect to a host, be known to it, and leave."""
    async with start_network(folder / "visitor") as visitor:
        await connect(visitor, cone)
        await wait_gossiping(cone, visitor)
        gone = Watch(cone, visitor.peer_id)
    with trio.fail_after(PATIENCE_SECONDS):
        await gone.disconnected_event.wait()
        # The slot is given back by another task that the closing wakes.
        await trio.testing.wait_all_tasks_blocked(0.05)


def _fail_first(new_stream: Any) -> Any:
    """Fail as a negotiation does that takes too long, then do as told."""
    failures = iter([StreamFailure("took too long")])

    async def fail_then_open(*arguments: Any) -> Any:
        for failure in failures:
            raise failure
        return await new_stream(*arguments)

    return fail_then_open
