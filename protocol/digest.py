"""What nodes agree on, byte by byte: the header of a round, the vote of a final, the trace.

Source: MECHANISM 9.1, 9.3, 12 and the interface of the contracts, which parse these bytes.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.bitmap import decode_bitmap
from protocol.errors import InvalidMessage
from protocol.fixed_point import Int64
from protocol.hashing import Domain, address_word, fixed_bytes, hash_domain, keccak, word
from protocol.merkle import compute_root
from protocol.types import Address, Digest, JobId, RoundIndex, UtilityQ20

NO_UTILITY = UtilityQ20(-(1 << 62))
"""Stands in the header for the utility of a sampled seller that was rejected or missing."""

INT64_DISTANCE_PARAMETERS = 1 << 21
"""Largest model whose squared distances between updates fit int64 (MECHANISM 5)."""

MAX_SELLERS = 256
"""Bitmaps of sellers are one word."""

_HEADER_DOMAIN = b"D2M/v1/hdr"
_HEADER_FIXED = struct.Struct(">10s32s32s32s32s32s32s32sqq")
_HEADER_TAIL = struct.Struct(">32s32s32s32s32s")
_FINAL_DOMAIN = b"D2M/v1/fin\x00"
_FINAL = struct.Struct(">11s32s32s32s32s32sqq")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundHeader:
    """The result of one round; its hash is the digest that the execution sets vote on."""

    job: JobId
    round_index: RoundIndex
    model_digest: Digest
    """Tensor digest of the parameters after the round."""
    sampler_digest: Digest
    """Hash of the inclusion weights after the round."""
    sampled: int
    """Bitmap of S_t."""
    available: int
    """Bitmap of I_t."""
    accepted: int
    """Bitmap of the sellers whose updates made the step."""
    utility_before: UtilityQ20
    utility_after: UtilityQ20
    utilities: tuple[UtilityQ20, ...]
    """One per sampled seller, ascending; NO_UTILITY where there is none."""
    domain: Domain
    previous_digest: Digest
    """Digest of the last decided round, 32 zero bytes before the first."""
    credit_root: Digest
    credit_sum: int

    def encode(self) -> bytes:
        """Encode as MECHANISM 9.3 says; ValueError unless each sampled seller has a utility."""
        if len(self.utilities) != self.sampled.bit_count():
            raise ValueError(f"{len(self.utilities)} utilities for bitmap {self.sampled:#x}")
        fixed = _HEADER_FIXED.pack(
            _HEADER_DOMAIN,
            word(self.job),
            word(self.round_index),
            fixed_bytes(self.model_digest),
            fixed_bytes(self.sampler_digest),
            word(self.sampled),
            word(self.available),
            word(self.accepted),
            self.utility_before,
            self.utility_after,
        )
        tail = _HEADER_TAIL.pack(
            word(self.domain.chain_id),
            address_word(self.domain.market),
            fixed_bytes(self.previous_digest),
            fixed_bytes(self.credit_root),
            word(self.credit_sum),
        )
        return fixed + struct.pack(f">{len(self.utilities)}q", *self.utilities) + tail

    @staticmethod
    def decode(data: bytes) -> "RoundHeader":
        """Decode a header.

        Raises
        ------
        InvalidMessage
            If the domain, the length or the padding of the market is wrong.
        """
        if len(data) < _HEADER_FIXED.size or not data.startswith(_HEADER_DOMAIN):
            raise InvalidMessage("not the header of a round")
        fixed = _HEADER_FIXED.unpack_from(data)
        sampled = _to_int(fixed[5])
        tail_offset = _HEADER_FIXED.size + 8 * sampled.bit_count()
        if len(data) != tail_offset + _HEADER_TAIL.size:
            raise InvalidMessage(f"a header of {len(data)} bytes with samples {sampled:#x}")
        tail = _HEADER_TAIL.unpack_from(data, tail_offset)
        utilities = struct.unpack_from(f">{sampled.bit_count()}q", data, _HEADER_FIXED.size)
        return RoundHeader(
            job=JobId(_to_int(fixed[1])),
            round_index=RoundIndex(_to_int(fixed[2])),
            model_digest=Digest(fixed[3]),
            sampler_digest=Digest(fixed[4]),
            sampled=sampled,
            available=_to_int(fixed[6]),
            accepted=_to_int(fixed[7]),
            utility_before=UtilityQ20(fixed[8]),
            utility_after=UtilityQ20(fixed[9]),
            utilities=tuple(UtilityQ20(utility) for utility in utilities),
            domain=Domain(_to_int(tail[0]), _to_address(tail[1])),
            previous_digest=Digest(tail[2]),
            credit_root=Digest(tail[3]),
            credit_sum=_to_int(tail[4]),
        )

    @property
    def digest(self) -> Digest:
        """D, what a node votes for."""
        return keccak(self.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalResult:
    """The result of a final evaluation: both utilities are on V_fin."""

    domain: Domain
    job: JobId
    round_index: RoundIndex
    """The last decided round."""
    model_digest: Digest
    initial_utility: UtilityQ20
    """Of the initial parameters."""
    utility: UtilityQ20

    def encode(self) -> bytes:
        """Encode as the contract parses it."""
        return _FINAL.pack(
            _FINAL_DOMAIN,
            word(self.domain.chain_id),
            address_word(self.domain.market),
            word(self.job),
            word(self.round_index),
            fixed_bytes(self.model_digest),
            self.initial_utility,
            self.utility,
        )

    @staticmethod
    def decode(data: bytes) -> "FinalResult":
        """Decode; InvalidMessage if domain, length or the padding of the market is wrong."""
        if len(data) != _FINAL.size or not data.startswith(_FINAL_DOMAIN):
            raise InvalidMessage("not the result of a final evaluation")
        _, chain, market, job, round_index, model, initial, utility = _FINAL.unpack(data)
        return FinalResult(
            domain=Domain(_to_int(chain), _to_address(market)),
            job=JobId(_to_int(job)),
            round_index=RoundIndex(_to_int(round_index)),
            model_digest=Digest(model),
            initial_utility=UtilityQ20(initial),
            utility=UtilityQ20(utility),
        )

    @property
    def digest(self) -> Digest:
        """D, what a node votes for."""
        return keccak(self.encode())


def encode_sampler_state(state: Sequence[int]) -> bytes:
    """Encode the inclusion weights: M big-endian uint64."""
    return struct.pack(f">{len(state)}Q", *state)


def decode_sampler_state(data: bytes, seller_count: int) -> tuple[int, ...]:
    """Decode the inclusion weights of ``seller_count`` sellers; InvalidMessage on other lengths."""
    if len(data) != 8 * seller_count:
        raise InvalidMessage(f"{len(data)} bytes are not the weights of {seller_count} sellers")
    return struct.unpack(f">{seller_count}Q", data)


def compute_sampler_digest(state: Sequence[int]) -> Digest:
    """Hash the inclusion weights as the header holds them."""
    return keccak(encode_sampler_state(state))


def encode_distances(distances: Sequence[int], parameter_count: int) -> bytes:
    """Encode squared distances between updates: big-endian int64, or int128 for large models.

    A distance is below d * 2**42, so int64 holds it up to d = 2**21. MECHANISM 9.1 says int64 and 5
    leaves larger models open. The width follows from d alone, which the request fixes: the bytes of
    smaller models stay as specified, and no two lists of one job share an encoding.

    Parameters
    ----------
    distances :
        Upper triangle, row-major.
    parameter_count :
        d.
    """
    width = 8 if parameter_count <= INT64_DISTANCE_PARAMETERS else 16
    return b"".join(distance.to_bytes(width, "big", signed=True) for distance in distances)


def compute_trace(es_seed: Digest, logits: Int64, distances: bytes, state: Sequence[int]) -> Digest:
    """Compute W, which nobody can give without having done the work.

    Parameters
    ----------
    es_seed :
        Seed of the mini-round in which the node votes, so that W is not known from earlier ones.
    logits : any shape, C order
        Current model first, then the evaluated candidates in ascending seller index.
    distances :
        Squared distances of the evaluated candidates (:func:`encode_distances`); empty in a final
        evaluation.
    state :
        Inclusion weights after the round; empty in a final evaluation.

    Source: MECHANISM 9.1.
    """
    return keccak(
        fixed_bytes(es_seed)
        + logits.astype(">i8").tobytes()
        + distances
        + encode_sampler_state(state)
    )


def add_credits(contribution_weights: Sequence[int], accepted: int) -> tuple[int, ...]:
    """Count one more accepted round for each seller in the bitmap."""
    winners = decode_bitmap(accepted)
    if winners and winners[-1] >= len(contribution_weights):
        raise ValueError(f"seller {winners[-1]} is not among {len(contribution_weights)} sellers")
    return tuple(
        count + (accepted >> index & 1) for index, count in enumerate(contribution_weights)
    )


def compute_credit_leaf(index: int, payee: Address, contribution_weight: int) -> Digest:
    """Hash one seller's claim: its index, account and number of accepted rounds."""
    return hash_domain("credit", word(index), address_word(payee), word(contribution_weight))


def compute_credit_root(payees: Sequence[Address], contribution_weights: Sequence[int]) -> Digest:
    """Compute the Merkle root over all sellers' claims, in the order of their indices."""
    return compute_root(
        [
            compute_credit_leaf(index, payee, contribution_weight)
            for index, (payee, contribution_weight) in enumerate(
                zip(payees, contribution_weights, strict=True)
            )
        ]
    )


def _to_int(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _to_address(data: bytes) -> Address:
    if any(data[:12]):
        raise InvalidMessage("the market is no address")
    return Address(data[12:])
