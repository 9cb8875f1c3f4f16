import msgspec
import numpy as np
import pytest
import torch

from d2m_node.ports import Samples, TrainingTask
from d2m_node.training.datasets import load_samples
from d2m_node.training.local import train_locally
from d2m_node.training.models import build_module, load_parameters
from protocol.errors import InvalidParams
from protocol.evaluation import compute_logits
from protocol.hashing import keccak
from protocol.metrics import compute_utility, predict
from protocol.model import cnn, count_parameters, initial_parameters
from protocol.request import TrainingSpec
from protocol.terms import Metric
from protocol.types import RoundIndex
from protocol.update import MAX_UPDATE, apply_update, dequantise

MODEL = cnn((1, 8, 8), 10)
SPEC = TrainingSpec(learning_rate_micros=10_000, batch_size=16, epochs=3)
CPU = torch.device("cpu")


def never_cancelled() -> None:
    pass


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    path = tmp_path_factory.mktemp("digits") / "digits.toml"
    path.write_text('format = "digits"\ntags = ["digits"]\n')
    return load_samples(path)


def take(samples: Samples, positions: slice) -> Samples:
    return Samples(inputs=samples.inputs[positions], labels=samples.labels[positions])


def task(samples: Samples, *, spec: TrainingSpec = SPEC, seed: int = 1, **changes) -> TrainingTask:
    parameters = changes.pop("parameters", initial_parameters(MODEL, keccak(b"start")))
    return TrainingTask(
        model=MODEL, parameters=parameters, spec=spec, samples=samples, seed=seed, **changes
    )


def train(one: TrainingTask, device: torch.device = CPU) -> np.ndarray:
    return train_locally(one, device=device, check_cancelled=never_cancelled)


def compute_accuracy(parameters: np.ndarray, samples: Samples) -> float:
    logits = compute_logits(MODEL, parameters, samples.inputs)
    return compute_utility(Metric.ACC, logits, samples.labels) / 2**20


def test_training_round_by_round_raises_the_exact_accuracy(digits: Samples) -> None:
    train_part, held_out = take(digits, slice(400, None)), take(digits, slice(0, 400))
    parameters = initial_parameters(MODEL, keccak(b"start"))
    accuracies = [compute_accuracy(parameters, held_out)]
    for round_index in range(3):
        update = train(task(train_part, parameters=parameters, seed=round_index))
        parameters = apply_update(parameters, update)
        accuracies.append(compute_accuracy(parameters, held_out))
    assert accuracies[0] < 0.3
    assert accuracies[-1] > 0.85


def test_the_trained_float_network_predicts_what_the_exact_evaluator_predicts(
    digits: Samples,
) -> None:
    start = initial_parameters(MODEL, keccak(b"start"))
    parameters = apply_update(start, train(task(digits)))
    module = build_module(MODEL)
    load_parameters(module, dequantise(parameters).astype(np.float32))
    with torch.no_grad():
        floats = module(torch.tensor(digits.inputs).float() / 255).argmax(dim=1).numpy()
    exact = predict(compute_logits(MODEL, parameters, digits.inputs))
    assert np.mean(floats == exact) > 0.99


def test_the_same_seed_gives_the_same_update_and_another_seed_another(digits: Samples) -> None:
    few = take(digits, slice(0, 100))
    assert np.array_equal(train(task(few, seed=7)), train(task(few, seed=7)))
    assert not np.array_equal(train(task(few, seed=7)), train(task(few, seed=8)))


def test_a_round_trains_at_its_own_rate(digits: Samples) -> None:
    part = take(digits, slice(0, 64))
    falling = msgspec.structs.replace(SPEC, rate_decay_ppm=500_000)
    quarter = msgspec.structs.replace(SPEC, learning_rate_micros=2_500)
    third = train(task(part, spec=falling, round_index=RoundIndex(2)))
    assert (third == train(task(part, spec=quarter))).all()
    assert (third != train(task(part, spec=falling, round_index=RoundIndex(1)))).any()
    assert (train(task(part, spec=falling)) == train(task(part))).all()


def test_an_update_is_int32_and_within_the_bound_even_at_a_high_rate(digits: Samples) -> None:
    spec = TrainingSpec(learning_rate_micros=1_000_000, batch_size=16, epochs=3)
    update = train(task(take(digits, slice(0, 200)), spec=spec))
    assert update.dtype == np.int32
    assert update.shape == (count_parameters(MODEL),)
    assert np.abs(update).max() == MAX_UPDATE


def test_a_seed_of_any_size_is_taken(digits: Samples) -> None:
    train(task(take(digits, slice(0, 16)), seed=2**256 - 1))


def test_cancellation_is_asked_before_every_batch(digits: Samples) -> None:
    asked = []
    train_locally(
        task(take(digits, slice(0, 40))), device=CPU, check_cancelled=lambda: asked.append(None)
    )
    assert len(asked) == 3 * 3  # 40 samples are three batches of 16, three epochs


def test_what_the_cancellation_check_raises_ends_the_training(digits: Samples) -> None:
    def cancelled() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_locally(task(digits), device=CPU, check_cancelled=cancelled)


def test_a_training_that_diverges_is_an_error_and_no_update(digits: Samples) -> None:
    # Integers hold no NaN, so the start is given as floats: no rate allowed here gets so far.
    broken = task(take(digits, slice(0, 16)), parameters=np.full(count_parameters(MODEL), np.nan))
    with pytest.raises(InvalidParams, match="learning_rate_micros: the training diverged"):
        train(broken)


@pytest.mark.parametrize(
    ("samples", "complaint"),
    [
        (Samples(inputs=np.zeros((4, 64), np.uint8), labels=np.zeros(4, np.int64)), "of shape"),
        (Samples(inputs=np.zeros((4, 1, 8, 8), np.uint8), labels=np.full(4, 10)), "labels from"),
        (Samples(inputs=np.zeros((4, 1, 8, 8), np.uint8), labels=np.full(4, -1)), "labels from"),
        (Samples(inputs=np.zeros((0, 1, 8, 8), np.uint8), labels=np.zeros(0, np.int64)), "samples"),
        (Samples(inputs=np.zeros((4, 1, 8, 8), np.uint8), labels=np.zeros(3, np.int64)), "samples"),
    ],
)
def test_samples_that_do_not_fit_the_model_are_refused(samples: Samples, complaint: str) -> None:
    with pytest.raises(InvalidParams, match=complaint):
        train(task(samples))


def test_parameters_that_do_not_fit_the_model_are_refused(digits: Samples) -> None:
    with pytest.raises(InvalidParams, match="parameters"):
        train(task(digits, parameters=np.zeros(3, np.int32)))


@pytest.mark.gpu
def test_training_on_a_gpu_raises_the_exact_accuracy(digits: Samples) -> None:
    parameters = initial_parameters(MODEL, keccak(b"start"))
    for seed in range(3):
        update = train(task(digits, parameters=parameters, seed=seed), torch.device("cuda"))
        parameters = apply_update(parameters, update)
    assert compute_accuracy(parameters, digits) > 0.85
