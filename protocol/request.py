"""The body of a buyer's request: what the contracts need not read, by hash.

The terms that the contracts act on are `protocol.terms.JobTerms`. Everything here is integers,
strings and bytes, so that the body has one encoding.
"""

from math import prod
from typing import Annotated, Final

import msgspec
from eth_hash.auto import keccak
from msgspec import Meta, Struct

from protocol.errors import InvalidMessage, InvalidParams
from protocol.model import ModelDescription, iter_shapes, validate_model
from protocol.types import Digest

MAX_BODY_BYTES: Final = 64 * 1024
MAX_LOGITS: Final = 1 << 22
"""Of one model on one part of the validation set: a CONE node holds K + 1 times as many."""
MAX_BATCH_VALUES: Final = 1 << 26
"""Activations of one layer that a seller holds in training."""

Tag = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._:/-]*$")]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]


class TrainingSpec(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """How sellers are asked to train. Training is private; nothing here feeds a digest."""

    learning_rate_micros: Annotated[int, Meta(ge=1, le=10_000_000)]
    """Adam's rate in millionths: 10000 is 0.01."""
    batch_size: Annotated[int, Meta(ge=1, le=65_536)]
    epochs: Annotated[int, Meta(ge=1, le=1_000)]


class SamplingSpec(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """Parameters of Corrected OSMD (MECHANISM 1)."""

    alpha_bps: Annotated[int, Meta(ge=0, le=10_000)]
    """Exploration floor alpha in 1/10000."""
    eta_q16: Annotated[int, Meta(ge=0, le=2**20)]
    """Mirror-descent step, 65536 is 1."""
    keep_bps: Annotated[int, Meta(ge=1, le=10_000)]
    """Share of the sampled sellers that the utility filter keeps."""


class ValidationSpec(
    Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True
):
    """The buyer's committed validation set (MECHANISM 12)."""

    root: Bytes32
    """Merkle root over all samples."""
    sample_count: Annotated[int, Meta(ge=2, le=1_000_000)]
    final_count: Annotated[int, Meta(ge=1, le=999_999)]
    """How many of them the chain draws for the final evaluation."""
    subset_count: Annotated[int, Meta(ge=1, le=100_000)]
    """Largest number of samples that a round is evaluated on."""


class RequestBody(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """What a buyer wants trained, apart from the terms on chain."""

    tags: Annotated[list[Tag], Meta(min_length=1, max_length=16)]
    """Ascending; the auction holds their hashes."""
    model: ModelDescription
    initial_seed: Bytes32
    """Seed of the initial model."""
    training: TrainingSpec
    sampling: SamplingSpec
    validation: ValidationSpec


def compute_tag_hash(tag: str) -> Digest:
    """Return the hash under which a dataset tag stands on chain."""
    return Digest(keccak(b"D2M/v1/tag\x00" + tag.encode()))


def compute_tag_hashes(tags: list[str]) -> tuple[Digest, ...]:
    """Return the tags' hashes in ascending order, as registries and auctions want them."""
    return tuple(sorted(compute_tag_hash(tag) for tag in set(tags)))


def encode_body(body: RequestBody) -> bytes:
    """Encode a request body; its hash is the keccak of these bytes."""
    return msgspec.msgpack.encode(body)


def decode_body(data: bytes) -> RequestBody:
    """Decode and validate a request body from hostile bytes.

    Raises
    ------
    InvalidMessage
        If the bytes are too many or not the one encoding of a request body.
    InvalidParams
        If the fields cannot work together; names the field.
    """
    if len(data) > MAX_BODY_BYTES:
        raise InvalidMessage(f"request body of {len(data)} bytes, at most {MAX_BODY_BYTES}")
    try:
        body = msgspec.msgpack.decode(data, type=RequestBody)
    except msgspec.MsgspecError as exc:
        raise InvalidMessage(f"no request body: {exc}") from exc
    if encode_body(body) != data:
        raise InvalidMessage("not the canonical encoding of its request body")
    validate_body(body)
    return body


def validate_body(body: RequestBody) -> None:
    """Check what types alone cannot. Raises InvalidParams."""
    if body.tags != sorted(set(body.tags)):
        raise InvalidParams("tags", "must be ascending and distinct")
    if body.validation.final_count >= body.validation.sample_count:
        raise InvalidParams("validation.final_count", "must be less than validation.sample_count")
    validate_model(body.model)
    used = max(
        min(body.validation.subset_count, body.validation.sample_count),
        body.validation.final_count,
    )
    if used * body.model.classes > MAX_LOGITS:
        raise InvalidParams("validation", f"give at most {MAX_LOGITS} samples x classes")
    widest = max(prod(shape) for shape in iter_shapes(body.model))
    if body.training.batch_size * widest > MAX_BATCH_VALUES:
        raise InvalidParams("training.batch_size", "too large for the model's widest layer")
