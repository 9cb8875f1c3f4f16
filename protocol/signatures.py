"""What participants sign: EIP-712 messages of the domain "D2M", version "1".

The verifying contract is the market. Signing needs a key and is done by the keystore; here are
the digests, and the recovery of the signer. Source: MECHANISM 6, 9.2, 12.

What was computed last is remembered: many nodes of one process may check the same message.
"""

from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import ClassVar, Final

from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError

from protocol.errors import InvalidSignature
from protocol.hashing import Domain, address_word, fixed_bytes, keccak, word
from protocol.types import Address, Digest, JobId, RoundIndex

SIGNATURE_BYTES = 65
REMEMBERED: Final = 1024
"""Digests, and signers: what a large job says in a round or two."""

_DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
_RECOVERY_BIT = 1 << 255
_SECP256K1_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


def compute_domain_separator(domain: Domain) -> Digest:
    """Hash the EIP-712 domain of a market."""
    return keccak(
        keccak(_DOMAIN_TYPE)
        + keccak(b"D2M")
        + keccak(b"1")
        + word(domain.chain_id)
        + address_word(domain.market)
    )


@dataclass(frozen=True, slots=True)
class TypedMessage:
    """A value whose fields, in order, are the members of an EIP-712 struct."""

    TYPE: ClassVar[str]

    def digest(self, domain: Domain) -> Digest:
        """Compute what the account signs."""
        return _compute_digest(self, domain)


@lru_cache(maxsize=REMEMBERED)
def _compute_digest(message: TypedMessage, domain: Domain) -> Digest:
    members = b"".join(
        fixed_bytes(value) if isinstance(value, bytes) else word(value)
        for value in astuple(message)
    )
    struct_hash = keccak(keccak(message.TYPE.encode("ascii")) + members)
    return keccak(b"\x19\x01" + compute_domain_separator(domain) + struct_hash)


@dataclass(frozen=True, slots=True)
class UpdateCommitment(TypedMessage):
    """A seller commits to one update for one round."""

    TYPE: ClassVar[str] = "UpdateCommitment(uint256 job,uint256 round,bytes32 commitment)"
    job: JobId
    round_index: RoundIndex
    commitment: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOpening(TypedMessage):
    """A seller opens its commitment: the tensor digest and the salt."""

    TYPE: ClassVar[str] = "UpdateOpening(uint256 job,uint256 round,bytes32 digest,bytes32 salt)"
    job: JobId
    round_index: RoundIndex
    update_digest: Digest
    salt: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability(TypedMessage):
    """A CONE node names the sellers whose well-formed updates it holds."""

    TYPE: ClassVar[str] = "Availability(uint256 job,uint256 round,uint256 attempt,uint256 bitmap)"
    job: JobId
    round_index: RoundIndex
    attempt: int
    bitmap: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote(TypedMessage):
    """A CONE node commits to its vote in one mini-round."""

    TYPE: ClassVar[str] = "Vote(uint256 job,uint256 round,uint256 mini,bytes32 commitment)"
    job: JobId
    round_index: RoundIndex
    mini: int
    """kind * 2**32 + attempt * 2**16 + mini-round, as in ``sortition.encode_mini``."""
    commitment: Digest


@dataclass(frozen=True, slots=True)
class ValidationReceipt(TypedMessage):
    """A CONE node holds a complete part of the validation set."""

    TYPE: ClassVar[str] = "ValidationReceipt(uint256 job,uint256 part)"
    job: JobId
    part: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationOffer(TypedMessage):
    """The buyer, or a holder, offers a part of the validation set."""

    TYPE: ClassVar[str] = "ValidationOffer(uint256 job,uint256 part,bytes32 digest,uint256 size)"
    job: JobId
    part: int
    part_digest: Digest
    size_bytes: int


def recover_signer(digest: Digest, signature: bytes) -> Address:
    """Find the account that signed a digest.

    Parameters
    ----------
    digest :
        What was signed, from ``TypedMessage.digest``.
    signature :
        r(32) | s(32) | v(1), v being 27 or 28.

    Raises
    ------
    InvalidSignature
        If the length or v is wrong, s is in the upper half (each signature would have a twin),
        or no key can have made it.
    """
    return _recover_signer(digest, signature)


@lru_cache(maxsize=REMEMBERED)
def _recover_signer(digest: Digest, signature: bytes) -> Address:
    if len(signature) != SIGNATURE_BYTES:
        raise InvalidSignature(f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")
    recovery = signature[64]
    if recovery not in (27, 28):
        raise InvalidSignature(f"v is {recovery}, not 27 or 28")
    if int.from_bytes(signature[32:64], "big") > _SECP256K1_HALF_ORDER:
        raise InvalidSignature("s is in the upper half of the group order")
    try:
        parsed = Signature(signature[:64] + bytes([recovery - 27]))
        public_key = parsed.recover_public_key_from_msg_hash(digest)
    except (BadSignature, ValidationError) as exc:
        raise InvalidSignature("no key can have made this signature") from exc
    return Address(public_key.to_canonical_address())


def compact(signature: bytes) -> tuple[bytes, bytes]:
    """Write a signature of 65 bytes as two words: r, and s with the recovery bit on top.

    Contracts take this form (EIP-2098).

    Raises
    ------
    InvalidSignature
        If the length or v is wrong, or s leaves no room for the bit.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise InvalidSignature(f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")
    recovery, s = signature[64], int.from_bytes(signature[32:64], "big")
    if recovery not in (27, 28):
        raise InvalidSignature(f"v is {recovery}, not 27 or 28")
    if s > _SECP256K1_HALF_ORDER:
        raise InvalidSignature("s is in the upper half of the group order")
    return signature[:32], word(s | _RECOVERY_BIT if recovery == 28 else s)


def expand(r: bytes, vs: bytes) -> bytes:
    """Write a signature of two words as 65 bytes: the inverse of :func:`compact`."""
    word_vs = int.from_bytes(fixed_bytes(vs), "big")
    recovery = 28 if word_vs & _RECOVERY_BIT else 27
    return fixed_bytes(r) + word(word_vs & ~_RECOVERY_BIT) + bytes([recovery])
