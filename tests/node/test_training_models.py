import numpy as np
import pytest
import torch

from d2m_node.training.models import build_module, flatten_parameters, load_parameters
from protocol.evaluation import compute_logits
from protocol.hashing import keccak
from protocol.model import (
    Conv2d,
    Flatten,
    Linear,
    MaxPool2,
    ModelDescription,
    Relu,
    cnn,
    count_parameters,
    initial_parameters,
    list_tensors,
    logreg,
    mlp,
)
from protocol.update import dequantise

TWO_CONVOLUTIONS = ModelDescription(
    input_shape=(3, 12, 13),
    classes=4,
    layers=(
        MaxPool2(),
        Conv2d(out_channels=3, kernel=2),
        Relu(),
        Conv2d(out_channels=5, kernel=3),
        MaxPool2(),
        Relu(),
        Flatten(),
        Linear(4),
    ),
)

MODELS = {
    "logreg": logreg((7,), 3),
    "mlp": mlp((1, 8, 8), 10),
    "cnn": cnn((1, 8, 8), 10),
    "two convolutions": TWO_CONVOLUTIONS,
}


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
    assert last_bias.tolist() == flat[-model.classes :].tolist()


def test_channels_last_does_not_change_the_order_of_the_flat_vector() -> None:
    module = build_module(TWO_CONVOLUTIONS)
    flat = np.arange(count_parameters(TWO_CONVOLUTIONS), dtype=np.float32)
    load_parameters(module, flat)
    module.to(memory_format=torch.channels_last)
    assert np.array_equal(flatten_parameters(module), flat)


def test_parameters_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="is not the shape of"):
        load_parameters(build_module(MODELS["cnn"]), np.zeros(3, dtype=np.float32))


def test_the_float_network_computes_what_the_exact_evaluator_computes(
    model: ModelDescription,
) -> None:
    """Up to the Q12 rounding of the parameters and the Q8 floor of the hidden activations."""
    generator = np.random.Generator(np.random.PCG64(1))
    samples = generator.integers(0, 256, size=(200, *model.input_shape), dtype=np.uint8)
    parameters = initial_parameters(model, keccak(b"model"))
    module = build_module(model)
    load_parameters(module, dequantise(parameters).astype(np.float32))
    with torch.no_grad():
        logits = module(torch.tensor(samples).float() / 255).numpy()
    exact = compute_logits(model, parameters, samples) / (255 * 2**20)
    assert np.abs(logits - exact).max() < 0.02
    agreement = np.mean(logits.argmax(axis=1) == exact.argmax(axis=1))
    assert agreement >= 0.97
