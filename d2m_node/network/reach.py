"""Can others connect to us? A connected peer is asked to dial back.

Only the address that the peer knows already, from the chain, is dialled: a request names none, so
nobody can be made to knock at a stranger's door.
"""

import random
from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol

from d2m_node.errors import TransientError
from d2m_node.measures import Reach, Reachability
from d2m_node.network.addresses import Scope, parse_endpoint, resolve, split_circuit
from d2m_node.network.chunk_fetch import OpenStream
from d2m_node.network.counts import NetworkCounts
from d2m_node.network.peer_stream import KINDS, PeerStream
from d2m_node.network.peers import Peers
from d2m_node.network.settings import NetworkSettings
from protocol.errors import InvalidMessage, ProtocolError
from protocol.wire.messages import DialBackAnswer, DialBackRequest
from protocol.wire.topics import DIAL_BACK_PROTOCOL

log = structlog.get_logger(__name__)

REACHED, NOT_REACHED, NOT_TRIED = 0, 1, 2
MAX_MESSAGE_BYTES: Final = 16
GREETING: Final = b"\x13/multistream/1.0.0\n"
"""What every libp2p node says first."""
MAX_ASKED: Final = 3
MIN_PAUSE_SECONDS: Final = 10.0
"""Between two dials for one peer."""
MAX_REMEMBERED: Final = 1024


class DialBackServer:
    """Dials peers that ask for it, at their registered addresses."""

    def __init__(
        self, host: IHost, peers: Peers, settings: NetworkSettings, counts: NetworkCounts
    ) -> None:
        self._peers = peers
        self._settings = settings
        self._counts = counts
        self._dialled_at: dict[bytes, float] = {}
        host.set_stream_handler(TProtocol(DIAL_BACK_PROTOCOL), self._serve)

    async def _serve(self, raw: INetStream) -> None:
        settings = self._settings
        stream = PeerStream(raw, settings.io_seconds, self._counts, KINDS[DIAL_BACK_PROTOCOL])
        request = await stream.receive_message(MAX_MESSAGE_BYTES)
        if not isinstance(request, DialBackRequest):
            raise InvalidMessage(f"{type(request).__name__} on the dial-back protocol")
        outcome = await self._dial(stream.peer_id)
        await stream.send_message(DialBackAnswer(outcome=outcome))
        await stream.close()

    async def _dial(self, peer_id: bytes) -> int:
        now = trio.current_time()
        told = self._peers.find_registered(peer_id)
        direct = [one for one in told if split_circuit(one) is None]
        if not direct:
            return NOT_TRIED
        if now < self._dialled_at.get(peer_id, 0.0) + MIN_PAUSE_SECONDS:
            return NOT_TRIED
        if len(self._dialled_at) >= MAX_REMEMBERED:
            del self._dialled_at[next(iter(self._dialled_at))]
        self._dialled_at[peer_id] = now
        scope = Scope.ANY if self._settings.dial_private else Scope.PUBLIC
        seconds = self._settings.dial_seconds / len(direct)
        for address in direct:  # the registry may hold lies of others about the peer
            if await _greets(address, scope, seconds):
                return REACHED
        return NOT_REACHED


class ReachCheck:
    """Asks peers from time to time, and says what to do if they cannot reach us."""

    def __init__(
        self,
        peers: Peers,
        open_stream: OpenStream,
        settings: NetworkSettings,
        listening: Callable[[], Sequence[str]],
    ) -> None:
        self._peers = peers
        self._open_stream = open_stream
        self._settings = settings
        self._listening = listening
        self.result = Reachability(Reach.UNKNOWN)

    async def run(self) -> None:
        """Check until cancelled."""
        await trio.sleep(self._settings.first_check_seconds)
        while True:
            await self.check()
            is_good = self.result.reach is Reach.REACHABLE
            await trio.sleep(self._settings.check_seconds / (1 if is_good else 6))

    async def check(self) -> None:
        """Ask a few peers now. One that reaches us is enough; no answer changes nothing."""
        connected = list(self._peers.list_connected())
        outcomes = [
            await self._ask(peer_id)
            for peer_id in random.sample(connected, min(MAX_ASKED, len(connected)))
        ]
        failures = outcomes.count(NOT_REACHED)
        before = self.result.reach
        if REACHED in outcomes:
            self.result = Reachability(Reach.REACHABLE)
        elif failures:
            self.result = Reachability(Reach.UNREACHABLE, self._advise(failures))
        if self.result.reach is before:
            return
        if self.result.advice is None:
            log.info("reachable")
        else:
            log.warning("unreachable", advice=self.result.advice)

    def _advise(self, failures: int) -> str:
        announced = self._settings.announce
        is_direct = announced is not None and split_circuit(announced) is None
        address = announced if announced and is_direct else self._listening()[0]
        port = address.rpartition("/")[2]
        return (
            f"{failures} of the peers that were asked cannot connect to {address}: open TCP port"
            f" {port} in the firewall, forward it on the router, or set network.announce to the"
            " address at which others reach this machine; or name relays in network.relay.through"
        )

    async def _ask(self, peer_id: bytes) -> int:
        try:
            async with self._open_stream(peer_id, DIAL_BACK_PROTOCOL) as stream:
                await stream.send_message(DialBackRequest())
                answer = await stream.receive_message(MAX_MESSAGE_BYTES)
            if not isinstance(answer, DialBackAnswer):
                raise InvalidMessage(f"{type(answer).__name__} where a dial's outcome belongs")
        except ProtocolError as exc:
            self._peers.blame(peer_id, str(exc))
            return NOT_TRIED
        except TransientError as exc:
            log.info("dial_back_unanswered", peer=peer_id, error=str(exc))
            return NOT_TRIED
        return answer.outcome


async def _greets(address: str, scope: Scope, seconds: float) -> bool:
    """Say whether a libp2p node answers at an address."""
    with trio.move_on_after(seconds):
        try:
            found, *_ = await resolve(parse_endpoint(address), scope)
            endpoint = parse_endpoint(found)
            stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
        except (ValueError, OSError):
            return False
        async with stream:
            greeting = b""
            while len(greeting) < len(GREETING):
                try:
                    received = await stream.receive_some(len(GREETING) - len(greeting))
                except trio.BrokenResourceError:
                    return False
                if not received:
                    return False
                greeting += received
            return greeting == GREETING
    return False
