"""Peers that are reached through a relay, over real hosts, and those who would abuse it."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, PeerId, Status, StopMessage
from libp2p.relay.circuit_v2.protocol import CircuitV2Protocol
from libp2p.relay.circuit_v2.resources import RelayLimits

from d2m_node.errors import PeerUnreachable
from d2m_node.network import punch as punch_module
from d2m_node.network.adapter import Libp2pNetwork
from d2m_node.network.circuits import HOP, STOP, receive_hop, receive_stop, send
from d2m_node.network.punch import DCUTR, Puncher
from d2m_node.relay_settings import RelaySettings
from protocol.hashing import keccak
from tests.support.network import (
    PATIENCE_SECONDS,
    Shelf,
    Watch,
    accept,
    build_bitmap,
    connect,
    open_raw_stream,
    start_network,
    wait_gossiping,
    wait_subscribed,
)

NOBODY = "/ip4/127.0.0.1/tcp/9"
TOPIC = "d2m/1/31337/market/1/votes"
BLOB = bytes(range(256)) * 4000
QUIET = {"first_search_seconds": 1000.0}


def name(network: Libp2pNetwork) -> str:
    return f"{network.listening[0]}/p2p/{ID(network.peer_id)}"


def circuit_to(relay: Libp2pNetwork) -> str:
    return f"{name(relay)}/p2p-circuit"


@asynccontextmanager
async def start_relay(folder: Path, **limits: Any) -> AsyncIterator[Libp2pNetwork]:
    settings = RelaySettings(serve=True, use="never", **limits)
    async with start_network(folder / "relay", relay=settings, **QUIET) as relay:
        yield relay


@asynccontextmanager
async def start_hidden(
    folder: Path,
    relay: Libp2pNetwork,
    shelf: Shelf | None = None,
    *,
    is_punching: bool = False,
    **changes: Any,
) -> AsyncIterator[Libp2pNetwork]:
    """Start a node that nobody is told an address of, with a place at the relay."""
    settings = RelaySettings(use="always", through=(name(relay),), punch=is_punching)
    async with start_network(
        folder / "hidden", shelf, relay=settings, **{**QUIET, **changes}
    ) as hidden:
        relay.set_address_book({hidden.peer_id: NOBODY})
        with trio.fail_after(PATIENCE_SECONDS):
            while not hidden.stack.reservations.list_addresses():
                await hidden.stack.reservations._fill()
                await trio.sleep(0.01)
        yield hidden


async def ask(network: Libp2pNetwork, relay: Libp2pNetwork, question: HopMessage) -> HopMessage:
    with trio.fail_after(PATIENCE_SECONDS):
        stream = await open_raw_stream(network, relay.peer_id, HOP)
        await send(stream, question)
        return await receive_hop(stream)


def make_call(target: bytes) -> HopMessage:
    return HopMessage(type=HopMessage.CONNECT, peer=PeerId(id=target))


# --- what a relay is for


async def test_a_job_of_a_hidden_peer_goes_through_a_relay(tmp_path: Path) -> None:
    """Gossip both ways, and a blob: all that a round needs."""
    shelf = Shelf()
    shelf.blobs[keccak(BLOB)] = BLOB
    async with (
        start_relay(tmp_path) as relay,
        start_hidden(tmp_path, relay, shelf) as hidden,
        start_network(tmp_path / "node", **QUIET) as node,
        hidden.join_topic(TOPIC, accept) as heard_by_hidden,
        node.join_topic(TOPIC, accept) as heard_by_node,
    ):
        node.set_address_book({hidden.peer_id: circuit_to(relay)})
        await wait_gossiping(node, hidden)
        await wait_gossiping(hidden, node)
        assert node.stack.peers.is_relayed(hidden.peer_id)
        assert hidden.stack.peers.is_relayed(node.peer_id)
        await wait_subscribed(node, hidden, TOPIC)
        await wait_subscribed(hidden, node, TOPIC)
        with trio.fail_after(PATIENCE_SECONDS):
            await node.publish(TOPIC, build_bitmap(1))
            assert await heard_by_hidden.receive() == build_bitmap(1)
            await hidden.publish(TOPIC, build_bitmap(2))
            assert await heard_by_node.receive() == build_bitmap(2)
            got = await node.fetch_blob(keccak(BLOB), sources=[hidden.peer_id], max_bytes=len(BLOB))
        assert got == BLOB
        assert relay.measure().relayed_bytes > len(BLOB)
        assert not node.stack.peers.is_relayed(relay.peer_id)


async def test_a_hidden_peer_is_found_by_asking_others(tmp_path: Path) -> None:
    async with (
        start_relay(tmp_path) as relay,
        start_hidden(tmp_path, relay, announce=NOBODY) as hidden,
        start_network(tmp_path / "node", **QUIET) as node,
    ):
        assert hidden.stack.kademlia is not None
        await hidden.stack.kademlia.find(hidden.peer_id)
        await connect(node, relay)
        node.set_address_book({relay.peer_id: relay.listening[0], hidden.peer_id: NOBODY})
        with trio.fail_after(PATIENCE_SECONDS):
            await node.stack.peers.reach(hidden.peer_id)
        assert node.stack.peers.is_relayed(hidden.peer_id)


async def test_a_peer_behind_a_relay_must_prove_who_it_is(tmp_path: Path) -> None:
    other = ID.from_pubkey(create_new_key_pair().public_key).to_bytes()
    async with (
        start_relay(tmp_path) as relay,
        start_hidden(tmp_path, relay) as hidden,
        start_network(tmp_path / "node", **QUIET) as node,
    ):
        relay_server = relay.stack.host.multiselect.handlers[HOP].__self__
        real_call = relay_server._call

        async def misdirect(asker: ID, _target: bytes) -> Any:
            return await real_call(asker, hidden.peer_id)

        relay_server._call = misdirect
        node.set_address_book({other: circuit_to(relay)})
        with pytest.raises(PeerUnreachable, match="through the relay"):
            await node.stack.peers.reach(other)
        assert not node.stack.peers.is_connected(other)


# --- from a relayed connection to a direct one


async def test_a_relayed_connection_becomes_a_direct_one(tmp_path: Path) -> None:
    async with (
        start_relay(tmp_path) as relay,
        start_hidden(tmp_path, relay, is_punching=True) as hidden,
        start_network(tmp_path / "node", **QUIET) as node,
        hidden.join_topic(TOPIC, accept) as heard,
    ):
        node.set_address_book({hidden.peer_id: circuit_to(relay)})
        await wait_direct(node, hidden)
        await wait_direct(hidden, node)
        with trio.fail_after(PATIENCE_SECONDS):
            for number in itertools.count():
                # What is on its way while the connections change may be lost.
                await node.publish(TOPIC, build_bitmap(number))
                with trio.move_on_after(0.2):
                    await heard.receive()
                    break


async def test_a_peer_that_cannot_be_reached_directly_stays_behind_the_relay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(punch_module, "ATTEMPTS", 1)
    monkeypatch.setattr(punch_module, "DIAL_SECONDS", 0.2)
    tried = trio.Event()
    stock = Puncher._lead

    async def lead(self: Puncher, peer: ID) -> bool:
        done = await stock(self, peer)
        tried.set()
        return done

    monkeypatch.setattr(Puncher, "_lead", lead)
    monkeypatch.setattr(Puncher, "_list_own", lambda _: [NOBODY])
    async with (
        start_relay(tmp_path) as relay,
        start_hidden(tmp_path, relay, is_punching=True) as hidden,
        start_network(tmp_path / "node", **QUIET) as node,
    ):
        node.set_address_book({hidden.peer_id: circuit_to(relay)})
        with trio.fail_after(PATIENCE_SECONDS):
            await tried.wait()
        assert node.stack.peers.is_relayed(hidden.peer_id)


@pytest.mark.parametrize(
    "data", [b"\x01\xff", b"\xff\xff\xff\x7f", b"\x03\x08\xac\x02", b"\x07\x08\x64\x12\x03abc"]
)
async def test_garbage_instead_of_a_hole_punch_harms_nobody(tmp_path: Path, data: bytes) -> None:
    async with (
        start_network(tmp_path / "node", **QUIET) as node,
        start_network(tmp_path / "liar", **QUIET) as liar,
    ):
        await connect(liar, node)
        stream = await open_raw_stream(liar, node.peer_id, DCUTR)
        await stream.write(data)
        await wait_cut(stream)
        assert node.stack.peers.is_connected(liar.peer_id)


async def wait_direct(network: Libp2pNetwork, other: Libp2pNetwork) -> None:
    """Wait until there is a direct connection, and no other one."""
    peers = network.stack.peers
    with trio.fail_after(PATIENCE_SECONDS):
        while not peers.is_direct(other.peer_id) or _count_circuits(network, other):  # noqa: ASYNC110 - no event
            await trio.sleep(0.02)


def _count_circuits(network: Libp2pNetwork, other: Libp2pNetwork) -> int:
    swarm = network.stack.peers._swarm
    found = swarm.connections.get(ID(other.peer_id), ())
    return sum(
        "/p2p-circuit" in str(one)
        for connection in found
        for one in connection.get_transport_addresses()
    )


# --- who may be reached, and how often


async def test_who_is_not_registered_gets_no_place(tmp_path: Path) -> None:
    async with start_relay(tmp_path) as relay, start_network(tmp_path / "node", **QUIET) as node:
        await connect(node, relay)
        answer = await ask(node, relay, HopMessage(type=HopMessage.RESERVE))
        assert answer.status == Status.PERMISSION_DENIED


async def test_a_place_is_the_askers_own_whatever_it_says(tmp_path: Path) -> None:
    async with start_relay(tmp_path) as relay, start_network(tmp_path / "node", **QUIET) as node:
        await connect(node, relay)
        victim = ID.from_pubkey(create_new_key_pair().public_key).to_bytes()
        relay.set_address_book({node.peer_id: NOBODY, victim: NOBODY})
        question = HopMessage(type=HopMessage.RESERVE, peer=PeerId(id=victim))
        assert (await ask(node, relay, question)).status == Status.OK
        assert (await ask(node, relay, make_call(victim))).status == Status.NO_RESERVATION


async def test_places_are_bounded(tmp_path: Path) -> None:
    async with (
        start_relay(tmp_path, reservations=1) as relay,
        start_hidden(tmp_path, relay) as hidden,
        start_network(tmp_path / "late", **QUIET) as late,
    ):
        await connect(late, relay)
        relay.set_address_book({hidden.peer_id: NOBODY, late.peer_id: NOBODY})
        answer = await ask(late, relay, HopMessage(type=HopMessage.RESERVE))
        assert answer.status == Status.RESERVATION_REFUSED
        answer = await ask(hidden, relay, HopMessage(type=HopMessage.RESERVE))
        assert answer.status == Status.OK, "who has a place may prolong it"


async def test_who_has_no_place_is_not_called(tmp_path: Path) -> None:
    async with start_relay(tmp_path) as relay, start_network(tmp_path / "node", **QUIET) as node:
        stranger = ID.from_pubkey(create_new_key_pair().public_key).to_bytes()
        node.set_address_book({stranger: circuit_to(relay)})
        with pytest.raises(PeerUnreachable, match="says no reservation"):
            await node.stack.peers.reach(stranger)


async def test_circuits_are_bounded(tmp_path: Path) -> None:
    async with (
        start_relay(tmp_path, circuits=4) as relay,
        start_hidden(tmp_path, relay) as hidden,
        start_network(tmp_path / "node", **QUIET) as node,
    ):
        await connect(node, relay)
        assert (await ask(node, relay, make_call(hidden.peer_id))).status == Status.OK
        answer = await ask(node, relay, make_call(hidden.peer_id))
        assert answer.status == Status.RESOURCE_LIMIT_EXCEEDED


@pytest.mark.parametrize("data", [b"\xff", b"\x05abcde", b"\x02\x08\x07"])
async def test_a_called_peer_that_answers_nonsense_is_no_fault_of_the_caller(
    tmp_path: Path, data: bytes
) -> None:
    async def answer(stream: INetStream) -> None:
        await receive_stop(stream)
        await stream.write(data)
        await stream.close()

    async with (
        start_relay(tmp_path) as relay,
        start_hidden(tmp_path, relay) as hidden,
        start_network(tmp_path / "node", **QUIET) as node,
    ):
        hidden.stack.host.set_stream_handler(STOP, answer)
        await connect(node, relay)
        reply = await ask(node, relay, make_call(hidden.peer_id))
        assert reply.status == Status.CONNECTION_FAILED
        assert node.peer_id not in relay.conduct._penalties


async def wait_cut(stream: INetStream) -> None:
    """Read until the stream ends."""
    with trio.fail_after(PATIENCE_SECONDS):
        try:
            while await stream.read(4096):
                pass
        except Exception:  # noqa: BLE001 - a reset, in whatever form
            pass


async def test_a_circuit_that_is_silent_ends_in_time(tmp_path: Path) -> None:
    async with (
        start_relay(tmp_path, circuit_seconds=0.2) as relay,
        start_hidden(tmp_path, relay) as hidden,
        start_network(tmp_path / "node", **QUIET) as node,
    ):
        await connect(node, relay)
        stream = await open_raw_stream(node, relay.peer_id, HOP)
        await send(stream, make_call(hidden.peer_id))
        assert (await receive_hop(stream)).status == Status.OK
        await wait_cut(stream)


async def test_a_circuit_ends_when_its_bytes_are_spent(tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.blobs[keccak(BLOB)] = BLOB
    async with (
        start_relay(tmp_path, circuit_bytes=len(BLOB) // 2) as relay,
        start_hidden(tmp_path, relay, shelf) as hidden,
        start_network(tmp_path / "node", redial_seconds=30.0, **QUIET) as node,
    ):
        node.set_address_book({hidden.peer_id: circuit_to(relay)})
        await node.stack.peers.reach(hidden.peer_id)
        cut = Watch(node, hidden.peer_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch_in_vain, node, hidden.peer_id)
            with trio.fail_after(PATIENCE_SECONDS):
                await cut.disconnected_event.wait()
            nursery.cancel_scope.cancel()


async def fetch_in_vain(node: Libp2pNetwork, source: bytes) -> None:
    """Fetch what may come through over another circuit, or not."""
    with contextlib.suppress(PeerUnreachable):
        await node.fetch_blob(keccak(BLOB), sources=[source], max_bytes=len(BLOB))


async def test_a_node_takes_calls_from_its_own_relays_alone(tmp_path: Path) -> None:
    async with (
        start_network(tmp_path / "node", **QUIET) as node,
        start_network(tmp_path / "liar", **QUIET) as liar,
    ):
        await connect(liar, node)
        stream = await open_raw_stream(liar, node.peer_id, STOP)
        caller = PeerId(id=ID.from_pubkey(create_new_key_pair().public_key).to_bytes())
        await send(stream, StopMessage(type=StopMessage.CONNECT, peer=caller))
        assert (await receive_stop(stream)).status == Status.PERMISSION_DENIED


@pytest.mark.parametrize("data", [b"\xff", b"\x05abcde", b"\xff\xff\xff\x7f", b""])
async def test_garbage_on_the_relays_protocols_harms_nobody(tmp_path: Path, data: bytes) -> None:
    async with start_relay(tmp_path) as relay, start_network(tmp_path / "liar", **QUIET) as liar:
        await connect(liar, relay)
        for protocol in (HOP, STOP):
            stream = await open_raw_stream(liar, relay.peer_id, protocol)
            if data:
                await stream.write(data)
            await stream.close()
        relay.set_address_book({liar.peer_id: NOBODY})
        answer = await ask(liar, relay, HopMessage(type=HopMessage.RESERVE))
        assert answer.status == Status.OK


# --- why the relay is our own


@asynccontextmanager
async def start_stock_relay(
    folder: Path, **limits: Any
) -> AsyncIterator[tuple[Libp2pNetwork, CircuitV2Protocol]]:
    bounds = RelayLimits(max_circuit_conns=8, max_reservations=8, **limits)
    async with start_network(folder / "stock", **QUIET) as network:
        stock = CircuitV2Protocol(network.stack.host, bounds, allow_hop=True)
        network.stack.host.set_stream_handler(HOP, stock._handle_hop_stream)
        yield network, stock


async def test_stock_gives_a_place_in_anothers_name(tmp_path: Path) -> None:
    async with (
        start_stock_relay(tmp_path, duration=60, data=1024) as (relay, stock),
        start_network(tmp_path / "victim", **QUIET) as victim,
        start_network(tmp_path / "liar", **QUIET) as liar,
    ):
        for peer in (victim, liar):
            await connect(peer, relay)
        question = HopMessage(type=HopMessage.RESERVE, peer=PeerId(id=victim.peer_id))
        assert (await ask(liar, relay, question)).status == Status.OK
        assert stock.resource_manager.has_reservation(ID(victim.peer_id))


async def test_stock_lets_a_silent_circuit_stand_beyond_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        start_stock_relay(tmp_path, duration=1, data=1024) as (relay, stock),
        start_network(tmp_path / "called", **QUIET) as called,
        start_network(tmp_path / "node", **QUIET) as node,
    ):

        async def take_call(stream: INetStream) -> None:
            await receive_stop(stream)
            await send(stream, StopMessage(type=StopMessage.STATUS, status=Status.OK))
            await trio.sleep_forever()

        called.stack.host.set_stream_handler(STOP, take_call)
        for peer in (called, node):
            await connect(peer, relay)
        monkeypatch.setattr(stock.resource_manager, "can_accept_connection", lambda **_: True)
        stream = await open_raw_stream(node, relay.peer_id, HOP)
        await send(stream, make_call(called.peer_id))
        assert (await receive_hop(stream)).status == Status.OK
        with trio.move_on_after(1.5) as waiting:
            await stream.read(1)
        assert waiting.cancelled_caught, "longer than it may stand"


# --- keeping a place


async def test_a_node_that_does_not_serve_is_no_relay(tmp_path: Path) -> None:
    async with (
        start_network(tmp_path / "node", **QUIET) as node,
        start_network(tmp_path / "peer", **QUIET) as peer,
    ):
        await connect(node, peer)
        await node.stack.reservations._reserve(peer.peer_id)
        assert node.stack.reservations.list_addresses() == []


async def test_a_place_is_found_among_the_connected_peers(tmp_path: Path) -> None:
    async with (
        start_relay(tmp_path) as relay,
        start_network(tmp_path / "node", relay=RelaySettings(use="always"), **QUIET) as node,
    ):
        relay.set_address_book({node.peer_id: NOBODY})
        node.set_address_book({relay.peer_id: relay.listening[0]})
        with trio.fail_after(PATIENCE_SECONDS):
            while not node.stack.reservations.list_addresses():
                await node.stack.reservations._fill()
                await trio.sleep(0.05)
        assert node.stack.reservations.list_addresses() == [circuit_to(relay)]


async def test_the_place_is_gone_with_the_relay(tmp_path: Path) -> None:
    async with (
        start_relay(tmp_path) as relay,
        start_hidden(tmp_path, relay) as hidden,
    ):
        hidden.stack.peers.drop(relay.peer_id)
        with trio.fail_after(PATIENCE_SECONDS):
            while hidden.stack.peers.is_connected(relay.peer_id):  # noqa: ASYNC110 - no event
                await trio.sleep(0.01)
        assert hidden.stack.reservations.list_addresses() == []
