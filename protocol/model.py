"""The declarative model: a list of layers from a closed set, never code.

A description travels in the request's body. Source: MECHANISM 12.1.
"""

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from hashlib import shake_256
from itertools import count
from math import isqrt
from typing import Annotated

import msgspec
import numpy as np

from protocol.bounds import HIDDEN_BITS, INPUT_SCALE, Range, compute_layer_range
from protocol.errors import InvalidParams
from protocol.fixed_point import FLOAT64_EXACT, Int32
from protocol.hashing import fixed_bytes, hash_domain
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
    Shape,
    Size,
    TensorSpec,
    compute_output_shape,
    count_operations,
    count_values,
    get_name,
    list_layer_tensors,
)
from protocol.types import Digest
from protocol.update import FRACTION_BITS

MAX_LAYERS = 32
MAX_PARAMETERS = 1 << 24
MAX_ACTIVATIONS = 1 << 22
"""Values of the largest array that a layer makes of one sample (``layers.count_values``)."""
MAX_OPERATIONS = 1 << 30
"""Of one sample, in all layers (``layers.count_operations``); ``request.py`` limits them all."""
MAX_OUTPUTS = 1024
MAX_DESCRIPTION_BYTES = 1 << 14
"""No description encodes to more: it has 32 layers of a few dozen bytes each."""

_WORDS_PER_PIECE = 1 << 16


class InputKind(StrEnum):
    """What a sample is made of; `samples.py` says how its bytes are read."""

    IMAGE = "image"
    """Bytes: 0..255 stands for 0..1."""
    TABULAR = "tabular"
    """Signed 16-bit integers with 8 fractional bits: -128 to nearly 128."""
    TOKENS = "tokens"
    """Unsigned 16-bit ids below the vocabulary of the first layer, an embedding."""


class ModelDescription(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a buyer wants trained.

    ``input_shape`` is (channels, height, width) or (features,); of tokens it is (tokens,). The
    last layer is linear. With two or more ``outputs`` it gives one logit per class; with one, the
    value that a regression predicts.
    """

    input_kind: InputKind = InputKind.IMAGE
    input_shape: Annotated[tuple[Size, ...], msgspec.Meta(min_length=1, max_length=3)]
    outputs: Annotated[int, msgspec.Meta(ge=1, le=MAX_OUTPUTS)]
    layers: Annotated[tuple[AnyLayer, ...], msgspec.Meta(min_length=1, max_length=MAX_LAYERS)]

    @property
    def is_regression(self) -> bool:
        """Tell whether the model predicts a number and not a class."""
        return self.outputs == 1


def logreg(
    input_shape: Shape, outputs: int, *, input_kind: InputKind = InputKind.IMAGE
) -> ModelDescription:
    """Describe multinomial logistic regression; with one output, linear regression."""
    layers = (Flatten(), Linear(outputs))
    return ModelDescription(
        input_kind=input_kind, input_shape=input_shape, outputs=outputs, layers=layers
    )


def mlp(
    input_shape: Shape, outputs: int, *, hidden: int = 32, input_kind: InputKind = InputKind.IMAGE
) -> ModelDescription:
    """Describe a perceptron with one hidden layer."""
    layers = (Flatten(), Linear(hidden), Relu(), Linear(outputs))
    return ModelDescription(
        input_kind=input_kind, input_shape=input_shape, outputs=outputs, layers=layers
    )


def cnn(
    input_shape: Shape, outputs: int, *, channels: int = 8, kernel: int = 3
) -> ModelDescription:
    """Describe the paper's network with one convolution."""
    layers = (
        Conv2d(out_channels=channels, kernel=(kernel, kernel)),
        Relu(),
        _HALVE,
        Flatten(),
        Linear(outputs),
    )
    return ModelDescription(input_shape=input_shape, outputs=outputs, layers=layers)


def cnn_2conv(
    input_shape: Shape, outputs: int, *, channels: int = 8, kernel: int = 3
) -> ModelDescription:
    """Describe two convolutions, the second with twice the channels, that keep the image's size.

    The clip is what lets the last sums be exact. Hidden values of a trained network of this size
    are far below it.
    """
    margin = kernel // 2
    first, second = (
        Conv2d(out_channels=out, kernel=(kernel, kernel), padding=(margin, margin))
        for out in (channels, 2 * channels)
    )
    layers = (
        *(first, Relu(), _HALVE),
        *(second, Relu(), _HALVE),
        *(Clip(64), Flatten(), Linear(outputs)),
    )
    return ModelDescription(input_shape=input_shape, outputs=outputs, layers=layers)


def bag_of_tokens(
    input_shape: Shape, outputs: int, *, vocabulary: int, features: int = 16
) -> ModelDescription:
    """Describe a classifier of texts: the mean of the tokens' embeddings, in any order."""
    layers = (
        Embedding(vocabulary=vocabulary, features=features),
        AvgPool2d(kernel=(input_shape[0], 1), stride=(input_shape[0], 1)),
        Flatten(),
        Linear(outputs),
    )
    return ModelDescription(
        input_kind=InputKind.TOKENS, input_shape=input_shape, outputs=outputs, layers=layers
    )


_HALVE = MaxPool2d(kernel=(2, 2), stride=(2, 2))

PRESETS: Mapping[str, Callable[..., ModelDescription]] = {
    "logreg": logreg,
    "mlp": mlp,
    "cnn": cnn,
    "cnn-2conv": cnn_2conv,
    "bag-of-tokens": bag_of_tokens,
}


def validate_model(model: ModelDescription) -> None:
    """Check that the layers fit together, stay within the limits, and can be evaluated exactly.

    Raises
    ------
    InvalidParams
        Naming the layer and what to change.
    """
    _validate_fields(model)
    last = model.layers[-1]
    if not isinstance(last, Linear) or last.out_features != model.outputs:
        raise InvalidParams("layers", f"end with a linear layer of {model.outputs} features")
    _validate_input(model)
    _validate_sizes(model)
    for position, bound in enumerate(_iter_bounds(model)):
        if bound >= FLOAT64_EXACT:
            raise InvalidParams(
                "layers",
                f"{get_name(model.layers[position])} at position {position} may sum to "
                f"2^{bound.bit_length()}, beyond exact float64 (2^53); put a clip layer before "
                "it, or use fewer features",
            )


def _validate_fields(model: ModelDescription) -> None:
    """Check the range of each field: decoding does, building a description in Python does not."""
    try:
        msgspec.convert(msgspec.to_builtins(model), ModelDescription)
    except msgspec.ValidationError as exc:
        message, _, place = str(exc).partition(" - at `$.")
        raise InvalidParams(place.removesuffix("`"), message) from exc


def _validate_input(model: ModelDescription) -> None:
    allowed = (1,) if model.input_kind is InputKind.TOKENS else (1, 3)
    if len(model.input_shape) not in allowed:
        shapes = "(tokens,)" if allowed == (1,) else "(features,) or (channels, height, width)"
        raise InvalidParams("input_shape", f"give {shapes} for {model.input_kind} inputs")
    for position, layer in enumerate(model.layers):
        reads_tokens = position == 0 and model.input_kind is InputKind.TOKENS
        if isinstance(layer, Embedding) != reads_tokens:
            raise InvalidParams(
                "layers", "an embedding is the first layer of a model for tokens, and no other"
            )


def _validate_sizes(model: ModelDescription) -> None:
    shapes = list(iter_shapes(model))
    for position, (layer, shape) in enumerate(zip(model.layers, shapes, strict=False)):
        values = count_values(layer, shape)
        if values > MAX_ACTIVATIONS:
            raise InvalidParams(
                "layers",
                f"{get_name(layer)} at position {position} needs {values} values of one sample; "
                f"at most {MAX_ACTIVATIONS}, use fewer channels, less padding or a larger stride",
            )
    operations = count_model_operations(model)
    if operations > MAX_OPERATIONS:
        raise InvalidParams(
            "layers",
            f"{operations} operations per sample; at most {MAX_OPERATIONS}, use fewer channels, "
            "smaller kernels or a larger stride",
        )
    if count_parameters(model) > MAX_PARAMETERS:
        raise InvalidParams("layers", f"more than {MAX_PARAMETERS} parameters; use fewer features")


def iter_shapes(model: ModelDescription) -> Iterator[Shape]:
    """Yield the shape of one sample before each layer, and after the last.

    Raises InvalidParams where a layer cannot take its input.
    """
    shape = tuple(model.input_shape)
    yield shape
    for layer in model.layers:
        shape = compute_output_shape(layer, shape)
        yield shape


def list_tensors(model: ModelDescription) -> tuple[TensorSpec, ...]:
    """List the parameter tensors in the order of the flat vector: weight, bias, layer by layer.

    Each tensor is flattened row-major (MECHANISM 5).
    """
    pairs = zip(model.layers, iter_shapes(model), strict=False)
    return tuple(
        tensor
        for index, (layer, shape) in enumerate(pairs)
        for tensor in list_layer_tensors(layer, index, shape)
    )


def count_parameters(model: ModelDescription) -> int:
    """Count the values of the flat parameter vector."""
    return sum(tensor.size for tensor in list_tensors(model))


def count_model_values(model: ModelDescription) -> int:
    """Count the values of the largest array that evaluating one sample makes."""
    pairs = zip(model.layers, iter_shapes(model), strict=False)
    return max(model.outputs, *(count_values(layer, shape) for layer, shape in pairs))


def count_model_operations(model: ModelDescription) -> int:
    """Count the operations of evaluating one sample."""
    pairs = zip(model.layers, iter_shapes(model), strict=False)
    return sum(count_operations(layer, shape) for layer, shape in pairs)


def initial_parameters(model: ModelDescription, seed: Digest) -> Int32:
    """Draw the first parameters of a job, shape (d,).

    Every value is ``word % (2 * bound + 1) - bound`` with bound = isqrt(2**40 // fan_in), that is
    uniform in +-1/sqrt(fan_in) up to a bias below 2**-42. The 64-bit words, big-endian, are
    SHAKE-256 of keccak("D2M/v1/initial-parameters" | 0x00 | seed) | uint64(piece), for pieces of
    65536 words of a tensor, counted through all tensors: the keccak stream of seeds would take
    half a minute for a large model.
    """
    prefix = hash_domain("initial-parameters", fixed_bytes(seed))
    pieces = count()
    parts: list[Int32] = []
    for tensor in list_tensors(model):
        bound = isqrt((1 << 2 * FRACTION_BITS) // tensor.fan_in)
        for start in range(0, tensor.size, _WORDS_PER_PIECE):
            size = min(_WORDS_PER_PIECE, tensor.size - start)
            stream = shake_256(prefix + next(pieces).to_bytes(8, "big")).digest(8 * size)
            drawn = np.frombuffer(stream, dtype=">u8") % np.uint64(2 * bound + 1)
            parts.append((drawn.astype(np.int64) - bound).astype(np.int32))
    return np.concatenate(parts)


def get_input_range(kind: InputKind) -> Range:
    """Return where the inputs of the first layer lie; token ids are no numbers and have none."""
    match kind:
        case InputKind.IMAGE:
            return Range(0, INPUT_SCALE, bits=0)
        case InputKind.TABULAR:
            return Range(-(1 << 15) * INPUT_SCALE, ((1 << 15) - 1) * INPUT_SCALE, HIDDEN_BITS)
        case InputKind.TOKENS:
            return Range(0, 0, bits=0)


def compute_accumulator_bound(model: ModelDescription) -> int:
    """Bound every sum that evaluating the model can form, whatever its parameters and samples.

    Returns
    -------
    bound :
        Largest absolute value of any partial sum; float64 is exact while it is below 2**53.

    Source: MECHANISM 5, 12.1; the proof is that of ``bounds.compute_layer_range``. The
    one-convolution network of the specification's vector reaches 5.1e14.
    """
    return max(_iter_bounds(model))


def _iter_bounds(model: ModelDescription) -> Iterator[int]:
    """Yield the bound of each layer."""
    reached = get_input_range(model.input_kind)
    last = len(model.layers) - 1
    for position, (layer, shape) in enumerate(zip(model.layers, iter_shapes(model), strict=False)):
        reached, bound = compute_layer_range(layer, shape, reached, is_last=position == last)
        yield bound
