import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidMessage
from protocol.fixed_point import Int32
from protocol.hashing import Domain, keccak, word
from protocol.types import Address, Digest, JobId, RoundIndex
from protocol.update import (
    MAX_PARAMETER,
    MAX_UPDATE,
    TensorKind,
    UpdateSecret,
    apply_update,
    compute_tensor_digest,
    compute_update_commitment,
    decode_tensor,
    dequantise,
    encode_tensor,
    quantise,
)
from tests.protocol.vectors import load_vectors

VECTORS = load_vectors()
UPDATE_VALUES = st.lists(st.integers(-MAX_UPDATE, MAX_UPDATE), max_size=30)


def as_tensor(values: list[int]) -> Int32:
    return np.array(values, dtype=np.int32)


def test_quantise_gives_the_recorded_values() -> None:
    values = np.array(VECTORS["quantize"]["in"], dtype=np.float32)
    assert quantise(values).tolist() == VECTORS["quantize"]["out"]


@given(UPDATE_VALUES)
def test_quantise_undoes_dequantise(values: list[int]) -> None:
    tensor = as_tensor(values)
    assert quantise(dequantise(tensor).astype(np.float32)).tolist() == values


@given(UPDATE_VALUES)
def test_dequantise_undoes_quantise_below_one(values: list[int]) -> None:
    floats = np.array([value * 2.0**-20 for value in values], dtype=np.float32)
    assert (dequantise(quantise(floats)) == floats).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_quantise_refuses_what_is_no_number(value: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantise(np.array([0.0, value], dtype=np.float32))


def test_tensor_bytes_and_digest_are_the_recorded_ones() -> None:
    tensor = as_tensor(VECTORS["digest"]["q"])
    assert encode_tensor(TensorKind.UPDATE, tensor).hex() == VECTORS["digest"]["bytes"]
    assert compute_tensor_digest(TensorKind.UPDATE, tensor).hex() == VECTORS["digest"]["keccak"]


def test_the_digest_does_not_depend_on_the_byte_order_of_the_array() -> None:
    native = as_tensor([1, -1, 77])
    for order in (">i4", "<i4"):
        assert compute_tensor_digest(
            TensorKind.UPDATE, native.astype(order)
        ) == compute_tensor_digest(TensorKind.UPDATE, native)


@given(UPDATE_VALUES)
def test_decode_undoes_encode(values: list[int]) -> None:
    data = encode_tensor(TensorKind.UPDATE, as_tensor(values))
    assert decode_tensor(data, TensorKind.UPDATE, len(values)).tolist() == values


@given(st.binary(max_size=40))
def test_hostile_bytes_are_no_tensor(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        decode_tensor(data, TensorKind.UPDATE, 2)


GOOD = encode_tensor(TensorKind.UPDATE, as_tensor([1, 2]))


@pytest.mark.parametrize(
    "data",
    [
        b"X" + GOOD[1:],
        GOOD[:4] + b"\x02" + GOOD[5:],  # version
        GOOD[:5] + b"\x00" + GOOD[6:],  # kind
        GOOD[:6] + b"\x15" + GOOD[7:],  # fractional bits
        GOOD[:7] + b"\x01" + GOOD[8:],  # padding
        GOOD[:15] + b"\x03" + GOOD[16:],  # length
        GOOD[:-1],
        GOOD + b"\x00",
        GOOD[:-4] + (MAX_UPDATE + 1).to_bytes(4, "big"),
        GOOD[:-4] + (-(1 << 31)).to_bytes(4, "big", signed=True),
    ],
)
def test_a_changed_tensor_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        decode_tensor(data, TensorKind.UPDATE, 2)


def test_a_value_beyond_the_bound_of_its_kind_is_not_encoded() -> None:
    large = as_tensor([MAX_UPDATE + 1])
    assert encode_tensor(TensorKind.PARAMETERS, large)
    with pytest.raises(ValueError, match="exceeds"):
        encode_tensor(TensorKind.UPDATE, large)


def test_applying_an_update_clips_at_the_parameters_bound() -> None:
    parameters = as_tensor([MAX_PARAMETER, -MAX_PARAMETER, 5])
    applied = apply_update(parameters, as_tensor([1, -1, 1]))
    assert applied.tolist() == [MAX_PARAMETER, -MAX_PARAMETER, 6]
    assert applied.dtype == np.int32
    assert parameters.tolist() == [MAX_PARAMETER, -MAX_PARAMETER, 5]


def test_commitment_hashes_every_field_after_its_domain() -> None:
    domain = Domain(1337, Address(b"\x11" * 20))
    secret = UpdateSecret(
        job=JobId(7),
        round_index=RoundIndex(3),
        seller=Address(b"\x01" * 20),
        update_digest=Digest(b"\x22" * 32),
        salt=b"\x33" * 32,
    )
    expected = keccak(
        b"D2M/v1/upd\x00"
        + domain.prefix
        + word(7)
        + word(3)
        + bytes(12)
        + secret.seller
        + secret.update_digest
        + secret.salt
    )
    assert compute_update_commitment(domain, secret) == expected
