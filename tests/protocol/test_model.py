from math import isqrt

import msgspec
import numpy as np
import pytest

from protocol.errors import InvalidMessage, InvalidParams
from protocol.fixed_point import FLOAT64_EXACT
from protocol.hashing import Stream, keccak
from protocol.model import (
    PRESETS,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2,
    ModelDescription,
    Relu,
    cnn,
    compute_accumulator_bound,
    count_parameters,
    decode_model,
    encode_model,
    initial_parameters,
    list_tensors,
    logreg,
    mlp,
    validate_model,
)

DIGITS = (1, 8, 8)
SEED = keccak(b"seed")


def describe(*layers: object, shape: tuple[int, ...] = DIGITS) -> ModelDescription:
    return ModelDescription(input_shape=shape, classes=10, layers=layers)  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize("shape", [DIGITS, (1, 28, 28), (3, 32, 32)])
def test_presets_are_valid_for_the_data_sets(preset, shape: tuple[int, ...]) -> None:
    validate_model(preset(shape, 10))


def test_parameters_are_counted_as_the_specification_does() -> None:
    assert count_parameters(cnn((1, 28, 28), 10, kernel=5)) == 11_738
    assert count_parameters(logreg(DIGITS, 10)) == 650
    assert count_parameters(mlp(DIGITS, 10, hidden=32)) == 64 * 32 + 32 + 32 * 10 + 10


def test_tensors_are_weight_then_bias_layer_by_layer() -> None:
    shapes = [tensor.shape for tensor in list_tensors(cnn(DIGITS, 10))]
    assert shapes == [(8, 1, 3, 3), (8,), (10, 72), (10,)]
    assert [tensor.fan_in for tensor in list_tensors(cnn(DIGITS, 10))] == [9, 9, 72, 72]


@pytest.mark.parametrize(
    "model",
    [
        describe(Linear(10)),  # an image, not flattened
        describe(Flatten()),  # no last linear layer
        describe(Flatten(), Linear(9)),  # another number of classes
        describe(Flatten(), MaxPool2(), Linear(10)),
        describe(Flatten(), Conv2d(out_channels=1, kernel=1), Linear(10)),
        describe(Conv2d(out_channels=1, kernel=9), Flatten(), Linear(10)),
        describe(Conv2d(out_channels=1, kernel=8), MaxPool2(), Flatten(), Linear(10)),
        describe(Flatten(), Linear(10), shape=(8, 8)),
        describe(Flatten(), Linear(10), shape=(60_000, 10, 10)),  # too many activations
        describe(Flatten(), Linear(10), shape=(1, 512, 512)),  # too many parameters
        describe(),
        describe(*[Relu()] * 32, Flatten(), Linear(10)),
    ],
)
def test_layers_that_do_not_fit_are_refused(model: ModelDescription) -> None:
    with pytest.raises(InvalidParams):
        validate_model(model)


def test_a_network_too_deep_for_exact_sums_is_refused() -> None:
    deep = describe(Flatten(), Linear(64), Relu(), Linear(64), Relu(), Linear(10))
    assert compute_accumulator_bound(deep) >= FLOAT64_EXACT
    with pytest.raises(InvalidParams, match="2\\^53"):
        validate_model(deep)


def test_the_bound_of_the_recorded_network_is_the_specifications() -> None:
    bound = compute_accumulator_bound(cnn((1, 28, 28), 10, kernel=5))
    assert 5.0e14 < bound < 5.4e14


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_description_survives_its_encoding(preset) -> None:
    model = preset(DIGITS, 10)
    assert decode_model(encode_model(model)) == model


def test_hostile_bytes_are_no_description() -> None:
    good = encode_model(logreg(DIGITS, 10))
    unknown = msgspec.msgpack.encode({"input_shape": [4], "classes": 2, "layers": [{"layer": "x"}]})
    loose = msgspec.msgpack.encode(
        {"classes": 10, "input_shape": [1, 8, 8], "layers": [{"layer": "flatten"}]}
    )
    for data in (b"", good[:-1], good + b"\x00", unknown, loose, bytes(1 << 15)):
        with pytest.raises(InvalidMessage):
            decode_model(data)


def test_initial_parameters_follow_the_stream_within_the_fan_in_bound() -> None:
    model = cnn(DIGITS, 10)
    stream = Stream(SEED, "initial-parameters")
    expected: list[int] = []
    for tensor in list_tensors(model):
        bound = isqrt((1 << 40) // tensor.fan_in)
        expected += [stream.below(2 * bound + 1) - bound for _ in range(tensor.size)]
    parameters = initial_parameters(model, SEED)
    assert parameters.tolist() == expected
    assert parameters.dtype == np.int32


def test_another_seed_gives_other_parameters() -> None:
    model = logreg(DIGITS, 10)
    assert (initial_parameters(model, SEED) != initial_parameters(model, keccak(SEED))).any()
