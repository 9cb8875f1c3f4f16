"""A trained model as a safetensors file with a card, and back to its canonical integers.

A tensor is float32 where that holds every value exactly, float64 where not, so the integers that
the chain's digest names can always be recovered. The names are those of a torch `nn.Sequential`
over the description's layers ("0.weight", "0.bias", ...). Source: MECHANISM 5.
"""

from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
from msgspec import Meta, Struct

from d2m_node.errors import UserError
from protocol.errors import InvalidParams
from protocol.hashing import Domain
from protocol.model import (
    MAX_DESCRIPTION_BYTES,
    MAX_PARAMETERS,
    ModelDescription,
    list_tensors,
    validate_model,
)
from protocol.types import Address, Digest, JobId
from protocol.update import (
    FRACTION_BITS,
    MAX_PARAMETER,
    TensorKind,
    compute_tensor_digest,
    dequantise,
)

CARD_KEY: Final = "d2m_card"
"""One metadata entry with the whole card: safetensors writes several in no fixed order."""

MAX_HEADER_BYTES: Final = 8 * MAX_DESCRIPTION_BYTES
"""Of names, types and places of the tensors, and the card."""
MAX_FILE_BYTES: Final = 8 * MAX_PARAMETERS + MAX_HEADER_BYTES

Int32Array = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Where a model comes from."""

    domain: Domain
    job: JobId
    digest: Digest
    """Tensor digest of the canonical parameters: compare it with the chain's."""
    model: ModelDescription


class _CardText(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The card as JSON."""

    chain_id: Annotated[int, Meta(ge=0)]
    market: Annotated[str, Meta(pattern=r"\A0x[0-9a-f]{40}\Z")]
    job: Annotated[int, Meta(ge=0)]
    digest: Annotated[str, Meta(pattern=r"\A0x[0-9a-f]{64}\Z")]
    model: ModelDescription


class _Header(Struct, frozen=True, kw_only=True):
    """Of a safetensors header, the part that the library's numpy interface does not return."""

    metadata: dict[str, str] = msgspec.field(name="__metadata__")


def encode_model_file(
    parameters: Int32Array, *, domain: Domain, job: JobId, model: ModelDescription
) -> bytes:
    """Encode parameters of shape (d,), Q20; the same model always gives the same bytes.

    Raises ValueError if the parameters do not fit the model or exceed the protocol's bound.
    """
    digest = compute_tensor_digest(TensorKind.PARAMETERS, parameters)
    card = _CardText(
        chain_id=domain.chain_id,
        market="0x" + domain.market.hex(),
        job=job,
        digest="0x" + digest.hex(),
        model=model,
    )
    shapes = [tensor.shape for tensor in list_tensors(model)]
    sizes = [tensor.size for tensor in list_tensors(model)]
    if parameters.shape != (sum(sizes),):
        raise ValueError(f"{parameters.shape} is not the shape of the model's parameters")
    pieces = np.split(parameters, np.cumsum(sizes)[:-1])
    tensors = {
        name: _to_float(piece).reshape(shape)
        for name, piece, shape in zip(_list_names(model), pieces, shapes, strict=True)
    }
    return safetensors.numpy.save(tensors, {CARD_KEY: msgspec.json.encode(card).decode()})


def read_card(data: bytes) -> ModelCard:
    """Read the card of a model file. Raises UserError if the bytes are no such file."""
    if len(data) > MAX_FILE_BYTES:
        raise UserError(f"a model file has at most {MAX_FILE_BYTES} bytes, not {len(data)}")
    end = 8 + int.from_bytes(data[:8], "little")
    if end > MAX_HEADER_BYTES:
        raise UserError(f"no model file: its header has at most {MAX_HEADER_BYTES} bytes")
    try:
        header = msgspec.json.decode(data[8:end], type=_Header)
        card = msgspec.json.decode(header.metadata[CARD_KEY], type=_CardText)
        validate_model(card.model)
    except KeyError as exc:
        raise UserError(f"a safetensors file without a {CARD_KEY}: no model of a job") from exc
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidParams) as exc:
        raise UserError(f"no model file: {exc}") from exc
    return ModelCard(
        domain=Domain(card.chain_id, Address(bytes.fromhex(card.market[2:]))),
        job=JobId(card.job),
        digest=Digest(bytes.fromhex(card.digest[2:])),
        model=card.model,
    )


def read_parameters(data: bytes) -> Int32Array:
    """Recover the canonical parameters, shape (d,), Q20, and check them against the card.

    Raises
    ------
    UserError
        If the bytes are no model file, a tensor has another name, shape or type than the card's
        model, a value is no canonical parameter, or they do not hash to the card's digest.
    """
    card = read_card(data)
    try:
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as exc:
        raise UserError(f"no model file: {exc}") from exc
    names = _list_names(card.model)
    if tensors.keys() != set(names):
        raise UserError(f"a model file of this card has the tensors {', '.join(names)}")
    for name, spec in zip(names, list_tensors(card.model), strict=True):
        if tensors[name].shape != spec.shape:
            raise UserError(f"{name}: shape {tensors[name].shape}, the model has {spec.shape}")
    parameters = np.concatenate([_to_integers(name, tensors[name]) for name in names])
    if compute_tensor_digest(TensorKind.PARAMETERS, parameters) != card.digest:
        raise UserError("the parameters do not hash to the digest of the card: damaged or forged")
    return parameters


def _list_names(model: ModelDescription) -> list[str]:
    return [
        f"{tensor.layer_index}.{'bias' if tensor.is_bias else 'weight'}"
        for tensor in list_tensors(model)
    ]


def _to_float(values: Int32Array) -> FloatArray:
    exact = dequantise(values)
    narrow = exact.astype(np.float32)
    return narrow if np.array_equal(narrow.astype(np.float64), exact) else exact


def _to_integers(name: str, values: npt.NDArray[np.generic]) -> Int32Array:
    if values.dtype not in (np.float32, np.float64):
        raise UserError(f"{name}: type {values.dtype}, a model file has float32 and float64")
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = values.astype(np.float64).reshape(-1) * (1 << FRACTION_BITS)
    is_canonical = (np.abs(scaled) <= MAX_PARAMETER) & (np.rint(scaled) == scaled)
    if not is_canonical.all():
        raise UserError(f"{name}: a value is no multiple of 2**-{FRACTION_BITS} within +-64")
    return scaled.astype(np.int32)
