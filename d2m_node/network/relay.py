"""Serve as a relay: peers behind NAT are reached through this node, within bounds.

Only peers that the registry names may reserve a place, each for itself. A relay sees who talks to
whom and how much; what they say is encrypted between them.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
import trio
from libp2p.abc import INetStream
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import (
    HopMessage,
    Limit,
    PeerId,
    Reservation,
    Status,
    StopMessage,
)
from multiaddr import Multiaddr

from d2m_node.errors import StreamTimeout
from d2m_node.network.circuits import HOP, STOP, end, receive_hop, receive_stop, send
from d2m_node.network.counts import NetworkCounts
from d2m_node.network.fairness import Uplink
from d2m_node.network.peers import Peers
from d2m_node.network.settings import NetworkSettings
from protocol.errors import InvalidMessage

log = structlog.get_logger(__name__)

RESERVATION_SECONDS: Final = 3600
PIECE_BYTES: Final = 64 * 1024


@dataclass(slots=True)
class _Circuit:
    """Two streams that are one connection, and what it may still carry."""

    source: INetStream
    target: INetStream
    left_bytes: int


class Relay:
    """Answers who wants to be reached through us, and who wants to reach them."""

    def __init__(
        self,
        host: BasicHost,
        peers: Peers,
        settings: NetworkSettings,
        counts: NetworkCounts,
        addresses: Callable[[], Sequence[str]],
    ) -> None:
        self._host = host
        self._peers = peers
        self._settings = settings
        self._limits = settings.relay
        self._counts = counts
        self._addresses = addresses
        self._uplink = Uplink(self._limits.bytes_per_second)
        self._reserved: dict[bytes, float] = {}
        """Peer to the time when its place ends."""
        self._open: Counter[bytes] = Counter()
        """Circuits by peer, each counted for both of its ends."""
        host.set_stream_handler(HOP, self._serve)

    async def _serve(self, stream: INetStream) -> None:
        asker = stream.muxed_conn.peer_id
        try:
            with trio.fail_after(self._settings.io_seconds):
                request = await receive_hop(stream)
                match request.type:
                    case HopMessage.RESERVE:
                        await send(stream, self._reserve(asker.to_bytes()))
                    case HopMessage.CONNECT:
                        target, status = await self._call(asker, request.peer.id)
                        answer = HopMessage(type=HopMessage.STATUS, status=status)
                        answer.limit.CopyFrom(self._limit)
                        await send(stream, answer)
                    case _:
                        raise InvalidMessage("a relay was asked for nothing")
        except trio.TooSlowError as exc:
            raise StreamTimeout("the peer does not finish what it asks of a relay") from exc
        if request.type == HopMessage.CONNECT and target is not None:
            await self._join(asker.to_bytes(), request.peer.id, stream, target)
        else:
            await stream.close()

    @property
    def _limit(self) -> Limit:
        return Limit(duration=int(self._limits.circuit_seconds), data=self._limits.circuit_bytes)

    def _reserve(self, peer_id: bytes) -> HopMessage:
        """Give the asker a place, or prolong the one that it has."""
        now = trio.current_time()
        self._reserved = {
            one: ends_at
            for one, ends_at in self._reserved.items()
            if ends_at > now and self._peers.is_connected(one)
        }
        if not self._peers.is_registered(peer_id) or self._peers.is_relayed(peer_id):
            return HopMessage(type=HopMessage.STATUS, status=Status.PERMISSION_DENIED)
        if peer_id not in self._reserved and len(self._reserved) >= self._limits.reservations:
            return HopMessage(type=HopMessage.STATUS, status=Status.RESERVATION_REFUSED)
        self._reserved[peer_id] = now + RESERVATION_SECONDS
        own = self._host.get_id()
        answer = HopMessage(type=HopMessage.STATUS, status=Status.OK, limit=self._limit)
        answer.reservation.CopyFrom(
            Reservation(
                expire=int(time.time()) + RESERVATION_SECONDS,
                addrs=[Multiaddr(f"{one}/p2p/{own}").to_bytes() for one in self._addresses()],
            )
        )
        return answer

    async def _call(self, asker: ID, target: bytes) -> tuple[INetStream | None, Status.ValueType]:
        """Ask the target whether it takes the call. Returns its stream, and the status."""
        ends_at = self._reserved.get(target, 0.0)
        if ends_at < trio.current_time() or not self._peers.is_connected(target):
            return None, Status.NO_RESERVATION
        share = max(1, self._limits.circuits // 4)
        is_full = self._open.total() >= 2 * self._limits.circuits
        if is_full or self._open[asker.to_bytes()] >= share or self._open[target] >= share:
            return None, Status.RESOURCE_LIMIT_EXCEEDED
        stream = None
        try:
            stream = await self._host.new_stream(ID(target), [STOP])
            caller = PeerId(id=asker.to_bytes())
            question = StopMessage(type=StopMessage.CONNECT, peer=caller, limit=self._limit)
            await send(stream, question)
            answer = await receive_stop(stream)
        except BaseException as exc:
            if stream is not None:
                await end(stream)
            if not isinstance(exc, Exception):
                raise
            # Whatever it is, the asker is not to blame.
            log.info("relay_call_failed", peer=target, error=repr(exc))
            return None, Status.CONNECTION_FAILED
        if answer.status != Status.OK:
            await end(stream)
            return None, Status.CONNECTION_FAILED
        return stream, Status.OK

    async def _join(
        self, asker: bytes, target: bytes, source: INetStream, stream: INetStream
    ) -> None:
        """Carry bytes both ways, until one end closes or a limit is reached."""
        circuit = _Circuit(source, stream, self._limits.circuit_bytes)
        self._open[asker] += 1
        self._open[target] += 1
        try:
            with trio.move_on_after(self._limits.circuit_seconds):
                async with trio.open_nursery() as ways:
                    scope = ways.cancel_scope
                    ways.start_soon(self._carry, asker, circuit, source, stream, scope)
                    ways.start_soon(self._carry, target, circuit, stream, source, scope)
        finally:
            for one in (asker, target):
                self._open[one] -= 1
                if not self._open[one]:
                    del self._open[one]
            await end(source)
            await end(stream)

    async def _carry(
        self,
        sender: bytes,
        circuit: _Circuit,
        source: INetStream,
        target: INetStream,
        scope: trio.CancelScope,
    ) -> None:
        try:
            while data := await source.read(PIECE_BYTES):
                circuit.left_bytes -= len(data)
                if circuit.left_bytes < 0:
                    log.info("relay_circuit_spent", peer=sender)
                    break
                await self._uplink.take_turn(sender, len(data))
                await target.write(data)
                self._counts.relayed_bytes += len(data)
        except Exception as exc:  # noqa: BLE001 - one end is gone, in whatever way: so is the circuit
            log.debug("relay_circuit_ended", peer=sender, error=repr(exc))
        scope.cancel()
