"""A seller's training raises the exact utility, for every kind of input and every metric."""

import numpy as np
import pytest
import torch

from d2m_node.ports import Samples, TrainingTask
from d2m_node.training.local import train_locally
from protocol.errors import InvalidParams
from protocol.evaluation import compute_logits
from protocol.hashing import keccak
from protocol.layers import Clip, Conv2d, Embedding, Flatten, Linear, MaxPool2d, Relu, Scale
from protocol.metrics import compute_utility, validate_metric
from protocol.model import (
    InputKind,
    ModelDescription,
    bag_of_tokens,
    cnn_2conv,
    initial_parameters,
    logreg,
    mlp,
    validate_model,
)
from protocol.request import TrainingSpec
from protocol.samples import TABULAR_BITS, TARGET_BITS
from protocol.terms import Metric
from protocol.update import apply_update

VOCABULARY, WORDS = 30, 12
CLASSES = 3
SPEC = TrainingSpec(learning_rate_micros=10_000, batch_size=16, epochs=8)
TEXT_CNN = ModelDescription(
    input_kind=InputKind.TOKENS,
    input_shape=(WORDS,),
    outputs=CLASSES,
    layers=(
        Embedding(vocabulary=VOCABULARY, features=8),
        Conv2d(out_channels=8, kernel=(3, 1), padding=(1, 0)),
        Relu(),
        MaxPool2d(kernel=(WORDS, 1), stride=(1, 1)),
        Clip(16),
        Flatten(),
        Linear(CLASSES),
    ),
)
DEEP_TABLE = ModelDescription(
    input_kind=InputKind.TABULAR,
    input_shape=(4,),
    outputs=1,
    layers=(Linear(16), Relu(), Clip(32), Linear(16), Scale(1), Relu(), Clip(32), Linear(1)),
)


def make_points(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Four numbers, of which the larger ones of the first three say the class."""
    values = generator.normal(size=(count, 4))
    return values, values[:, :CLASSES].argmax(axis=1)


def make_samples(model: ModelDescription, count: int = 400) -> Samples:
    generator = np.random.Generator(np.random.PCG64(7))
    values, labels = make_points(generator, count)
    if model.is_regression:
        targets = np.abs(values[:, 0]) - values[:, 1]
        labels = np.rint(targets * (1 << TARGET_BITS)).astype(np.int64)
    match model.input_kind:
        case InputKind.IMAGE:
            inputs = generator.integers(0, 60, (count, *model.input_shape))
            for image, label in zip(inputs, labels, strict=True):
                image[:, 2 * label : 2 * label + 2] += 120
            return Samples(inputs=inputs.astype(np.uint8), labels=labels)
        case InputKind.TABULAR:
            inputs = np.rint(values * (1 << TABULAR_BITS))
            return Samples(inputs=inputs.astype(np.int16), labels=labels)
        case InputKind.TOKENS:
            topic = generator.integers(0, VOCABULARY // CLASSES, (count, WORDS)) * CLASSES
            noise = generator.integers(0, VOCABULARY, (count, WORDS))
            tokens = np.where(
                generator.random((count, WORDS)) < 0.5, topic + labels[:, None], noise
            )
            return Samples(inputs=tokens.astype(np.uint16), labels=labels)


def take(samples: Samples, positions: slice) -> Samples:
    return Samples(inputs=samples.inputs[positions], labels=samples.labels[positions])


def train(model: ModelDescription, parameters: np.ndarray, samples: Samples) -> np.ndarray:
    task = TrainingTask(model=model, parameters=parameters, spec=SPEC, samples=samples, seed=1)
    return train_locally(task, device=torch.device("cpu"), check_cancelled=lambda: None)


TABLE = mlp((4,), CLASSES, hidden=16, input_kind=InputKind.TABULAR)
CASES = {
    "image, accuracy": (cnn_2conv((1, 8, 8), CLASSES, channels=4), Metric.ACC, 0.9),
    "image, macro-F1": (logreg((1, 8, 8), CLASSES), Metric.MACRO_F1, 0.9),
    "table, accuracy": (TABLE, Metric.ACC, 0.85),
    "table, cross-entropy": (TABLE, Metric.NEG_CE, -0.6),
    "table, macro-F1": (TABLE, Metric.MACRO_F1, 0.85),
    "table, squared error": (DEEP_TABLE, Metric.NEG_MSE, -0.2),
    "tokens, accuracy": (bag_of_tokens((WORDS,), CLASSES, vocabulary=VOCABULARY), Metric.ACC, 0.85),
    "tokens, macro-F1": (TEXT_CNN, Metric.MACRO_F1, 0.8),
}


@pytest.mark.parametrize(("model", "metric", "reached"), CASES.values(), ids=CASES)
def test_training_raises_the_exact_utility_on_samples_it_did_not_see(
    model: ModelDescription, metric: Metric, reached: float
) -> None:
    validate_model(model)
    validate_metric(metric, model)
    samples = make_samples(model)
    held_out = take(samples, slice(0, 150))
    parameters = initial_parameters(model, keccak(b"start"))
    utilities = []
    for _ in range(3):
        logits = compute_logits(model, parameters, held_out.inputs)
        utilities.append(compute_utility(metric, logits, held_out.labels) / 2**20)
        update = train(model, parameters, take(samples, slice(150, None)))
        parameters = apply_update(parameters, update)
    assert utilities[0] < utilities[1]
    assert utilities[0] < reached < utilities[2]


def test_tokens_outside_the_vocabulary_are_refused() -> None:
    model = bag_of_tokens((WORDS,), CLASSES, vocabulary=VOCABULARY)
    samples = make_samples(model, 20)
    samples.inputs[3, 2] = VOCABULARY
    with pytest.raises(InvalidParams, match="token 30 in a model for 30 tokens"):
        train(model, initial_parameters(model, keccak(b"start")), samples)


def test_samples_of_another_kind_are_refused() -> None:
    samples = make_samples(TABLE, 20)
    image = logreg((4,), CLASSES)
    with pytest.raises(InvalidParams, match="samples of type int16"):
        train(image, initial_parameters(image, keccak(b"start")), samples)
