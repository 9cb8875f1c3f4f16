"""Gradients by hand are those of autograd, and so are the updates that come of them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional

from d2m_node.ports import Samples, TrainingTask
from d2m_node.training import local
from d2m_node.training.convolution import MIN_OPERATIONS, ConvolutionShape
from d2m_node.training.datasets import load_samples
from d2m_node.training.gradients import GradientComputer
from d2m_node.training.local import train_locally
from d2m_node.training.models import build_module, load_parameters
from protocol.evaluation import compute_logits
from protocol.hashing import keccak
from protocol.layers import AvgPool2d, Conv2d, Flatten, Linear, MaxPool2d, Relu
from protocol.metrics import compute_utility
from protocol.model import (
    InputKind,
    ModelDescription,
    cnn,
    cnn_2conv,
    count_model_operations,
    initial_parameters,
    mlp,
    validate_model,
)
from protocol.request import TrainingSpec
from protocol.terms import Metric
from protocol.update import apply_update, dequantise

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
HALVE = MaxPool2d(kernel=(2, 2), stride=(2, 2))
DIGITS = cnn((1, 32, 32), 10, channels=8)


def describe(*layers: object, shape: tuple[int, ...] = (1, 28, 28), outputs: int = 10):
    model = ModelDescription(input_shape=shape, outputs=outputs, layers=layers)
    validate_model(model)
    return model


def convolve(kernel: tuple[int, int] = (3, 3), **options: object) -> Conv2d:
    return Conv2d(out_channels=16, kernel=kernel, **options)  # type: ignore[arg-type]


def draw_images(model: ModelDescription, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, *model.input_shape), generator=generator)
    labels = torch.randint(0, model.outputs, (count,), generator=generator)
    return images.to(torch.uint8), labels


def read_shape(model: ModelDescription) -> ConvolutionShape:
    shape = ConvolutionShape.read(model)
    assert shape is not None
    return shape


def compute_by_autograd(
    model: ModelDescription, parameters: np.ndarray, images: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    module = build_module(model)
    load_parameters(module, parameters)
    functional.cross_entropy(module(images.float() / 255), labels).backward()
    return torch.cat([one.grad.reshape(-1) for one in module.parameters()])  # type: ignore[union-attr]


def start_of(model: ModelDescription) -> np.ndarray:
    return dequantise(initial_parameters(model, keccak(b"start"))).astype(np.float32)


def assert_same(computed: torch.Tensor, expected: torch.Tensor, model: ModelDescription) -> None:
    """Compare tensor by tensor.

    By their lengths: where two values of a window differ by rounding alone, the other may win.
    """
    split = read_shape(model).split
    for one, other in zip(split(computed), split(expected), strict=True):
        assert torch.dist(one, other) <= 1e-3 * other.norm()


@pytest.mark.parametrize("count", [1, 3, 64])
@pytest.mark.parametrize(
    "model",
    [
        cnn((1, 28, 28), 10, channels=32),
        cnn((1, 28, 28), 10, channels=32, kernel=5),
        cnn((3, 32, 32), 10, channels=32, kernel=5),
        describe(
            convolve((2, 5)), HALVE, Relu(), Flatten(), Linear(3), shape=(2, 29, 24), outputs=3
        ),
        describe(convolve((1, 1)), Relu(), HALVE, Flatten(), Linear(10), shape=(3, 17, 30)),
    ],
    ids=["3x3", "5x5", "colours", "uneven, pooled first", "1x1"],
)
def test_the_gradient_is_that_of_autograd(model: ModelDescription, count: int) -> None:
    start = start_of(model)
    images, labels = draw_images(model, count)
    computer = GradientComputer(read_shape(model), torch.tensor(start))
    computer.compute(images, labels)
    expected = compute_by_autograd(model, start, images, labels)
    assert_same(computer.gradient, expected, model)


def test_of_equal_values_in_a_window_the_first_has_the_gradient_as_in_autograd() -> None:
    model = cnn((1, 28, 28), 10, channels=16)
    start = start_of(model)
    _, labels = draw_images(model, 8)
    # Patches of one brightness, as background has: many windows see four equal values.
    bright = torch.arange(8).reshape(8, 1, 1, 1) * 30 + 20
    images = bright.expand(8, 1, 28, 28).to(torch.uint8).clone()
    images[:, :, 10:18, 10:18] = 255
    computer = GradientComputer(read_shape(model), torch.tensor(start))
    computer.compute(images, labels)
    expected = compute_by_autograd(model, start, images, labels)
    assert_same(computer.gradient, expected, model)


def test_each_call_reads_the_parameters_anew_and_forgets_the_last_gradient() -> None:
    model = cnn((1, 28, 28), 10, channels=16)
    parameters = torch.tensor(start_of(model))
    computer = GradientComputer(read_shape(model), parameters)
    for count in (64, 10, 64):
        images, labels = draw_images(model, count)
        computer.compute(images, labels)
        expected = compute_by_autograd(model, parameters.numpy(), images, labels)
        assert_same(computer.gradient, expected, model)
        parameters -= 0.1 * computer.gradient


@pytest.mark.parametrize(
    "model",
    [
        mlp((1, 28, 28), 10, hidden=64),
        cnn_2conv((1, 28, 28), 10),
        describe(convolve(padding=(1, 1)), Relu(), HALVE, Flatten(), Linear(10)),
        describe(convolve(stride=(2, 1)), Relu(), HALVE, Flatten(), Linear(10)),
        describe(convolve(bias=False), Relu(), HALVE, Flatten(), Linear(10)),
        describe(convolve(), Relu(), HALVE, Flatten(), Linear(10, bias=False)),
        describe(convolve(), HALVE, Flatten(), Linear(10)),
        describe(
            convolve(), Relu(), MaxPool2d(kernel=(3, 3), stride=(2, 2)), Flatten(), Linear(10)
        ),
        describe(
            convolve(), Relu(), AvgPool2d(kernel=(2, 2), stride=(2, 2)), Flatten(), Linear(10)
        ),
        describe(convolve(), Relu(), HALVE, Flatten(), Linear(1), outputs=1),
        msgspec.structs.replace(cnn((1, 28, 28), 10, channels=16), input_kind=InputKind.TABULAR),
        cnn((1, 8, 8), 10),
    ],
)
def test_other_networks_and_small_ones_are_left_to_autograd(model: ModelDescription) -> None:
    assert ConvolutionShape.read(model) is None


def test_the_networks_of_the_benchmarks_are_worth_the_compiling() -> None:
    assert count_model_operations(cnn((1, 28, 28), 10)) >= MIN_OPERATIONS


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Digits, each pixel as 4x4: large enough for gradients by hand."""
    path = tmp_path_factory.mktemp("digits") / "digits.toml"
    path.write_text('format = "digits"\ntags = ["digits"]\n')
    samples = load_samples(path)
    inputs = samples.inputs.repeat(4, axis=2).repeat(4, axis=3)
    return Samples(inputs=inputs, labels=samples.labels)


def take(samples: Samples, positions: slice) -> Samples:
    return Samples(inputs=samples.inputs[positions], labels=samples.labels[positions])


def train(
    samples: Samples,
    *,
    parameters: np.ndarray | None = None,
    seed: int = 1,
    epochs: int = 1,
    check_cancelled: Callable[[], None] = lambda: None,
) -> np.ndarray:
    if parameters is None:
        parameters = initial_parameters(DIGITS, keccak(b"start"))
    task = TrainingTask(
        model=DIGITS,
        parameters=parameters,
        spec=TrainingSpec(learning_rate_micros=3_000, batch_size=32, epochs=epochs),
        samples=samples,
        seed=seed,
    )
    return train_locally(task, device=CPU, check_cancelled=check_cancelled)


def use_autograd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.ConvolutionShape, "read", lambda model: None)


def test_an_update_is_that_of_autograd_on_the_same_batches_but_for_rounding(
    digits: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = take(digits, slice(0, 200))
    by_hand = train(few)
    use_autograd(monkeypatch)
    by_autograd = train(few)
    difference = np.linalg.norm(by_hand - by_autograd) / np.linalg.norm(by_autograd)
    # Adam divides by the size of a gradient, and so lifts the rounding of those near zero.
    assert 0 < difference < 1e-3


def test_rounds_of_training_reach_the_accuracy_that_autograd_reaches(
    digits: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = measure_rounds(digits)
    use_autograd(monkeypatch)
    by_autograd = measure_rounds(digits)
    assert by_hand > 0.85
    assert abs(by_hand - by_autograd) < 0.02


def measure_rounds(digits: Samples) -> float:
    """Train for three rounds; return the exact accuracy on samples held out."""
    held_out = take(digits, slice(0, 400))
    parameters = initial_parameters(DIGITS, keccak(b"start"))
    for seed in range(3):
        update = train(take(digits, slice(400, None)), parameters=parameters, seed=seed)
        parameters = apply_update(parameters, update)
    logits = compute_logits(DIGITS, parameters, held_out.inputs)
    return compute_utility(Metric.ACC, logits, held_out.labels) / 2**20


def test_the_same_seed_gives_the_same_update_and_another_seed_another(digits: Samples) -> None:
    few = take(digits, slice(0, 100))
    assert np.array_equal(train(few, seed=7), train(few, seed=7))
    assert not np.array_equal(train(few, seed=7), train(few, seed=8))


def test_cancellation_is_asked_before_every_batch_and_what_it_raises_ends_the_training(
    digits: Samples,
) -> None:
    asked = []

    def cancel_at_the_fifth() -> None:
        asked.append(None)
        if len(asked) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(take(digits, slice(0, 64)), epochs=3, check_cancelled=cancel_at_the_fifth)
    asked.clear()
    train(take(digits, slice(0, 40)), epochs=2, check_cancelled=lambda: asked.append(None))
    assert len(asked) == 2 * 2


def test_who_trains_a_small_network_never_loads_the_compiler() -> None:
    code = (
        "import sys, numpy as np, torch\n"
        "from d2m_node.ports import Samples, TrainingTask\n"
        "from d2m_node.training.local import train_locally\n"
        "from protocol.model import cnn, initial_parameters\n"
        "from protocol.request import TrainingSpec\n"
        "for size in (8, 28):\n"
        "    model = cnn((1, size, size), 10)\n"
        "    train_locally(TrainingTask(\n"
        "        model=model, parameters=initial_parameters(model, bytes(32)),\n"
        "        spec=TrainingSpec(learning_rate_micros=1000, batch_size=4, epochs=1),\n"
        "        samples=Samples(inputs=np.zeros((4, 1, size, size), np.uint8),\n"
        "                        labels=np.zeros(4, np.int64)), seed=1),\n"
        "        device=torch.device('cpu'), check_cancelled=lambda: None)\n"
        "    assert ('numba' in sys.modules) == (size == 28)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
