"""Frames between the node and its training process: whole, bounded, or refused."""

import io

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from d2m_node.ports import PrivateTraining, Samples
from d2m_node.settings import Device
from d2m_node.training import pipe
from d2m_node.training.pipe import (
    PREFIX,
    ComputeEpsilon,
    Done,
    InvalidFrame,
    Prepare,
    Train,
    decode_samples,
    decode_to_node,
    encode_head,
    encode_samples,
    read_frame,
)
from protocol.model import cnn
from protocol.request import TrainingSpec
from protocol.types import RoundIndex

PRIVATE = PrivateTraining(noise_multiplier=1.0, max_grad_norm=0.5, sample_rate=0.1, steps=30)
REQUESTS = (
    Prepare(number=1, device=Device.CPU),
    Train(
        number=2,
        model=cnn((1, 8, 8), 10),
        spec=TrainingSpec(learning_rate_micros=1, batch_size=2, epochs=3, rate_decay_ppm=999_999),
        seed=2**32 - 1,
        round_index=RoundIndex(999),
        private=PRIVATE,
    ),
    ComputeEpsilon(number=3, history=[(PRIVATE, 7)], delta=1e-5),
)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: type(one).__name__)
def test_a_request_arrives_as_it_was_sent(request_) -> None:
    stream = io.BytesIO(encode_head(request_, 4) + b"body")
    assert read_frame(stream.read) == (request_, b"body")
    assert read_frame(stream.read) is None


def test_a_frame_that_ends_early_is_refused_wherever_it_ends() -> None:
    whole = encode_head(REQUESTS[0], 4) + b"body"
    for end in range(1, len(whole)):
        with pytest.raises(InvalidFrame, match="ends in a frame"):
            read_frame(io.BytesIO(whole[:end]).read)


@pytest.mark.parametrize(
    ("head_bytes", "body_bytes"), [(0, 0), (pipe.MAX_HEAD_BYTES + 1, 0), (1, 2**63), (1, 11)]
)
def test_lengths_out_of_bounds_are_refused_before_anything_is_read(
    head_bytes: int, body_bytes: int
) -> None:
    stream = io.BytesIO(PREFIX.pack(head_bytes, body_bytes))
    with pytest.raises(InvalidFrame, match=rf"a frame of {head_bytes} \+ {body_bytes} bytes"):
        read_frame(stream.read, max_body_bytes=10)


@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidFrame):
        read_frame(io.BytesIO(PREFIX.pack(len(data), 0) + data).read)


def test_a_request_is_no_answer_and_an_answer_no_request() -> None:
    with pytest.raises(InvalidFrame):
        decode_to_node(msgspec.msgpack.encode(REQUESTS[0]))
    with pytest.raises(InvalidFrame):
        read_frame(io.BytesIO(encode_head(Done(), 0)).read)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_samples_keep_types_shapes_and_values(dtype) -> None:
    samples = Samples(
        inputs=np.arange(24, dtype=dtype).reshape(3, 2, 4)[:, ::-1], labels=np.arange(3)
    )
    back = decode_samples(encode_samples(samples))
    assert back.inputs.dtype == dtype
    assert np.array_equal(back.inputs, samples.inputs)
    assert np.array_equal(back.labels, samples.labels)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        safetensors.numpy.save({"inputs": np.zeros((1, 2), np.uint8)}),
        safetensors.numpy.save({"inputs": np.zeros((1, 2)), "labels": np.zeros(1, np.int64)}),
        safetensors.numpy.save(
            {"inputs": np.zeros((1, 2), np.uint8), "labels": np.zeros(1, np.int32)}
        ),
    ],
)
def test_what_are_no_samples_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidFrame):
        decode_samples(data)
