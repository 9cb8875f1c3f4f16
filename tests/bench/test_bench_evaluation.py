"""What is timed as the same work is the same work."""

import numpy as np
import pytest
import torch

from protocol.bounds import INPUT_SCALE, LOGIT_BITS
from protocol.evaluation import compute_logits_of_all
from protocol.model import ModelDescription
from tests.bench.bench_evaluation import CASES, draw_candidates, infer
from tests.support.models import draw_samples


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("model", CASES.values(), ids=CASES)
def test_torch_infers_what_is_evaluated_exactly(
    model: ModelDescription, memory_format: torch.memory_format
) -> None:
    candidates, samples = draw_candidates(model, 2), draw_samples("bench", model, 3)
    exact = compute_logits_of_all(model, candidates, samples) / (INPUT_SCALE << LOGIT_BITS)
    inferred = infer(model, candidates, samples, memory_format)
    assert inferred.shape == exact.shape
    # Weights of evaluation have 12 fractional bits, and hidden values 8.
    assert np.abs(inferred - exact).max() < 0.01 * np.abs(inferred).max()
