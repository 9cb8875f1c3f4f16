"""The declarative model: a list of layers from a closed set, never code.

A description travels in the request's body. Adding a layer means: a struct here, its output
shape, its tensors if it has any, its integer rule in ``evaluation.py`` with the proof of its
bound, and a vector. Source: MECHANISM 12.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from math import isqrt, prod
from operator import mul
from typing import Annotated

import msgspec
import numpy as np

from protocol.errors import InvalidMessage, InvalidParams
from protocol.fixed_point import FLOAT64_EXACT, Int32, Int64
from protocol.hashing import Stream
from protocol.types import Digest
from protocol.update import FRACTION_BITS, MAX_PARAMETER

MAX_LAYERS = 32
MAX_DIMENSION = 1 << 16
MAX_PARAMETERS = 1 << 21
"""Up to here a squared distance fits int64, as the trace encodes it (MECHANISM 5)."""
MAX_ACTIVATIONS = 1 << 22
MAX_CLASSES = 1024
MAX_DESCRIPTION_BYTES = 1 << 14

Size = Annotated[int, msgspec.Meta(ge=1, le=MAX_DIMENSION)]
Shape = tuple[int, ...]


class Layer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="layer"):
    """One operation; the tag names it in requests and on the wire."""


class Conv2d(Layer, frozen=True, tag="conv2d", kw_only=True):
    """A valid (unpadded) convolution with stride 1 and a bias per output channel."""

    out_channels: Size
    kernel: Size


class Relu(Layer, frozen=True, tag="relu"):
    """max(x, 0)."""


class MaxPool2(Layer, frozen=True, tag="maxpool2"):
    """The maximum of each 2 x 2 square; an odd last row or column is dropped."""


class Flatten(Layer, frozen=True, tag="flatten"):
    """Row-major: channel, row, column."""


class Linear(Layer, frozen=True, tag="linear"):
    """A matrix product with a bias per output feature."""

    out_features: Size


AnyLayer = Conv2d | Relu | MaxPool2 | Flatten | Linear


class ModelDescription(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a buyer wants trained.

    ``input_shape`` is (channels, height, width) or (features,); samples are uint8 of that shape.
    The last layer is linear and gives one logit per class.
    """

    input_shape: Annotated[tuple[Size, ...], msgspec.Meta(min_length=1, max_length=3)]
    classes: Annotated[int, msgspec.Meta(ge=2, le=MAX_CLASSES)]
    layers: Annotated[tuple[AnyLayer, ...], msgspec.Meta(min_length=1, max_length=MAX_LAYERS)]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One parameter tensor: its shape, and how many inputs feed each output of its layer."""

    shape: Shape
    fan_in: int

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)


def logreg(input_shape: Shape, classes: int) -> ModelDescription:
    """Describe multinomial logistic regression."""
    return ModelDescription(
        input_shape=input_shape, classes=classes, layers=(Flatten(), Linear(classes))
    )


def mlp(input_shape: Shape, classes: int, hidden: int = 32) -> ModelDescription:
    """Describe a perceptron with one hidden layer."""
    layers = (Flatten(), Linear(hidden), Relu(), Linear(classes))
    return ModelDescription(input_shape=input_shape, classes=classes, layers=layers)


def cnn(input_shape: Shape, classes: int, channels: int = 8, kernel: int = 3) -> ModelDescription:
    """Describe the paper's network with one convolution."""
    layers = (
        Conv2d(out_channels=channels, kernel=kernel),
        Relu(),
        MaxPool2(),
        Flatten(),
        Linear(classes),
    )
    return ModelDescription(input_shape=input_shape, classes=classes, layers=layers)


PRESETS = {"logreg": logreg, "mlp": mlp, "cnn": cnn}


def encode_model(model: ModelDescription) -> bytes:
    """Encode a description; the same description always gives the same bytes."""
    return msgspec.msgpack.encode(model)


def decode_model(data: bytes) -> ModelDescription:
    """Decode and validate a description.

    Raises
    ------
    InvalidMessage
        If the bytes are no description, or not its only encoding.
    InvalidParams
        If the description cannot work (:func:`validate_model`).
    """
    if len(data) > MAX_DESCRIPTION_BYTES:
        raise InvalidMessage(f"a model description of {len(data)} bytes is too long")
    try:
        model = msgspec.msgpack.decode(data, type=ModelDescription)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise InvalidMessage(f"no model description: {exc}") from exc
    if encode_model(model) != data:
        raise InvalidMessage("not the canonical encoding of this model description")
    validate_model(model)
    return model


def validate_model(model: ModelDescription) -> None:
    """Check that the layers fit together, stay within the limits, and can be evaluated exactly.

    Raises
    ------
    InvalidParams
        Naming the layer and what to change.
    """
    if len(model.input_shape) == 2:
        raise InvalidParams("input_shape", "give (features,) or (channels, height, width)")
    if not 1 <= len(model.layers) <= MAX_LAYERS:
        raise InvalidParams("layers", f"give 1 to {MAX_LAYERS}")
    last = model.layers[-1]
    if not isinstance(last, Linear) or last.out_features != model.classes:
        raise InvalidParams("layers", f"end with a linear layer of {model.classes} features")
    if not 2 <= model.classes <= MAX_CLASSES:
        raise InvalidParams("classes", f"give 2 to {MAX_CLASSES}")
    for position, shape in enumerate(iter_shapes(model)):
        if prod(shape) > MAX_ACTIVATIONS:
            raise InvalidParams("layers", f"shape {shape} before layer {position} is too large")
    if count_parameters(model) > MAX_PARAMETERS:
        raise InvalidParams("layers", f"more than {MAX_PARAMETERS} parameters; use fewer features")
    bound = compute_accumulator_bound(model)
    if bound >= FLOAT64_EXACT:
        raise InvalidParams(
            "layers",
            f"a sum may reach 2^{bound.bit_length()}, beyond exact float64 (2^53); "
            "use fewer features or fewer layers with parameters",
        )


def compute_output_shape(layer: AnyLayer, shape: Shape) -> Shape:
    """Compute the shape after a layer; InvalidParams if the layer cannot take its input."""
    match layer:
        case Conv2d(out_channels=out_channels, kernel=kernel):
            _, height, width = _expect_image(layer, shape)
            if kernel > min(height, width):
                raise InvalidParams("kernel", f"{kernel} is larger than the input {shape}")
            return (out_channels, height - kernel + 1, width - kernel + 1)
        case MaxPool2():
            channels, height, width = _expect_image(layer, shape)
            if min(height, width) < 2:
                raise InvalidParams("layers", f"maxpool2 needs at least 2 x 2, not {shape}")
            return (channels, height // 2, width // 2)
        case Flatten():
            return (reduce(mul, shape),)
        case Linear(out_features=out_features):
            if len(shape) != 1:
                raise InvalidParams("layers", f"put flatten before linear: its input is {shape}")
            return (out_features,)
        case Relu():
            return shape


def iter_shapes(model: ModelDescription) -> Iterator[Shape]:
    """Yield the shape of one sample before each layer, and after the last."""
    shape = tuple(model.input_shape)
    yield shape
    for layer in model.layers:
        shape = compute_output_shape(layer, shape)
        yield shape


def list_tensors(model: ModelDescription) -> tuple[TensorSpec, ...]:
    """List the parameter tensors in the order of the flat vector: weight, bias, layer by layer.

    A convolution's weight is (out, in, kernel, kernel), a linear layer's (out, in); each tensor
    is flattened row-major (MECHANISM 5).
    """
    tensors: list[TensorSpec] = []
    for layer, shape in zip(model.layers, iter_shapes(model), strict=False):
        weight: Shape
        match layer:
            case Conv2d(out_channels=out, kernel=kernel):
                weight = (out, shape[0], kernel, kernel)
            case Linear(out_features=out):
                weight = (out, shape[0])
            case _:
                continue
        fan_in = prod(weight[1:])
        tensors += [TensorSpec(weight, fan_in), TensorSpec((weight[0],), fan_in)]
    return tuple(tensors)


def count_parameters(model: ModelDescription) -> int:
    """Count the values of the flat parameter vector."""
    return sum(tensor.size for tensor in list_tensors(model))


def initial_parameters(model: ModelDescription, seed: Digest) -> Int32:
    """Draw the first parameters of a job, shape (d,).

    Every value is uniform in +-isqrt(2**40 // fan_in), that is +-1/sqrt(fan_in): drawn with
    ``below(2 * bound + 1) - bound`` from one stream, in the order of the flat vector.
    """
    stream = Stream(seed, "initial-parameters")
    parts: list[Int64] = []
    for tensor in list_tensors(model):
        bound = isqrt((1 << 2 * FRACTION_BITS) // tensor.fan_in)
        parts.append(stream.below_many(2 * bound + 1, tensor.size) - bound)
    return np.concatenate(parts).astype(np.int32)


INPUT_SCALE = 255
"""A pixel of 255 stands for 1.0: every activation carries this factor."""

WEIGHT_BITS = 12
HIDDEN_BITS = 8
LOGIT_BITS = 20
MAX_WEIGHT_Q12 = (1 << 15) - 1


def compute_accumulator_bound(model: ModelDescription) -> int:
    """Bound every sum that evaluating the model can form, whatever its parameters.

    An activation with ``bits`` fractional bits enters a layer with parameters at no more than
    HIDDEN_BITS (floor shift). The sum of ``fan_in`` products and the bias is at most

        fan_in * activation * MAX_WEIGHT_Q12 + bias,

    and so is each of its partial sums, because it bounds the sum of the absolute values. Relu,
    pooling and flatten do not enlarge. The last layer's sum is shifted up to LOGIT_BITS if its
    input was a raw pixel (``logreg``).

    Returns
    -------
    bound :
        Largest absolute value; float64 is exact while it is below 2**53.

    Source: MECHANISM 5, 12.1. The one-convolution network of its vector reaches 5.1e14.
    """
    activation, bits, largest = INPUT_SCALE, 0, INPUT_SCALE
    weights = list_tensors(model)[::2]
    for position, weight in enumerate(weights):
        if bits > HIDDEN_BITS:
            activation, bits = activation >> (bits - HIDDEN_BITS), HIDDEN_BITS
        bits += WEIGHT_BITS
        product = weight.fan_in * activation * MAX_WEIGHT_Q12
        if position == len(weights) - 1:
            activation = (product << (LOGIT_BITS - bits)) + MAX_PARAMETER * INPUT_SCALE
        elif bits == LOGIT_BITS:
            activation = product + MAX_PARAMETER * INPUT_SCALE
        else:
            activation = product + MAX_WEIGHT_Q12 * INPUT_SCALE
        largest = max(largest, activation)
    return largest


def _expect_image(layer: AnyLayer, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        name = type(layer).__name__.lower()
        raise InvalidParams("layers", f"{name} needs (channels, height, width), not {shape}")
    return (shape[0], shape[1], shape[2])
