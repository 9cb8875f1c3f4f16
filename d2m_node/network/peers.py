"""Who we stay connected with, and how often we knock."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

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
from d2m_node.network.conduct import Conduct
from d2m_node.network.settings import NetworkSettings
from d2m_node.ports import PeerStatus

log = structlog.get_logger(__name__)

SETTLED_SECONDS = 10.0
"""A connection that lived so long was a good one: the next pause is the shortest again."""

PEER_ID_PREFIXES = (b"\x00\x24", b"\x12\x20")
"""A whole Ed25519 key, or the SHA-256 of a larger one."""

ADDRESS_SECONDS = 3600


@dataclass(slots=True)
class _Keeper:
    """One peer to stay connected with, and the task that does it."""

    multiaddr: str
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    changed: trio.Event = field(default_factory=trio.Event)
    last_error: str | None = None

    def wake(self) -> None:
        """Let the task look again: connected, disconnected, or another address."""
        self.changed.set()
        self.changed = trio.Event()


class Peers(INotifee):
    """The address book, kept connected."""

    def __init__(
        self,
        host: BasicHost,
        settings: NetworkSettings,
        tasks: trio.Nursery,
        conduct: Conduct,
    ) -> None:
        network = host.get_network()
        assert isinstance(network, Swarm)
        self._swarm = network
        self._settings = settings
        self._tasks = tasks
        self._conduct = conduct
        self._own_id = host.get_id().to_bytes()
        self._keepers: dict[bytes, _Keeper] = {}
        network.register_notifee(self)

    def set_addresses(self, addresses: dict[bytes, str]) -> None:
        """Replace the address book: start, redirect and end the tasks that keep connections."""
        wanted = dict(addresses)
        wanted.pop(self._own_id, None)
        for peer_id in self._keepers.keys() - wanted.keys():
            self._keepers.pop(peer_id).scope.cancel()
        for peer_id, address in wanted.items():
            keeper = self._keepers.get(peer_id)
            if keeper is None:
                keeper = self._keepers[peer_id] = _Keeper(address)
                self._tasks.start_soon(self._keep, peer_id, keeper, name="keep connected")
            elif keeper.multiaddr != address:
                keeper.multiaddr = address
                keeper.wake()

    def statuses(self) -> Sequence[PeerStatus]:
        """List every peer that is wanted, connected or banned, by id."""
        connected = {peer_id.to_bytes() for peer_id in self._swarm.connections}
        known = connected | self._keepers.keys() | self._conduct.bans().keys()
        return [self._status(peer_id) for peer_id in sorted(known)]

    def list_connected(self) -> Sequence[bytes]:
        """List the peers with an open connection, by id."""
        found = (peer_id.to_bytes() for peer_id in self._swarm.connections)
        return [peer_id for peer_id in sorted(found) if self.is_connected(peer_id)]

    def find_address(self, peer_id: bytes) -> str | None:
        """Return a peer's address as the address book has it."""
        keeper = self._keepers.get(peer_id)
        return keeper.multiaddr if keeper else None

    def is_connected(self, peer_id: bytes) -> bool:
        """Say whether a connection to the peer is open."""
        return any(not c.is_closed for c in self._swarm.connections.get(ID(peer_id), ()))

    async def reach(self, peer_id: bytes) -> None:
        """Connect unless connected. Raises PeerUnreachable."""
        ban = self._conduct.explain_ban(peer_id)
        if ban is not None:
            raise PeerUnreachable(f"peer {ID(peer_id)} is {ban}")
        if self.is_connected(peer_id):
            return
        keeper = self._keepers.get(peer_id)
        if keeper is None:
            raise PeerUnreachable(f"no address of peer {ID(peer_id)}")
        await self._dial(peer_id, keeper.multiaddr)

    def blame(self, peer_id: bytes, reason: str) -> None:
        """Count a fault; see `Conduct.blame`."""
        self._conduct.blame(peer_id, reason)

    def drop(self, peer_id: bytes) -> None:
        """Close every connection with a peer, soon."""
        self._tasks.start_soon(self._disconnect, peer_id)

    def _status(self, peer_id: bytes) -> PeerStatus:
        keeper = self._keepers.get(peer_id)
        return PeerStatus(
            peer_id=peer_id,
            multiaddr=keeper.multiaddr if keeper else self._remote_address(peer_id),
            connected=self.is_connected(peer_id),
            last_error=self._conduct.explain_ban(peer_id)
            or (keeper.last_error if keeper else None),
        )

    def _remote_address(self, peer_id: bytes) -> str:
        for connection in self._swarm.connections.get(ID(peer_id), ()):
            for address in connection.get_transport_addresses():
                return str(address)
        return ""

    async def _keep(self, peer_id: bytes, keeper: _Keeper) -> None:
        """Dial a peer whenever it is not connected, for ever, with growing pauses."""
        shortest = pause = self._settings.redial_seconds
        # If both sides dialled at once there would be two connections: the one with the greater
        # id lets the other go first.
        patience = 4 * shortest if self._own_id > peer_id else 0.0
        with keeper.scope, log_scope(peer=peer_id, is_new_task=True):
            await _wait(keeper, patience)
            while True:
                await self._try_dial(peer_id, keeper)
                connected_at = trio.current_time()
                while self.is_connected(peer_id):
                    await keeper.changed.wait()
                if trio.current_time() - connected_at > SETTLED_SECONDS:
                    pause = shortest
                await _wait(keeper, patience + pause * random.uniform(0.8, 1.2))  # noqa: S311
                pause = min(2 * pause, self._settings.max_redial_seconds)

    async def _try_dial(self, peer_id: bytes, keeper: _Keeper) -> None:
        try:
            await self.reach(peer_id)
        except PeerUnreachable as exc:
            if keeper.last_error is None:
                log.info("peer_unreachable", error=str(exc))
            keeper.last_error = str(exc)
        else:
            keeper.last_error = None

    async def _dial(self, peer_id: bytes, multiaddr: str) -> None:
        target = ID(peer_id)
        try:
            with trio.fail_after(self._settings.dial_seconds):
                # Only the address we were told: what the peer once said may be old.
                self._swarm.peerstore.clear_addrs(target)
                self._swarm.peerstore.add_addrs(target, [Multiaddr(multiaddr)], ADDRESS_SECONDS)
                await self._swarm.dial_peer(target)
        except trio.TooSlowError as exc:
            raise PeerUnreachable(f"{multiaddr} does not answer") from exc
        except Exception as exc:  # dialling raises whatever the last layer raised
            raise PeerUnreachable(f"{multiaddr}: {_find_root(exc)}") from exc

    async def _disconnect(self, peer_id: bytes) -> None:
        with trio.move_on_after(self._settings.close_seconds):
            await self._swarm.close_peer(ID(peer_id))

    def _wake(self, conn: INetConn) -> bytes:
        peer_id = conn.muxed_conn.peer_id.to_bytes()
        keeper = self._keepers.get(peer_id)
        if keeper is not None:
            keeper.wake()
        return peer_id

    async def connected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002
        """Called by libp2p. A banned peer may knock, but not come in."""
        peer_id = self._wake(conn)
        if self._conduct.is_banned(peer_id):
            self.drop(peer_id)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:  # noqa: ARG002
        """Called by libp2p."""
        self._wake(conn)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        """Called by libp2p; of no interest here."""

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        """Called by libp2p; of no interest here."""

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Called by libp2p; of no interest here."""

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Called by libp2p; of no interest here."""


def offline_statuses(addresses: Mapping[bytes, str], reason: str) -> Sequence[PeerStatus]:
    """List the peers of an address book while there is no network."""
    return [
        PeerStatus(peer_id=peer_id, multiaddr=address, connected=False, last_error=reason)
        for peer_id, address in sorted(addresses.items())
    ]


def parse_bootstrap(entries: Iterable[str]) -> dict[bytes, str]:
    """Split ``/ip4/…/tcp/…/p2p/ID`` into peer id and address. Raises ValueError."""
    addresses = {}
    for entry in entries:
        address, found, peer_id = entry.rpartition("/p2p/")
        if not found:
            raise ValueError(f"{entry} lacks /p2p/ and the peer's id")
        Multiaddr(address)
        encoded = ID.from_string(peer_id).to_bytes()
        if not encoded.startswith(PEER_ID_PREFIXES):
            raise ValueError(f"{entry} does not end with a peer's id")
        addresses[encoded] = address
    return addresses


def _find_root(error: BaseException) -> BaseException:
    """Find what went wrong under the layers that each say only that something did."""
    while error.__cause__ is not None:
        error = error.__cause__
        if isinstance(error, MultiError) and error.args[0]:
            error = error.args[0][0]
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
    return error


async def _wait(keeper: _Keeper, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await keeper.changed.wait()
