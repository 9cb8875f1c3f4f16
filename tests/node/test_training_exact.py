"""The evaluator on a torch device gives the bytes of the reference, or is not used."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from d2m_node.errors import UserError
from d2m_node.roles.executor import HonestExecutor
from d2m_node.training import exact
from d2m_node.training.exact import TorchEvaluator
from protocol.errors import InvalidParams
from protocol.evaluation import compute_logits_reference
from protocol.fixed_point import FLOAT64_EXACT, Int32, Int64
from protocol.layers import Conv2d, Flatten, Linear, Relu
from protocol.model import (
    ModelDescription,
    compute_accumulator_bound,
    count_parameters,
    initial_parameters,
)
from protocol.round import FinalWork, compute_final, compute_round
from protocol.samples import SampleArray
from protocol.update import MAX_PARAMETER
from tests.support.federation import START, prepare_round
from tests.support.models import MODELS, draw_parameters, draw_samples

CPU = torch.device("cpu")
EVALUATOR = TorchEvaluator(CPU)
SMALL_PASSES = TorchEvaluator(CPU, pass_values=5000)
"""A few samples of one or two models at a time."""

WIDE = ModelDescription(
    input_shape=(900,), outputs=2, layers=(Flatten(), Linear(400), Relu(), Linear(2))
)
"""Its sums come within a factor of two of 2**53."""


def evaluate_by_reference(
    model: ModelDescription, candidates: list[Int32], samples: SampleArray
) -> Int64:
    return np.stack([compute_logits_reference(model, one, samples) for one in candidates])


def draw_case(model: ModelDescription, count: int = 3) -> tuple[list[Int32], SampleArray]:
    candidates = [draw_parameters(f"candidate {index}", model, 1 << 21) for index in range(count)]
    return candidates, draw_samples("exact", model, 17)


@pytest.mark.parametrize("evaluator", [EVALUATOR, SMALL_PASSES], ids=["whole", "small passes"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_layer_gives_the_integers_of_the_reference(
    model: ModelDescription, evaluator: TorchEvaluator
) -> None:
    candidates, samples = draw_case(model)
    logits = evaluator(model, candidates, samples)
    assert logits.dtype == np.int64
    assert (logits == evaluate_by_reference(model, candidates, samples)).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_close_to_the_limit_are_exact(sign: int) -> None:
    assert FLOAT64_EXACT // 2 < compute_accumulator_bound(WIDE) < FLOAT64_EXACT
    saturated = np.full(count_parameters(WIDE), sign * MAX_PARAMETER, dtype=np.int32)
    candidates = [saturated, saturated - sign * np.arange(len(saturated), dtype=np.int32)]
    samples = draw_samples("wide", WIDE, 5)
    samples[0] = 255
    logits = EVALUATOR(WIDE, candidates, samples)
    assert (logits == evaluate_by_reference(WIDE, candidates, samples)).all()


def test_candidates_are_consumed_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["logreg"]
    monkeypatch.setattr(exact, "MODELS_PER_PASS", 4)
    evaluated = 0
    ahead = []
    evaluate = TorchEvaluator._evaluate

    def count(self, model, group, samples):
        nonlocal evaluated
        evaluated += len(group)
        return evaluate(self, model, group, samples)

    monkeypatch.setattr(TorchEvaluator, "_evaluate", count)

    def give() -> Iterator[Int32]:
        for index in range(10):
            ahead.append(index - evaluated)
            yield draw_parameters(f"candidate {index}", model)

    logits = EVALUATOR(model, give(), draw_samples("exact", model, 2))
    assert logits.shape == (10, 2, 10)
    assert max(ahead) == 3


def test_large_models_go_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["cnn"]
    monkeypatch.setattr(exact, "PARAMETERS_PER_PASS", count_parameters(model))
    assert EVALUATOR._count_models_per_pass(model) == 1
    assert EVALUATOR._count_models_per_pass(MODELS["regression"]) > 1


def test_a_pass_holds_no_more_models_than_padded_images_fit() -> None:
    conv = Conv2d(out_channels=1, kernel=(8, 1), stride=(8, 1), padding=(7, 0))
    model = ModelDescription(input_shape=(1, 1, 9), outputs=2, layers=(conv, Flatten(), Linear(2)))
    padded = 15 * 9
    assert TorchEvaluator(CPU, pass_values=padded * 3)._count_models_per_pass(model) == 3


def test_no_candidates_give_no_logits() -> None:
    model = MODELS["tabular"]
    assert EVALUATOR(model, [], draw_samples("exact", model, 4)).shape == (0, 4, 3)


def test_samples_and_parameters_are_left_as_they_were() -> None:
    for model in MODELS.values():
        candidates, samples = draw_case(model)
        before = [one.copy() for one in candidates], samples.copy()
        EVALUATOR(model, candidates, samples)
        assert (np.stack(candidates) == np.stack(before[0])).all()
        assert (samples == before[1]).all()


def test_inputs_that_do_not_fit_are_refused() -> None:
    model = MODELS["logreg"]
    candidates, samples = draw_case(model)
    with pytest.raises(ValueError, match="int16 is not the type of image samples"):
        EVALUATOR(model, candidates, samples.astype(np.int16))
    with pytest.raises(ValueError, match="shape"):
        EVALUATOR(model, [candidates[0][:-1]], samples)
    with pytest.raises(ValueError, match="reshape"):
        EVALUATOR(model, candidates, samples[:, :, 1:])


def test_a_model_that_cannot_be_exact_is_refused() -> None:
    layers = (Flatten(), Linear(60_000), Relu(), Linear(2))
    model = ModelDescription(input_shape=(20,), outputs=2, layers=layers)
    with pytest.raises(InvalidParams, match="2\\^53"):
        EVALUATOR(model, [], np.zeros((1, 20), dtype=np.uint8))


# --- what the device must be able to do ---------------------------------------------------------


@pytest.mark.parametrize(
    "rounded",
    [
        lambda left: left.ndim == 3,
        lambda left: left.ndim == 2 and len(left) < 1000,
        lambda left: left.ndim == 2 and left.shape[1] >= 1000,
        lambda left: left.ndim == 2 and len(left) > 1000 * left.shape[1],
    ],
    ids=["batch", "single", "large", "tall and thin"],
)
def test_a_device_that_rounds_products_of_one_kind_is_refused(
    monkeypatch: pytest.MonkeyPatch, rounded: Callable[[torch.Tensor], bool]
) -> None:
    matmul = torch.matmul

    def round_off(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if rounded(left):
            return matmul(left.float(), right.float()).double()
        return matmul(left, right)

    monkeypatch.setattr(torch, "matmul", round_off)
    with pytest.raises(UserError, match="does not multiply float64 exactly"):
        TorchEvaluator(CPU)


def test_a_product_that_is_off_by_one_in_2_to_the_52_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    matmul = torch.matmul
    monkeypatch.setattr(torch, "matmul", lambda left, right: matmul(left, right) * (1 - 2.0**-53))
    with pytest.raises(UserError, match="exactly"):
        TorchEvaluator(CPU)


def test_one_wrong_entry_of_a_product_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    matmul = torch.matmul

    def spoil(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        product = matmul(left, right)
        product[..., -1, -1] += 1
        return product

    monkeypatch.setattr(torch, "matmul", spoil)
    with pytest.raises(UserError, match="exactly"):
        TorchEvaluator(CPU)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    ],
    ids=["torch", "cublas", "cudnn", "driver"],
)
def test_a_full_device_costs_time_but_not_the_vote(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def run_out(*_: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr(exact, "_run", run_out)
    model = MODELS["cnn"]
    candidates, samples = draw_case(model)
    logits = EVALUATOR(model, candidates, samples)
    assert (logits == evaluate_by_reference(model, candidates, samples)).all()


def test_any_other_fault_of_a_device_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(exact, "_run", fail)
    model = MODELS["cnn"]
    with pytest.raises(RuntimeError, match="illegal memory access"):
        EVALUATOR(model, *draw_case(model))


@pytest.mark.gpu
@pytest.mark.parametrize("model", [*MODELS.values(), WIDE], ids=[*MODELS, "wide"])
def test_cuda_gives_the_integers_of_the_reference(model: ModelDescription) -> None:
    evaluator = TorchEvaluator(torch.device("cuda"))
    candidates, samples = draw_case(model)
    reference = evaluate_by_reference(model, candidates, samples)
    assert (evaluator(model, candidates, samples) == reference).all()


# --- in a vote ----------------------------------------------------------------------------------


class CountingEvaluator(TorchEvaluator):
    calls = 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return super().__call__(*args, **kwargs)


def test_a_vote_that_torch_computed_has_the_same_digest_and_trace() -> None:
    evaluator = CountingEvaluator(CPU)
    executor = HonestExecutor(evaluator)
    work = prepare_round(START, 0)
    result, expected = executor.compute_round(work), compute_round(work)
    assert result.digest == expected.digest
    assert result.compute_trace(result.digest) == expected.compute_trace(result.digest)
    assert evaluator.calls > 0


def test_a_final_that_torch_computed_has_the_same_digest() -> None:
    evaluator = CountingEvaluator(CPU)
    work = prepare_round(START, 0)
    final = FinalWork(
        domain=work.domain,
        job_id=work.job_id,
        round_index=work.round_index,
        rules=work.rules,
        initial=START.parameters,
        parameters=initial_parameters(work.rules.model, START.previous_digest),
        samples=work.samples,
        labels=work.labels,
    )
    assert HonestExecutor(evaluator).compute_final(final).digest == compute_final(final).digest
    assert evaluator.calls == 1
