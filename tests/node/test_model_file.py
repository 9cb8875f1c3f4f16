import json

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load as load_torch

from d2m_node.errors import UserError
from d2m_node.model_file import (
    CARD_KEY,
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    encode_model_file,
    read_card,
    read_parameters,
)
from d2m_node.training.models import build_module, flatten_parameters
from protocol.evaluation import compute_logits
from protocol.hashing import Domain, keccak
from protocol.model import cnn, count_parameters, initial_parameters, mlp
from protocol.types import Address, JobId
from protocol.update import MAX_PARAMETER, TensorKind, compute_tensor_digest, dequantise
from tests.support.models import MODELS, draw_parameters

MODEL = cnn((1, 8, 8), 10)
DOMAIN = Domain(31337, Address(b"\x11" * 20))
JOB = JobId(7)
PARAMETERS = initial_parameters(MODEL, keccak(b"start"))


def encode(parameters=PARAMETERS, model=MODEL) -> bytes:
    return encode_model_file(parameters, domain=DOMAIN, job=JOB, model=model)


def rewrite(change) -> bytes:
    """Change the tensors or the card of a valid file."""
    data = encode()
    tensors = safetensors.numpy.load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    card = json.loads(header["__metadata__"][CARD_KEY])
    change(tensors, card)
    return safetensors.numpy.save(tensors, {CARD_KEY: json.dumps(card)})


def test_parameters_come_back_with_the_digest_that_the_chain_holds() -> None:
    recovered = read_parameters(encode())
    assert recovered.dtype == np.int32
    assert np.array_equal(recovered, PARAMETERS)
    digest = compute_tensor_digest(TensorKind.PARAMETERS, recovered)
    assert read_card(encode()).digest == digest


def test_the_card_says_where_the_model_comes_from() -> None:
    card = read_card(encode())
    assert (card.domain, card.job, card.model) == (DOMAIN, JOB, MODEL)


def test_the_same_model_always_gives_the_same_bytes() -> None:
    assert encode() == encode()


def test_small_values_are_float32_and_wide_ones_float64() -> None:
    parameters = PARAMETERS.copy()
    parameters[-1] = MAX_PARAMETER  # 26 significant bits
    tensors = safetensors.numpy.load(encode(parameters))
    assert tensors["0.weight"].dtype == np.float32
    assert tensors["4.bias"].dtype == np.float64
    assert np.array_equal(read_parameters(encode(parameters)), parameters)


@given(
    st.lists(
        st.integers(-MAX_PARAMETER, MAX_PARAMETER),
        min_size=count_parameters(mlp((2,), 2, hidden=1)),
        max_size=count_parameters(mlp((2,), 2, hidden=1)),
    )
)
def test_every_canonical_tensor_comes_back(values: list[int]) -> None:
    parameters = np.array(values, dtype=np.int32)
    assert np.array_equal(read_parameters(encode(parameters, mlp((2,), 2, hidden=1))), parameters)


def test_a_torch_network_loads_the_file_by_its_names() -> None:
    module = build_module(MODEL)
    module.load_state_dict(load_torch(encode()))
    generator = np.random.Generator(np.random.PCG64(1))
    samples = generator.integers(0, 256, size=(50, 1, 8, 8), dtype=np.uint8)
    with torch.no_grad():
        logits = module(torch.tensor(samples).float() / 255).numpy()
    exact = compute_logits(MODEL, PARAMETERS, samples) / (255 * 2**20)
    assert np.abs(logits - exact).max() < 0.02


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_model_of_any_layers_comes_back_and_has_the_names_of_torch(model) -> None:
    parameters = draw_parameters("file", model)
    data = encode(parameters, model)
    assert np.array_equal(read_parameters(data), parameters)
    module = build_module(model)
    module.load_state_dict(load_torch(data))
    assert np.array_equal(flatten_parameters(module), dequantise(parameters))


def test_parameters_of_another_model_are_not_encoded() -> None:
    with pytest.raises(ValueError, match="is not the shape of the model's parameters"):
        encode(PARAMETERS[:-1])


def test_parameters_beyond_the_bound_are_not_encoded() -> None:
    with pytest.raises(ValueError, match="exceeds"):
        encode(np.full_like(PARAMETERS, MAX_PARAMETER + 1))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t, c: t.pop("4.bias"), "has the tensors 0.weight, 0.bias, 4.weight, 4.bias"),
        (lambda t, c: t.update(extra=t["4.bias"]), "has the tensors"),
        (lambda t, c: t.update({"4.bias": t["4.bias"][:-1]}), r"4\.bias: shape \(9,\)"),
        (lambda t, c: t.update({"4.bias": t["4.bias"].astype(np.float16)}), "type float16"),
        (lambda t, c: t.update({"4.bias": np.zeros(10, np.int64)}), "type int64"),
        (lambda t, c: t["4.bias"].fill(np.nan), r"4\.bias: a value is no multiple"),
        (lambda t, c: t["4.bias"].fill(np.inf), r"4\.bias: a value is no multiple"),
        (lambda t, c: t["4.bias"].fill(64.0), r"4\.bias: a value is no multiple"),
        (lambda t, c: t["4.bias"].fill(2.0**-21), r"4\.bias: a value is no multiple"),
        (lambda t, c: t["4.bias"].fill(0.5), "do not hash to the digest of the card"),
        (lambda t, c: c.update(digest="0x" + "00" * 32), "do not hash to the digest of the card"),
        (lambda t, c: c.update(digest="0x00"), "no model file"),
        (lambda t, c: c.update(market="0x" + "11" * 20 + "\n"), "no model file"),
        (lambda t, c: c.update(extra=1), "no model file"),
        (lambda t, c: c["model"].update(outputs=9), "end with a linear layer of 9"),
    ],
)
def test_a_forged_file_is_one_clear_error(change, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        read_parameters(rewrite(change))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 40,
        bytes(8),
        encode()[:-1],
        encode() + b"x",
        b"\x02" + bytes(7) + b"{}",
        b"\x10\x27" + bytes(6) + b"[" * 10_000,
    ],
)
def test_bytes_that_are_no_model_file_are_refused(data: bytes) -> None:
    with pytest.raises(UserError):
        read_parameters(data)


def test_a_safetensors_file_of_somebody_else_is_named_as_such() -> None:
    foreign = safetensors.numpy.save({"x": np.zeros(1, np.float32)}, {"format": "pt"})
    with pytest.raises(UserError, match="without a d2m_card"):
        read_parameters(foreign)


def test_a_file_that_is_too_large_is_not_parsed() -> None:
    with pytest.raises(UserError, match="a model file has at most"):
        read_card(bytes(MAX_FILE_BYTES + 1))


# --- files that lie about themselves --------------------------------------------------------------


def rebuild(change, *, body: bytes | None = None) -> bytes:
    """Change the header of a valid file as text, and leave its card as it is."""
    data = encode()
    end = 8 + int.from_bytes(data[:8], "little")
    header = change(data[8:end].decode().rstrip()).encode()
    return len(header).to_bytes(8, "little") + header + (data[end:] if body is None else body)


def replace_entry(name: str, **changes) -> object:
    """Return a change of one tensor's entry in the header."""

    def change(text: str) -> str:
        header = json.loads(text)
        header[name].update(changes)
        return json.dumps(header)

    return change


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ((1 << 62).to_bytes(8, "little") + encode()[8:], "its header has at most"),
        ((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + bytes(MAX_HEADER_BYTES + 1), "at most"),
        (rebuild(replace_entry("0.bias", data_offsets=[4, 36])), "no model file"),
        (rebuild(replace_entry("0.bias", data_offsets=[8, 4])), "no model file"),
        (rebuild(replace_entry("0.bias", data_offsets=[0, 1 << 63])), "no model file"),
        (rebuild(replace_entry("0.bias", shape=[1 << 62, 1 << 62])), "no model file"),
        (rebuild(replace_entry("0.bias", shape=[-8])), "no model file"),
        (rebuild(replace_entry("0.bias", dtype="F16")), "no model file"),
        (rebuild(replace_entry("0.bias", dtype="BF16")), "no model file"),
        (rebuild(replace_entry("0.bias", dtype="O")), "no model file"),
        (
            rebuild(
                lambda text: (
                    text[:-1] + ',"0.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
                )
            ),
            "no model file",
        ),
        (rebuild(lambda text: text, body=b""), "no model file"),
        (encode() + bytes(4), "no model file"),
    ],
)
def test_a_file_that_lies_about_its_tensors_is_refused(data: bytes, complaint: str) -> None:
    """Lengths, offsets that overlap or run back, shapes that overflow, types, names given twice."""
    with pytest.raises(UserError, match=complaint) as raised:
        read_parameters(data)
    assert "\n" not in str(raised.value)
