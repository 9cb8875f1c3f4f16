"""What stock py-libp2p 0.8.1 gets wrong for a node that runs for months among strangers.

Patches of classes are listed in `PATCHES`, each beside its reason; those of the multiplexer are in
`d2m_node.network.muxing`. Subclasses and wrappers follow where the library lets them in. Every
one has a test in `tests/node/test_network_hardening.py` that fails once an upgrade makes it
needless or breaks it; `test_network_traps.py` beside it shows what stock does to a node.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import structlog
from libp2p.abc import IHost, IMuxedConn, INetStream, IRawConnection
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError, ValidationError
from libp2p.host.basic_host import BasicHost
from libp2p.kad_dht.routing_table import KBucket
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.pubsub import gossipsub, pubsub
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.utils import safe_bytes_from_hex
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from d2m_node.errors import FatalError, TransientError
from d2m_node.logs import log_scope
from d2m_node.network.doorway import handshakes_of
from d2m_node.network.fast_lane import FAST_LANE_PATCHES
from d2m_node.network.muxing import MUXING_PATCHES
from d2m_node.network.offers import Offers
from d2m_node.ports import Verdict
from protocol.errors import ProtocolError

log = structlog.get_logger(__name__)

GOSSIP_PROTOCOL: Final = TProtocol("/meshsub/1.1.0")
"""1.2 and later double the number of RPCs for messages as small as ours."""

Judge = Callable[[bytes, bytes, Sequence[str], bytes], Verdict | None]
"""Forwarding peer, origin, topics, payload → what to do with the message.

None if it is not taken from this peer: another one may still bring it.
"""
Blame = Callable[[bytes, str], None]
"""Peer id, reason: penalise a peer."""

_stock_upgrade_inbound = Swarm.upgrade_inbound_raw_conn


async def _upgrade_then_hold(self: Swarm, raw_conn: IRawConnection, maddr: Multiaddr) -> IMuxedConn:
    with handshakes_of(self).begin():
        connection = await _stock_upgrade_inbound(self, raw_conn, maddr)
    assert isinstance(connection, Yamux)
    await connection.event_closed.wait()
    raise SwarmException("the inbound connection was closed")


async def _connect_to_nobody(_self: AutoConnector) -> None:
    """Whom we dial is for `Peers` to say."""


def _identify_nobody(_self: BasicHost, _peer_id: ID, *, reason: str) -> None:
    """Neither addresses nor protocols are believed because a peer says so."""


async def _is_connected(self: KBucket, peer_id: ID) -> bool:
    """Whoever is connected is there."""
    return peer_id in self.host.get_connected_peers()


def _send_no_record(_host: IHost) -> tuple[bytes, bool]:
    return b"", False


PATCHES: Final[Sequence[tuple[object, str, object]]] = (
    *MUXING_PATCHES,
    *FAST_LANE_PATCHES,
    # Stock never gives back the slot of an inbound connection: after so many in its whole life
    # the host refuses everybody.
    (Swarm, "upgrade_inbound_raw_conn", _upgrade_then_hold),
    # Stock dials whatever address it ever heard of, until it has half of all allowed connections.
    (AutoConnector, "maybe_connect", _connect_to_nobody),
    # Stock asks each new peer who it is and keeps all it says; half the work of connecting.
    (BasicHost, "_schedule_identify", _identify_nobody),
    # Stock dials whoever is longest in a full bucket of the routing table, and asks for zeros.
    (KBucket, "_ping_peer", _is_connected),
    # Stock puts a signed record of our addresses into every RPC, and each receiver verifies it
    # twice. Addresses come from the registry instead; `write_msg` leaves the empty field out.
    (gossipsub, "env_to_send_in_RPC", _send_no_record),
    (pubsub, "env_to_send_in_RPC", _send_no_record),
)


def apply_patches() -> None:
    """Put the patches in place; doing so twice does nothing more."""
    for target, name, replacement in PATCHES:
        setattr(target, name, replacement)
    library_log = logging.getLogger("libp2p")
    # Stock hides its log from the application; whoever wants it need only lower the level.
    library_log.propagate = True
    # It reports each connection that ends as errors with tracebacks. What matters we log.
    library_log.setLevel(logging.CRITICAL)


class HardenedGossipSub(GossipSub):
    """The router with its settings, sending own messages to all subscribers at once."""

    def __init__(self, heartbeat_seconds: float) -> None:
        super().__init__(
            protocols=[GOSSIP_PROTOCOL],
            degree=3,
            degree_low=2,
            degree_high=5,
            # Heartbeats for which a message is replayed to a new subscriber, and offered.
            gossip_window=5,
            gossip_history=8,
            heartbeat_interval=heartbeat_seconds,  # type: ignore[arg-type]  # slept, so a float
            prune_back_off=10,
            unsubscribe_back_off=2,
            # These judge by rates and addresses; a devnet shares one address, and our own
            # quotas and validators know what a message is worth.
            adaptive_gossip_enabled=False,
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
        )
        # Penalties are ours: a score would count what was merely ignored as invalid.
        self.scorer = None
        self.offers = Offers(lambda message_id: self.mcache.get(message_id) is not None)

    def gossip_heartbeat(self) -> defaultdict[ID, dict[str, list[bytes]]]:
        """Offer to each peer what it may lack, and has not been offered twice."""
        self.offers.forget_old()
        found: defaultdict[ID, dict[str, list[bytes]]] = defaultdict(dict)
        for peer_id, topics in super().gossip_heartbeat().items():
            for topic, message_ids in topics.items():
                chosen = self.offers.choose(peer_id, message_ids)
                if chosen:
                    found[peer_id][topic] = chosen
        return found

    async def handle_ihave(self, ihave_msg: rpc_pb2.ControlIHave, sender_peer_id: ID) -> None:
        """Ask for what is new; who offers the rest need not be offered it."""
        message_ids = map(safe_bytes_from_hex, ihave_msg.messageIDs)
        self.offers.note_has(sender_peer_id, (one for one in message_ids if one is not None))
        await super().handle_ihave(ihave_msg, sender_peer_id)

    def _get_peers_to_send(
        self,
        topic_ids: Iterable[str],
        msg_forwarder: ID,
        origin: ID,
        msg_id: bytes | None = None,
    ) -> Iterable[ID]:
        """Flood own messages: a mesh needs a heartbeat to form, a round has only seconds."""
        assert self.pubsub is not None
        if origin != self.pubsub.my_id:
            return super()._get_peers_to_send(topic_ids, msg_forwarder, origin, msg_id)
        subscribed = self.pubsub.peer_topics
        return {peer for topic in topic_ids for peer in subscribed.get(topic, ())} - {origin}

    async def _do_px(self, px_peers: list[rpc_pb2.PeerInfo]) -> None:
        """Ignore offered peers: stock dials whatever address a stranger names."""


class HardenedPubsub(Pubsub):
    """Pubsub that asks our judge, and that no message can bring down."""

    def __init__(
        self,
        host: IHost,
        router: HardenedGossipSub,
        *,
        judge: Judge,
        blame: Blame,
        first_sequence: int | None = None,
    ) -> None:
        super().__init__(host, router)
        self._router = router
        self._judge = judge
        self._blame = blame
        # Seconds, as stock has it, let a quick restart use sequence numbers twice: receivers
        # take its messages for copies. So does a clock that goes back, but not a kept mark.
        self.counter = time.time_ns() if first_sequence is None else first_sequence

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Take one message in; whatever it raises is its forwarder's fault."""
        with log_scope(peer=msg_forwarder.to_bytes()):
            try:
                await super().push_msg(msg_forwarder, msg)
                self._router.offers.note_has(msg_forwarder, [self.get_message_id(msg)])
            except Exception as exc:  # noqa: BLE001 - a garbage key raises anything
                log.info("gossip_malformed", error=repr(exc))
                self._blame(msg_forwarder.to_bytes(), "malformed gossip")

    async def validate_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        """Judge each copy anew: stock's cache would forgive whoever forwards a bad one second."""
        if msg_forwarder == self.my_id:
            return
        verdict = self._judge(msg_forwarder.to_bytes(), msg.from_id, tuple(msg.topicIDs), msg.data)
        if verdict is Verdict.IGNORE:
            self._mark_msg_seen(msg)
        if verdict is not Verdict.ACCEPT:
            raise ValidationError("not taken" if verdict is None else verdict.value)

    async def _handle_new_peer(self, peer_id: ID) -> None:
        try:
            await super()._handle_new_peer(peer_id)
        except Exception as exc:
            # Stock tries again after this error alone; after others, such as a negotiation
            # that took too long on a busy machine, the peer would be deaf for ever.
            raise SwarmException(f"no gossip stream to {peer_id}") from exc

    def mend_stream(self, peer_id: ID) -> None:
        """Open another gossip stream to a peer that is connected, if its stream is no more.

        Of two connections the one with the stream may end. Stock notices when it next writes, and a
        peer that only listens never does: it would have told its topics to nobody.
        """
        stream = self.peers.get(peer_id)
        if stream is not None and stream.muxed_conn.is_closed:
            self._handle_dead_peer(peer_id)

    def notify_subscriptions(self, publish_message: rpc_pb2.Message) -> None:
        """Do nothing: the judge has delivered it. Stock's queue holds 32 and then drops."""

    def get_hello_packet(self) -> rpc_pb2.RPC:
        """Name our topics to a new peer, without the record."""
        packet = super().get_hello_packet()
        packet.ClearField("senderRecord")
        return packet

    async def write_msg(self, stream: INetStream, rpc_msg: rpc_pb2.RPC) -> bool:
        """Send an RPC without the record."""
        rpc_msg.ClearField("senderRecord")
        return await super().write_msg(stream, rpc_msg)


def guard_streams(
    host: Any,
    *,
    max_streams_per_peer: int,
    blame: Blame,
    refuse: Callable[[str, bytes], None],
    crash: Callable[[FatalError], None],
) -> None:
    """Put one guard around every stream handler of every protocol.

    Stock lets an exception of a handler end the whole host. Here a `FatalError` goes to
    ``crash``, a peer's fault to ``blame``, a broken stream nowhere; the stream is reset and the
    host lives on.
    """
    open_counts: Counter[ID] = Counter()

    async def guarded(stream: INetStream) -> None:
        peer_id = stream.muxed_conn.peer_id
        if open_counts[peer_id] >= max_streams_per_peer:
            refuse("streams", peer_id.to_bytes())
            blame(peer_id.to_bytes(), "too many streams")
            await stream.reset()
            return
        open_counts[peer_id] += 1
        try:
            with log_scope(peer=peer_id.to_bytes()):
                await host._swarm_stream_handler(stream)
        except FatalError as exc:
            crash(exc)
        except (TransientError, BaseLibp2pError):
            await stream.reset()
        except Exception as exc:  # hostile bytes raise anything inside libp2p
            expected = isinstance(exc, ProtocolError)
            log.info(
                "stream_failed", peer=peer_id.to_bytes(), error=repr(exc), exc_info=not expected
            )
            blame(peer_id.to_bytes(), str(exc))
            await stream.reset()
        finally:
            open_counts[peer_id] -= 1
            if not open_counts[peer_id]:
                del open_counts[peer_id]

    host.get_network().set_stream_handler(guarded)
