"""The body of a buyer's request: what the contracts need not read, by hash.

The terms that the contracts act on are `protocol.terms.JobTerms`. Everything here is integers,
strings and bytes, so that the body has one encoding.
"""

from enum import IntEnum
from math import prod
from typing import Annotated, Final

import msgspec
from eth_hash.auto import keccak
from msgspec import Meta, Struct

from protocol.errors import InvalidMessage, InvalidParams
from protocol.model import (
    ModelDescription,
    count_model_operations,
    iter_shapes,
    validate_model,
)
from protocol.step import PLAIN_STEP, StepSpec
from protocol.types import Digest, RoundIndex

MAX_BODY_BYTES: Final = 64 * 1024
MAX_LOGITS: Final = 1 << 22
"""Of one model on one part of the validation set: a CONE node holds K + 1 times as many."""
MAX_OPERATIONS_PER_BALLOT: Final = 1 << 39
"""Of all models on all samples of one ballot, which every CONE node may have to compute.

One core takes a minute where products dominate (10^10 per second), half an hour in the widest
pooling (3 * 10^8 per second). A model of ten million operations per sample may have 27,000 samples
in a final evaluation, 4500 in a round of ten sellers.
"""
MAX_BATCH_VALUES: Final = 1 << 26
"""Activations of one layer that a seller holds in training."""
PPM: Final = 1_000_000

Tag = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._:/-]*$")]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]


class TrainingSpec(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """How sellers are asked to train. Training is private; nothing here feeds a digest."""

    learning_rate_micros: Annotated[int, Meta(ge=1, le=10_000_000)]
    """Adam's rate in millionths: 10000 is 0.01."""
    batch_size: Annotated[int, Meta(ge=1, le=65_536)]
    epochs: Annotated[int, Meta(ge=1, le=1_000)]
    rate_decay_ppm: Annotated[int, Meta(ge=1, le=PPM)] = PPM
    """What the rate is multiplied by after every round, in millionths."""


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


class ModelAccess(IntEnum):
    """Who may have the model that a job ends with, besides its CONE nodes and its buyer."""

    PARTICIPANTS = 0
    """The job's sellers, once it is settled."""
    BUYER_ONLY = 1
    """Nobody. States travel sealed to who may have them, and the buyer keeps its copy sealed."""
    PUBLIC = 2
    """Everybody, once the job is settled."""


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
    step: StepSpec = PLAIN_STEP
    model_access: ModelAccess = ModelAccess.PARTICIPANTS


_TRAINING: Final = RequestBody.__struct_fields__.index("training")


def compute_rate_nanos(training: TrainingSpec, round_index: RoundIndex) -> int:
    """Compute the learning rate of a round in units of 10**-9: exact, rounded down, at least 1.

    It follows from the request and the round's number alone, so sellers that were away, or were
    not drawn for a while, train at the same rate as the others. A void round has a number too.
    """
    numerator: int = training.rate_decay_ppm**round_index
    denominator: int = PPM**round_index
    return max(1, 1000 * training.learning_rate_micros * numerator // denominator)


def compute_tag_hash(tag: str) -> Digest:
    """Return the hash under which a dataset tag stands on chain."""
    return Digest(keccak(b"D2M/v1/tag\x00" + tag.encode()))


def compute_tag_hashes(tags: list[str]) -> tuple[Digest, ...]:
    """Return the tags' hashes in ascending order, as registries and auctions want them."""
    return tuple(sorted(compute_tag_hash(tag) for tag in set(tags)))


def encode_body(body: RequestBody) -> bytes:
    """Encode a request body; its hash is the keccak of these bytes.

    Fields at the end that hold their defaults are left out, here and in ``training``. A request
    that does not ask for what was added later keeps the hash that it had.
    """
    fields = _trim(body)
    fields[_TRAINING] = _trim(body.training)
    return msgspec.msgpack.encode(fields)


def _trim(spec: RequestBody | TrainingSpec) -> list[object]:
    """List the fields in their order, up to the last one that says anything."""
    values = list(msgspec.structs.astuple(spec))
    for field in reversed(msgspec.structs.fields(spec)):
        if field.required or values[-1] != field.default:
            break
        values.pop()
    return values


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
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
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
        raise InvalidParams(
            "validation.final_count",
            f"must be less than the {body.validation.sample_count} samples",
        )
    if len(set(body.step.lengths_q16)) < len(body.step.lengths_q16):
        raise InvalidParams("step.lengths_q16", "must be distinct")
    validate_model(body.model)
    used = max(_count_round_samples(body.validation), body.validation.final_count)
    if used * body.model.outputs > MAX_LOGITS:
        raise InvalidParams("validation", f"give at most {MAX_LOGITS} samples x outputs")
    widest = max(prod(shape) for shape in iter_shapes(body.model))
    if body.training.batch_size * widest > MAX_BATCH_VALUES:
        raise InvalidParams("training.batch_size", "too large for the model's widest layer")


def validate_work(body: RequestBody, sellers_per_round: int) -> None:
    """Check that the job's ballots can be evaluated in time.

    A round evaluates the model before it, up to ``sellers_per_round`` candidates and the result of
    each step length; a final evaluation the first model and the last (MECHANISM 9.1, 12).

    Parameters
    ----------
    body :
        Valid by :func:`validate_body`.
    sellers_per_round :
        K, which the terms hold.

    Raises
    ------
    InvalidParams
        Naming the number of samples to lower.
    """
    per_sample = count_model_operations(body.model)
    round_models = 1 + sellers_per_round + len(body.step.lengths_q16)
    evaluations = (
        ("subset_count", round_models, _count_round_samples(body.validation)),
        ("final_count", 2, body.validation.final_count),
    )
    for name, models, samples in evaluations:
        most = MAX_OPERATIONS_PER_BALLOT // (models * per_sample)
        if samples > most:
            raise InvalidParams(
                f"validation.{name}",
                f"{models} models of {per_sample} operations are evaluated on at most {most} "
                f"samples, not {samples}; give fewer samples or a smaller model",
            )


def _count_round_samples(validation: ValidationSpec) -> int:
    return min(validation.subset_count, validation.sample_count)
