"""Addresses that end with their peer's id, as operators and records write them."""

from collections.abc import Iterable

from libp2p.peer.id import ID

from d2m_node.network.addresses import parse_endpoint
from d2m_node.network.book import is_peer_id


def parse_bootstrap(entries: Iterable[str]) -> dict[bytes, str]:
    """Split ``/ip4/…/tcp/…/p2p/ID`` into peer id and address. Raises ValueError."""
    return dict(split_named(entry) for entry in entries)


def split_named(entry: str) -> tuple[bytes, str]:
    """Split one address that ends with its peer's id. Raises ValueError."""
    address, found, peer_id = entry.rpartition("/p2p/")
    if not found:
        raise ValueError(f"{entry} lacks /p2p/ and the peer's id")
    parse_endpoint(address)
    encoded = ID.from_string(peer_id).to_bytes()
    if not is_peer_id(encoded):
        raise ValueError(f"{entry} does not end with a peer's id")
    return encoded, address
