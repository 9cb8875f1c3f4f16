"""The table of a model becomes a description, and each mistake in it is named."""

from typing import Any

import msgspec
import pytest

from d2m_node.errors import UserError
from d2m_node.model_table import ModelTable, read_model
from protocol.layers import AvgPool2d, Clip, Conv2d, Embedding, Flatten, Linear, MaxPool2d
from protocol.model import (
    PRESETS,
    InputKind,
    ModelDescription,
    bag_of_tokens,
    cnn_2conv,
    mlp,
    validate_model,
)


def read(**table: Any) -> ModelDescription:
    return read_model(msgspec.convert(table, ModelTable))


def read_layers(*layers: dict[str, object], **table: Any) -> ModelDescription:
    shape = table.pop("input_shape", [1, 8, 8])
    last = {"layer": "linear", "out_features": 2}
    return read(input_shape=shape, outputs=2, layers=[*layers, last], **table)


def test_presets_are_read_with_their_sizes() -> None:
    assert read(preset="cnn-2conv", input_shape=[1, 8, 8], outputs=3, channels=4) == cnn_2conv(
        (1, 8, 8), 3, channels=4
    )
    assert read(
        preset="bag-of-tokens", input_shape=[20], outputs=3, vocabulary=99, features=4
    ) == bag_of_tokens((20,), 3, vocabulary=99, features=4)


def test_a_preset_may_read_another_kind_of_input() -> None:
    table = {"preset": "mlp", "input_shape": [4], "outputs": 1}
    assert read(**table) == mlp((4,), 1)
    assert read(**table, input_kind="tabular") == mlp((4,), 1, input_kind=InputKind.TABULAR)


def test_one_number_stands_for_both_axes() -> None:
    layers = [
        {"layer": "conv2d", "out_channels": 2, "kernel": 3, "stride": 2, "padding": 1},
        {"layer": "conv2d", "out_channels": 2, "kernel": [2, 1], "bias": False},
        {"layer": "flatten"},
    ]
    assert read_layers(*layers).layers == (
        Conv2d(out_channels=2, kernel=(3, 3), stride=(2, 2), padding=(1, 1)),
        Conv2d(out_channels=2, kernel=(2, 1), bias=False),
        Flatten(),
        Linear(2),
    )


def test_a_pooling_layer_strides_by_its_kernel_if_nothing_else_is_said() -> None:
    layers = [
        {"layer": "maxpool2d", "kernel": 2},
        {"layer": "avgpool2d", "kernel": [2, 1]},
        {"layer": "maxpool2d", "kernel": 2, "stride": 1},
        {"layer": "flatten"},
    ]
    assert read_layers(*layers).layers[:3] == (
        MaxPool2d(kernel=(2, 2), stride=(2, 2)),
        AvgPool2d(kernel=(2, 1), stride=(2, 1)),
        MaxPool2d(kernel=(2, 2), stride=(1, 1)),
    )


def test_layers_may_read_tokens() -> None:
    model = read_layers(
        {"layer": "embedding", "vocabulary": 9, "features": 2},
        {"layer": "clip", "limit": 3},
        {"layer": "flatten"},
        input_kind="tokens",
        input_shape=[5],
    )
    assert model.layers[:2] == (Embedding(vocabulary=9, features=2), Clip(3))
    validate_model(model)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"layer": "softmax"}, "model.layers[0].layer: invalid value 'softmax'"),
        ({"out_features": 3}, "model.layers[0]: object missing required field `layer`"),
        ({"layer": "maxpool2d"}, "model.layers[0]: object missing required field `kernel`"),
        ({"layer": "maxpool2d", "kernel": 0}, "model.layers[0].kernel[0]: expected `int` >= 1"),
        ({"layer": "relu", "slope": 1}, "model.layers[0]: object contains unknown field `slope`"),
        ({"layer": "clip", "limit": 1025}, "model.layers[0].limit: expected `int` <= 1024"),
        ({"layer": "scale", "shift": True}, "model.layers[0].shift: expected `int`, got `bool`"),
        ({"layer": "maxpool2d", "kernel": True}, "model.layers[0].kernel"),
        ({"layer": "maxpool2d", "kernel": 9}, "model.kernel: (9, 9) is larger"),
    ],
)
def test_a_mistake_in_a_layer_names_the_layer(layer: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as failure:
        read_layers(layer, {"layer": "flatten"})
    assert message in str(failure.value)


def test_a_model_that_cannot_be_exact_is_refused_with_the_cure() -> None:
    hidden = [{"layer": "linear", "out_features": 512}, {"layer": "relu"}] * 2
    with pytest.raises(UserError, match=r"model\.layers: linear at position 5 .* clip layer"):
        read_layers({"layer": "flatten"}, *hidden)


@pytest.mark.parametrize("size", ["hidden", "vocabulary"])
def test_a_size_that_a_preset_does_not_take_is_named(size: str) -> None:
    table = {"preset": "cnn", "input_shape": [1, 8, 8], "outputs": 3}
    with pytest.raises(UserError, match=rf"model\.{size}: cnn does not take it"):
        read(**table, **{size: 3})


def test_a_size_that_a_preset_needs_is_named() -> None:
    with pytest.raises(UserError, match=r"model\.vocabulary: bag-of-tokens needs it"):
        read(preset="bag-of-tokens", input_shape=[9], outputs=3)


def test_an_unknown_preset_is_told_the_known_ones() -> None:
    with pytest.raises(UserError) as failure:
        read(preset="vit", input_shape=[9], outputs=3)
    assert all(name in str(failure.value) for name in PRESETS)
