"""What each layer does to integers, in int64 or, with the same results, in float64.

A value of 1.0 is held as 255 * 2**bits (MECHANISM 12.1, generalised to all layers):

* pixels are 0..255 at 0 bits. A tabular value v with 8 fractional bits becomes v * 255 at 8 bits.
  An embedding's row is w12 * 255 at 12 bits.
* weights are Q12: ``w12 = clip((w + 128) >> 8, -32767, 32767)``.
* conv2d and linear read their input at no more than 8 bits (floor shift) and add 12 bits. At 20
  bits the bias is ``w * 255``, below it ``w12 * 255 << (bits - 12)``.
* logits have 20 bits: a last layer with fewer is shifted up before its bias is added.
* a mean is ``floor(sum / count)`` of the integers at the scale they have; padding is zeros.
* clip's ends are ``limit * 255 * 2**bits``; scale by 2**-shift adds ``shift`` to the bits.

Every sum stays below ``model.compute_accumulator_bound`` < 2**53, so float64 is exact in any
order. Floor shifting is monotone, keeps zero and the ends of clip, so it commutes with relu,
clip and maximum: shifting late gives the integers of shifting at once.

Images are held as (n, height, width, channels): a convolution is then one matrix product. Arrays
are changed in place wherever the shape allows it; whoever passes one gives it away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import DTypeLike

from protocol.bounds import (
    HIDDEN_BITS,
    INPUT_SCALE,
    LOGIT_BITS,
    MAX_WEIGHT_Q12,
    WEIGHT_BITS,
)
from protocol.fixed_point import Float64, Int32, Int64
from protocol.layers import (
    AvgPool2d,
    Clip,
    Conv2d,
    Embedding,
    Flatten,
    Linear,
    MaxPool2d,
    Pool,
    Relu,
    Scale,
    Shape,
    TensorSpec,
    compute_output_shape,
)
from protocol.model import InputKind, ModelDescription, iter_shapes, list_tensors
from protocol.samples import TABULAR_BITS, SampleArray

Values = Float64 | Int64
Plain = Relu | MaxPool2d | AvgPool2d | Flatten | Scale | Clip
"""Layers without parameters."""


@dataclass(frozen=True, slots=True)
class Activation:
    """Values of a batch, 1.0 being 255 * 2**bits."""

    values: Values
    bits: int


@dataclass(frozen=True, slots=True)
class Columns:
    """The input of conv2d or linear as one matrix (rows, fan_in).

    ``lead`` is the shape of the rows: (n,) for linear, (n, height, width) for a convolution.
    """

    matrix: Values
    lead: Shape
    bits: int


@dataclass(frozen=True, slots=True)
class Weights:
    """Parameters of one layer, ready to multiply.

    The weight has shape (fan_in, outputs). Biases have shape (outputs,), in both precisions.
    """

    weight: Values
    bias_q12: Values | None
    bias_q20: Values | None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of an embedding at WEIGHT_BITS, shape (vocabulary, features)."""

    rows: Int32


Parameters = Mapping[int, Weights | Table]
"""What each layer multiplies with, by layer index."""


def prepare_parameters(model: ModelDescription, parameters: Int32, dtype: DTypeLike) -> Parameters:
    """Cut a flat vector of shape (d,) into what each layer multiplies with.

    Raises ValueError if the vector has another length.
    """
    specs = list_tensors(model)
    if parameters.shape != (sum(spec.size for spec in specs),):
        raise ValueError(f"{parameters.shape} is not the shape of the model's parameters")
    ends = np.cumsum([spec.size for spec in specs])
    pieces = zip(specs, np.split(parameters, ends[:-1]), strict=True)
    weights: dict[int, tuple[TensorSpec, Int32]] = {}
    biases: dict[int, Int32] = {}
    for spec, piece in pieces:
        if spec.is_bias:
            biases[spec.layer_index] = piece
        else:
            weights[spec.layer_index] = (spec, piece)
    images = _find_flattened_images(model)
    prepared: dict[int, Weights | Table] = {}
    for index, (spec, piece) in weights.items():
        if isinstance(model.layers[index], Embedding):
            prepared[index] = Table(round_to_q12(piece).reshape(spec.shape) * INPUT_SCALE)
        else:
            matrix = _order_rows(round_to_q12(piece), spec.shape, images.get(index), dtype)
            prepared[index] = Weights(matrix, *_prepare_biases(biases.get(index), dtype))
    return prepared


def round_to_q12(parameters: Int32) -> Int32:
    """Round parameters (Q20) half up to the weights of evaluation, within +-MAX_WEIGHT_Q12."""
    rounded = (parameters + 128) >> 8
    return np.clip(rounded, -MAX_WEIGHT_Q12, MAX_WEIGHT_Q12, out=rounded)


def read_inputs(kind: InputKind, samples: SampleArray, dtype: DTypeLike) -> Activation:
    """Bring images and tabular samples, shape (n, *input shape), to the evaluator's scale."""
    values = samples.astype(dtype)
    if values.ndim == 4:
        values = values.transpose(0, 2, 3, 1)
    if kind is InputKind.IMAGE:
        return Activation(values, bits=0)
    values *= INPUT_SCALE
    return Activation(values, bits=TABULAR_BITS)


def look_up(table: Table, tokens: SampleArray, dtype: DTypeLike) -> Activation:
    """Read the rows of tokens (n, tokens) as an image of width 1, a channel per feature."""
    values = table.rows[tokens].astype(dtype)
    return Activation(values[:, :, np.newaxis, :], WEIGHT_BITS)


def unfold(layer: Conv2d | Linear, activation: Activation) -> Columns:
    """Lay out what each result of a layer is the sum of, at no more than HIDDEN_BITS."""
    activation = _shift_to_hidden_bits(activation)
    values = activation.values
    if isinstance(layer, Linear):
        return Columns(values, (len(values),), activation.bits)
    count, height, width, channels = values.shape
    lead = (count, *compute_output_shape(layer, (channels, height, width))[1:])
    values = _pad(values, layer.padding)
    # One row of this array is one shifted copy of the image: long runs to copy. The matrix
    # product reads its transpose in place.
    shifted = np.empty((*layer.kernel, channels, *lead), dtype=values.dtype)
    for row, column in np.ndindex(*layer.kernel):
        window = _slice(
            _slice(values, 1, row, layer.stride[0], lead[1]), 2, column, layer.stride[1], lead[2]
        )
        shifted[row, column] = window.transpose(3, 0, 1, 2)
    fan_in = channels * prod(layer.kernel)
    return Columns(shifted.reshape(fan_in, -1).T, lead, activation.bits)


def multiply(columns: Columns, weights: Weights, *, is_last: bool) -> Activation:
    """Multiply, without the bias; logits are shifted up to LOGIT_BITS."""
    values = (columns.matrix @ weights.weight).reshape(*columns.lead, -1)
    bits = columns.bits + WEIGHT_BITS
    if is_last and bits < LOGIT_BITS:
        values *= 1 << (LOGIT_BITS - bits)
        bits = LOGIT_BITS
    return Activation(values, bits)


def add_bias(activation: Activation, weights: Weights) -> Activation:
    """Add the bias of the layer that gave this activation, if it has one."""
    values, bits = activation.values, activation.bits
    if weights.bias_q12 is None or weights.bias_q20 is None:
        return activation
    if bits == LOGIT_BITS:
        values += weights.bias_q20
    else:
        values += weights.bias_q12 * (1 << (bits - WEIGHT_BITS))
    return activation


def run_plain_layer(layer: Plain, activation: Activation) -> Activation:
    """Run a layer without parameters."""
    values, bits = activation.values, activation.bits
    match layer:
        case Relu():
            np.maximum(values, 0, out=values)
        case Clip(limit=limit):
            end = limit * INPUT_SCALE << bits
            np.clip(values, -end, end, out=values)
        case Scale(shift=shift):
            bits += shift
        case MaxPool2d():
            values = _reduce_windows(layer, values, np.maximum)
        case AvgPool2d(kernel=kernel):
            values = _floor_divide(_reduce_windows(layer, values, np.add), prod(kernel))
        case Flatten():
            # In the order (row, column, channel): the next layer's weight has it too.
            values = values.reshape(len(values), -1)
    return Activation(values, bits)


def _prepare_biases(bias: Int32 | None, dtype: DTypeLike) -> tuple[Values | None, Values | None]:
    if bias is None:
        return None, None
    q12, q20 = round_to_q12(bias).astype(dtype), bias.astype(dtype)
    return q12 * INPUT_SCALE, q20 * INPUT_SCALE


def _find_flattened_images(model: ModelDescription) -> dict[int, Shape]:
    """Find the linear layers that read a flattened image, and its shape, by layer index."""
    found: dict[int, Shape] = {}
    image: Shape | None = None
    for index, (layer, shape) in enumerate(zip(model.layers, iter_shapes(model), strict=False)):
        if isinstance(layer, Flatten) and len(shape) == 3:
            image = shape
        elif isinstance(layer, Linear) and image is not None:
            found[index] = image
            image = None
    return found


def _order_rows(weight: Int32, shape: Shape, image: Shape | None, dtype: DTypeLike) -> Values:
    """Bring a weight to (fan_in, outputs), the rows of an image in the order of its values here."""
    if image is not None:
        shape = (shape[0], *image)
    if len(shape) == 2:
        matrix: Values = weight.reshape(shape).astype(dtype).T
        return matrix
    ordered = np.ascontiguousarray(weight.reshape(shape).transpose(2, 3, 1, 0), dtype=dtype)
    return ordered.reshape(-1, shape[0])


def _pad(values: Values, padding: tuple[int, int]) -> Values:
    top, left = padding
    if not top and not left:
        return values
    count, height, width, channels = values.shape
    padded = np.zeros((count, height + 2 * top, width + 2 * left, channels), dtype=values.dtype)
    padded[:, top : top + height, left : left + width] = values
    return padded


def _slice(values: Values, axis: int, start: int, step: int, count: int) -> Values:
    """Take ``count`` positions of an axis."""
    part = slice(start, start + step * (count - 1) + 1, step)
    view: Values = values[(slice(None),) * axis + (part,)]
    return view


def _reduce_windows(layer: Pool, values: Values, reduce: np.ufunc) -> Values:
    """Reduce each window, first along the height, then along the width."""
    for axis, kernel, stride in zip((1, 2), layer.kernel, layer.stride, strict=True):
        count = (values.shape[axis] - kernel) // stride + 1
        if count == 1:
            values = reduce.reduce(_slice(values, axis, 0, 1, kernel), axis=axis, keepdims=True)
            continue
        reduced = _slice(values, axis, 0, stride, count).copy()
        for offset in range(1, kernel):
            reduce(reduced, _slice(values, axis, offset, stride, count), out=reduced)
        values = reduced
    return values


def _floor_divide(values: Values, divisor: int) -> Values:
    """Divide integers by a positive one, rounding down, in place."""
    if values.dtype == np.int64:
        return np.floor_divide(values, divisor, out=values)
    # A quotient of integers below 2**53 that is not whole is at least 1/divisor away from the
    # next integer, which is more than float64 rounds by at this size: the floor is the integer's.
    np.divide(values, divisor, out=values)
    return np.floor(values, out=values)


def _shift_to_hidden_bits(activation: Activation) -> Activation:
    shift = activation.bits - HIDDEN_BITS
    if shift <= 0:
        return activation
    # A power of two: in float64 the quotient is exact, and its floor is that of the integer.
    return Activation(_floor_divide(activation.values, 1 << shift), HIDDEN_BITS)
