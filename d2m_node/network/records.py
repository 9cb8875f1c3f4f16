"""Signed peer records: where a peer says that it is, in libp2p's envelope."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from libp2p.crypto.keys import KeyPair, KeyType
from libp2p.peer.envelope import consume_envelope, seal_record
from libp2p.peer.id import ID
from libp2p.peer.peer_record import PEER_RECORD_ENVELOPE_DOMAIN, PeerRecord
from multiaddr import Multiaddr

from d2m_node.network.addresses import check_address
from d2m_node.network.book import MAX_ADDRESSES
from protocol.errors import InvalidMessage, InvalidSignature

MAX_RECORD_BYTES: Final = 1024
MAX_RECORDS: Final = 2048


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """What a peer signed: its addresses, without names of peers in them."""

    peer_id: bytes
    addresses: tuple[str, ...]
    sequence: int
    data: bytes
    """The envelope, to be passed on."""


def sign_record(key_pair: KeyPair, addresses: Sequence[str]) -> bytes:
    """Sign where this peer is, with a number above that of every earlier record."""
    peer_id = ID.from_pubkey(key_pair.public_key)
    record = PeerRecord(peer_id, [Multiaddr(one) for one in addresses[:MAX_ADDRESSES]])
    return seal_record(record, key_pair.private_key).marshal_envelope()


def read_record(data: bytes) -> SignedRecord:
    """Check a record of anybody's. Raises InvalidMessage, InvalidSignature."""
    if len(data) > MAX_RECORD_BYTES:
        raise InvalidMessage(f"a peer record of {len(data)} bytes")
    try:
        envelope, record = consume_envelope(data, PEER_RECORD_ENVELOPE_DOMAIN)
        signer = ID.from_pubkey(envelope.public_key)
        texts = [str(address) for address in record.addrs[:MAX_ADDRESSES]]
    except Exception as exc:  # protobuf, multiaddr and key errors of many kinds
        raise InvalidMessage(f"no peer record: {type(exc).__name__}") from exc
    if envelope.public_key.get_type() is not KeyType.Ed25519 or signer != record.peer_id:
        raise InvalidSignature("a peer record that its peer has not signed")
    return SignedRecord(
        peer_id=signer.to_bytes(),
        addresses=tuple(text for text in texts if _is_address(text)),
        sequence=record.seq,
        data=data,
    )


class Records:
    """The newest record of each peer; the one kept longest goes first where there are many."""

    def __init__(self) -> None:
        self._kept: dict[bytes, SignedRecord] = {}

    def find(self, peer_id: bytes) -> SignedRecord | None:
        """Return a peer's record."""
        return self._kept.get(peer_id)

    def add(self, record: SignedRecord) -> None:
        """Keep a record unless there is a newer one, or it names no address."""
        before = self._kept.get(record.peer_id)
        if not record.addresses or (before and before.sequence >= record.sequence):
            return
        self._kept.pop(record.peer_id, None)
        if len(self._kept) >= MAX_RECORDS:
            del self._kept[next(iter(self._kept))]
        self._kept[record.peer_id] = record


def _is_address(text: str) -> bool:
    with suppress(ValueError):
        check_address(text)
        return True
    return False
