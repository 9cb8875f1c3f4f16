"""The closed set of layers: what each is, the shape it gives, and the tensors it has.

Adding a layer means: a struct here with its output shape and, if it has any, its tensors; the
proof of its bound in ``bounds.py``; its integer rule in ``operations.py``; a vector.

Sizes with two axes are always the pair (height, width), so that a layer has one encoding.
Shapes are those of one sample: (channels, height, width) or (features,).

Source: MECHANISM 12.1, DESIGN 8.
"""

from dataclasses import dataclass
from math import prod
from typing import Annotated

from msgspec import Meta, Struct

from protocol.errors import InvalidParams

MAX_DIMENSION = 1 << 16
MAX_SHIFT = 16
MAX_CLIP_LIMIT = 1 << 10

Size = Annotated[int, Meta(ge=1, le=MAX_DIMENSION)]
Margin = Annotated[int, Meta(ge=0, lt=MAX_DIMENSION)]
Pair = tuple[Size, Size]
Shape = tuple[int, ...]


class Layer(Struct, frozen=True, forbid_unknown_fields=True, tag_field="layer"):
    """One operation; the tag names it in requests and on the wire."""


class Conv2d(Layer, frozen=True, tag="conv2d", kw_only=True):
    """A cross-correlation over an image padded with zeros, and a bias per output channel."""

    out_channels: Size
    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[Margin, Margin] = (0, 0)
    bias: bool = True


class Relu(Layer, frozen=True, tag="relu"):
    """max(x, 0)."""


class MaxPool2d(Layer, frozen=True, tag="maxpool2d", kw_only=True):
    """The largest value of each window; rows and columns that fill no window are dropped."""

    kernel: Pair
    stride: Pair


class AvgPool2d(Layer, frozen=True, tag="avgpool2d", kw_only=True):
    """The mean of each window, rounded down; windows as those of the maximum."""

    kernel: Pair
    stride: Pair


class Flatten(Layer, frozen=True, tag="flatten"):
    """Row-major: channel, row, column."""


class Linear(Layer, frozen=True, tag="linear"):
    """A matrix product with a bias per output feature."""

    out_features: Size
    bias: bool = True


class Embedding(Layer, frozen=True, tag="embedding", kw_only=True):
    """A row of ``features`` values for each token; only as the first layer.

    It gives an image (features, tokens, 1), so that convolutions and pooling run over the tokens.
    """

    vocabulary: Size
    features: Size


class Scale(Layer, frozen=True, tag="scale"):
    """Division by 2**shift. It only moves the binary point: nothing is rounded."""

    shift: Annotated[int, Meta(ge=1, le=MAX_SHIFT)]


class Clip(Layer, frozen=True, tag="clip"):
    """min(max(x, -limit), limit): keeps the sums of a deep model within exact arithmetic."""

    limit: Annotated[int, Meta(ge=1, le=MAX_CLIP_LIMIT)]


AnyLayer = Conv2d | Relu | MaxPool2d | AvgPool2d | Flatten | Linear | Embedding | Scale | Clip
Weighted = Conv2d | Linear | Embedding
"""The layers that have parameters."""
Pool = MaxPool2d | AvgPool2d


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One parameter tensor of a model."""

    layer_index: int
    is_bias: bool
    shape: Shape
    fan_in: int
    """How many inputs feed each output of the layer."""

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)


def get_name(layer: AnyLayer) -> str:
    """Return the name of a layer in requests and on the wire."""
    return str(layer.__struct_config__.tag)


def compute_output_shape(layer: AnyLayer, shape: Shape) -> Shape:
    """Compute the shape after a layer; InvalidParams if the layer cannot take its input."""
    match layer:
        case Conv2d(out_channels=out_channels, kernel=kernel, padding=padding):
            for size, margin in zip(kernel, padding, strict=True):
                if margin >= size:
                    raise InvalidParams("padding", f"{margin} must be below the kernel's {size}")
            return (out_channels, *_count_windows(layer, shape, padding))
        case MaxPool2d() | AvgPool2d():
            return (shape[0], *_count_windows(layer, shape, (0, 0)))
        case Flatten():
            return (prod(shape),)
        case Linear(out_features=out_features):
            if len(shape) != 1:
                raise InvalidParams("layers", f"put flatten before linear: its input is {shape}")
            return (out_features,)
        case Embedding(features=features):
            if len(shape) != 1:
                raise InvalidParams("layers", f"embedding reads (tokens,), not {shape}")
            return (features, shape[0], 1)
        case Relu() | Scale() | Clip():
            return shape


def list_layer_tensors(layer: AnyLayer, index: int, shape: Shape) -> tuple[TensorSpec, ...]:
    """List the tensors of the layer at ``index`` whose input has ``shape``: weight, then bias.

    A convolution's weight is (out, in, height, width), a linear layer's (out, in), an embedding's
    (vocabulary, features).
    """
    match layer:
        case Conv2d(out_channels=out, kernel=kernel, bias=bias):
            weight: Shape = (out, shape[0], *kernel)
        case Linear(out_features=out, bias=bias):
            weight = (out, shape[0])
        case Embedding(vocabulary=vocabulary, features=features):
            table = (vocabulary, features)
            return (TensorSpec(layer_index=index, is_bias=False, shape=table, fan_in=1),)
        case _:
            return ()
    fan_in = prod(weight[1:])
    tensors = [TensorSpec(layer_index=index, is_bias=False, shape=weight, fan_in=fan_in)]
    if bias:
        tensors.append(TensorSpec(layer_index=index, is_bias=True, shape=(out,), fan_in=fan_in))
    return tuple(tensors)


def count_unfolded(layer: Conv2d | Linear, shape: Shape) -> int:
    """Count the values that a product reads for one sample, each as often as it reads it."""
    if isinstance(layer, Linear):
        return prod(shape)
    return shape[0] * prod(layer.kernel) * prod(compute_output_shape(layer, shape)[1:])


def count_values(layer: AnyLayer, shape: Shape) -> int:
    """Count the values of the largest array that a layer makes of one sample's input.

    A convolution pads the image, then lays out what each result is the sum of; with a large stride
    that is less than the padded image.
    """
    if not isinstance(layer, Conv2d):
        return prod(shape)
    height, width = (
        size + 2 * margin for size, margin in zip(shape[1:], layer.padding, strict=True)
    )
    return max(shape[0] * height * width, count_unfolded(layer, shape))


def count_operations(layer: AnyLayer, shape: Shape) -> int:
    """Count what a layer does for one sample: products, comparisons and sums, or values made.

    Pooling reduces the height first, then the width, as ``operations.py`` does.
    """
    after = compute_output_shape(layer, shape)
    match layer:
        case Conv2d() | Linear():
            return count_unfolded(layer, shape) * after[0]
        case MaxPool2d(kernel=kernel) | AvgPool2d(kernel=kernel):
            channels, height, width = after
            return channels * height * (kernel[0] * shape[2] + kernel[1] * width)
        case _:
            return prod(after)


def _count_windows(layer: Conv2d | Pool, shape: Shape, padding: tuple[int, int]) -> tuple[int, int]:
    """Count the windows that fit along height and width."""
    if len(shape) != 3:
        raise InvalidParams(
            "layers", f"{get_name(layer)} needs (channels, height, width), not {shape}"
        )
    counts = []
    for size, kernel, stride, margin in zip(
        shape[1:], layer.kernel, layer.stride, padding, strict=True
    ):
        if kernel > size + 2 * margin:
            raise InvalidParams("kernel", f"{layer.kernel} is larger than the input {shape}")
        counts.append((size + 2 * margin - kernel) // stride + 1)
    return (counts[0], counts[1])
