"""Who is known, under which addresses, and how dialling them went. Outlives a stack."""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from d2m_node.network.addresses import Source
from d2m_node.network.settings import NetworkSettings
from d2m_node.ports import NO_RIVALS, DialFailure, PeerStatus

SETTLED_SECONDS: Final = 10.0
"""A connection that lived so long was a good one: the next pause is the shortest again."""
MAX_DOUBLINGS: Final = 20
MAX_ADDRESSES: Final = 4
"""Of one peer, from one source."""
MAX_FOUND: Final = 1024
"""Peers that one source alone names, one by one: names are free on a LAN."""


_ED25519 = bytes.fromhex("002408011220")
"""Before a whole key. The SHA-256 of a larger one follows `_HASHED`."""
_HASHED = b"\x12\x20"


def is_peer_id(peer_id: bytes) -> bool:
    """Say whether bytes are a peer id of the two kinds that there are."""
    return (len(peer_id) == 38 and peer_id.startswith(_ED25519)) or (
        len(peer_id) == 34 and peer_id.startswith(_HASHED)
    )


@dataclass(slots=True)
class KnownPeer:
    """One peer: its addresses by who told them, and when it is dialled next."""

    addresses: dict[Source, tuple[str, ...]] = field(default_factory=dict)
    is_needed: bool = False
    """A job of this node counts on it."""
    attempts: int = 0
    """Dials in a row that failed, and connections that did not last."""
    failures: tuple[DialFailure, ...] = ()
    """Of the last dial, each address with its reason; none if it succeeded."""
    next_dial_at: float = 0.0
    next_search_at: float = 0.0
    """When others may be asked again where it is."""
    connected_at: float | None = None

    @property
    def is_kept(self) -> bool:
        """Say whether to stay connected with it, however many others there are."""
        return self.is_needed or Source.BOOTSTRAP in self.addresses

    def list_addresses(self) -> list[tuple[Source, str]]:
        """List the addresses in the order in which they are tried, each once."""
        found: dict[str, Source] = {}
        for source in Source:
            for address in self.addresses.get(source, ()):
                found.setdefault(address, source)
        return [(source, address) for address, source in found.items()]


class AddressBook:
    """Every peer that this node knows an address of."""

    def __init__(self, own_id: bytes, settings: NetworkSettings) -> None:
        self._own_id = own_id
        self._settings = settings
        self._known: dict[bytes, KnownPeer] = {}
        self._needed: frozenset[bytes] = frozenset()
        self.changed = trio.Event()

    def __iter__(self) -> Iterator[tuple[bytes, KnownPeer]]:
        """Walk all peers."""
        return iter(self._known.items())

    def find(self, peer_id: bytes) -> KnownPeer | None:
        """Return what is known of a peer."""
        return self._known.get(peer_id)

    def replace(
        self,
        source: Source,
        addresses: Mapping[bytes, str],
        rivals: Mapping[bytes, Sequence[str]] = NO_RIVALS,
    ) -> None:
        """Take all that a source says, and forget what it said before."""
        for peer_id in [one for one, known in self._known.items() if source in known.addresses]:
            if peer_id not in addresses:
                self._forget(peer_id, source)
        for peer_id, address in addresses.items():
            told = (address, *rivals.get(peer_id, ()))[:MAX_ADDRESSES]
            self._set(peer_id, source, tuple(one for one in told if one))
        self.wake()

    def add(self, source: Source, peer_id: bytes, *addresses: str) -> None:
        """Take a peer's addresses; what the source said of it before is forgotten."""
        if peer_id not in self._known:
            self._make_room(source)
        self._set(peer_id, source, addresses[:MAX_ADDRESSES])
        self.wake()

    def forget(self, source: Source, peer_id: bytes) -> None:
        """Take an address back."""
        if peer_id in self._known:
            self._forget(peer_id, source)

    def set_needed(self, peers: Collection[bytes]) -> None:
        """Say which peers jobs of this node count on: they are dialled first, and kept."""
        self._needed = frozenset(peers)
        for peer_id, known in self._known.items():
            if peer_id in peers and not known.is_needed:
                # It may have waited long for its turn among those that nobody needed.
                known.next_dial_at = min(
                    known.next_dial_at, trio.current_time() + self.patience(peer_id)
                )
            known.is_needed = peer_id in peers
        self.wake()

    def patience(self, peer_id: bytes) -> float:
        """Return how long to let the other side dial first.

        If both sides dialled at once there would be two connections: the one with the greater id
        lets the other go first.
        """
        return 4 * self._settings.redial_seconds if self._own_id > peer_id else 0.0

    def put_off(self, peer_id: bytes, known: KnownPeer) -> None:
        """Let the next dial wait, longer each time."""
        settings = self._settings
        longest = settings.max_redial_seconds if known.is_kept else settings.max_idle_redial_seconds
        pause = min(settings.redial_seconds * 2 ** min(known.attempts, MAX_DOUBLINGS), longest)
        known.attempts += 1
        known.next_dial_at = (
            trio.current_time() + self.patience(peer_id) + pause * random.uniform(0.8, 1.2)  # noqa: S311
        )

    def note_connected(self, peer_id: bytes) -> None:
        """Note that a connection is open."""
        known = self._known.get(peer_id)
        if known is not None:
            known.failures = ()
            if known.connected_at is None:
                known.connected_at = trio.current_time()
        self.wake()

    def note_disconnected(self, peer_id: bytes) -> None:
        """Note that the last connection has ended."""
        known = self._known.get(peer_id)
        if known is not None and known.connected_at is not None:
            if trio.current_time() - known.connected_at > SETTLED_SECONDS:
                known.attempts = 0
            known.connected_at = None
            self.put_off(peer_id, known)
        self.wake()

    def wake(self) -> None:
        """Let whoever dials look again."""
        self.changed.set()
        self.changed = trio.Event()

    def _set(self, peer_id: bytes, source: Source, addresses: tuple[str, ...]) -> None:
        if peer_id == self._own_id or not is_peer_id(peer_id):
            return
        known = self._known.get(peer_id)
        if known is None:
            first = trio.current_time() + self.patience(peer_id)
            known = KnownPeer(next_dial_at=first, is_needed=peer_id in self._needed)
            self._known[peer_id] = known
        before = {address for _, address in known.list_addresses()}
        is_news = not before.issuperset(addresses)
        known.addresses[source] = addresses
        if is_news and known.failures:
            known.attempts = 0
            known.next_dial_at = trio.current_time()

    def _forget(self, peer_id: bytes, source: Source) -> None:
        known = self._known[peer_id]
        known.addresses.pop(source, None)
        if not known.addresses:
            del self._known[peer_id]

    def _make_room(self, source: Source) -> None:
        """Forget the oldest of those that nobody but this source names, if they are many."""
        found = [one for one, known in self._known.items() if known.addresses.keys() == {source}]
        for peer_id in found[: max(0, len(found) - MAX_FOUND + 1)]:
            del self._known[peer_id]


def offline_statuses(book: AddressBook, reason: str) -> Sequence[PeerStatus]:
    """List the peers of an address book while there is no network."""
    return [
        PeerStatus(
            peer_id=peer_id,
            multiaddr=next((address for _, address in known.list_addresses()), ""),
            connected=False,
            last_error=reason,
        )
        for peer_id, known in sorted(book, key=lambda one: one[0])
    ]
