"""Exact evaluation against torch's float inference of the same models and samples.

Both start from integers in memory: parameters in Q20, samples as they are served. Torch runs with
channels first and with channels last; which is faster depends on the model.
"""

from collections.abc import Sequence

import numpy as np
import torch

from d2m_node.training.models import build_module, load_parameters, read_inputs
from protocol.evaluation import compute_logits_of_all
from protocol.fixed_point import Int32
from protocol.model import (
    ModelDescription,
    bag_of_tokens,
    cnn,
    cnn_2conv,
    count_parameters,
    mlp,
)
from protocol.samples import SampleArray
from protocol.update import dequantise
from tests.bench.rows import Plan, Row, measure_in_turn
from tests.support.models import draw, draw_parameters, draw_samples

SAMPLES = 1000
MODELS = 11
"""What a voter evaluates with K = 10: the current model and the candidates."""

MNIST = (1, 28, 28)
CASES = {
    "cnn, 8 channels, MNIST": cnn(MNIST, 10),
    "cnn-2conv, MNIST": cnn_2conv(MNIST, 10),
    "mlp, MNIST": mlp(MNIST, 10),
    "bag-of-tokens, 100 of 5000": bag_of_tokens((100,), 4, vocabulary=5000),
}


def run(plan: Plan) -> list[Row]:
    """Measure every model."""
    return [
        measure(name, model, plan.repetitions)
        for name, model in CASES.items()
        if plan.max_values is None or MODELS * count_parameters(model) <= plan.max_values
    ]


def measure(name: str, model: ModelDescription, repetitions: int) -> Row:
    """Compare on one model. Where inputs are no images, both ways of torch are the same."""
    candidates = draw_candidates(model, MODELS)
    samples = draw_samples(name, model, SAMPLES)
    ours, *others = measure_in_turn(
        {
            "exact": lambda: compute_logits_of_all(model, candidates, samples),
            "torch": lambda: infer(model, candidates, samples, torch.contiguous_format),
            "torch, channels last": lambda: infer(model, candidates, samples, torch.channels_last),
        },
        repetitions,
    )
    case = f"{name}, {MODELS} models, {SAMPLES} samples"
    return Row(case=case, ours=ours, others=tuple(others))


def draw_candidates(model: ModelDescription, count: int) -> list[Int32]:
    """Draw a model and others that are one small update away."""
    start = draw_parameters("model", model, 1 << 17)
    updates = [draw(f"update {index}", len(start), 1 << 10) for index in range(count - 1)]
    return [start, *((start + update).astype(np.int32) for update in updates)]


@torch.inference_mode()
def infer(
    model: ModelDescription,
    candidates: Sequence[Int32],
    samples: SampleArray,
    memory_format: torch.memory_format,
) -> np.ndarray:
    """Evaluate as one would with torch; float32 outputs, shape (models, n, outputs)."""
    module = build_module(model).to(memory_format=memory_format)
    batch = torch.from_numpy(samples.astype(np.int64) if samples.dtype == np.uint16 else samples)
    inputs = read_inputs(model.input_kind, batch)
    if inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=memory_format)
    outputs = []
    for parameters in candidates:
        load_parameters(module, dequantise(parameters).astype(np.float32))
        outputs.append(module(inputs).numpy())
    return np.stack(outputs)
