"""Hole punching: from a connection through a relay to a direct one (libp2p's DCUtR).

Both ends tell each other where they might be dialled. Who was called dials first, for the caller
may be on a public address. Then both dial at the same moment, from the port that they listen on, so
that each side's router takes the other's packets for answers. Messages are py-libp2p's; its service
is not used, for it dials whatever address the other end names.
"""

import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Final

import structlog
import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from libp2p.utils.varint import read_varint_prefixed_bytes_limited
from multiaddr import Multiaddr

from d2m_node.errors import StreamTimeout
from d2m_node.network.addresses import Scope, parse_endpoint, resolve
from d2m_node.network.circuits import CLOSE_SECONDS, MAX_MESSAGE_BYTES, end, send
from d2m_node.network.peers import Peers
from d2m_node.network.settings import NetworkSettings
from protocol.errors import InvalidMessage

log = structlog.get_logger(__name__)

DCUTR: Final = TProtocol("/libp2p/dcutr")
IDENTIFY: Final = TProtocol("/ipfs/id/1.0.0")
MAX_IDENTIFY_BYTES: Final = 8192
MAX_ADDRESSES: Final = 4
ATTEMPTS: Final = 3
DIAL_SECONDS: Final = 4.0
"""Long enough for the system to send its second SYN: the first may meet a closed door."""
REVERSE_SECONDS: Final = 2.0


class Puncher:
    """Makes direct connections of relayed ones, where routers allow it."""

    def __init__(
        self,
        host: BasicHost,
        peers: Peers,
        settings: NetworkSettings,
        tasks: trio.Nursery,
        list_direct: Callable[[], Sequence[str]],
    ) -> None:
        network = host.get_network()
        assert isinstance(network, Swarm)
        self._swarm = network
        self._host = host
        self._peers = peers
        self._settings = settings
        self._tasks = tasks
        self._list_direct = list_direct
        self._seen_at: str | None = None
        self._busy: set[ID] = set()
        host.set_stream_handler(DCUTR, self._serve)

    def start_when_connected(self, peer: ID) -> None:
        """Try, beside whatever goes on, to reach a peer directly that calls us."""
        if self._settings.relay.punch:
            self._tasks.start_soon(self._upgrade, peer, name="punch a hole")

    async def dial_relay(self, relay: ID, address: str, scope: Scope) -> None:
        """Connect with a relay from the port that we listen on, and ask where it sees us.

        Then our router keeps a door open at that port. Whatever fails, the relay is dialled as
        others are.
        """
        try:
            with trio.fail_after(DIAL_SECONDS):
                found, *_ = await resolve(parse_endpoint(address), scope)
                connection = await self._dial_from_port(found)
                await self._upgrade_outbound(connection, relay)
                self._seen_at = await self._ask_where(relay)
        except Exception as exc:  # noqa: BLE001 - dialling raises whatever the last layer raised
            log.debug("relay_not_dialled_from_port", peer=relay.to_bytes(), error=repr(exc))

    async def _ask_where(self, relay: ID) -> str:
        stream = await self._host.new_stream(relay, [IDENTIFY])
        data = await read_varint_prefixed_bytes_limited(stream, MAX_IDENTIFY_BYTES)
        await end(stream)
        try:
            seen = str(Multiaddr(Identify.FromString(data).observed_addr))
        except Exception as exc:  # protobuf and multiaddr errors of many kinds
            raise InvalidMessage("a relay does not say where it sees us") from exc
        parse_endpoint(seen)
        return seen

    def _list_own(self) -> list[str]:
        seen = [] if self._seen_at is None else [self._seen_at]
        return [*seen, *self._list_direct()][:MAX_ADDRESSES]

    async def _upgrade(self, peer: ID) -> None:
        """The side that was called leads."""
        if peer in self._busy:
            return
        self._busy.add(peer)
        try:
            with trio.fail_after(self._settings.io_seconds):
                while not self._peers.is_connected(peer.to_bytes()):  # noqa: ASYNC110 - no event
                    await trio.sleep(0.05)
            for _ in range(ATTEMPTS):
                if self._is_done(peer) or await self._lead(peer):
                    break
        except Exception as exc:  # noqa: BLE001 - libp2p lets errors of any layer through
            log.info("hole_punch_failed", peer=peer.to_bytes(), error=repr(exc))
        finally:
            self._busy.discard(peer)
        if self._peers.is_direct(peer.to_bytes()):
            log.info("hole_punched", peer=peer.to_bytes())
            await self._peers.close_circuits(peer.to_bytes())

    def _is_done(self, peer: ID) -> bool:
        return not self._peers.is_relayed(peer.to_bytes())

    async def _lead(self, peer: ID) -> bool:
        """Try once. Returns whether there is a direct connection."""
        with trio.fail_after(self._settings.io_seconds):
            stream = await self._host.new_stream(peer, [DCUTR])
            try:
                asked_at = trio.current_time()
                await send(stream, self._describe())
                theirs = _read_addresses(await _receive(stream, HolePunch.CONNECT))
                there_and_back = trio.current_time() - asked_at
                with trio.move_on_after(REVERSE_SECONDS):
                    await self._dial_all(peer, theirs, self._dial_plainly)
                if self._peers.is_direct(peer.to_bytes()):
                    return True
                await send(stream, HolePunch(type=HolePunch.SYNC))
                await trio.sleep(there_and_back / 2)
                await self._dial_all(peer, theirs, self._dial_as_server)
            finally:
                await end(stream)
        return self._peers.is_direct(peer.to_bytes())

    async def _serve(self, stream: INetStream) -> None:
        """The side that has called follows."""
        peer = stream.muxed_conn.peer_id
        try:
            with trio.fail_after(self._settings.io_seconds):
                theirs = _read_addresses(await _receive(stream, HolePunch.CONNECT))
                await send(stream, self._describe())
                if not self._peers.is_relayed(peer.to_bytes()):
                    await stream.close()
                    return
                await _receive(stream, HolePunch.SYNC)
                await self._dial_all(peer, theirs, self._dial_as_client)
        except trio.TooSlowError as exc:
            raise StreamTimeout("the peer does not finish its hole punch") from exc

    def _describe(self) -> HolePunch:
        own = [Multiaddr(one).to_bytes() for one in self._list_own()]
        return HolePunch(type=HolePunch.CONNECT, ObsAddrs=own)

    async def _dial_all(
        self, peer: ID, addresses: Sequence[str], dial: Callable[[ID, str], object]
    ) -> None:
        """Dial all that may be dialled at once, until one leads there or time is over."""
        scope = Scope.ANY if self._settings.dial_private else Scope.PUBLIC
        found: list[str] = []
        for address in addresses:
            with suppress(ValueError):
                found += await resolve(parse_endpoint(address), scope)
        with trio.move_on_after(DIAL_SECONDS):
            async with trio.open_nursery() as dials:
                for one in dict.fromkeys(found[:MAX_ADDRESSES]):
                    dials.start_soon(self._try, peer, one, dial, dials.cancel_scope)

    async def _try(
        self, peer: ID, address: str, dial: Callable[[ID, str], object], scope: trio.CancelScope
    ) -> None:
        try:
            await dial(peer, address)  # type: ignore[misc]
        except Exception as exc:  # noqa: BLE001 - dialling raises whatever the last layer raised
            log.debug("hole_punch_dial_failed", address=address, error=repr(exc))
        if self._peers.is_direct(peer.to_bytes()):
            scope.cancel()

    async def _dial_plainly(self, peer: ID, address: str) -> None:
        await self._swarm.dial_addr(Multiaddr(address), peer)

    async def _dial_as_client(self, peer: ID, address: str) -> None:
        await self._upgrade_outbound(await self._dial_from_port(address), peer)

    async def _upgrade_outbound(self, connection: RawConnection, peer: ID) -> None:
        """Let both ends prove themselves. Stock leaves the socket open if that takes too long."""
        try:
            await self._swarm.upgrade_outbound_raw_conn(connection, peer)
        except BaseException:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await connection.close()
            raise

    async def _dial_as_server(self, peer: ID, address: str) -> None:
        """Both sides have dialled, and one of them has to take the other for the dialler."""
        connection = await self._dial_from_port(address)
        connection.is_initiator = False
        self._tasks.start_soon(self._hold, connection, Multiaddr(address))
        while not self._peers.is_direct(peer.to_bytes()):  # noqa: ASYNC110 - a count has no event
            await trio.sleep(0.02)

    async def _hold(self, connection: RawConnection, address: Multiaddr) -> None:
        """Take a connection in, as one that was dialled to us. Returns when it has ended."""
        try:
            await self._swarm.upgrade_inbound_raw_conn(connection, address)
        except Exception as exc:  # noqa: BLE001 - libp2p lets errors of any layer through
            log.debug("hole_punch_connection_ended", error=repr(exc))

    async def _dial_from_port(self, address: str) -> RawConnection:
        """Open a TCP connection from the port that we listen on. Raises OSError."""
        own, target = parse_endpoint(self._peers.listening[0]), parse_endpoint(address)
        family = socket.AF_INET if target.protocol == "ip4" else socket.AF_INET6
        # Stock's own way leaves the socket open if it is cancelled, as it is where nobody answers.
        with ExitStack() as undo:
            opened = undo.enter_context(trio.socket.socket(family, socket.SOCK_STREAM))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            await opened.bind((own.host, own.port))
            await opened.connect((target.host, target.port))
            undo.pop_all()
        return RawConnection(TrioTCPStream(trio.SocketStream(opened)), initiator=True)


async def _receive(stream: INetStream, wanted: int) -> HolePunch:
    """Read one message. Raises InvalidMessage."""
    data = await read_varint_prefixed_bytes_limited(stream, MAX_MESSAGE_BYTES)
    try:
        message = HolePunch.FromString(data)
    except Exception as exc:  # protobuf's DecodeError, by whichever of its backends
        raise InvalidMessage("no message of a hole punch") from exc
    if message.type != wanted:
        raise InvalidMessage("a hole punch out of order")
    return message


def _read_addresses(message: HolePunch) -> Sequence[str]:
    """List the addresses over TCP that the other end names. Raises InvalidMessage."""
    try:
        named = [str(Multiaddr(data)) for data in message.ObsAddrs[:MAX_ADDRESSES]]
    except Exception as exc:  # multiaddr's errors are of many kinds
        raise InvalidMessage("a hole punch names no addresses") from exc
    found = []
    for address in named:
        with suppress(ValueError):
            parse_endpoint(address)
            found.append(address)
    return found
