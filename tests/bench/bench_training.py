"""A seller's training of one epoch: gradients by hand against autograd on the same batches."""

from unittest.mock import patch

import numpy as np
import torch

from d2m_node.ports import Samples, TrainingTask
from d2m_node.training import local
from protocol.fixed_point import Int32
from protocol.hashing import keccak
from protocol.model import ModelDescription, cnn, initial_parameters
from protocol.request import TrainingSpec
from tests.bench.rows import Plan, Row, measure_in_turn

SAMPLES = 1200
SPEC = TrainingSpec(learning_rate_micros=1_000, batch_size=64, epochs=1)
CASES = {
    f"{name}, 32 filters {kernel}x{kernel}": cnn(shape, 10, channels=32, kernel=kernel)
    for name, shape in (("28x28", (1, 28, 28)), ("32x32x3", (3, 32, 32)))
    for kernel in (3, 5)
}


def run(plan: Plan) -> list[Row]:
    """Measure every network."""
    return [measure(name, model, plan.repetitions) for name, model in CASES.items()]


def measure(name: str, model: ModelDescription, repetitions: int) -> Row:
    """Compare on one network; the values of the pixels change nothing."""
    task = draw_task(model)
    ours, autograd = measure_in_turn(
        {"by hand": lambda: train(task), "autograd": lambda: train_by_autograd(task)}, repetitions
    )
    return Row(case=f"{name}, {SAMPLES} samples", ours=ours, others=(autograd,))


def draw_task(model: ModelDescription) -> TrainingTask:
    generator = np.random.default_rng(1)
    return TrainingTask(
        model=model,
        parameters=initial_parameters(model, keccak(b"bench")),
        spec=SPEC,
        samples=Samples(
            inputs=generator.integers(0, 256, (SAMPLES, *model.input_shape), dtype=np.uint8),
            labels=generator.integers(0, 10, SAMPLES),
        ),
        seed=1,
    )


def train(task: TrainingTask) -> Int32:
    return local.train_locally(task, device=torch.device("cpu"), check_cancelled=lambda: None)


def train_by_autograd(task: TrainingTask) -> Int32:
    with patch.object(local.ConvolutionShape, "read", return_value=None):
        return train(task)
