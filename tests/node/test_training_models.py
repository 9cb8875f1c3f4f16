import numpy as np
import pytest
import torch

from d2m_node.training.models import (
    build_module,
    flatten_parameters,
    load_parameters,
    read_inputs,
)
from protocol.evaluation import compute_logits
from protocol.hashing import keccak
from protocol.layers import Clip, Flatten, Linear, MaxPool2d, Relu
from protocol.model import (
    InputKind,
    ModelDescription,
    count_parameters,
    initial_parameters,
    list_tensors,
)
from protocol.update import dequantise
from tests.support.models import MODELS, draw_samples


@pytest.fixture(params=MODELS.values(), ids=MODELS.keys())
def model(request: pytest.FixtureRequest) -> ModelDescription:
    return request.param


def test_the_tensors_have_the_order_and_shapes_of_the_description(model: ModelDescription) -> None:
    shapes = [tuple(parameter.shape) for parameter in build_module(model).parameters()]
    assert shapes == [spec.shape for spec in list_tensors(model)]


def test_parameters_come_out_as_they_went_in(model: ModelDescription) -> None:
    module = build_module(model)
    flat = np.arange(count_parameters(model), dtype=np.float32)
    load_parameters(module, flat)
    assert np.array_equal(flatten_parameters(module), flat)
    last_bias = list(module.parameters())[-1]
    assert last_bias.tolist() == flat[-model.outputs :].tolist()


def test_channels_last_does_not_change_the_order_of_the_flat_vector() -> None:
    module = build_module(MODELS["cnn-2conv"])
    flat = np.arange(count_parameters(MODELS["cnn-2conv"]), dtype=np.float32)
    load_parameters(module, flat)
    module.to(memory_format=torch.channels_last)
    assert np.array_equal(flatten_parameters(module), flat)


def test_parameters_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="is not the shape of"):
        load_parameters(build_module(MODELS["cnn"]), np.zeros(3, dtype=np.float32))


def run_float_network(model: ModelDescription, parameters: np.ndarray, samples: np.ndarray):
    module = build_module(model)
    load_parameters(module, dequantise(parameters).astype(np.float32))
    wide = samples.astype(np.int64) if model.input_kind is InputKind.TOKENS else samples
    with torch.no_grad():
        return module(read_inputs(model.input_kind, torch.tensor(wide))).numpy()


def test_the_float_network_computes_what_the_exact_evaluator_computes(
    model: ModelDescription,
) -> None:
    """Up to the Q12 rounding of the parameters and the Q8 floor of the hidden activations."""
    samples = draw_samples("float", model, 200)
    parameters = initial_parameters(model, keccak(b"model"))
    outputs = run_float_network(model, parameters, samples)
    exact = compute_logits(model, parameters, samples) / (255 * 2**20)
    # Tabular values are up to 128, so the roundings of their weights count for more.
    allowed = 0.5 if model.input_kind is InputKind.TABULAR else 0.02
    assert np.abs(outputs - exact).max() < allowed
    agreement = np.mean(outputs.argmax(axis=1) == exact.argmax(axis=1))
    assert agreement >= 0.97


def test_values_beyond_a_clip_are_held_at_it_in_both_networks() -> None:
    layers = (Flatten(), Linear(6), Clip(2), Linear(3))
    model = ModelDescription(
        input_kind=InputKind.TABULAR, input_shape=(4,), outputs=3, layers=layers
    )
    samples = draw_samples("clip", model, 50)
    parameters = initial_parameters(model, keccak(b"model"))
    outputs = run_float_network(model, parameters, samples)
    exact = compute_logits(model, parameters, samples) / (255 * 2**20)
    assert np.abs(outputs - exact).max() < 0.02


def test_a_maximum_comes_before_the_relu_in_front_of_it() -> None:
    pool = MaxPool2d(kernel=(2, 2), stride=(2, 2))
    model = ModelDescription(
        input_shape=(1, 4, 4), outputs=2, layers=(Relu(), pool, Relu(), Flatten(), Linear(2))
    )
    names = [type(module).__name__ for module in build_module(model)]
    assert names == ["MaxPool2d", "ReLU", "ReLU", "Flatten", "Linear"]
