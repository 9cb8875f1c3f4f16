import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import RuleViolation
from protocol.model import InputKind, ModelDescription, bag_of_tokens, cnn, logreg
from protocol.samples import (
    DTYPES,
    count_sample_bytes,
    decode_samples,
    encode_samples,
    validate_labels,
    validate_samples,
)
from tests.support.models import MODELS, draw_samples

TABLE = logreg((3,), 2, input_kind=InputKind.TABULAR)
TEXT = bag_of_tokens((3,), 2, vocabulary=300)
IMAGE = cnn((1, 4, 4), 2)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_samples_come_out_of_their_bytes_as_they_went_in(model: ModelDescription) -> None:
    samples = draw_samples("bytes", model, 5)
    rows = encode_samples(samples)
    assert rows.shape == (5, count_sample_bytes(model))
    assert rows.dtype == np.uint8
    decoded = decode_samples(model, rows)
    assert decoded.dtype == samples.dtype
    assert (decoded == samples).all()


def test_pixels_are_their_own_bytes() -> None:
    samples = np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4)
    assert (encode_samples(samples) == samples.reshape(2, 16)).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_wide_values_are_big_endian_whatever_the_host_has(order: str) -> None:
    numbers = np.array([[1, -2, 256]], dtype=np.int16).astype(f"{order}i2")
    assert encode_samples(numbers).tobytes().hex() == "0001fffe0100"
    tokens = np.array([[1, 2, 65535]], dtype=np.uint16).astype(f"{order}u2")
    assert encode_samples(tokens).tobytes().hex() == "00010002ffff"
    decoded = decode_samples(TABLE, encode_samples(numbers))
    assert decoded.tolist() == [[1, -2, 256]]
    assert decoded.dtype.isnative


@given(st.binary(min_size=6, max_size=6))
def test_any_bytes_of_a_table_have_one_meaning(data: bytes) -> None:
    rows = np.frombuffer(data, dtype=np.uint8).reshape(1, 6)
    assert encode_samples(decode_samples(TABLE, rows)).tobytes() == data


def test_some_rows_of_a_larger_array_are_decoded() -> None:
    rows = encode_samples(np.arange(12, dtype=np.int16).reshape(4, 3))
    assert decode_samples(TABLE, rows[1::2]).tolist() == [[3, 4, 5], [9, 10, 11]]


@pytest.mark.parametrize("width", [5, 7, 0])
def test_rows_of_another_length_are_refused(width: int) -> None:
    with pytest.raises(RuleViolation, match=f"samples of {width} bytes, the model reads 6"):
        decode_samples(TABLE, np.zeros((2, width), dtype=np.uint8))


def test_a_token_outside_the_vocabulary_is_refused() -> None:
    tokens = np.array([[0, 1, 299]], dtype=np.uint16)
    assert decode_samples(TEXT, encode_samples(tokens)).tolist() == [[0, 1, 299]]
    with pytest.raises(RuleViolation, match="token 300 in a model for 300 tokens"):
        decode_samples(TEXT, encode_samples(tokens + np.uint16(1)))


@pytest.mark.parametrize("model", [TABLE, TEXT, IMAGE])
def test_samples_of_another_kind_or_shape_are_refused(model: ModelDescription) -> None:
    own = DTYPES[model.input_kind]
    good = np.zeros((2, *model.input_shape), dtype=own)
    validate_samples(model, good)
    for other in set(DTYPES.values()) - {own}:
        with pytest.raises(RuleViolation, match=f"samples of type {other}"):
            validate_samples(model, good.astype(other))
    with pytest.raises(RuleViolation, match="samples of shape"):
        validate_samples(model, good[..., :-1])


def test_labels_are_classes_of_the_model() -> None:
    validate_labels(IMAGE, np.array([0, 1]))
    validate_labels(IMAGE, np.array([], dtype=np.int64))
    for label in (-1, 2):
        with pytest.raises(RuleViolation, match="the model's are 0 to 1"):
            validate_labels(IMAGE, np.array([0, label]))


def test_targets_of_a_regression_are_signed_32_bit_integers() -> None:
    model = logreg((3,), 1, input_kind=InputKind.TABULAR)
    validate_labels(model, np.array([-(1 << 31), (1 << 31) - 1]))
    for target in (-(1 << 31) - 1, 1 << 31):
        with pytest.raises(RuleViolation, match="labels from"):
            validate_labels(model, np.array([0, target]))
