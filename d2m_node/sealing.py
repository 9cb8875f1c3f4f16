"""States sealed to those who take part in a job, and a model sealed to its buyer.

What is sealed has one ciphertext, whoever seals it: the key follows from the bytes themselves and
from what they are (message-locked encryption). So all CONE nodes hold the same sealed blob, which
is fetched by its hash, from several of them, and gone on with after a break. The key of a blob
encrypts nothing else, so the numbers of its chunks serve as nonces. Who may have a blob gets its
key in a box (libsodium's sealed box) that opens with the Ed25519 key of its peer identity, which
the registry ties to its account.

Nothing is secret to who has the bytes, or can guess them: this is for parameters, which nobody can.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.exceptions import CryptoError
from nacl.public import SealedBox
from nacl.signing import SigningKey, VerifyKey

from protocol.errors import ProtocolError
from protocol.hashing import Domain, hash_domain, keccak, word
from protocol.types import Digest, JobId

CHUNK_BYTES: Final = 64 * 1024
TAG_BYTES: Final = 16
KEY_BYTES: Final = 32
BOX_BYTES: Final = 48 + 32 + KEY_BYTES
"""A sealed box around a binding and a key."""

_PERSON: Final = b"D2M/v1/seal"
_INLINE_ED25519: Final = bytes.fromhex("002408011220")
"""How a peer id begins that holds a whole Ed25519 key."""


class SealBroken(ProtocolError):
    """What does not open: another key, other bytes, or made for something or somebody else."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A ciphertext and its key. The key is never logged, and is not shown."""

    data: bytes
    key: bytes

    def __repr__(self) -> str:
        """Say how much it is, and nothing more."""
        return f"Sealed({len(self.data)} bytes)"


def bind(purpose: str, domain: Domain, job_id: JobId, round_index: int, digest: Digest) -> bytes:
    """Return 32 bytes that say what is sealed: they go into the key, each chunk, and each box."""
    return hash_domain(purpose, domain.prefix, word(job_id), word(round_index), digest)


def count_sealed_bytes(size_bytes: int) -> int:
    """Return how long a ciphertext of so many bytes is."""
    return size_bytes + TAG_BYTES * max(1, -(-size_bytes // CHUNK_BYTES))


def seal(data: bytes, binding: bytes) -> Sealed:
    """Encrypt bytes, chunk by chunk. The same bytes under the same binding give the same result."""
    key = blake2b(data, digest_size=KEY_BYTES, key=binding, person=_PERSON).digest()
    cipher, sealed = ChaCha20Poly1305(key), bytearray()
    view, count = memoryview(data), max(1, -(-len(data) // CHUNK_BYTES))
    for index in range(count):
        chunk = view[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
        sealed += cipher.encrypt(_nonce(index, count), chunk, binding)
    return Sealed(bytes(sealed), key)


def unseal(sealed: bytes, key: bytes, binding: bytes) -> bytes:
    """Decrypt what `seal` made. Raises SealBroken if anything of it is not what was sealed."""
    size = CHUNK_BYTES + TAG_BYTES
    cipher, data = ChaCha20Poly1305(key), bytearray()
    view, count = memoryview(sealed), max(1, -(-len(sealed) // size))
    for index in range(count):
        try:
            data += cipher.decrypt(
                _nonce(index, count), view[index * size : (index + 1) * size], binding
            )
        except InvalidTag as exc:
            raise SealBroken(
                f"chunk {index} of {count} does not open: damaged, cut off, or not for this key"
            ) from exc
    return bytes(data)


def _nonce(index: int, count: int) -> bytes:
    """Number a chunk, and mark the last one: so none can be moved, and none left out."""
    return index.to_bytes(11, "big") + bytes([index == count - 1])


def box_key(key: bytes, binding: bytes, peer_id: bytes) -> bytes:
    """Seal a key to a peer's identity. Raises SealBroken if the identity holds no Ed25519 key."""
    if len(peer_id) != len(_INLINE_ED25519) + 32 or not peer_id.startswith(_INLINE_ED25519):
        raise SealBroken("nothing can be sealed to a peer id that holds no Ed25519 key")
    try:
        public = VerifyKey(peer_id[len(_INLINE_ED25519) :]).to_curve25519_public_key()
    except (CryptoError, ValueError, RuntimeError) as exc:  # a point that is none
        raise SealBroken("nothing can be sealed to a peer id that holds no Ed25519 key") from exc
    return SealedBox(public).encrypt(_address(binding, peer_id) + key)


def _address(binding: bytes, peer_id: bytes) -> bytes:
    return keccak(binding + peer_id)


class IdentitySeal:
    """`SealPort`: opens what is sealed to this node's peer identity."""

    def __init__(self, seed: bytes) -> None:
        """Take the 32 bytes of an Ed25519 private key."""
        signing = SigningKey(seed)
        self._box = SealedBox(signing.to_curve25519_private_key())
        self.peer_id = name_peer(bytes(signing.verify_key))

    def open_key(self, box: bytes, binding: bytes) -> bytes:
        """Return a key from its box. Raises SealBroken."""
        try:
            opened = self._box.decrypt(box)
        except (CryptoError, ValueError) as exc:
            raise SealBroken("a box does not open: it is damaged, or for another peer") from exc
        address = _address(binding, self.peer_id)
        if len(opened) != len(address) + KEY_BYTES or not opened.startswith(address):
            raise SealBroken("a box holds a key of something else")
        return opened[len(address) :]


def name_peer(public_key: bytes) -> bytes:
    """Return the libp2p id of an Ed25519 public key."""
    return _INLINE_ED25519 + public_key
