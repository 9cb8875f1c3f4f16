"""Peers that moved, found by asking others: over real hosts, with honest and hostile answers."""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.kad_dht.peer_routing import PeerRouting
from libp2p.kad_dht.routing_table import RoutingTable
from libp2p.peer.envelope import seal_record
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PeerRecord
from multiaddr import Multiaddr

from d2m_node.errors import PeerUnreachable
from d2m_node.network import kademlia as kademlia_module
from d2m_node.network.adapter import Libp2pNetwork
from d2m_node.network.kademlia import MAX_QUERIES, PROTOCOL, Kademlia, _send
from d2m_node.network.records import MAX_RECORDS, Records, SignedRecord, read_record, sign_record
from protocol.errors import InvalidMessage, InvalidSignature
from tests.support.network import (
    PATIENCE_SECONDS,
    Watch,
    connect,
    open_raw_stream,
    start_network,
    start_networks,
)

NOBODY = "/ip4/127.0.0.1/tcp/9"
SOON = {"first_search_seconds": 0.05, "search_seconds": 0.2}
LATER = {"first_search_seconds": 1000.0}

Handler = Callable[[INetStream], Awaitable[None]]


def kademlia_of(network: Libp2pNetwork) -> Kademlia:
    found = network.stack.kademlia
    assert found is not None
    return found


def name(network: Libp2pNetwork) -> str:
    return f"{network.listening[0]}/p2p/{ID(network.peer_id)}"


async def tell(network: Libp2pNetwork, other: Libp2pNetwork) -> None:
    """Let one node tell another, and nobody else, where it is."""
    await kademlia_of(network)._exchange(ID(other.peer_id), ID(network.peer_id))


async def find(network: Libp2pNetwork, peer_id: bytes) -> Sequence[str]:
    with trio.fail_after(PATIENCE_SECONDS):
        return await kademlia_of(network).find(peer_id)


# --- finding


async def test_a_node_that_knows_one_peer_finds_another_that_has_moved(tmp_path: Path) -> None:
    async with (
        start_network(tmp_path / "first") as first,
        start_network(tmp_path / "moved", bootstrap=(name(first),), **SOON) as moved,
        start_network(
            tmp_path / "node", bootstrap=(name(first),), search_pause_seconds=0.1, **LATER
        ) as node,
    ):
        # The registry knows the peer, at an address where nobody is any more.
        node.set_address_book({moved.peer_id: NOBODY}, {moved.peer_id})
        with trio.fail_after(PATIENCE_SECONDS):
            await node.stack.pubsub.wait_for_peer(ID(moved.peer_id), PATIENCE_SECONDS)


async def test_a_registered_peer_without_an_address_is_found(tmp_path: Path) -> None:
    async with (
        start_networks(tmp_path, ["node", "first"], **LATER) as (node, first),
        start_network(tmp_path / "silent", **LATER) as silent,
    ):
        await connect(silent, first)
        await tell(silent, first)
        node.set_address_book({first.peer_id: first.listening[0], silent.peer_id: ""})
        await node.stack.peers.reach(silent.peer_id)


async def test_a_peer_that_only_a_strangers_stranger_knows_is_found(tmp_path: Path) -> None:
    async with (
        start_networks(tmp_path, ["node", "first"], **LATER) as (node, first),
        start_network(tmp_path / "second", **LATER) as second,
        start_network(tmp_path / "target", **LATER) as target,
    ):
        await connect(second, first)
        await tell(second, first)
        await connect(target, second)
        await tell(target, second)
        assert await find(node, target.peer_id) == tuple(target.listening)


async def test_the_newest_word_of_a_peer_counts(tmp_path: Path) -> None:
    keys = create_new_key_pair()
    old, new = make_record(keys, 1), make_record(keys, 2, "/ip4/127.0.0.1/tcp/10")
    async with start_networks(tmp_path, ["a", "b", "node"], **LATER) as (a, b, node):
        kademlia_of(a)._records.add(new)
        kademlia_of(b)._records.add(old)
        assert await find(node, new.peer_id) == new.addresses


async def test_who_is_not_to_be_found_is_nowhere(tmp_path: Path) -> None:
    stranger = ID.from_pubkey(create_new_key_pair().public_key).to_bytes()
    async with start_networks(tmp_path, ["node", "peer"], **LATER) as (node, _):
        assert await find(node, stranger) == ()
        with pytest.raises(PeerUnreachable, match="no address of peer"):
            await node.stack.peers.reach(stranger)


async def test_a_node_without_the_setting_neither_asks_nor_answers(tmp_path: Path) -> None:
    async with (
        start_network(tmp_path / "quiet", dht=False) as quiet,
        start_network(tmp_path / "node", **LATER) as node,
    ):
        await connect(node, quiet)
        assert quiet.stack.kademlia is None
        with pytest.raises(PeerUnreachable, match="stream broken"):
            await tell(node, quiet)


# --- hostile answers


async def answer_with(network: Libp2pNetwork, respond: Handler) -> None:
    """Let a node answer questions as a hostile one does."""

    async def serve(stream: INetStream) -> None:
        await stream.read(1024)
        await respond(stream)
        await stream.close()

    network.stack.host.set_stream_handler(PROTOCOL, serve)


async def test_addresses_that_their_peer_has_not_signed_are_not_taken(tmp_path: Path) -> None:
    victim = ID.from_pubkey(create_new_key_pair().public_key)

    async def lie(stream: INetStream) -> None:
        answer = Message(type=Message.FIND_NODE)
        answer.closerPeers.add(id=victim.to_bytes(), addrs=[Multiaddr(NOBODY).to_bytes()])
        await _send(stream, answer)

    async with start_networks(tmp_path, ["node", "liar"], **LATER) as (node, liar):
        await answer_with(liar, lie)
        assert await find(node, victim.to_bytes()) == ()


async def test_stock_takes_addresses_that_nobody_signed_and_would_dial_them(
    tmp_path: Path,
) -> None:
    victim = ID.from_pubkey(create_new_key_pair().public_key)

    async def lie(stream: INetStream) -> None:
        answer = Message(type=Message.FIND_NODE)
        answer.closerPeers.add(id=victim.to_bytes(), addrs=[Multiaddr(NOBODY).to_bytes()])
        await _send(stream, answer)

    async with start_networks(tmp_path, ["node", "liar"], **LATER) as (node, liar):
        liar.stack.host.set_stream_handler(TProtocol("/ipfs/kad/1.0.0"), lie)
        host = node.stack.host
        stock = PeerRouting(host, RoutingTable(host.get_id(), host))
        await stock._query_peer_for_closest(ID(liar.peer_id), victim.to_bytes())
        assert [str(one) for one in host.get_peerstore().addrs(victim)] == [NOBODY]


async def test_a_forged_record_is_blamed_on_who_passes_it_on(tmp_path: Path) -> None:
    victim = ID.from_pubkey(create_new_key_pair().public_key)
    forged = seal_record(
        PeerRecord(victim, [Multiaddr(NOBODY)]), create_new_key_pair().private_key
    ).marshal_envelope()

    async def lie(stream: INetStream) -> None:
        answer = Message(type=Message.FIND_NODE)
        answer.closerPeers.add(id=victim.to_bytes(), signedRecord=forged)
        await _send(stream, answer)

    async with start_networks(tmp_path, ["node", "liar"], **LATER) as (node, liar):
        await answer_with(liar, lie)
        assert await find(node, victim.to_bytes()) == ()
        assert liar.peer_id in node.conduct._penalties


@pytest.mark.parametrize("data", [b"", b"\xff" * 10, b"\x03abc", b"\x80\x80\x80\x01"])
async def test_an_answer_of_garbage_harms_nobody(tmp_path: Path, data: bytes) -> None:
    stranger = ID.from_pubkey(create_new_key_pair().public_key).to_bytes()

    async def send_garbage(stream: INetStream) -> None:
        await stream.write(data)

    async with start_networks(tmp_path, ["node", "liar"], **LATER) as (node, liar):
        await answer_with(liar, send_garbage)
        assert await find(node, stranger) == ()


async def test_a_search_that_is_led_on_for_ever_ends(tmp_path: Path) -> None:
    stranger = ID.from_pubkey(create_new_key_pair().public_key).to_bytes()

    async def lead_on(stream: INetStream) -> None:
        answer = Message(type=Message.FIND_NODE)
        for _ in range(20):
            keys = create_new_key_pair()
            record = sign_record(keys, [NOBODY])
            answer.closerPeers.add(id=read_record(record).peer_id, signedRecord=record)
        await _send(stream, answer)

    async with start_networks(tmp_path, ["node", "liar"], **LATER) as (node, liar):
        await answer_with(liar, lead_on)
        assert await find(node, stranger) == ()
        assert node.measure().dials.get("failed", 0) <= MAX_QUERIES


async def test_a_peer_that_does_not_answer_costs_a_bounded_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kademlia_module, "LOOKUP_SECONDS", 0.2)
    stranger = ID.from_pubkey(create_new_key_pair().public_key).to_bytes()

    async def stall(_stream: INetStream) -> None:
        await trio.sleep_forever()

    async with start_networks(tmp_path, ["node", "staller"], **LATER) as (node, staller):
        await answer_with(staller, stall)
        assert await find(node, stranger) == ()


async def test_a_signed_private_address_is_not_dialled_on_a_public_network(tmp_path: Path) -> None:
    async with (
        start_network(tmp_path / "target", **LATER) as target,
        start_network(tmp_path / "first", **LATER) as first,
        start_network(
            tmp_path / "node", bootstrap=(name(first),), dial_private=False, **LATER
        ) as node,
    ):
        await connect(target, first)
        await tell(target, first)
        with trio.fail_after(PATIENCE_SECONDS):
            await node.stack.pubsub.wait_for_peer(ID(first.peer_id), PATIENCE_SECONDS)
        with pytest.raises(PeerUnreachable, match="is this machine"):
            await node.stack.peers.reach(target.peer_id)


# --- hostile questions


@pytest.mark.parametrize(
    "question",
    [
        Message(type=Message.FIND_NODE, key=b"short"),
        Message(type=Message.PUT_VALUE, key=b"\x12\x20" + bytes(32)),
        Message(type=Message.FIND_NODE, key=b"\x12\x20" + bytes(32), senderRecord=b"nonsense"),
        Message(
            type=Message.FIND_NODE,
            key=b"\x12\x20" + bytes(32),
            senderRecord=sign_record(create_new_key_pair(), [NOBODY]),
        ),
    ],
)
async def test_a_question_against_the_rules_is_blamed(tmp_path: Path, question: Message) -> None:
    async with start_networks(tmp_path, ["node", "liar"], **LATER) as (node, liar):
        stream = await open_raw_stream(liar, node.peer_id, PROTOCOL)
        await _send(stream, question)
        with trio.fail_after(PATIENCE_SECONDS):
            while liar.peer_id not in node.conduct._penalties:  # noqa: ASYNC110 - no event
                await trio.sleep(0.01)


async def test_a_question_without_end_is_not_read(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["node", "liar"], **LATER) as (node, liar):
        stream = await open_raw_stream(liar, node.peer_id, PROTOCOL)
        await stream.write(b"\xff\xff\xff\x7f" + bytes(100))
        with trio.fail_after(PATIENCE_SECONDS):
            await _wait_for_the_end(stream)
        assert node.stack.peers.is_connected(liar.peer_id)


async def _wait_for_the_end(stream: INetStream) -> None:
    with contextlib.suppress(BaseLibp2pError):
        while await stream.read(1):
            pass


async def test_a_full_bucket_dials_nobody_to_see_who_is_there(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["node", "peer"], **LATER) as (node, peer):
        bucket = kademlia_of(node)._table.buckets[0]
        gone = ID.from_pubkey(create_new_key_pair().public_key)
        assert await bucket._ping_peer(ID(peer.peer_id))
        assert not await bucket._ping_peer(gone)
        assert "failed" not in node.measure().dials


# --- records


def make_record(keys: KeyPair, sequence: int, address: str = NOBODY) -> SignedRecord:
    record = PeerRecord(ID.from_pubkey(keys.public_key), [Multiaddr(address)], sequence)
    return read_record(seal_record(record, keys.private_key).marshal_envelope())


def test_a_record_says_what_its_peer_signed() -> None:
    keys = create_new_key_pair()
    record = read_record(sign_record(keys, [NOBODY, "/dns4/node.example/tcp/1"]))
    assert record.peer_id == ID.from_pubkey(keys.public_key).to_bytes()
    assert record.addresses == (NOBODY, "/dns4/node.example/tcp/1")


def test_of_a_record_only_addresses_over_tcp_are_read() -> None:
    keys = create_new_key_pair()
    record = read_record(sign_record(keys, ["/ip4/1.2.3.4/udp/1/quic-v1", NOBODY]))
    assert record.addresses == (NOBODY,)


def test_a_record_of_somebody_else_is_refused() -> None:
    peer_id = ID.from_pubkey(create_new_key_pair().public_key)
    forged = seal_record(PeerRecord(peer_id, []), create_new_key_pair().private_key)
    with pytest.raises(InvalidSignature):
        read_record(forged.marshal_envelope())


def test_a_record_that_was_changed_is_refused() -> None:
    data = bytearray(sign_record(create_new_key_pair(), [NOBODY]))
    for position in range(len(data)):
        damaged = bytes(data[:position]) + bytes([data[position] ^ 1]) + bytes(data[position + 1 :])
        with pytest.raises((InvalidMessage, InvalidSignature)):
            read_record(damaged)


def test_a_record_that_is_too_long_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="bytes"):
        read_record(bytes(2000))


def test_records_are_bounded_and_the_newest_of_a_peer_stays() -> None:
    records = Records()
    keys = create_new_key_pair()
    old, new = make_record(keys, 1), make_record(keys, 2)
    records.add(new)
    records.add(old)
    assert records.find(new.peer_id) == new
    for number in range(MAX_RECORDS):
        records.add(SignedRecord(number.to_bytes(4, "big"), (NOBODY,), 1, b""))
    assert records.find(new.peer_id) is None
    assert len(records._kept) == MAX_RECORDS


async def test_peers_asked_once_are_parted_with_if_there_are_enough_others(
    tmp_path: Path,
) -> None:
    async with (
        start_network(tmp_path / "asked", **LATER) as asked,
        start_network(tmp_path / "other", **LATER) as other,
        start_network(tmp_path / "node", peers_target=1, **LATER) as node,
    ):
        await connect(node, other)
        peers = node.stack.peers
        assert await peers.reach_at(asked.peer_id, tuple(asked.listening))
        assert not await peers.reach_at(asked.peer_id, ())
        gone = Watch(node, asked.peer_id)
        peers.release([asked.peer_id])
        with trio.fail_after(PATIENCE_SECONDS):
            await gone.disconnected_event.wait()
