"""Be reached through relays: keep places at a few, take calls through them, and call others."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
import trio
from libp2p.abc import INetStream
from libp2p.host.basic_host import BasicHost
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, PeerId, Status, StopMessage
from multiaddr import Multiaddr

from d2m_node.errors import PeerUnreachable, StreamTimeout, TransientError
from d2m_node.measures import Reach
from d2m_node.network.addresses import Scope
from d2m_node.network.book import is_peer_id
from d2m_node.network.circuits import (
    HOP,
    STOP,
    end,
    make_connection,
    name_status,
    receive_hop,
    receive_stop,
    send,
)
from d2m_node.network.naming import split_named
from d2m_node.network.peers import Peers
from d2m_node.network.punch import Puncher
from d2m_node.network.settings import NetworkSettings
from protocol.errors import InvalidMessage, ProtocolError

log = structlog.get_logger(__name__)

WANTED: Final = 2
"""Relays at once: one of them may go."""
MAX_ASKED: Final = 8
"""Peers asked in a row whether they serve as one."""
RENEW_SECONDS: Final = 1200.0
"""A place lasts an hour at our relays; it is prolonged long before."""
LOOK_SECONDS: Final = 5.0
MAX_PAUSE_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class _Place:
    """A reservation at a relay."""

    address: str
    """Of the relay."""
    renew_at: float


class Reservations:
    """Places at relays, as long as others cannot connect to us themselves."""

    def __init__(
        self,
        host: BasicHost,
        peers: Peers,
        settings: NetworkSettings,
        find_reach: Callable[[], Reach],
        puncher: Puncher,
    ) -> None:
        network = host.get_network()
        assert isinstance(network, Swarm)
        self._swarm = network
        self._host = host
        self._peers = peers
        self._settings = settings
        self._find_reach = find_reach
        self._puncher = puncher
        self._own_id = host.get_id()
        self._through = dict(split_named(one) for one in settings.relay.through)
        self._places: dict[bytes, _Place] = {}
        self.on_change: Callable[[], None] = lambda: None
        """Told when this node is to be reached elsewhere."""
        host.set_stream_handler(STOP, self._take_call)

    def list_addresses(self) -> Sequence[str]:
        """List where others reach this node through relays."""
        return [
            f"{place.address}/p2p/{ID(relay)}/p2p-circuit"
            for relay, place in self._places.items()
            if self._peers.is_connected(relay)
        ]

    async def run(self) -> None:
        """Keep places while they are wanted, until cancelled."""
        pause = LOOK_SECONDS
        while True:
            before = set(self._places)
            self._places = {
                relay: place
                for relay, place in self._places.items()
                if self._peers.is_connected(relay)
            }
            if self._is_wanted():
                await self._fill()
            is_short = self._is_wanted() and not self._places
            pause = min(2 * pause, MAX_PAUSE_SECONDS) if is_short else LOOK_SECONDS
            if set(self._places) != before:
                self.on_change()
            await trio.sleep(pause)

    async def open_circuit(self, relay: ID, peer: ID) -> None:
        """Connect with a peer through a relay that we are connected with. Raises PeerUnreachable.

        Both ends prove who they are: a relay can refuse and cut, but neither read nor lie.
        """
        connection = await self._call(relay, peer)
        try:
            await self._swarm.upgrade_outbound_raw_conn(connection, peer)
        except Exception as exc:  # libp2p lets errors of any layer through
            raise PeerUnreachable(f"through the relay {relay}: {exc}") from exc

    def _is_wanted(self) -> bool:
        use = self._settings.relay.use
        return use == "always" or (use == "auto" and self._find_reach() is Reach.UNREACHABLE)

    async def _fill(self) -> None:
        now = trio.current_time()
        for relay in [one for one, place in self._places.items() if place.renew_at <= now]:
            await self._reserve(relay)
        for relay in self._list_candidates():
            if len(self._places) >= WANTED:
                return
            await self._reserve(relay)

    def _list_candidates(self) -> Iterable[bytes]:
        """List those that the operator names; without any, some of the connected peers."""
        if self._through:
            return [one for one in self._through if one not in self._places]
        connected = [
            one
            for one in self._peers.list_connected()
            if one not in self._places and not self._peers.is_relayed(one)
        ]
        return random.sample(connected, min(MAX_ASKED, len(connected)))

    async def _reserve(self, relay: bytes) -> None:
        """Ask a relay for a place; it may refuse, or be none."""
        self._places.pop(relay, None)
        named = self._through.get(relay)
        try:
            if named is not None and not self._peers.is_connected(relay):
                await self._puncher.dial_relay(ID(relay), named, Scope.ANY)
            await self._peers.reach_direct(relay, named)
            answer = await self._ask(ID(relay), HopMessage(type=HopMessage.RESERVE))
        except ProtocolError as exc:
            self._peers.blame(relay, str(exc))
            return
        except TransientError as exc:
            log.debug("relay_unavailable", peer=relay, error=str(exc))
            return
        if answer.status != Status.OK:
            log.info("relay_refused", peer=relay, reason=name_status(answer.status))
            return
        address = named or self._peers.find_dialled(relay)
        if address is None:
            return  # it dialled us: nobody can be told where it is
        self._places[relay] = _Place(address, trio.current_time() + RENEW_SECONDS)
        log.info("relay_reserved", peer=relay, address=address)

    async def _ask(self, relay: ID, request: HopMessage) -> HopMessage:
        """Ask a relay one thing. Raises TransientError, ProtocolError."""
        stream, answer = await self._start(relay, request)
        await end(stream)
        return answer

    async def _call(self, relay: ID, peer: ID) -> RawConnection:
        """Have a relay call a peer. Raises TransientError, ProtocolError."""
        request = HopMessage(type=HopMessage.CONNECT, peer=PeerId(id=peer.to_bytes()))
        stream, answer = await self._start(relay, request)
        if answer.status != Status.OK:
            await end(stream)
            raise PeerUnreachable(f"the relay {relay} says {name_status(answer.status)}")
        return make_connection(stream, relay=relay, peer=peer, is_initiator=True)

    async def _start(self, relay: ID, request: HopMessage) -> tuple[INetStream, HopMessage]:
        stream = None
        try:
            with trio.fail_after(self._settings.io_seconds):
                stream = await self._host.new_stream(relay, [HOP])
                await send(stream, request)
                answer = await receive_hop(stream)
        except BaseException as exc:
            if stream is not None:
                await end(stream)
            if isinstance(exc, trio.TooSlowError):
                raise StreamTimeout(f"the relay {relay} does not answer") from exc
            if isinstance(exc, Exception) and not isinstance(exc, ProtocolError):
                # libp2p lets errors of any layer through
                raise PeerUnreachable(f"{relay} is no relay for us: {exc}") from exc
            raise
        return stream, answer

    async def _take_call(self, stream: INetStream) -> None:
        """Let a peer in that a relay of ours announces."""
        relay = stream.muxed_conn.peer_id
        try:
            with trio.fail_after(self._settings.io_seconds):
                call = await receive_stop(stream)
                if call.type != StopMessage.CONNECT or not is_peer_id(call.peer.id):
                    raise InvalidMessage("a relay announced nobody")
                is_ours = relay.to_bytes() in self._places
                status = Status.OK if is_ours else Status.PERMISSION_DENIED
                await send(stream, StopMessage(type=StopMessage.STATUS, status=status))
        except trio.TooSlowError as exc:
            raise StreamTimeout("the relay does not finish its call") from exc
        if not is_ours:
            await stream.close()
            return
        peer = ID(call.peer.id)
        connection = make_connection(stream, relay=relay, peer=peer, is_initiator=False)
        address = Multiaddr(f"/p2p/{relay}/p2p-circuit")
        self._puncher.start_when_connected(peer)
        # Returns when the connection has ended.
        await self._swarm.upgrade_inbound_raw_conn(connection, address)
