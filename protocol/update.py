"""Parameters and updates as integers: quantise, encode, apply, commit. Source: MECHANISM 5, 6."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from protocol.errors import InvalidMessage
from protocol.fixed_point import Float64, Int32
from protocol.hashing import Domain, address_word, fixed_bytes, hash_domain, keccak, word
from protocol.types import Address, Digest, JobId, RoundIndex

FRACTION_BITS = 20
MAX_PARAMETER = (1 << 26) - 1
MAX_UPDATE = (1 << 20) - 1

TENSOR_HEADER_BYTES = 16
_MAGIC = b"D2MT\x01"


class TensorKind(IntEnum):
    """What a tensor's bytes hold."""

    PARAMETERS = 0
    UPDATE = 1


_BOUNDS = {TensorKind.PARAMETERS: MAX_PARAMETER, TensorKind.UPDATE: MAX_UPDATE}


def quantise(values: NDArray[np.float32]) -> Int32:
    """Turn a float update into integers of 2**-20, clipped to the update's bound.

    The scale is a power of two, so the product is exact in float64 and ties go to even: the
    result is the same on every machine.

    Raises
    ------
    ValueError
        If a value is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise ValueError("an update must not hold NaN or infinite values")
    scaled = np.rint(values.astype(np.float64) * (1 << FRACTION_BITS))
    clipped: Float64 = np.clip(scaled, -MAX_UPDATE, MAX_UPDATE)
    return clipped.astype(np.int32)


def dequantise(values: Int32) -> Float64:
    """Turn integers of 2**-20 back into floats; exact, because float64 holds 53 bits."""
    return values.astype(np.float64) / (1 << FRACTION_BITS)


def apply_update(parameters: Int32, update: Int32) -> Int32:
    """Add an update to the parameters, clipped per coordinate."""
    applied: Int32 = parameters + update
    return np.clip(applied, -MAX_PARAMETER, MAX_PARAMETER, out=applied)


def encode_tensor(kind: TensorKind, values: Int32) -> bytes:
    """Encode as "D2MT" | 1 | kind | 20 | 0 | uint64(d) | d int32, all big-endian.

    Raises
    ------
    ValueError
        If a value is outside the bound of its kind; such bytes could not be decoded.
    """
    if not _is_within(values, _BOUNDS[kind]):
        raise ValueError(f"a value exceeds {_BOUNDS[kind]}")
    header = _MAGIC + bytes([kind, FRACTION_BITS, 0]) + len(values).to_bytes(8, "big")
    return b"".join((header, values.astype(">i4").data))


def decode_tensor(data: bytes, kind: TensorKind, length: int) -> Int32:
    """Decode the bytes of a tensor with ``length`` values.

    Raises
    ------
    InvalidMessage
        If kind, length or format differ, or a value is outside the bound of its kind.
    """
    expected = _MAGIC + bytes([kind, FRACTION_BITS, 0]) + length.to_bytes(8, "big")
    if data[:TENSOR_HEADER_BYTES] != expected:
        raise InvalidMessage(f"not the header of a {kind.name} tensor with {length} values")
    if len(data) != TENSOR_HEADER_BYTES + 4 * length:
        raise InvalidMessage(f"{len(data)} bytes do not hold {length} values")
    values = np.frombuffer(data, dtype=">i4", offset=TENSOR_HEADER_BYTES).astype(np.int32)
    if not _is_within(values, _BOUNDS[kind]):
        raise InvalidMessage(f"a value exceeds {_BOUNDS[kind]}")
    return values


def compute_tensor_digest(kind: TensorKind, values: Int32) -> Digest:
    """Hash the encoded tensor: the name under which it is fetched and agreed on."""
    return keccak(encode_tensor(kind, values))


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateSecret:
    """What a seller commits to in one round."""

    job: JobId
    round_index: RoundIndex
    seller: Address
    update_digest: Digest
    salt: bytes


def compute_update_commitment(domain: Domain, secret: UpdateSecret) -> Digest:
    """Hash an update's digest so that no seller can copy another's update."""
    return hash_domain(
        "upd",
        domain.prefix,
        word(secret.job),
        word(secret.round_index),
        address_word(secret.seller),
        fixed_bytes(secret.update_digest),
        fixed_bytes(secret.salt),
    )


def _is_within(values: Int32, bound: int) -> bool:
    return not values.size or (int(values.max()) <= bound and int(values.min()) >= -bound)
