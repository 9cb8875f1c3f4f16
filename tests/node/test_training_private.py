"""DP-SGD: what it clips, what noise it adds, and that it is the ordinary training otherwise."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from d2m_node.ports import PrivateTraining, Samples, TrainingTask
from d2m_node.training import private
from d2m_node.training.local import compute_loss, load_inputs, train_locally
from d2m_node.training.models import build_module, load_parameters, read_inputs
from d2m_node.training.private import SecureOptimizer, draw_batch, draw_noise, fit_privately
from protocol.errors import InvalidParams
from protocol.model import ModelDescription
from protocol.request import TrainingSpec
from protocol.update import dequantise
from tests.support.models import MODELS, draw_labels, draw_parameters, draw_samples

CPU = torch.device("cpu")
COUNT = 24
SPEC = TrainingSpec(learning_rate_micros=1000, batch_size=COUNT, epochs=4)
NO_PRIVACY = PrivateTraining(noise_multiplier=0.0, max_grad_norm=1e9, sample_rate=1.0, steps=4)
"""All samples in each step, nothing clipped, no noise."""
PRIVATE = PrivateTraining(noise_multiplier=1.0, max_grad_norm=0.5, sample_rate=0.5, steps=8)


def make_task(
    model: ModelDescription, how: PrivateTraining | None, *, seed: int = 1
) -> TrainingTask:
    samples = Samples(
        inputs=draw_samples("private", model, COUNT), labels=draw_labels("private", model, COUNT)
    )
    parameters = draw_parameters("private", model, 1 << 17)
    return TrainingTask(
        model=model, parameters=parameters, spec=SPEC, samples=samples, seed=seed, private=how
    )


def train(task: TrainingTask) -> np.ndarray:
    return train_locally(task, device=CPU, check_cancelled=lambda: None)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("parts", [1, COUNT])
def test_without_clipping_and_noise_a_step_takes_the_ordinary_gradient(
    name: str, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(MODELS[name], NO_PRIVACY)
    module = build_module(task.model)
    load_parameters(module, dequantise(task.parameters).astype(np.float32))
    inputs, labels = load_inputs(task, CPU), torch.tensor(task.samples.labels)
    outputs = module(read_inputs(task.model.input_kind, inputs))
    compute_loss(task.model, outputs, labels, reduction="sum").backward()
    expected = [parameter.grad.clone() for parameter in module.parameters()]
    found: list[list[torch.Tensor]] = []

    def keep(optimizer: SecureOptimizer) -> None:
        found.append([parameter.summed_grad.clone() for parameter in optimizer.params])
        for parameter in optimizer.params:
            parameter.grad = torch.zeros_like(parameter)

    monkeypatch.setattr(SecureOptimizer, "add_noise", keep)
    monkeypatch.setattr(private, "MAX_GRADIENT_VALUES", COUNT * len(task.parameters) // parts)
    train(task)
    assert len(found) == NO_PRIVACY.steps
    for one, other in zip(expected, found[0], strict=True):
        assert torch.allclose(
            one, other.view_as(one), rtol=1e-4, atol=1e-4 * float(one.abs().max())
        )


@pytest.mark.parametrize("name", ["cnn", "text cnn", "regression"])
def test_a_private_update_differs_each_time_whatever_the_seed(name: str) -> None:
    task = make_task(MODELS[name], PRIVATE)
    first, second = train(task), train(task)
    ordinary = train(replace(task, private=None))
    for one, other in pairwise([first, second, ordinary]):
        assert (one != other).mean() > 0.9


@pytest.mark.parametrize("largest", [1 << 26, 100])
def test_no_sample_adds_more_to_a_step_than_the_bound(
    monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    """Gradients of random models are far above it, so each sum reaches most of its bound."""
    norms, sizes = [], []
    add_noise, draw = SecureOptimizer.add_noise, draw_batch

    def measure(optimizer: SecureOptimizer) -> None:
        squares = sum(float(p.summed_grad.square().sum()) for p in optimizer.params)
        norms.append(math.sqrt(squares))
        add_noise(optimizer)

    def count(samples: int, rate: float) -> torch.Tensor:
        batch = draw(samples, rate)
        sizes.append(len(batch))
        return batch

    monkeypatch.setattr(SecureOptimizer, "add_noise", measure)
    monkeypatch.setattr(private, "draw_batch", count)
    monkeypatch.setattr(private, "MAX_GRADIENT_VALUES", largest)
    bound = 1e-3
    train(make_task(MODELS["mlp"], replace(PRIVATE, max_grad_norm=bound)))
    assert len(norms) == PRIVATE.steps
    for norm, size in zip(norms, sizes, strict=True):
        assert norm <= size * bound * (1 + 1e-5)
    assert max(norms) > bound


def test_the_noise_of_a_step_has_the_deviation_that_is_accounted_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = []
    monkeypatch.setattr(
        private,
        "draw_noise",
        lambda shape, deviation: drawn.append(deviation) or torch.zeros(shape),
    )
    train(make_task(MODELS["mlp"], replace(PRIVATE, noise_multiplier=3.0)))
    assert set(drawn) == {3.0 * PRIVATE.max_grad_norm}
    assert len(drawn) == PRIVATE.steps * 4  # two layers, each with weight and bias


def test_a_step_in_which_nobody_is_drawn_is_noise_alone() -> None:
    rare = PrivateTraining(noise_multiplier=1.0, max_grad_norm=1.0, sample_rate=1e-12, steps=2)
    for name in MODELS:
        assert np.abs(train(make_task(MODELS[name], rare))).max() > 0


def test_cancellation_is_asked_before_every_step() -> None:
    asked: list[None] = []
    task = make_task(MODELS["logreg"], PRIVATE)
    train_locally(task, device=CPU, check_cancelled=lambda: asked.append(None))
    assert len(asked) == PRIVATE.steps


def test_a_layer_that_mixes_samples_is_refused_by_name() -> None:
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(196), nn.Linear(196, 10))
    task = make_task(MODELS["logreg"], PRIVATE)
    with pytest.raises(InvalidParams, match=r"model: cannot be trained .*BatchNorm"):
        fit_privately(module, task, PRIVATE, CPU, lambda: None)


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_of_ours_is_one_that_opacus_takes(name: str) -> None:
    from opacus.validators import ModuleValidator

    assert ModuleValidator.validate(build_module(MODELS[name]), strict=False) == []


# --- randomness: bounds that chance exceeds less than once in 10**9 runs -------------------------


def test_noise_is_normal_with_the_deviation_asked_for() -> None:
    count, deviation = 200_000, 2.5
    noise = np.sort(draw_noise(torch.Size([count]), deviation).numpy())
    normal = np.array([math.erf(x / deviation / math.sqrt(2)) for x in noise]) / 2 + 0.5
    # Dvoretzky, Kiefer, Wolfowitz: P(largest gap > e) <= 2 exp(-2 n e^2).
    gap = np.abs(normal - (np.arange(count) + 0.5) / count).max()
    assert gap < math.sqrt(math.log(2e9) / (2 * count)) + 1 / count


def test_noise_of_an_odd_count_keeps_its_shape_and_never_repeats() -> None:
    first, second = (draw_noise(torch.Size([3, 5]), 1.0) for _ in range(2))
    assert first.shape == (3, 5)
    assert len({*first.flatten().tolist(), *second.flatten().tolist()}) == 30


def test_noise_does_not_come_from_a_seeded_generator() -> None:
    draws = []
    for _ in range(2):
        torch.manual_seed(1)
        np.random.seed(1)
        draws.append(draw_noise(torch.Size([8]), 1.0))
    assert not torch.equal(*draws)


def test_batches_take_each_sample_with_its_chance() -> None:
    count, rate = 100_000, 0.3
    batch = draw_batch(count, rate)
    assert abs(len(batch) - count * rate) < 6.2 * math.sqrt(count * rate * (1 - rate))
    assert batch.unique().shape == batch.shape
    assert len(draw_batch(count, 1.0)) == count


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_trains_privately_and_without_noise_as_the_processor_does(name: str) -> None:
    task = make_task(MODELS[name], replace(NO_PRIVACY, steps=1))
    here = train(task)
    there = train_locally(task, device=torch.device("cuda"), check_cancelled=lambda: None)
    assert (np.abs(here - there) > 100).mean() < 0.02
    noisy = replace(task, private=PRIVATE)
    assert train_locally(noisy, device=torch.device("cuda"), check_cancelled=lambda: None).any()
