"""Who we are connected with, and whom we dial next."""

import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import structlog
import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.exceptions import MultiError
from libp2p.host.basic_host import BasicHost
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from d2m_node.errors import PeerUnreachable
from d2m_node.logs import log_scope
from d2m_node.network.addresses import Scope, Source, parse_endpoint, resolve, split_circuit
from d2m_node.network.book import KnownPeer
from d2m_node.network.lasting import Lasting
from d2m_node.ports import DialFailure, PeerStatus

log = structlog.get_logger(__name__)

ADDRESS_SECONDS = 3600
LONGEST_NAP_SECONDS: Final = 60.0
SHORTEST_DIAL_SECONDS: Final = 2.0


Search = Callable[[bytes], Awaitable[Sequence[str]]]
OpenCircuit = Callable[[ID, ID], Awaitable[None]]
"""Relay, peer."""


class Peers(INotifee):
    """Dials the peers of the address book: those that are kept, and others until there are enough.

    A dial that fails is tried again for ever, with growing pauses.
    """

    def __init__(self, host: BasicHost, tasks: trio.Nursery, lasting: Lasting) -> None:
        network = host.get_network()
        assert isinstance(network, Swarm)
        self._swarm = network
        self._host = host
        self._settings = lasting.settings
        self._tasks = tasks
        self._conduct = lasting.conduct
        self._counts = lasting.counts
        self._book = lasting.book
        self._memory = lasting.memory
        self._slots = trio.CapacityLimiter(lasting.settings.max_dials)
        self._dials: dict[bytes, trio.Event] = {}
        """Under way, and what is set at their end."""
        self._queued: set[bytes] = set()
        self.search: Search | None = None
        """Asks other nodes where a peer is."""
        self.on_fewer_connections: Callable[[ID], None] = lambda _: None
        """Told when one of several connections with a peer has ended."""
        self.open_circuit: OpenCircuit | None = None
        """Connects with a peer through a relay that is connected."""
        network.register_notifee(self)

    async def run(self) -> None:
        """Dial whoever is due, until cancelled."""
        while True:
            changed = self._book.changed
            now = trio.current_time()
            due_at = now + LONGEST_NAP_SECONDS
            for peer_id, known in self._list_wanted():
                if known.next_dial_at <= now:
                    self._queued.add(peer_id)
                    self._tasks.start_soon(self._dial_in_turn, peer_id, known, name="dial a peer")
                else:
                    due_at = min(due_at, known.next_dial_at)
            with trio.move_on_at(due_at):
                await changed.wait()

    def statuses(self) -> Sequence[PeerStatus]:
        """List every peer that is known, connected, penalised or banned, by id."""
        connected = {peer_id.to_bytes() for peer_id in self._swarm.connections}
        wanted = {peer_id for peer_id, _ in self._list_wanted()} | self._queued
        penalties = self._conduct.penalties()
        known = connected | {peer_id for peer_id, _ in self._book} | penalties.keys()
        known |= self._conduct.bans().keys()
        return [
            self._status(one, is_wanted=one in wanted, penalty=penalties.get(one, 0.0))
            for one in sorted(known)
        ]

    def list_connected(self) -> Sequence[bytes]:
        """List the peers with an open connection, by id."""
        found = (peer_id.to_bytes() for peer_id in self._swarm.connections)
        return [peer_id for peer_id in sorted(found) if self.is_connected(peer_id)]

    def find_registered(self, peer_id: bytes) -> Sequence[str]:
        """Return where the accounts that name a peer say that it is."""
        known = self._book.find(peer_id)
        return known.addresses.get(Source.REGISTRY, ()) if known else ()

    def is_connected(self, peer_id: bytes) -> bool:
        """Say whether a connection to the peer is open."""
        return any(not c.is_closed for c in self._swarm.connections.get(ID(peer_id), ()))

    async def reach(self, peer_id: bytes) -> None:
        """Connect unless connected. Raises PeerUnreachable.

        Others are asked where the peer is, unless that is done in the background anyway: a round
        must not wait for it.
        """
        known = self._book.find(peer_id) or KnownPeer()
        await self._connect(peer_id, known, None if known.is_kept else self.search)

    async def reach_at(self, peer_id: bytes, addresses: tuple[str, ...]) -> bool:
        """Connect where others say that a peer is, if it is not known from elsewhere.

        Returns whether that was needed. Raises PeerUnreachable.
        """
        if self.is_connected(peer_id):
            return False
        known = self._book.find(peer_id) or KnownPeer({Source.DHT: addresses})
        await self._connect(peer_id, known, None)
        return True

    async def reach_direct(self, peer_id: bytes, address: str | None) -> None:
        """Connect with a relay, and through none: at an address of the operator's, if given.

        Raises PeerUnreachable.
        """
        if self.is_connected(peer_id):
            return
        known = self._book.find(peer_id) or KnownPeer()
        found = [one for one in known.list_addresses() if split_circuit(one[1]) is None]
        if address is not None:
            found.insert(0, (Source.BOOTSTRAP, address))
        direct = KnownPeer({source: (one,) for source, one in reversed(found)})
        await self._connect(peer_id, direct, None)

    def is_registered(self, peer_id: bytes) -> bool:
        """Say whether the registry ties the peer to an account."""
        known = self._book.find(peer_id)
        return known is not None and Source.REGISTRY in known.addresses

    def is_relayed(self, peer_id: bytes) -> bool:
        """Say whether all connections with a peer go through relays."""
        found = [c for c in self._swarm.connections.get(ID(peer_id), ()) if not c.is_closed]
        return bool(found) and all(_is_circuit(one) for one in found)

    def is_direct(self, peer_id: bytes) -> bool:
        """Say whether some connection with a peer goes through no relay."""
        return self.is_connected(peer_id) and not self.is_relayed(peer_id)

    async def close_circuits(self, peer_id: bytes) -> None:
        """Close the connections with a peer that go through relays."""
        for one in tuple(self._swarm.connections.get(ID(peer_id), ())):
            if not one.is_closed and _is_circuit(one):
                with trio.move_on_after(self._settings.close_seconds):
                    await one.close()

    @property
    def listening(self) -> Sequence[str]:
        """Where this host listens."""
        return [str(address) for address in self._host.get_transport_addrs()]

    def find_dialled(self, peer_id: bytes) -> str | None:
        """Return where this node has reached a peer, if it has."""
        return self._memory.find(peer_id)

    def release(self, peer_ids: Iterable[bytes]) -> None:
        """Part with peers that were asked once, if there are enough others."""
        for peer_id in peer_ids:
            known = self._book.find(peer_id)
            is_kept = known is not None and known.is_kept
            if not is_kept and len(self._swarm.connections) > self._settings.peers_target:
                self.drop(peer_id)

    async def _connect(self, peer_id: bytes, known: KnownPeer, search: Search | None) -> None:
        ban = self._conduct.explain_ban(peer_id)
        if ban is not None:
            raise PeerUnreachable(f"peer {ID(peer_id)} is {ban}")
        while peer_id in self._dials and not self.is_connected(peer_id):
            await self._dials[peer_id].wait()
        if self.is_connected(peer_id):
            return
        self._dials[peer_id] = trio.Event()
        try:
            await self._try_addresses(peer_id, known, search)
        finally:
            self._dials.pop(peer_id).set()

    def blame(self, peer_id: bytes, reason: str) -> None:
        """Count a fault; see `Conduct.blame`."""
        self._conduct.blame(peer_id, reason)

    def drop(self, peer_id: bytes) -> None:
        """Close every connection with a peer, soon."""
        self._tasks.start_soon(self._disconnect, peer_id)

    def _list_wanted(self) -> list[tuple[bytes, KnownPeer]]:
        """List whom to connect with: all that are kept, then others, soonest first."""
        away = [
            (peer_id, known)
            for peer_id, known in self._book
            if peer_id not in self._queued and not self.is_connected(peer_id)
        ]
        kept = [(peer_id, known) for peer_id, known in away if known.is_kept]
        others = [(peer_id, known) for peer_id, known in away if not known.is_kept]
        missing = self._settings.peers_target - len(self._swarm.connections) - len(self._queued)
        if missing <= 0 or not others:
            return kept
        # Who is due at the same time comes in a random order: not all call on the same ones.
        random.shuffle(others)
        now = trio.current_time()
        others.sort(key=lambda one: max(now, one[1].next_dial_at))
        return kept + others[:missing]

    def _status(self, peer_id: bytes, *, is_wanted: bool, penalty: float) -> PeerStatus:
        known = self._book.find(peer_id) or KnownPeer()
        is_connected = self.is_connected(peer_id)
        remote = self._remote_address(peer_id)
        addresses = [address for _, address in known.list_addresses()]
        errors = "; ".join(one.reason for one in known.failures)
        wait = max(0.0, known.next_dial_at - trio.current_time())
        return PeerStatus(
            peer_id=peer_id,
            multiaddr=addresses[0] if addresses else remote,
            connected=is_connected,
            last_error=self._conduct.explain_ban(peer_id) or errors or None,
            failures=known.failures,
            next_dial_seconds=round(wait, 1) if is_wanted and not is_connected else None,
            penalty=penalty,
            banned_seconds=self._conduct.ban_seconds(peer_id),
            turned_away=self._counts.by_peer.find(peer_id),
        )

    def _remote_address(self, peer_id: bytes) -> str:
        for connection in self._swarm.connections.get(ID(peer_id), ()):
            for address in connection.get_transport_addresses():
                return str(address)
        return ""

    async def _dial_in_turn(self, peer_id: bytes, known: KnownPeer) -> None:
        """Dial a peer in the background; how it went is in the book."""
        try:
            with log_scope(peer=peer_id, is_new_task=True):
                async with self._slots:
                    await self._try_reach(peer_id, known)
        finally:
            self._queued.discard(peer_id)
            if not self.is_connected(peer_id) and known.next_dial_at <= trio.current_time():
                self._book.put_off(peer_id, known)
            self._book.wake()

    async def _try_reach(self, peer_id: bytes, known: KnownPeer) -> None:
        was_well = not known.failures
        try:
            # Others are asked for those that somebody waits for, not for all that ever registered.
            await self._connect(peer_id, known, self.search if known.is_kept else None)
        except PeerUnreachable as exc:
            if was_well:
                log.info("peer_unreachable", error=str(exc))

    async def _try_addresses(self, peer_id: bytes, known: KnownPeer, search: Search | None) -> None:
        """Dial one address after the other, and those that a search finds.

        Raises PeerUnreachable that names them all.
        """
        failures: list[DialFailure] = []
        tried = known.list_addresses()
        if await self._try_each(peer_id, tried, failures):
            known.failures = ()
            return
        if search is not None and trio.current_time() >= known.next_search_at:
            known.next_search_at = trio.current_time() + self._settings.search_pause_seconds
            found = await search(peer_id)
            old = {address for _, address in tried}
            news = [(Source.DHT, address) for address in found if address not in old]
            if await self._try_each(peer_id, news, failures):
                known.failures = ()
                self._book.add(Source.DHT, peer_id, *(address for _, address in news))
                return
        self._counts.dials["failed"] += 1
        if not failures:
            reason = f"no address of peer {ID(peer_id)}"
            failures.append(DialFailure(multiaddr="", source=Source.REGISTRY.value, reason=reason))
        known.failures = tuple(failures)
        raise PeerUnreachable("; ".join(one.reason for one in failures))

    async def _try_each(
        self, peer_id: bytes, addresses: list[tuple[Source, str]], failures: list[DialFailure]
    ) -> bool:
        """Dial until one answers; what did not is added to the failures.

        They share the time for a dial: many addresses take little longer than one.
        """
        longest = self._settings.dial_seconds
        share = longest / max(1, len(addresses))
        seconds = max(share, min(longest, SHORTEST_DIAL_SECONDS))
        for source, address in addresses:
            try:
                await self._dial(peer_id, address, self._scope_of(source), seconds)
            except PeerUnreachable as exc:
                failures.append(
                    DialFailure(multiaddr=address, source=source.value, reason=str(exc))
                )
            else:
                self._counts.dials["reached"] += 1
                self._memory.note_reached(peer_id, address)
                return True
        return False

    def _scope_of(self, source: Source) -> Scope:
        if source is Source.BOOTSTRAP or self._settings.dial_private:
            return Scope.ANY
        return Scope.PRIVATE if source is Source.LAN else Scope.PUBLIC

    async def _dial(self, peer_id: bytes, multiaddr: str, scope: Scope, seconds: float) -> None:
        target = ID(peer_id)
        try:
            with trio.fail_after(seconds):
                circuit = split_circuit(multiaddr)
                if circuit is not None:
                    await self._dial_through(*circuit, target, scope)
                    return
                found = await resolve(parse_endpoint(multiaddr), scope)
                # Only the address we were told: what the peer once said may be old.
                self._swarm.peerstore.clear_addrs(target)
                self._swarm.peerstore.add_addrs(
                    target, [Multiaddr(one) for one in found], ADDRESS_SECONDS
                )
                await self._swarm.dial_peer(target)
        except trio.TooSlowError as exc:
            raise PeerUnreachable(f"{multiaddr} does not answer") from exc
        except PeerUnreachable as exc:
            raise PeerUnreachable(f"{multiaddr}: {exc}") from exc
        except Exception as exc:  # dialling raises whatever the last layer raised
            raise PeerUnreachable(f"{multiaddr}: {_find_root(exc)}") from exc

    async def _dial_through(self, address: str, name: str, target: ID, scope: Scope) -> None:
        """Dial a peer through a relay. Raises PeerUnreachable, ValueError."""
        relay = ID.from_string(name)
        if self.open_circuit is None or relay in (target, self._swarm.get_peer_id()):
            raise PeerUnreachable("this is no relay to it")
        if not self.is_connected(relay.to_bytes()):
            await resolve(parse_endpoint(address), scope)  # refuses what may not be dialled
            source = Source.BOOTSTRAP if scope is Scope.ANY else Source.DHT
            known = KnownPeer({source: (address,)})
            await self._connect(relay.to_bytes(), known, None)
        await self.open_circuit(relay, target)

    async def _disconnect(self, peer_id: bytes) -> None:
        with trio.move_on_after(self._settings.close_seconds):
            await self._swarm.close_peer(ID(peer_id))

    async def connected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002
        """Called by libp2p. A banned peer may knock, but not come in."""
        peer_id = conn.muxed_conn.peer_id.to_bytes()
        self._book.note_connected(peer_id)
        if self._conduct.is_banned(peer_id):
            self.drop(peer_id)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002
        """Called by libp2p."""
        peer_id = conn.muxed_conn.peer_id.to_bytes()
        if self.is_connected(peer_id):
            self.on_fewer_connections(conn.muxed_conn.peer_id)
        else:
            self._book.note_disconnected(peer_id)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        """Called by libp2p; of no interest here."""

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        """Called by libp2p; of no interest here."""

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Called by libp2p; of no interest here."""

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Called by libp2p; of no interest here."""


def _is_circuit(connection: INetConn) -> bool:
    return any("/p2p-circuit" in str(one) for one in connection.get_transport_addresses())


def _find_root(error: BaseException) -> BaseException:
    """Find what went wrong under the layers that each say only that something did."""
    while error.__cause__ is not None:
        error = error.__cause__
        if isinstance(error, MultiError) and error.args[0]:
            error = error.args[0][0]
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
    return error
