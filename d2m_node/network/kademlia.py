"""Where is a peer that has moved? Kademlia's FIND_NODE, among the nodes of the market.

Messages, distances and the routing table are py-libp2p's. Its `KadDHT` as a whole is not used:
it speaks IPFS's protocol id whatever it is told, dials whatever address an answer names, signed or
not, and keeps values that strangers put. Here an answer yields records that peers signed about
themselves, and those are addresses to try for a peer id that was asked for.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog
import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.kad_dht.routing_table import RoutingTable
from libp2p.kad_dht.utils import sort_peer_ids_by_distance
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.utils.varint import encode_uvarint, read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr

from d2m_node.errors import PeerUnreachable, StreamTimeout, TransientError
from d2m_node.network.book import is_peer_id
from d2m_node.network.peers import Peers
from d2m_node.network.records import MAX_RECORD_BYTES, Records, SignedRecord, read_record
from d2m_node.network.settings import NetworkSettings
from protocol.errors import InvalidMessage, ProtocolError

log = structlog.get_logger(__name__)

PROTOCOL: Final = TProtocol("/d2m/kad/1")
CLOSEST: Final = 20
"""Kademlia's k: so many peers are in an answer, and in each bucket of the table."""
PARALLEL: Final = 3
MAX_QUERIES: Final = 16
LOOKUP_SECONDS: Final = 30.0
MAX_REQUEST_BYTES: Final = 2 * MAX_RECORD_BYTES
MAX_ANSWER_BYTES: Final = (CLOSEST + 2) * (MAX_RECORD_BYTES + 128)
MAX_SERVED: Final = 8
"""Questions answered at once; more wait."""


class Kademlia:
    """Answers where peers are, asks where they are, and tells where this node is."""

    def __init__(
        self,
        host: BasicHost,
        peers: Peers,
        settings: NetworkSettings,
        sign_own: Callable[[], bytes | None],
    ) -> None:
        self._host = host
        self._peers = peers
        self._settings = settings
        self._sign_own = sign_own
        self._own_id = host.get_id()
        self._table = RoutingTable(self._own_id, host)
        self._records = Records()
        self._slots = trio.CapacityLimiter(MAX_SERVED)
        self._turn = trio.Lock()
        self._moved = trio.Event()
        host.set_stream_handler(PROTOCOL, self._serve)

    async def run(self) -> None:
        """Tell those next to us where we are, again and again, until cancelled."""
        await trio.sleep(self._settings.first_search_seconds)
        while True:
            await self.find(self._own_id.to_bytes())
            found = self._peers.list_connected()
            alone = self._settings.first_search_seconds
            with trio.move_on_after(self._settings.search_seconds if found else alone):
                await self._moved.wait()
            self._moved = trio.Event()

    def tell_soon(self) -> None:
        """Tell the others now: this node is to be found elsewhere."""
        self._moved.set()

    async def find(self, peer_id: bytes) -> Sequence[str]:
        """Ask the network where a peer is; return the addresses that it signed last."""
        target = ID(peer_id)
        async with self._turn:
            lookup = _Lookup(target)
            lookup.add(self._table.find_local_closest_peers(peer_id, CLOSEST))
            lookup.add(ID(one) for one in self._peers.list_connected())
            with trio.move_on_after(LOOKUP_SECONDS):
                while batch := lookup.next_batch():
                    async with trio.open_nursery() as queries:
                        for one in batch:
                            queries.start_soon(self._query, one, lookup)
                    if lookup.newest is not None and target != self._own_id:
                        break
            self._peers.release(lookup.visited)
        return () if lookup.newest is None else lookup.newest.addresses

    async def _query(self, peer: ID, lookup: "_Lookup") -> None:
        """Ask one peer; what it answers is in the lookup."""
        record = lookup.records.get(peer) or self._records.find(peer.to_bytes())
        try:
            if await self._peers.reach_at(peer.to_bytes(), record.addresses if record else ()):
                lookup.visited.append(peer.to_bytes())
            answer = await self._exchange(peer, lookup.target)
        except ProtocolError as exc:
            self._peers.blame(peer.to_bytes(), str(exc))
            return
        except TransientError as exc:
            self._table.remove_peer(peer)
            log.debug("lookup_unanswered", peer=peer.to_bytes(), error=str(exc))
            return
        for one in answer:
            lookup.take(one)
        lookup.add(ID(one.peer_id) for one in answer)

    async def _exchange(self, peer: ID, target: ID) -> Sequence[SignedRecord]:
        """Send one question. Raises TransientError, ProtocolError."""
        request = Message(type=Message.FIND_NODE, key=target.to_bytes())
        own = self._sign_own()
        if own is not None:
            request.senderRecord = own
        try:
            with trio.fail_after(self._settings.io_seconds):
                stream = await self._host.new_stream(peer, [PROTOCOL])
                try:
                    await _send(stream, request)
                    answer = await _receive(stream, MAX_ANSWER_BYTES)
                finally:
                    with trio.move_on_after(1.0, shield=True):
                        await stream.close()
        except ProtocolError:
            raise
        except trio.TooSlowError as exc:
            raise StreamTimeout("no answer to a lookup") from exc
        except Exception as exc:  # libp2p lets errors of any layer through
            raise PeerUnreachable(f"stream broken: {exc!r}") from exc
        entries = [one for one in answer.closerPeers[: CLOSEST + 1] if one.signedRecord]
        return [read_record(one.signedRecord) for one in entries]

    async def _serve(self, stream: INetStream) -> None:
        asker = stream.muxed_conn.peer_id
        try:
            with trio.fail_after(self._settings.io_seconds):
                request = await _receive(stream, MAX_REQUEST_BYTES)
                if request.type != Message.FIND_NODE or not is_peer_id(request.key):
                    raise InvalidMessage("no question where a peer is")
                async with self._slots:
                    if request.senderRecord:
                        await self._note_asker(asker, request.senderRecord)
                    answer = self._answer(ID(request.key), asker)
                await _send(stream, answer)
                await stream.close()
        except trio.TooSlowError as exc:
            raise StreamTimeout("the peer does not finish its lookup") from exc

    async def _note_asker(self, asker: ID, data: bytes) -> None:
        record = read_record(data)
        if record.peer_id != asker.to_bytes():
            raise InvalidMessage("a record of somebody else")
        self._records.add(record)
        if record.addresses:
            addresses = [Multiaddr(one) for one in record.addresses]
            await self._table.add_peer(PeerInfo(asker, addresses), skip_server_mode_check=True)

    def _answer(self, target: ID, asker: ID) -> Message:
        """List the target, if it is known, and the peers that are closest to it."""
        closest = self._table.find_local_closest_peers(target.to_bytes(), CLOSEST)
        answer = Message(type=Message.FIND_NODE)
        for peer in dict.fromkeys((target, *closest)):
            record = self._records.find(peer.to_bytes())
            if record is not None and peer != asker:
                answer.closerPeers.add(id=record.peer_id, signedRecord=record.data)
        return answer


class _Lookup:
    """One search: who was asked, who may be, and what was found."""

    def __init__(self, target: ID) -> None:
        self.target = target
        self.newest: SignedRecord | None = None
        self.records: dict[ID, SignedRecord] = {}
        self.visited: list[bytes] = []
        """Connected with for this search alone."""
        self._asked: set[ID] = set()
        self._candidates: set[ID] = set()

    def add(self, peers: Iterable[ID]) -> None:
        """Take peers that may be asked."""
        self._candidates.update(peers)

    def take(self, record: SignedRecord) -> None:
        """Take what a peer signed about itself."""
        peer = ID(record.peer_id)
        before = self.records.get(peer)
        if before is None or before.sequence < record.sequence:
            self.records[peer] = record
        if peer == self.target and (not self.newest or self.newest.sequence < record.sequence):
            self.newest = record

    def next_batch(self) -> Sequence[ID]:
        """Return whom to ask next: the closest of those that were not asked, within the bound."""
        closest = sort_peer_ids_by_distance(
            self.target.to_bytes(), list(self._candidates - {self.target})
        )[:CLOSEST]
        left = min(PARALLEL, MAX_QUERIES - len(self._asked))
        batch = [peer for peer in closest if peer not in self._asked][:left]
        self._asked.update(batch)
        return batch


async def _send(stream: INetStream, message: Message) -> None:
    data = message.SerializeToString()
    await stream.write(encode_uvarint(len(data)) + data)


async def _receive(stream: INetStream, max_bytes: int) -> Message:
    """Read one message. Raises InvalidMessage."""
    data = await read_varint_prefixed_bytes_limited(stream, max_bytes)
    message = Message()
    try:
        message.ParseFromString(data)
    except Exception as exc:  # protobuf's DecodeError, by whichever of its backends
        raise InvalidMessage("no message of Kademlia's") from exc
    return message
