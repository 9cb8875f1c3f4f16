import pytest

from protocol.errors import InvalidParams
from protocol.layers import (
    AnyLayer,
    AvgPool2d,
    Clip,
    Conv2d,
    Embedding,
    Flatten,
    Linear,
    MaxPool2d,
    Relu,
    Scale,
    TensorSpec,
    compute_output_shape,
    count_operations,
    count_unfolded,
    count_values,
    list_layer_tensors,
)

IMAGE = (3, 9, 7)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (Conv2d(out_channels=5, kernel=(3, 3)), IMAGE, (5, 7, 5)),
        (Conv2d(out_channels=5, kernel=(3, 2), stride=(2, 3)), IMAGE, (5, 4, 2)),
        (Conv2d(out_channels=5, kernel=(3, 3), padding=(1, 1)), IMAGE, (5, 9, 7)),
        (Conv2d(out_channels=5, kernel=(4, 1), stride=(4, 1), padding=(2, 0)), IMAGE, (5, 3, 7)),
        (Conv2d(out_channels=5, kernel=(11, 9), padding=(1, 1)), IMAGE, (5, 1, 1)),
        (MaxPool2d(kernel=(2, 2), stride=(2, 2)), IMAGE, (3, 4, 3)),
        (MaxPool2d(kernel=(3, 3), stride=(1, 2)), IMAGE, (3, 7, 3)),
        (AvgPool2d(kernel=(9, 7), stride=(1, 1)), IMAGE, (3, 1, 1)),
        (Flatten(), IMAGE, (189,)),
        (Flatten(), (4,), (4,)),
        (Linear(6), (4,), (6,)),
        (Embedding(vocabulary=100, features=8), (20,), (8, 20, 1)),
        (Relu(), IMAGE, IMAGE),
        (Scale(2), (4,), (4,)),
        (Clip(2), IMAGE, IMAGE),
    ],
)
def test_a_layer_gives_the_shape_it_should(
    layer: AnyLayer, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert compute_output_shape(layer, shape) == expected


@pytest.mark.parametrize(
    ("layer", "shape", "complaint"),
    [
        (Conv2d(out_channels=1, kernel=(10, 1)), IMAGE, "kernel: .* larger than the input"),
        (Conv2d(out_channels=1, kernel=(1, 8)), IMAGE, "kernel"),
        (Conv2d(out_channels=1, kernel=(3, 3), padding=(3, 0)), IMAGE, "padding: 3 must be below"),
        (Conv2d(out_channels=1, kernel=(1, 1)), (63,), "conv2d needs"),
        (MaxPool2d(kernel=(2, 8), stride=(1, 1)), IMAGE, "kernel"),
        (AvgPool2d(kernel=(2, 2), stride=(1, 1)), (63,), "avgpool2d needs"),
        (Linear(2), IMAGE, "put flatten before linear"),
        (Embedding(vocabulary=2, features=2), IMAGE, "embedding reads"),
    ],
)
def test_a_layer_that_cannot_take_its_input_says_why(
    layer: AnyLayer, shape: tuple[int, ...], complaint: str
) -> None:
    with pytest.raises(InvalidParams, match=complaint):
        compute_output_shape(layer, shape)


def test_tensors_are_weight_then_bias() -> None:
    conv = Conv2d(out_channels=5, kernel=(3, 2))
    assert list_layer_tensors(conv, 4, IMAGE) == (
        TensorSpec(layer_index=4, is_bias=False, shape=(5, 3, 3, 2), fan_in=18),
        TensorSpec(layer_index=4, is_bias=True, shape=(5,), fan_in=18),
    )
    assert [spec.shape for spec in list_layer_tensors(Linear(6), 0, (4,))] == [(6, 4), (6,)]


def test_a_layer_without_bias_has_one_tensor() -> None:
    conv = Conv2d(out_channels=5, kernel=(3, 2), bias=False)
    assert [spec.is_bias for spec in list_layer_tensors(conv, 0, IMAGE)] == [False]
    assert [spec.shape for spec in list_layer_tensors(Linear(6, bias=False), 0, (4,))] == [(6, 4)]


def test_an_embedding_has_a_row_for_each_token() -> None:
    (table,) = list_layer_tensors(Embedding(vocabulary=9, features=2), 0, (20,))
    assert (table.shape, table.size, table.fan_in) == ((9, 2), 18, 1)


@pytest.mark.parametrize("layer", [Relu(), Flatten(), Scale(1), Clip(1)])
def test_a_plain_layer_has_no_tensors(layer: AnyLayer) -> None:
    assert list_layer_tensors(layer, 0, IMAGE) == ()


def test_a_convolution_reads_a_value_once_per_window() -> None:
    assert count_unfolded(Conv2d(out_channels=5, kernel=(3, 2)), IMAGE) == 3 * 6 * 7 * 6
    assert count_unfolded(Linear(6), (4,)) == 4


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (Conv2d(out_channels=5, kernel=(3, 2)), IMAGE, 3 * 6 * 7 * 6),
        (Conv2d(out_channels=5, kernel=(8, 1), stride=(8, 9), padding=(7, 0)), IMAGE, 3 * 23 * 7),
        (Conv2d(out_channels=5, kernel=(1, 8), stride=(9, 8), padding=(0, 7)), IMAGE, 3 * 9 * 21),
        (MaxPool2d(kernel=(3, 3), stride=(1, 2)), IMAGE, 189),
        (Linear(6), (4,), 4),
    ],
)
def test_the_largest_array_is_the_padded_image_or_what_its_windows_hold(
    layer: AnyLayer, shape: tuple[int, ...], expected: int
) -> None:
    assert count_values(layer, shape) == expected


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (Conv2d(out_channels=5, kernel=(3, 2)), IMAGE, 3 * 6 * 7 * 6 * 5),
        (Linear(6), (4,), 24),
        (MaxPool2d(kernel=(4, 3), stride=(1, 2)), IMAGE, 3 * (4 * 6 * 7 + 3 * 6 * 3)),
        (AvgPool2d(kernel=(2, 7), stride=(2, 1)), IMAGE, 3 * (2 * 4 * 7 + 7 * 4 * 1)),
        (Embedding(vocabulary=100, features=8), (20,), 160),
        (Relu(), IMAGE, 189),
    ],
)
def test_operations_are_those_of_all_windows(
    layer: AnyLayer, shape: tuple[int, ...], expected: int
) -> None:
    assert count_operations(layer, shape) == expected
