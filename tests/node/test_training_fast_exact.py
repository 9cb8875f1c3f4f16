"""The fast evaluator of networks with one convolution gives the bytes of the reference."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from d2m_node.training import fast_exact
from d2m_node.training.convolution import ConvolutionShape
from d2m_node.training.fast_exact import FastEvaluator
from protocol.errors import InvalidParams
from protocol.evaluation import compute_logits_reference
from protocol.fixed_point import Int32, Int64
from protocol.layers import Conv2d, Flatten, Linear, MaxPool2d, Relu
from protocol.model import ModelDescription, cnn, count_parameters, mlp
from protocol.samples import SampleArray
from protocol.update import MAX_PARAMETER
from tests.support.models import draw_parameters, draw_samples

ROOT = Path(__file__).resolve().parents[2]
EVALUATOR = FastEvaluator(2)

MODELS = {
    "3x3": cnn((1, 28, 28), 10, channels=9),
    "colours, 5x5": cnn((3, 32, 32), 10, channels=4, kernel=5),
    "pooled first, uneven": ModelDescription(
        input_shape=(2, 29, 24),
        outputs=3,
        layers=(
            Conv2d(out_channels=8, kernel=(2, 5)),
            MaxPool2d(kernel=(2, 2), stride=(2, 2)),
            Relu(),
            Flatten(),
            Linear(3),
        ),
    ),
}


def evaluate_by_reference(
    model: ModelDescription, candidates: list[Int32], samples: SampleArray
) -> Int64:
    return np.stack([compute_logits_reference(model, one, samples) for one in candidates])


@pytest.mark.parametrize("count", [1, 3, 70])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_it_gives_the_integers_of_the_reference(model: ModelDescription, count: int) -> None:
    assert ConvolutionShape.read(model) is not None
    candidates = [draw_parameters(f"candidate {index}", model, 1 << 21) for index in range(3)]
    samples = draw_samples("fast", model, count)
    logits = EVALUATOR(model, candidates, samples)
    assert logits.dtype == np.int64
    assert np.array_equal(logits, evaluate_by_reference(model, candidates, samples))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_largest_parameters_and_pixels_are_exact(model: ModelDescription, sign: int) -> None:
    saturated = np.full(count_parameters(model), sign * MAX_PARAMETER, dtype=np.int32)
    candidates = [saturated, saturated - sign * np.arange(len(saturated), dtype=np.int32)]
    samples = draw_samples("bright", model, 5)
    samples[0] = 255
    logits = EVALUATOR(model, candidates, samples)
    assert np.array_equal(logits, evaluate_by_reference(model, candidates, samples))


MODEL = MODELS["3x3"]


def fill_filters(weight_q12: int, bias_q12: int) -> Int32:
    """Let every weight of the convolution be the same, so that sums are as large as may be."""
    parameters = np.zeros(count_parameters(MODEL), dtype=np.int32)
    weights = 9 * 9
    parameters[:weights] = weight_q12 << 8
    parameters[weights : weights + 9] = bias_q12 << 8
    parameters[weights + 9 :] = 1 << 12
    return parameters


NARROWEST = (1 << 24) // 255 // 9
"""The largest weight of nine that float32 sums exactly, over pixels of 255."""


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("weight", "bias", "dtype"),
    [
        (NARROWEST, 0, torch.float32),
        (NARROWEST - 1, 9, torch.float32),
        (NARROWEST, 9, torch.float64),
        (NARROWEST + 1, 0, torch.float64),
    ],
)
def test_float32_takes_what_it_sums_exactly_and_no_more(
    weight: int, bias: int, sign: int, dtype: torch.dtype
) -> None:
    parameters = fill_filters(sign * weight, sign * bias)
    shape = ConvolutionShape.read(MODEL)
    assert shape is not None
    assert fast_exact._prepare(shape, parameters, torch.float32).matrix.dtype == dtype
    samples = draw_samples("bright", MODEL, 5)
    samples[0] = 255
    samples[1, ..., ::2] = 254
    logits = EVALUATOR(MODEL, [parameters], samples)
    assert np.array_equal(logits, evaluate_by_reference(MODEL, [parameters], samples))


def test_small_and_large_candidates_are_evaluated_side_by_side() -> None:
    candidates = [draw_parameters(f"one {bits}", MODEL, 1 << bits) for bits in (14, 22, 18, 23)]
    samples = draw_samples("mixed", MODEL, 70)
    logits = EVALUATOR(MODEL, candidates, samples)
    assert np.array_equal(logits, evaluate_by_reference(MODEL, candidates, samples))


def test_a_processor_that_rounds_float32_products_gets_float64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    multiply = torch.mm

    def round_off(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return multiply(one.bfloat16().float(), other)

    monkeypatch.setattr(torch, "mm", round_off)
    assert not fast_exact._multiplies_float32_exactly()
    monkeypatch.undo()
    assert fast_exact._multiplies_float32_exactly()


def test_candidates_are_consumed_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_exact, "_MODELS_PER_PASS", 2)
    model = MODELS["3x3"]
    candidates = [draw_parameters(f"candidate {index}", model, 1 << 18) for index in range(5)]
    drawn, ahead = 0, []
    prepare = fast_exact._prepare

    def watch(shape: ConvolutionShape, parameters: Int32, narrow: torch.dtype) -> object:
        ahead.append(drawn)
        return prepare(shape, parameters, narrow)

    def draw_all():
        nonlocal drawn
        for one in candidates:
            drawn += 1
            yield one

    monkeypatch.setattr(fast_exact, "_prepare", watch)
    samples = draw_samples("lazy", model, 4)
    logits = EVALUATOR(model, draw_all(), samples)
    assert ahead == [1, 2, 3, 4, 5]  # each is prepared when it comes, before the next is asked for
    assert np.array_equal(logits, evaluate_by_reference(model, candidates, samples))


def test_each_thread_does_its_products_on_one_core() -> None:
    """Torch's products would, in each thread that has not said otherwise, take every core."""
    code = (
        "from threadpoolctl import threadpool_info\n"
        "from d2m_node.training import fast_exact\n"
        "from tests.node.test_training_fast_exact import EVALUATOR, MODELS\n"
        "from tests.support.models import draw_parameters, draw_samples\n"
        "evaluate, cores, model = fast_exact._evaluate, [], MODELS['3x3']\n"
        "def watch(*arguments):\n"
        "    libraries = threadpool_info()\n"
        "    cores.extend(x['num_threads'] for x in libraries if x['user_api'] == 'openmp')\n"
        "    evaluate(*arguments)\n"
        "fast_exact._evaluate = watch\n"
        "EVALUATOR(model, [draw_parameters('p', model, 1 << 18)], draw_samples('s', model, 130))\n"
        "assert set(cores) == {1}, cores\n"
    )
    environment = {key: value for key, value in os.environ.items() if "NUM_THREADS" not in key}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)


def test_no_candidates_and_no_samples_give_no_logits() -> None:
    model = MODELS["3x3"]
    samples = draw_samples("none", model, 3)
    assert EVALUATOR(model, [], samples).shape == (0, 3, 10)
    one = draw_parameters("one", model, 1 << 18)
    assert EVALUATOR(model, [one], samples[:0]).shape == (1, 0, 10)


def test_other_networks_are_evaluated_by_numpy() -> None:
    model = mlp((1, 8, 8), 10)
    candidates, samples = [draw_parameters("one", model, 1 << 18)], draw_samples("other", model, 9)
    logits = EVALUATOR(model, candidates, samples)
    assert np.array_equal(logits, evaluate_by_reference(model, candidates, samples))


def test_parameters_of_another_length_and_invalid_models_are_refused() -> None:
    model = MODELS["3x3"]
    samples = draw_samples("refused", model, 2)
    with pytest.raises(ValueError, match="not the shape of the model's parameters"):
        EVALUATOR(model, [np.zeros(3, dtype=np.int32)], samples)
    with pytest.raises(InvalidParams):
        EVALUATOR(cnn((1, 28, 28), 10, channels=0), [], samples)
