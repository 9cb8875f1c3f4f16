"""What the node and its training process say to each other, over two pipes.

A frame is uint32(head bytes) | uint64(body bytes) | head | body, big-endian. The head is one of the
messages below in MessagePack; the body holds tensors in the protocol's own encoding, or samples as
safetensors. Nothing is pickled, and whoever reads says how much it takes.
"""

import struct
from collections.abc import Callable
from typing import Annotated, Final

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from msgspec import Meta, Struct

from d2m_node.ports import PrivateTraining, Samples
from d2m_node.settings import Device
from protocol.model import ModelDescription
from protocol.request import TrainingSpec
from protocol.samples import DTYPES
from protocol.types import RoundIndex

PREFIX: Final = struct.Struct(">IQ")
MAX_HEAD_BYTES: Final = 4 << 20
"""Of a message; the longest is a history of private trainings."""
MAX_BODY_BYTES: Final = 1 << 31
"""Of samples: a dataset has at most 2**29 bytes, its labels 2**23."""
MAX_HISTORY: Final = 1 << 15
"""Private trainings that one question may be about."""

Finite = Annotated[float, Meta(ge=0)]


class InvalidFrame(Exception):
    """The other side sent what is no frame, or stopped in the middle of one."""


class Message(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """The head of a frame."""


class Request(Message, frozen=True, kw_only=True):
    """What the node asks for, one at a time. Each gets one answer."""

    number: int
    """Ascending within one process."""


class Prepare(Request, frozen=True, tag="prepare", kw_only=True):
    """Import torch and find the device. Answered by `Done`, `NoDevice`."""

    device: Device


class Load(Request, frozen=True, tag="load", kw_only=True):
    """Keep the samples in the body for all trainings to come. Answered by `Done`."""


class Train(Request, frozen=True, tag="train", kw_only=True):
    """Train from the parameters in the body.

    Answered by `Done` with the update, `Refused` or `Stopped`.
    """

    model: ModelDescription
    spec: TrainingSpec
    seed: int
    round_index: RoundIndex
    private: PrivateTraining | None


class ComputeEpsilon(Request, frozen=True, tag="epsilon", kw_only=True):
    """Sum up private trainings, each with how often. Answered by `Number`."""

    history: Annotated[list[tuple[PrivateTraining, int]], Meta(max_length=MAX_HISTORY)]
    delta: float


class ChooseNoise(Request, frozen=True, tag="noise", kw_only=True):
    """Find the least noise for an epsilon. Answered by `Number` or `Refused`."""

    epsilon: float
    delta: float
    sample_rate: float
    steps: int


class Cancel(Message, frozen=True, tag="cancel", kw_only=True):
    """Stop the request with this number between two batches. Not answered itself."""

    number: int


class Done(Message, frozen=True, tag="done", kw_only=True):
    """The request is done; the body holds what was asked for."""


class Number(Message, frozen=True, tag="number", kw_only=True):
    value: Finite


class Stopped(Message, frozen=True, tag="stopped", kw_only=True):
    """The request was cancelled."""


class Refused(Message, frozen=True, tag="refused", kw_only=True):
    """An InvalidParams."""

    field: str
    reason: str


class NoDevice(Message, frozen=True, tag="no-device", kw_only=True):
    """A UserError: the device that was asked for is not there."""

    reason: str


class Failed(Message, frozen=True, tag="failed", kw_only=True):
    """A bug, or no memory; the process ends."""

    reason: str


AnyRequest = Prepare | Load | Train | ComputeEpsilon | ChooseNoise
ToWorker = AnyRequest | Cancel
ToNode = Done | Number | Stopped | Refused | NoDevice | Failed


def encode_head(message: Message, body_bytes: int) -> bytes:
    """Encode all of a frame but its body."""
    head = msgspec.msgpack.encode(message)
    return PREFIX.pack(len(head), body_bytes) + head


def read_prefix(data: bytes, *, max_body_bytes: int) -> tuple[int, int]:
    """Return the lengths of head and body. Raises InvalidFrame if one is out of bounds."""
    head_bytes, body_bytes = PREFIX.unpack(data)
    if not 0 < head_bytes <= MAX_HEAD_BYTES or body_bytes > max_body_bytes:
        raise InvalidFrame(f"a frame of {head_bytes} + {body_bytes} bytes")
    return head_bytes, body_bytes


def decode_to_worker(head: bytes) -> ToWorker:
    """Decode what the node says. Raises InvalidFrame."""
    try:
        message: ToWorker = msgspec.msgpack.decode(head, type=ToWorker)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise InvalidFrame(str(exc)) from exc
    return message


def decode_to_node(head: bytes) -> ToNode:
    """Decode what the training process says. Raises InvalidFrame."""
    try:
        message: ToNode = msgspec.msgpack.decode(head, type=ToNode)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidFrame(str(exc)) from exc
    return message


def read_frame(
    read: Callable[[int], bytes], *, max_body_bytes: int = MAX_BODY_BYTES
) -> tuple[ToWorker, bytes] | None:
    """Read a frame from a blocking stream; None at its end. Raises InvalidFrame."""
    prefix = read(PREFIX.size)
    if not prefix:
        return None
    if len(prefix) < PREFIX.size:
        raise InvalidFrame("the stream ends in a frame")
    head_bytes, body_bytes = read_prefix(prefix, max_body_bytes=max_body_bytes)
    head, body = read(head_bytes), read(body_bytes)
    if len(head) < head_bytes or len(body) < body_bytes:
        raise InvalidFrame("the stream ends in a frame")
    return decode_to_worker(head), body


def encode_samples(samples: Samples) -> bytes:
    """Encode samples with their types and shapes."""
    arrays = {
        "inputs": np.ascontiguousarray(samples.inputs),
        "labels": np.ascontiguousarray(samples.labels),
    }
    return safetensors.numpy.save(arrays)


def decode_samples(data: bytes) -> Samples:
    """Decode samples. Raises InvalidFrame."""
    try:
        arrays = safetensors.numpy.load(data)
        inputs, labels = arrays["inputs"], arrays["labels"]
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as exc:
        raise InvalidFrame(f"no samples: {exc}") from exc
    if inputs.dtype not in DTYPES.values() or labels.dtype != np.int64:
        raise InvalidFrame(f"samples of {inputs.dtype} with labels of {labels.dtype}")
    return Samples(inputs=inputs, labels=labels)
