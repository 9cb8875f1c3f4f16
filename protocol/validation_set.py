"""The buyer's validation set: how it is committed, split, served in parts and drawn from.

Source: MECHANISM 12.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np

from protocol.errors import InvalidMessage, RuleViolation
from protocol.fixed_point import Int64
from protocol.hashing import Stream, keccak, signed_word, word
from protocol.merkle import compute_root
from protocol.model import ModelDescription
from protocol.samples import SampleArray, UInt8, decode_samples, validate_labels
from protocol.types import Digest

DEFAULT_SUBSET_COUNT = 1000
MAX_SAMPLES = 1_000_000
MAX_PART_BYTES = 1 << 30
_DIGEST_BYTES = 32
_PART_FRAME_BYTES = 64
"""Of MessagePack around five fields."""
_LEAF_DOMAIN = b"D2M/v1/val"


def compute_leaf(index: int, label: int, sample: bytes) -> Digest:
    """Hash one labelled sample: keccak("D2M/v1/val" | index(32) | label(32) | bytes).

    A label is a class or a target in Q16; a negative one is in two's complement.
    """
    return keccak(_LEAF_DOMAIN + word(index) + signed_word(label) + sample)


def compute_leaves(rows: UInt8, labels: Sequence[int] | Int64) -> tuple[Digest, ...]:
    """Hash a whole set; ``rows`` are its n samples as bytes (``samples.encode_samples``)."""
    return tuple(
        compute_leaf(index, int(label), row.tobytes())
        for index, (row, label) in enumerate(zip(rows, labels, strict=True))
    )


def compute_validation_root(rows: UInt8, labels: Sequence[int] | Int64) -> Digest:
    """Compute the root that the request commits to."""
    return compute_root(compute_leaves(rows, labels))


@dataclass(frozen=True, slots=True)
class ValidationSplit:
    """Sample indices by purpose, each ascending."""

    selection: tuple[int, ...]
    """V_sel: measures the rounds."""
    final: tuple[int, ...]
    """V_fin: measures the result; nobody but the buyer sees it before."""


def split_validation_set(fin_seed: Digest, total: int, final_count: int) -> ValidationSplit:
    """Draw which samples are kept for the final evaluation.

    The set is committed before the seed is known, so the buyer cannot spoil one part alone.
    """
    final = frozenset(Stream(fin_seed).draw(final_count, total))
    selection = tuple(index for index in range(total) if index not in final)
    return ValidationSplit(selection, tuple(sorted(final)))


def select_round_subset(
    subset_seed: Digest, selection: Sequence[int], subset_count: int = DEFAULT_SUBSET_COUNT
) -> tuple[int, ...]:
    """Draw V_t, at most ``subset_count`` indices of V_sel, ascending."""
    count = min(len(selection), subset_count)
    positions = Stream(subset_seed).draw(count, len(selection))
    return tuple(sorted(selection[position] for position in positions))


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationPart:
    """Some samples of the set, and the leaf hashes of all others: enough to recompute the root."""

    total: int
    indices: tuple[int, ...]
    """Ascending."""
    labels: Int64
    """Shape (n,)."""
    rows: UInt8
    """The samples as bytes, shape (n, bytes per sample)."""
    other_leaves: tuple[Digest, ...]
    """Leaves of the indices not in this part, ascending."""


def select_samples(
    part: ValidationPart, indices: Sequence[int], model: ModelDescription
) -> tuple[SampleArray, Int64]:
    """Take the samples with these indices, shape (n, *input shape), and their labels (n,).

    Raises RuleViolation if the model cannot read them.
    """
    chosen = frozenset(indices)
    positions = [position for position, index in enumerate(part.indices) if index in chosen]
    return decode_samples(model, part.rows[positions]), part.labels[positions]


class _EncodedPart(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True
):
    """Indices are big-endian uint32, labels big-endian int32: packed, one encoding each."""

    total: Annotated[int, msgspec.Meta(ge=1, le=MAX_SAMPLES)]
    indices: bytes
    labels: bytes
    rows: bytes
    other_leaves: bytes


def select_part(
    rows: UInt8, labels: Sequence[int] | Int64, indices: Sequence[int]
) -> ValidationPart:
    """Cut a part out of the whole set; ``indices`` ascending."""
    chosen = frozenset(indices)
    leaves = compute_leaves(rows, labels)
    return ValidationPart(
        total=len(rows),
        indices=tuple(indices),
        labels=np.asarray(labels, dtype=np.int64)[list(indices)],
        rows=rows[list(indices)],
        other_leaves=tuple(leaf for i, leaf in enumerate(leaves) if i not in chosen),
    )


def encode_part(part: ValidationPart) -> bytes:
    """Encode a part as it is served, named by the hash of these bytes."""
    encoded = _EncodedPart(
        total=part.total,
        indices=np.asarray(part.indices, dtype=">u4").tobytes(),
        labels=part.labels.astype(">i4").tobytes(),
        rows=part.rows.tobytes(),
        other_leaves=b"".join(part.other_leaves),
    )
    return msgspec.msgpack.encode(encoded)


def bound_part_bytes(total: int, sample_bytes: int) -> int:
    """Return what no part of a set of ``total`` samples exceeds, each of so many bytes.

    Of each sample a part holds index, label and bytes, or a leaf.
    """
    return min(MAX_PART_BYTES, total * max(8 + sample_bytes, _DIGEST_BYTES) + _PART_FRAME_BYTES)


def decode_part(data: bytes) -> ValidationPart:
    """Decode a part from untrusted bytes; :func:`verify_part` says whether it is the right one.

    Raises
    ------
    InvalidMessage
        If the bytes are too many, no part, or not its only encoding.
    """
    if len(data) > MAX_PART_BYTES:
        raise InvalidMessage(f"a part of {len(data)} bytes is too long")
    try:
        encoded = msgspec.msgpack.decode(data, type=_EncodedPart)
    except msgspec.MsgspecError as exc:
        raise InvalidMessage(f"no part of a validation set: {exc}") from exc
    if msgspec.msgpack.encode(encoded) != data:
        raise InvalidMessage("not the canonical encoding of this part")
    _check_lengths(encoded)
    count = len(encoded.indices) // 4
    indices = np.frombuffer(encoded.indices, dtype=">u4").astype(np.int64)
    if (np.diff(indices) <= 0).any() or int(indices[-1]) >= encoded.total:
        raise InvalidMessage("the indices are not ascending within the set")
    leaves = encoded.other_leaves
    return ValidationPart(
        total=encoded.total,
        indices=tuple(indices.tolist()),
        labels=np.frombuffer(encoded.labels, dtype=">i4").astype(np.int64),
        rows=np.frombuffer(encoded.rows, dtype=np.uint8).reshape(count, -1),
        other_leaves=tuple(
            Digest(leaves[i : i + _DIGEST_BYTES]) for i in range(0, len(leaves), _DIGEST_BYTES)
        ),
    )


def verify_part(part: ValidationPart, root: Digest) -> None:
    """Check that a part belongs to the committed set, at the indices it names.

    Raises
    ------
    RuleViolation
        If the root comes out differently.
    """
    own = {
        index: compute_leaf(index, int(label), row.tobytes())
        for index, label, row in zip(part.indices, part.labels, part.rows, strict=True)
    }
    others = iter(part.other_leaves)
    leaves = [own[index] if index in own else next(others) for index in range(part.total)]
    if compute_root(leaves) != root:
        raise RuleViolation("the part does not belong to the committed validation set")


def validate_part_contents(
    part: ValidationPart, indices: Sequence[int], model: ModelDescription
) -> None:
    """Check that a part is complete and can be evaluated: a node signs its receipt only then.

    Raises
    ------
    RuleViolation
        If it holds other samples than the drawn ones, or samples or labels the model cannot take.
    """
    if part.indices != tuple(indices):
        raise RuleViolation("the part does not hold the samples that were drawn")
    decode_samples(model, part.rows)
    validate_labels(model, part.labels)


def _check_lengths(encoded: _EncodedPart) -> None:
    count, index_rest = divmod(len(encoded.indices), 4)
    others, leaf_rest = divmod(len(encoded.other_leaves), _DIGEST_BYTES)
    if index_rest or leaf_rest or count == 0 or count + others != encoded.total:
        raise InvalidMessage(f"{count} samples and {others} leaves do not make {encoded.total}")
    if len(encoded.labels) != 4 * count:
        raise InvalidMessage(f"{len(encoded.labels)} bytes are not {count} labels")
    if not encoded.rows or len(encoded.rows) % count:
        raise InvalidMessage(f"{len(encoded.rows)} bytes are not {count} samples")
