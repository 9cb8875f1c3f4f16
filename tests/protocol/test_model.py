from hashlib import shake_256
from math import isqrt

import numpy as np
import pytest

from protocol.errors import InvalidParams
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
)
from protocol.model import (
    PRESETS,
    InputKind,
    ModelDescription,
    bag_of_tokens,
    cnn,
    cnn_2conv,
    count_model_operations,
    count_model_values,
    count_parameters,
    initial_parameters,
    list_tensors,
    logreg,
    mlp,
    validate_model,
)

DIGITS = (1, 8, 8)
SEED = keccak(b"seed")
HALVE = MaxPool2d(kernel=(2, 2), stride=(2, 2))
IMAGE_PRESETS = {name: preset for name, preset in PRESETS.items() if name != "bag-of-tokens"}


def describe(
    *layers: object, shape: tuple[int, ...] = DIGITS, kind: InputKind = InputKind.IMAGE
) -> ModelDescription:
    return ModelDescription(
        input_kind=kind,
        input_shape=shape,
        outputs=10,
        layers=layers,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("preset", IMAGE_PRESETS.values(), ids=IMAGE_PRESETS)
@pytest.mark.parametrize("shape", [DIGITS, (1, 28, 28), (3, 32, 32)])
def test_presets_are_valid_for_the_data_sets(preset, shape: tuple[int, ...]) -> None:
    validate_model(preset(shape, 10))


@pytest.mark.parametrize("outputs", [1, 3])
def test_presets_are_valid_for_tables_and_texts(outputs: int) -> None:
    validate_model(logreg((100,), outputs, input_kind=InputKind.TABULAR))
    validate_model(mlp((30,), outputs, input_kind=InputKind.TABULAR))
    validate_model(bag_of_tokens((256,), outputs, vocabulary=30_000))


def test_parameters_are_counted_as_the_specification_does() -> None:
    assert count_parameters(cnn((1, 28, 28), 10, kernel=5)) == 11_738
    assert count_parameters(logreg(DIGITS, 10)) == 650
    assert count_parameters(mlp(DIGITS, 10, hidden=32)) == 64 * 32 + 32 + 32 * 10 + 10
    assert count_parameters(cnn_2conv(DIGITS, 10)) == 80 + 16 * 72 + 16 + 10 * 64 + 10
    assert count_parameters(bag_of_tokens((9,), 4, vocabulary=50)) == 50 * 16 + 4 * 16 + 4


def test_tensors_are_weight_then_bias_layer_by_layer() -> None:
    tensors = list_tensors(cnn(DIGITS, 10))
    assert [tensor.shape for tensor in tensors] == [(8, 1, 3, 3), (8,), (10, 72), (10,)]
    assert [tensor.fan_in for tensor in tensors] == [9, 9, 72, 72]
    assert [tensor.layer_index for tensor in tensors] == [0, 0, 4, 4]


TOKENS = InputKind.TOKENS
EMBEDDING = Embedding(vocabulary=9, features=2)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (describe(Linear(10)), "put flatten before linear"),
        (describe(Flatten()), "end with a linear layer of 10"),
        (describe(Flatten(), Linear(9)), "end with a linear layer of 10"),
        (describe(Flatten(), HALVE, Linear(10)), "maxpool2d needs"),
        (
            describe(Flatten(), Conv2d(out_channels=1, kernel=(1, 1)), Linear(10)),
            "conv2d needs",
        ),
        (describe(Conv2d(out_channels=1, kernel=(9, 1)), Flatten(), Linear(10)), "kernel"),
        (describe(Flatten(), Linear(10), shape=(8, 8)), "input_shape: give"),
        (describe(Flatten(), Linear(10), shape=(60_000, 10, 10)), "flatten .* at most 4194304"),
        (describe(Flatten(), Linear(2000), Linear(10), shape=(3, 64, 64)), "parameters"),
        (
            describe(
                Conv2d(out_channels=1, kernel=(99, 99)), Flatten(), Linear(10), shape=(1, 199, 199)
            ),
            "conv2d at position 0 needs 99980001 values",
        ),
        (
            describe(
                Conv2d(out_channels=512, kernel=(1, 1)),
                HALVE,
                Flatten(),
                Linear(10),
                shape=(2048, 45, 45),
            ),
            "operations per sample",
        ),
        (
            describe(
                Conv2d(
                    out_channels=1,
                    kernel=(65536, 1),
                    stride=(65536, 65536),
                    padding=(65535, 0),
                ),
                Flatten(),
                Linear(10),
                shape=(16, 1, 65536),
            ),
            "conv2d at position 0 needs 137437904896 values",
        ),
        (
            describe(
                MaxPool2d(kernel=(32768, 1), stride=(1, 1)),
                MaxPool2d(kernel=(32769, 1), stride=(1, 1)),
                Flatten(),
                Linear(10),
                shape=(64, 65536, 1),
            ),
            "operations per sample",
        ),
        (
            describe(
                AvgPool2d(kernel=(1, 1024), stride=(1, 1)),
                MaxPool2d(kernel=(1024, 1025), stride=(1, 1)),
                Flatten(),
                Linear(10),
                shape=(1, 1024, 2048),
            ),
            "operations per sample",
        ),
        (describe(), "layers: Expected `array` of length >= 1"),
        (describe(*[Relu()] * 32, Flatten(), Linear(10)), "layers: .* length <= 32"),
        (describe(Flatten(), Linear(10), shape=(0,)), r"input_shape\[0\]: Expected `int` >= 1"),
        (describe(Clip(0), Flatten(), Linear(10)), r"layers\[0\].limit: Expected `int` >= 1"),
        (
            describe(MaxPool2d(kernel=(2, 2), stride=(0, 1)), Flatten(), Linear(10)),
            r"layers\[0\].stride\[0\]: Expected `int` >= 1",
        ),
        (describe(EMBEDDING, Flatten(), Linear(10), shape=(4,)), "embedding is the first layer"),
        (describe(Linear(10), shape=(4,), kind=TOKENS), "embedding is the first layer"),
        (
            describe(EMBEDDING, Flatten(), EMBEDDING, Linear(10), shape=(4,), kind=TOKENS),
            "embedding is the first layer",
        ),
        (describe(EMBEDDING, Flatten(), Linear(10), kind=TOKENS), r"give \(tokens,\)"),
    ],
)
def test_layers_that_do_not_fit_are_refused(model: ModelDescription, complaint: str) -> None:
    with pytest.raises(InvalidParams, match=complaint):
        validate_model(model)


def test_a_model_of_ten_million_parameters_is_valid() -> None:
    model = describe(Flatten(), Linear(3200), Clip(64), Linear(10), shape=(3, 32, 32))
    validate_model(model)
    assert 9_800_000 < count_parameters(model) < 10_000_000


def test_one_output_is_a_regression() -> None:
    assert mlp((4,), 1).is_regression
    assert not mlp((4,), 2).is_regression


def test_a_model_needs_what_its_layers_need() -> None:
    model = describe(
        Conv2d(out_channels=2, kernel=(3, 3)), Relu(), HALVE, Flatten(), Clip(2), Linear(10)
    )
    # An image of 8 x 8 has 6 x 6 windows, pooled to 3 x 3.
    pooling = 2 * (2 * 3 * 6 + 2 * 3 * 3)
    assert count_model_operations(model) == 9 * 36 * 2 + 72 + pooling + 18 + 18 + 180
    assert count_model_values(model) == 9 * 36
    assert count_model_values(logreg((3,), 10)) == 10


# --- the first parameters -----------------------------------------------------------------------


@pytest.mark.parametrize("model", [mlp((2300,), 10), bag_of_tokens((5,), 2, vocabulary=20)])
def test_initial_parameters_follow_their_definition_word_by_word(model: ModelDescription) -> None:
    prefix = keccak(b"D2M/v1/initial-parameters\x00" + SEED)
    expected: list[int] = []
    piece = 0
    for tensor in list_tensors(model):
        bound = isqrt((1 << 40) // tensor.fan_in)
        for start in range(0, tensor.size, 1 << 16):
            size = min(1 << 16, tensor.size - start)
            data = shake_256(prefix + piece.to_bytes(8, "big")).digest(8 * size)
            words = (int.from_bytes(data[i : i + 8], "big") for i in range(0, len(data), 8))
            expected += [word % (2 * bound + 1) - bound for word in words]
            piece += 1
    parameters = initial_parameters(model, SEED)
    assert parameters.tolist() == expected
    assert parameters.dtype == np.int32


def test_another_seed_gives_other_parameters() -> None:
    model = logreg(DIGITS, 10)
    assert (initial_parameters(model, SEED) != initial_parameters(model, keccak(SEED))).any()
