"""Readers of what libp2p's protocols carry, where our own code takes it from there."""

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.exceptions import BaseLibp2pError
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.kad_dht.pb import kademlia_pb2
from libp2p.peer.envelope import Envelope, make_unsigned
from libp2p.peer.id import ID
from libp2p.peer.pb import peer_record_pb2
from libp2p.peer.peer_record import (
    PEER_RECORD_ENVELOPE_DOMAIN,
    PEER_RECORD_ENVELOPE_PAYLOAD_TYPE,
)
from libp2p.relay.circuit_v2.pb import circuit_pb2, dcutr_pb2
from libp2p.utils.varint import encode_uvarint
from multiaddr import Multiaddr
from zeroconf import ServiceInfo

from d2m_node.errors import TransientError
from d2m_node.network import circuits, kademlia
from d2m_node.network.addresses import (
    MAX_LENGTH,
    Scope,
    Source,
    check_address,
    explain_refusal,
    is_anywhere,
    parse_endpoint,
    split_circuit,
)
from d2m_node.network.book import MAX_ADDRESSES, AddressBook, is_peer_id
from d2m_node.network.counts import NetworkCounts
from d2m_node.network.kademlia import MAX_ANSWER_BYTES, Kademlia
from d2m_node.network.lan import SERVICE, Lan
from d2m_node.network.naming import split_named
from d2m_node.network.punch import Puncher
from d2m_node.network.records import MAX_RECORD_BYTES, Records, read_record, sign_record
from d2m_node.network.relay import Relay
from d2m_node.network.reservations import Reservations
from d2m_node.roles.acquaintances import find_acquaintances
from protocol.errors import ProtocolError
from protocol.market import MarketState, Peer
from protocol.types import Address
from tests.fuzz.guided.forms import Form
from tests.fuzz.guided.reader import PEER, HostileStream, Reader, run_alone
from tests.support.network import build_settings

KEYS = create_new_key_pair(bytes(32))
OWN = ID.from_pubkey(KEYS.public_key)
SETTINGS = build_settings(Path())
ADDRESSES = ("/ip4/10.0.0.1/tcp/4001", "/ip6/2001:db8::1/tcp/4001", "/dns4/node.example/tcp/1")
RELAYED = f"/ip4/10.0.0.1/tcp/4001/p2p/{OWN}/p2p-circuit"
REFUSALS = (ProtocolError, TransientError, BaseLibp2pError)
"""What `guard_streams` knows: a peer's fault, or a stream that broke."""


def prefix(message: Any) -> bytes:
    """Encode a message behind its length, as libp2p's protocols do."""
    data = message.SerializeToString()
    return bytes(encode_uvarint(len(data))) + data


def seal(payload: bytes) -> bytes:
    """Sign a payload as a peer record: so the bytes behind a good signature are fuzzed too."""
    unsigned = make_unsigned(
        PEER_RECORD_ENVELOPE_DOMAIN, PEER_RECORD_ENVELOPE_PAYLOAD_TYPE, payload
    )
    envelope = Envelope(
        KEYS.public_key,
        PEER_RECORD_ENVELOPE_PAYLOAD_TYPE,
        payload,
        KEYS.private_key.sign(unsigned),
    )
    return envelope.marshal_envelope()


def take_record(data: bytes) -> None:
    """A record names a few addresses that can be dialled, and is kept as it came."""
    record = read_record(data)
    assert record.data == data
    assert len(data) <= MAX_RECORD_BYTES
    assert is_peer_id(record.peer_id)
    assert len(record.addresses) <= MAX_ADDRESSES
    for address in record.addresses:
        assert len(address) <= MAX_LENGTH
        check_address(address)
        assert Multiaddr(address)
    records = Records()
    records.add(record)
    assert (records.find(record.peer_id) is not None) == bool(record.addresses)


def take_sealed_record(data: bytes) -> None:
    take_record(seal(data))


class _Host:
    """A host whose streams hold what a peer has sent."""

    def __init__(self, data: bytes = b"") -> None:
        self.handlers: dict[str, Any] = {}
        self._data = data

    def get_id(self) -> ID:
        return OWN

    def get_connected_peers(self) -> list[ID]:
        return []

    def set_stream_handler(self, protocol: str, handler: Any) -> None:
        self.handlers[str(protocol)] = handler

    async def new_stream(self, peer: ID, _protocols: Any) -> HostileStream:
        return HostileStream(self._data, peer.to_bytes())


class _Peers:
    """Everybody is connected and registered; who is to blame is told."""

    def __init__(self) -> None:
        self.blamed: list[str] = []

    def blame(self, _peer_id: bytes, reason: str) -> None:
        self.blamed.append(reason)

    def is_registered(self, _peer_id: bytes) -> bool:
        return True

    is_connected = is_registered

    def is_relayed(self, _peer_id: bytes) -> bool:
        return False

    def list_connected(self) -> list[bytes]:
        return [PEER]

    async def reach_at(self, _peer_id: bytes, _addresses: Sequence[str]) -> bool:
        return True

    def release(self, _visited: Sequence[bytes]) -> None:
        pass


def serve_lookup(data: bytes) -> None:
    """A lookup is answered with a bounded message."""
    stream, host = HostileStream(data, OWN.to_bytes()), _Host()

    async def run() -> None:
        Kademlia(host, _Peers(), SETTINGS, lambda: None)  # type: ignore[arg-type]
        await host.handlers[str(kademlia.PROTOCOL)](stream)

    run_alone(run)
    assert 0 < len(stream.written) <= MAX_ANSWER_BYTES
    assert stream.is_ended


def look_up(data: bytes) -> None:
    """An answer yields addresses of who was looked for, or blame."""

    async def run() -> Sequence[str]:
        peers = _Peers()
        table = Kademlia(_Host(data), peers, SETTINGS, lambda: None)  # type: ignore[arg-type]
        return await table.find(OWN.to_bytes()[:-1] + b"\x07")

    for address in run_alone(run):
        check_address(address)


def serve_relay(data: bytes) -> None:
    """A relay answers what it is asked, and calls only whom it has a place for."""
    stream, host = HostileStream(data), _Host(prefix(STOPS[1]))

    async def run() -> None:
        Relay(host, _Peers(), SETTINGS, NetworkCounts(), lambda: ADDRESSES)  # type: ignore[arg-type]
        handle = host.handlers[str(circuits.HOP)]
        await handle(HostileStream(prefix(HOPS[0]), PEER))
        await handle(stream)

    run_alone(run)
    assert stream.is_ended
    assert len(stream.written) <= circuits.MAX_MESSAGE_BYTES


def take_call(data: bytes) -> None:
    """A call through a relay that is not ours is turned down."""
    stream = HostileStream(data)
    ours = SimpleNamespace(_settings=SETTINGS, _places={})
    run_alone(Reservations._take_call, ours, stream)
    assert stream.is_ended


def reserve(data: bytes) -> None:
    """What a relay answers is a status, which has a name."""
    stream = HostileStream(data)
    answer = run_alone(circuits.receive_hop, stream)
    assert circuits.name_status(answer.status)
    run_alone(circuits.receive_stop, HostileStream(data))


def ask_where(data: bytes) -> None:
    """A relay says where it sees us: one endpoint."""
    asking = SimpleNamespace(_host=_Host(data))
    parse_endpoint(run_alone(Puncher._ask_where, asking, OWN))


class _Puncher(Puncher):
    """One that is reached through a relay, and notes what it would dial."""

    def __init__(self) -> None:
        self._settings = SETTINGS
        self._peers = _Peers()  # type: ignore[assignment]
        self._peers.is_relayed = self._peers.is_registered  # type: ignore[method-assign]
        self._seen_at = None
        self._list_direct = lambda: ADDRESSES
        self.named: Sequence[str] = ()

    async def _dial_all(self, _peer: ID, addresses: Sequence[str], _dial: object) -> None:
        self.named = addresses


def serve_punch(data: bytes) -> None:
    """Who wants to punch a hole names a few addresses that can be dialled."""
    stream, puncher = HostileStream(data), _Puncher()
    run_alone(puncher._serve, stream)
    assert 0 < len(stream.written) <= circuits.MAX_MESSAGE_BYTES
    assert len(puncher.named) <= MAX_ADDRESSES
    for address in puncher.named:
        parse_endpoint(address)


def hear_lan(data: bytes) -> None:
    """What is said on the LAN becomes a few addresses of one peer, or nothing."""

    async def run() -> None:
        book = AddressBook(OWN.to_bytes(), SETTINGS)
        lan = Lan("me", SETTINGS, book, list)
        texts = ServiceInfo(SERVICE, f"x.{SERVICE}", properties=data).properties
        lan.hear("x", texts)
        for _, known in book:
            assert 0 < len(known.addresses[Source.LAN]) <= MAX_ADDRESSES
        lan.forget("x")
        assert not list(book)

    run_alone(run)


def read_address(data: bytes) -> None:
    """What anybody wrote into the registry is an address, through a relay or not, or none."""
    account = Address(bytes(20))
    state = MarketState(peers={account: Peer(PEER, data)})
    found = find_acquaintances(state, Address(b"\x01" * 20))
    text = found.addresses[PEER]
    assert text.isprintable()
    check_address(text)
    assert Multiaddr(text)
    if split_circuit(text) is None:
        is_anywhere(text)
        endpoint = parse_endpoint(text)
        if not endpoint.is_name:
            for scope in Scope:
                explain_refusal(ip_address(endpoint.host), scope)


def read_named_address(data: bytes) -> None:
    """An address that ends with its peer's id."""
    peer_id, address = split_named(data.decode("ascii", errors="replace"))
    assert is_peer_id(peer_id)
    parse_endpoint(address)


def _build_record(*addresses: str) -> bytes:
    listed = [
        peer_record_pb2.PeerRecord.AddressInfo(multiaddr=Multiaddr(one).to_bytes())
        for one in addresses
    ]
    record = peer_record_pb2.PeerRecord(peer_id=OWN.to_bytes(), seq=2**40, addresses=listed)
    return record.SerializeToString()


def _build_lookups() -> list[bytes]:
    record = sign_record(KEYS, ADDRESSES)
    own = kademlia_pb2.Message(type=kademlia_pb2.Message.FIND_NODE, key=PEER)
    told = kademlia_pb2.Message(type=kademlia_pb2.Message.FIND_NODE, key=PEER, senderRecord=record)
    return [prefix(own), prefix(told), prefix(kademlia_pb2.Message(key=bytes(34)))]


def _build_found() -> list[bytes]:
    found = kademlia_pb2.Message(type=kademlia_pb2.Message.FIND_NODE)
    for addresses in (ADDRESSES, [RELAYED]):
        found.closerPeers.add(id=OWN.to_bytes(), signedRecord=sign_record(KEYS, addresses))
    return [prefix(kademlia_pb2.Message()), prefix(found)]


def _build_texts() -> bytes:
    texts = [f"dnsaddr{number}={one}/p2p/{OWN}" for number, one in enumerate(ADDRESSES)]
    return b"".join(bytes([len(one)]) + one.encode() for one in [*texts, "other", "x=y"])


HOPS = [
    circuit_pb2.HopMessage(type=kind, peer=circuit_pb2.PeerId(id=PEER), status=100)
    for kind in range(3)
]
STOPS = [
    circuit_pb2.StopMessage(type=kind, peer=circuit_pb2.PeerId(id=PEER), status=100)
    for kind in range(2)
]
PUNCHES = [
    dcutr_pb2.HolePunch(
        type=kind, ObsAddrs=[Multiaddr(one).to_bytes() for one in (*ADDRESSES, RELAYED)]
    )
    for kind in (dcutr_pb2.HolePunch.CONNECT, dcutr_pb2.HolePunch.SYNC)
]
IDENTITY = Identify(
    protocol_version="x",
    agent_version="y",
    public_key=bytes(36),
    listen_addrs=[Multiaddr(ADDRESSES[0]).to_bytes()],
    protocols=["/ipfs/id/1.0.0"],
    observed_addr=Multiaddr(ADDRESSES[1]).to_bytes(),
)
TEXTS = [one.encode() for one in (*ADDRESSES, RELAYED)]
READERS = [
    Reader("record", take_record, (ProtocolError,), [sign_record(KEYS, ADDRESSES)]),
    Reader(
        "signed record",
        take_sealed_record,
        (ProtocolError,),
        [_build_record(), _build_record(*ADDRESSES), _build_record(RELAYED)],
    ),
    Reader("lookup", serve_lookup, REFUSALS, _build_lookups(), Form.VARINT),
    Reader("answer to a lookup", look_up, (), _build_found(), Form.VARINT),
    Reader("relay", serve_relay, REFUSALS, [prefix(one) for one in HOPS], Form.VARINT),
    Reader(
        "call through a relay", take_call, REFUSALS, [prefix(one) for one in STOPS], Form.VARINT
    ),
    Reader(
        "answer of a relay",
        reserve,
        REFUSALS,
        [prefix(one) for one in (*HOPS, *STOPS)],
        Form.VARINT,
    ),
    Reader("identity", ask_where, (*REFUSALS, ValueError), [prefix(IDENTITY)], Form.VARINT),
    Reader(
        "hole punch",
        serve_punch,
        REFUSALS,
        [*map(prefix, PUNCHES), b"".join(map(prefix, PUNCHES))],
        Form.VARINT,
    ),
    Reader("word on the LAN", hear_lan, (), [_build_texts()]),
    Reader("address in the registry", read_address, (ValueError,), TEXTS),
    Reader(
        "named address",
        read_named_address,
        (ValueError,),
        [one + f"/p2p/{OWN}".encode() for one in TEXTS],
    ),
]
