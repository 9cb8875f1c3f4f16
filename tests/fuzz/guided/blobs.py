"""Readers of what is fetched by hash: requests, samples, tensors, models, what is sealed."""

from functools import partial
from typing import Any

import msgspec
import numpy as np
from nacl.public import SealedBox
from nacl.signing import VerifyKey

from d2m_node.errors import UserError
from d2m_node.model_file import encode_model_file, read_card, read_parameters
from d2m_node.sealing import (
    BOX_BYTES,
    CHUNK_BYTES,
    IdentitySeal,
    SealBroken,
    bind,
    box_key,
    count_sealed_bytes,
    seal,
    unseal,
)
from protocol.block_header import read_randomness, read_timestamp
from protocol.digest import (
    FinalResult,
    RoundHeader,
    decode_sampler_state,
    encode_sampler_state,
)
from protocol.errors import InvalidMessage, InvalidParams, RuleViolation
from protocol.evaluation import compute_logits
from protocol.hashing import keccak
from protocol.model import (
    MAX_PARAMETERS,
    count_model_operations,
    count_parameters,
    initial_parameters,
    logreg,
)
from protocol.request import (
    MAX_BODY_BYTES,
    RequestBody,
    compute_tag_hashes,
    decode_body,
    encode_body,
    validate_work,
)
from protocol.samples import count_sample_bytes, decode_samples
from protocol.types import NO_DIGEST, JobId, RoundIndex, UtilityQ20
from protocol.update import TensorKind, decode_tensor, encode_tensor
from protocol.validation_set import (
    bound_part_bytes,
    compute_validation_root,
    decode_part,
    encode_part,
    select_part,
    validate_part_contents,
    verify_part,
)
from tests.fuzz.guided.forms import Form
from tests.fuzz.guided.reader import Reader
from tests.protocol.vectors import load_vectors
from tests.support.job import BODY, JOB
from tests.support.market import DOMAIN
from tests.support.models import MODELS

MODEL = logreg((1, 2, 2), 3)
SIZE = count_parameters(MODEL)
MOST_OPERATIONS = 20_000
"""Of a model that is evaluated here: any larger one takes its time."""
ROWS = np.arange(44, dtype=np.uint8).reshape(11, 4)
LABELS = [2 * index % 3 for index in range(11)]
ROOT = compute_validation_root(ROWS, LABELS)
SEAL = IdentitySeal(bytes(32))
BINDING = bind("fuzz", DOMAIN, JOB, 0, NO_DIGEST)
KEY = seal(b"", BINDING).key


def read_body(data: bytes) -> None:
    """A request has one encoding, and what it asks for can be computed."""
    body = decode_body(data)
    assert len(data) <= MAX_BODY_BYTES
    assert encode_body(body) == data
    assert len(compute_tag_hashes(body.tags)) == len(body.tags)
    size = count_parameters(body.model)
    assert 0 < size <= MAX_PARAMETERS
    validate_work(body, 3)
    if count_model_operations(body.model) <= MOST_OPERATIONS and size <= MOST_OPERATIONS:
        _evaluate(body)


def _evaluate(body: RequestBody) -> None:
    parameters = initial_parameters(body.model, body.initial_seed)
    rows = np.zeros((2, count_sample_bytes(body.model)), dtype=np.uint8)
    logits = compute_logits(body.model, parameters, decode_samples(body.model, rows))
    assert logits.shape == (2, body.model.outputs)


def read_part(data: bytes) -> None:
    """A part has one encoding, is no larger than foretold, and is proved or not."""
    part = decode_part(data)
    assert encode_part(part) == data
    assert len(data) <= bound_part_bytes(part.total, part.rows.shape[1])
    validate_part_contents(part, part.indices, MODEL)
    verify_part(part, ROOT)


def read_tensor(data: bytes) -> None:
    """A tensor has one encoding, and values within the bound of its kind."""
    kind = TensorKind.UPDATE if data[:1] == b"\x01" else TensorKind.PARAMETERS
    values = decode_tensor(data[1:], kind, SIZE)
    assert encode_tensor(kind, values) == data[1:]


def read_header(data: bytes) -> None:
    """What the chain keeps of a round has one encoding."""
    assert RoundHeader.decode(data).encode() == data


def read_final(data: bytes) -> None:
    assert FinalResult.decode(data).encode() == data


def read_sampler(data: bytes) -> None:
    """So have the inclusion weights."""
    count = data[0] if data else 0
    assert encode_sampler_state(decode_sampler_state(data[1:], count)) == data[1:]


def read_block_header(data: bytes) -> None:
    """A header of any chain has a time and randomness where they belong, or none."""
    assert read_timestamp(data) >= 0
    assert len(read_randomness(data, keccak(data))) == 32


def read_model(data: bytes) -> None:
    """A model file holds what its card says, and is written again with the same integers."""
    read_card(data)
    parameters = read_parameters(data)
    card = read_card(data)
    again = encode_model_file(parameters, domain=card.domain, job=card.job, model=card.model)
    assert np.array_equal(read_parameters(again), parameters)


def read_framed_model(data: bytes) -> None:
    """The same behind a length that is true."""
    header, _, tensors = data.partition(b"\n")
    read_model(len(header).to_bytes(8, "little") + header + tensors)


def open_state(data: bytes) -> None:
    """What opens under a key was sealed under it."""
    opened = unseal(data[32:], data[:32].ljust(32), BINDING)
    assert len(data[32:]) == count_sealed_bytes(len(opened))


def damage_state(data: bytes) -> None:
    """Sealed bytes come back, and with any change do not open."""
    size = int.from_bytes(data[:1]) * 1000
    plain = data[8:] + bytes(size)
    sealed = seal(plain, BINDING)
    assert len(sealed.data) == count_sealed_bytes(len(plain))
    assert unseal(sealed.data, sealed.key, BINDING) == plain
    at, what = int.from_bytes(data[1:4]) % len(sealed.data), data[4:8]
    damaged = sealed.data[:at] + what + sealed.data[at + len(what[1:]) :]
    if damaged == sealed.data:
        return
    try:
        unseal(damaged, sealed.key, BINDING)
    except SealBroken:
        return
    raise AssertionError("damaged bytes were opened")


def open_box(data: bytes) -> None:
    """A box holds a key, or does not open."""
    assert len(SEAL.open_key(data, BINDING)) == 32


def open_filled_box(data: bytes) -> None:
    """The same where anybody has put anything into a box of ours."""
    public = VerifyKey(SEAL.peer_id[-32:]).to_curve25519_public_key()
    open_box(SealedBox(public).encrypt(data))


def fill_box(data: bytes) -> None:
    """A key goes into a box for whoever a peer says that it is."""
    assert len(box_key(KEY, BINDING, data)) == BOX_BYTES


def _encode_model() -> bytes:
    parameters = initial_parameters(MODEL, NO_DIGEST)
    return encode_model_file(parameters, domain=DOMAIN, job=JobId(7), model=MODEL)


def _frame_model(data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    return data[8 : 8 + size] + b"\n" + data[8 + size :]


def _build_bodies() -> list[bytes]:
    replace = partial(msgspec.structs.replace, BODY)
    bodies = [encode_body(replace(model=model)) for model in MODELS.values()]
    return [encode_body(BODY), *bodies, b"\x98\x91" + b"\x91" * 1500]


def _build_header() -> RoundHeader:
    return RoundHeader(
        domain=DOMAIN,
        job=JOB,
        round_index=RoundIndex(3),
        previous_digest=NO_DIGEST,
        model_digest=NO_DIGEST,
        sampler_digest=NO_DIGEST,
        sampled=0b1011,
        available=0b1011,
        accepted=0b0011,
        utility_before=UtilityQ20(1),
        utility_after=UtilityQ20(-2),
        utilities=(UtilityQ20(3), UtilityQ20(-4), UtilityQ20(5)),
        credit_root=NO_DIGEST,
        credit_sum=9,
    )


def _build_final() -> FinalResult:
    return FinalResult(
        domain=DOMAIN,
        job=JOB,
        round_index=RoundIndex(3),
        model_digest=NO_DIGEST,
        initial_utility=UtilityQ20(1),
        utility=UtilityQ20(-2),
    )


def _build_tensors() -> list[bytes]:
    values = np.arange(SIZE, dtype=np.int32) - 5
    return [bytes([kind]) + encode_tensor(kind, values) for kind in TensorKind]


VECTOR: Any = load_vectors("block_header")
SEALED = seal(bytes(CHUNK_BYTES + 100), BINDING)
READERS = [
    Reader("request", read_body, (InvalidMessage, InvalidParams), _build_bodies(), Form.PACKED),
    Reader(
        "part of a validation set",
        read_part,
        (InvalidMessage, RuleViolation),
        [encode_part(select_part(ROWS, LABELS, one)) for one in ((1, 4, 10), range(11))],
        Form.PACKED,
    ),
    Reader("tensor", read_tensor, (InvalidMessage,), _build_tensors()),
    Reader("header of a round", read_header, (InvalidMessage,), [_build_header().encode()]),
    Reader("final result", read_final, (InvalidMessage,), [_build_final().encode()]),
    Reader("inclusion weights", read_sampler, (InvalidMessage,), [b"\x02" + bytes(16)]),
    Reader(
        "block header", read_block_header, (InvalidMessage,), [bytes.fromhex(VECTOR["rlp"][2:])]
    ),
    Reader("model file", read_model, (UserError,), [_encode_model()]),
    Reader("framed model file", read_framed_model, (UserError,), [_frame_model(_encode_model())]),
    Reader("sealed state", open_state, (SealBroken,), [KEY + seal(b"", BINDING).data]),
    Reader("damaged state", damage_state, (), [bytes(20), b"\xff" * 20]),
    Reader("box", open_box, (SealBroken,), [box_key(KEY, BINDING, SEAL.peer_id)]),
    Reader("filled box", open_filled_box, (SealBroken,), [keccak(BINDING + SEAL.peer_id) + KEY]),
    Reader("peer to seal to", fill_box, (SealBroken,), [SEAL.peer_id]),
]
