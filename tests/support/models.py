"""Models that together have every layer and every kind of input, with parameters and samples.

The integers come from SplitMix64, so they are the same on every machine and quick to draw.
"""

from math import prod

import numpy as np

from protocol.fixed_point import Int32, Int64
from protocol.hashing import keccak
from protocol.layers import (
    AvgPool2d,
    Clip,
    Conv2d,
    Embedding,
    Flatten,
    Linear,
    MaxPool2d,
    Relu,
    Scale,
)
from protocol.model import (
    InputKind,
    ModelDescription,
    bag_of_tokens,
    cnn,
    cnn_2conv,
    count_parameters,
    logreg,
    mlp,
)
from protocol.samples import DTYPES, SampleArray

EVERY_IMAGE_LAYER = ModelDescription(
    input_shape=(2, 9, 7),
    outputs=3,
    layers=(
        Scale(2),
        MaxPool2d(kernel=(1, 2), stride=(2, 1)),
        Conv2d(out_channels=3, kernel=(3, 2), stride=(2, 1), padding=(2, 1)),
        Scale(3),
        Relu(),
        AvgPool2d(kernel=(2, 3), stride=(1, 1)),
        Clip(4),
        Conv2d(out_channels=2, kernel=(2, 1), bias=False),
        Clip(4),
        MaxPool2d(kernel=(1, 2), stride=(1, 2)),
        Flatten(),
        Linear(5, bias=False),
        Relu(),
        Clip(4),
        Linear(3),
    ),
)
TEXT_CNN = ModelDescription(
    input_kind=InputKind.TOKENS,
    input_shape=(12,),
    outputs=4,
    layers=(
        Embedding(vocabulary=50, features=6),
        Conv2d(out_channels=5, kernel=(3, 1)),
        Relu(),
        AvgPool2d(kernel=(3, 1), stride=(3, 1)),
        Clip(8),
        Flatten(),
        Linear(4),
    ),
)
MODELS = {
    "logreg": logreg((1, 14, 14), 10),
    "mlp": mlp((1, 14, 14), 10),
    "cnn": cnn((1, 14, 14), 10),
    "cnn-2conv": cnn_2conv((3, 14, 14), 10),
    "every image layer": EVERY_IMAGE_LAYER,
    "tabular": mlp((13,), 3, input_kind=InputKind.TABULAR),
    "regression": mlp((13,), 1, input_kind=InputKind.TABULAR),
    "bag of tokens": bag_of_tokens((12,), 4, vocabulary=50),
    "text cnn": TEXT_CNN,
}


def draw(label: str, count: int, bound: int) -> Int64:
    """Draw integers of -bound..bound, shape (count,)."""
    start = int.from_bytes(keccak(label.encode())[:8], "big")
    z = (np.arange(count, dtype=np.uint64) + np.uint64(start)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z % np.uint64(2 * bound + 1)).astype(np.int64) - bound


def draw_parameters(label: str, model: ModelDescription, bound: int = 1 << 18) -> Int32:
    return draw(label, count_parameters(model), bound).astype(np.int32)


def draw_samples(label: str, model: ModelDescription, count: int) -> SampleArray:
    """Draw ``count`` samples; the values of images and tables cover their whole range."""
    values = draw(f"{label} samples", count * prod(model.input_shape), 1 << 40)
    first = model.layers[0]
    if isinstance(first, Embedding):
        values %= first.vocabulary
    return values.astype(DTYPES[model.input_kind]).reshape(count, *model.input_shape)


def draw_labels(label: str, model: ModelDescription, count: int) -> Int64:
    """Draw classes, or targets of a regression."""
    values = draw(f"{label} labels", count, 1 << 20)
    return values if model.is_regression else values % model.outputs
