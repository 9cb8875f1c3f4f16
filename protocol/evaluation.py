"""The canonical evaluator: model and samples to logits, logits to a utility, in exact integers.

Scales (MECHANISM 12.1, generalised to any stack of conv2d, relu, maxpool2, flatten, linear).
A value of 1.0 is held as 255 * 2**bits:

* samples are uint8: bits = 0. Weights are Q12, ``clip((w + 128) >> 8, -32767, 32767)``.
* a layer with parameters multiplies: bits = 12 after raw samples, 20 after a hidden layer.
  Its bias is brought to the same scale: ``w12 * 255`` at 12 bits, ``w * 255`` at 20 bits.
* before the next layer with parameters, the activation is floor-shifted to 8 bits (``>> 4`` or
  ``>> 12``). Floor shifting is monotone and keeps zero, so it commutes with relu and maxpool2:
  shifting late, after pooling, gives the integers of shifting at once.
* logits have 20 bits. If the last layer reads raw samples (``logreg``), its sum has 12 bits and
  is shifted up by 8 before ``w * 255`` is added.

All sums stay below ``model.compute_accumulator_bound`` < 2**53, so float64 matrix products give
the same integers as int64 arithmetic, in any order and batch size.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from protocol.fixed_point import LOG2E_Q16, Float64, Int32, Int64, exp2_16, log2_16
from protocol.model import (
    HIDDEN_BITS,
    INPUT_SCALE,
    LOGIT_BITS,
    MAX_WEIGHT_Q12,
    WEIGHT_BITS,
    AnyLayer,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2,
    ModelDescription,
    Relu,
    count_parameters,
    iter_shapes,
    list_tensors,
    validate_model,
)
from protocol.terms import Metric
from protocol.types import UtilityQ20

UInt8 = NDArray[np.uint8]
Values = Float64 | Int64

MAX_CROSS_ENTROPY_BITS = 16
_MIN_LOG_Q16 = -(30 << 16)
_FAR_BELOW = -(1 << 34)
# A logit this far below the largest is below 2**-30 of it, so clipping first changes nothing
# and keeps the product with LOG2E_Q16 inside int64.

_BATCH_VALUES = 1 << 19
_MODELS_PER_PASS = 16


@dataclass(frozen=True, slots=True)
class _Activation:
    """Values of a batch, 1.0 being 255 * 2**bits; images are (n, height, width, channels).

    Channels come last inside the evaluator, so that a convolution is one matrix product.
    """

    values: Values
    bits: int


@dataclass(frozen=True, slots=True)
class _Tensors:
    """Parameters of one layer, ready to multiply: weight (inputs, outputs), biases (outputs,)."""

    weight: Values
    bias_q12: Values
    bias_q20: Values


class Evaluator(Protocol):
    """Evaluates several parameter vectors of one model, by whatever path gives the same integers.

    :func:`compute_logits_of_all` is one; another may use an accelerator.
    """

    def __call__(
        self, model: ModelDescription, candidates: Iterable[Int32], samples: UInt8
    ) -> Int64:
        """Return the logits, shape (models, n, classes)."""


def compute_logits(model: ModelDescription, parameters: Int32, samples: UInt8) -> Int64:
    """Evaluate one model.

    Parameters
    ----------
    model :
        A description that ``validate_model`` accepts.
    parameters : shape (d,)
        Q20 integers.
    samples : shape (n, *input_shape), or any shape of n rows with as many values
        Pixels 0..255.

    Returns
    -------
    logits : shape (n, classes)
        In units of 1 / (255 * 2**20).

    Raises
    ------
    InvalidParams
        If the description is not valid.
    ValueError
        If the shapes do not fit.
    """
    logits: Int64 = compute_logits_of_all(model, [parameters], samples)[0]
    return logits


def compute_logits_of_all(
    model: ModelDescription, candidates: Iterable[Int32], samples: UInt8
) -> Int64:
    """Evaluate several parameter vectors of one model; shape (models, n, classes).

    The batches of samples are prepared once for up to 16 candidates, which are consumed lazily:
    no more than that many are held at a time. Otherwise as :func:`compute_logits`.
    """
    return _evaluate(model, candidates, samples, np.float64)


def compute_logits_reference(model: ModelDescription, parameters: Int32, samples: UInt8) -> Int64:
    """Evaluate one model in int64 throughout: slower, the definition of what is right."""
    logits: Int64 = _evaluate(model, [parameters], samples, np.int64)[0]
    return logits


def predict(logits: Int64) -> Int64:
    """Choose the class with the largest logit, the smaller class on a tie; shape (n,)."""
    classes: Int64 = np.argmax(logits, axis=-1).astype(np.int64)
    return classes


def compute_utility(metric: Metric, logits: Int64, labels: Sequence[int] | Int64) -> UtilityQ20:
    """Measure how good logits are.

    Parameters
    ----------
    metric :
        ACC: the share of right predictions. NEG_CE: minus the mean cross-entropy in bits, at
        most 16 per sample.
    logits : shape (n, classes)
    labels : shape (n,)
        Right classes.

    Returns
    -------
    utility :
        Q20, rounded down for ACC; for NEG_CE the loss is rounded down.

    Source: MECHANISM 12.1.
    """
    classes = np.asarray(labels, dtype=np.int64)
    count = len(classes)
    if count == 0 or logits.shape[0] != count:
        raise ValueError(f"{logits.shape[0]} rows of logits for {count} labels")
    if metric is Metric.ACC:
        correct = int(np.count_nonzero(predict(logits) == classes))
        return UtilityQ20((correct << 20) // count)
    loss_q16 = int(compute_cross_entropy(logits, classes).sum())
    return UtilityQ20(-((loss_q16 << 4) // count))


def compute_cross_entropy(logits: Int64, labels: Int64) -> Int64:
    """Compute each sample's cross-entropy in bits, Q16, at most 16 bits; shape (n,)."""
    below_largest = np.maximum(logits - logits.max(axis=1, keepdims=True), _FAR_BELOW)
    logs = (below_largest * LOG2E_Q16) // (INPUT_SCALE << LOGIT_BITS)
    logs = np.maximum(logs, _MIN_LOG_Q16)
    total = (exp2_16(logs & 0xFFFF) >> -(logs >> 16)).sum(axis=1)
    of_label = logs[np.arange(len(labels)), labels]
    loss: Int64 = log2_16(total) + _MIN_LOG_Q16 - of_label
    return np.minimum(loss, MAX_CROSS_ENTROPY_BITS << 16)


def _evaluate(
    model: ModelDescription, candidates: Iterable[Int32], samples: UInt8, dtype: DTypeLike
) -> Int64:
    validate_model(model)
    rows = samples.reshape(len(samples), prod(model.input_shape))
    split = next(i for i, layer in enumerate(model.layers) if isinstance(layer, Conv2d | Linear))
    results: list[Int64] = []
    remaining = iter(candidates)
    while group := [
        _prepare_tensors(model, parameters, dtype)
        for parameters in islice(remaining, _MODELS_PER_PASS)
    ]:
        parts: list[list[Int64]] = [[] for _ in group]
        for batch in _iter_batches(model, rows, dtype):
            columns = _prepare_columns(model, split, batch)
            for tensors, part in zip(group, parts, strict=True):
                part.append(_run_model(model.layers[split:], tensors, columns))
        results += [np.concatenate(part) for part in parts]
    if not results:
        return np.zeros((0, len(rows), model.classes), dtype=np.int64)
    return np.stack(results)


@dataclass(frozen=True, slots=True)
class _Columns:
    """The input of a layer with parameters as one matrix (rows, fan_in).

    ``lead`` is the shape of the rows: (n,) for linear, (n, height, width) for a convolution.
    """

    matrix: Values
    lead: tuple[int, ...]
    bits: int


def _iter_batches(model: ModelDescription, rows: UInt8, dtype: DTypeLike) -> Iterator[_Activation]:
    size = max(1, _BATCH_VALUES // _compute_values_per_sample(model))
    for start in range(0, len(rows), size):
        values = rows[start : start + size].astype(dtype)
        if len(model.input_shape) == 3:
            values = values.reshape(-1, *model.input_shape).transpose(0, 2, 3, 1)
        yield _Activation(values, bits=0)


def _compute_values_per_sample(model: ModelDescription) -> int:
    shapes = list(iter_shapes(model))
    unfolded = [
        shapes[i][0] * layer.kernel**2 * prod(shapes[i + 1][1:])
        for i, layer in enumerate(model.layers)
        if isinstance(layer, Conv2d)
    ]
    return max(unfolded + [prod(shape) for shape in shapes])


def _prepare_tensors(
    model: ModelDescription, parameters: Int32, dtype: DTypeLike
) -> tuple[_Tensors, ...]:
    if parameters.shape != (count_parameters(model),):
        raise ValueError(f"{parameters.shape} is not the shape of the model's parameters")
    q12 = np.clip((parameters + 128) >> 8, -MAX_WEIGHT_Q12, MAX_WEIGHT_Q12)
    prepared = []
    start = 0
    specs = list_tensors(model)
    for weight_spec, bias_spec in zip(specs[::2], specs[1::2], strict=True):
        middle = start + weight_spec.size
        end = middle + bias_spec.size
        weight = q12[start:middle].astype(dtype).reshape(weight_spec.shape)
        if weight.ndim == 4:  # the order of the columns is (row, column, channel)
            weight = weight.transpose(2, 3, 1, 0).reshape(-1, weight_spec.shape[0])
        else:
            weight = weight.T
        bias_q12 = q12[middle:end].astype(dtype) * INPUT_SCALE
        bias_q20 = parameters[middle:end].astype(dtype) * INPUT_SCALE
        prepared.append(_Tensors(weight, bias_q12, bias_q20))
        start = end
    return tuple(prepared)


def _prepare_columns(model: ModelDescription, split: int, batch: _Activation) -> _Columns:
    """Run what does not depend on parameters: it is the same for all candidates."""
    for layer in model.layers[:split]:
        batch = _run_plain_layer(layer, batch)
    first = model.layers[split]
    assert isinstance(first, Conv2d | Linear)
    return _unfold(first, batch)


def _run_model(layers: Sequence[AnyLayer], tensors: Sequence[_Tensors], columns: _Columns) -> Int64:
    """Run the layers from the first one with parameters, whose input is already unfolded."""
    remaining = list(tensors)
    activation = _multiply(columns, remaining.pop(0), is_last=not remaining)
    for layer in layers[1:]:
        if isinstance(layer, Conv2d | Linear):
            unfolded = _unfold(layer, activation)
            activation = _multiply(unfolded, remaining.pop(0), is_last=not remaining)
        else:
            activation = _run_plain_layer(layer, activation)
    return activation.values.astype(np.int64)


def _multiply(columns: _Columns, tensors: _Tensors, *, is_last: bool) -> _Activation:
    values = (columns.matrix @ tensors.weight).reshape(*columns.lead, -1)
    bits = columns.bits + WEIGHT_BITS
    if is_last:
        values *= 1 << (LOGIT_BITS - bits)
        bits = LOGIT_BITS
    values += tensors.bias_q20 if bits == LOGIT_BITS else tensors.bias_q12
    return _Activation(values, bits)


def _unfold(layer: Conv2d | Linear, activation: _Activation) -> _Columns:
    activation = _shift_to_hidden_bits(activation)
    values = activation.values
    if isinstance(layer, Linear):
        return _Columns(values, (len(values),), activation.bits)
    count, height, width, channels = values.shape
    kernel = layer.kernel
    lead = (count, height - kernel + 1, width - kernel + 1)
    # One row of this array is one shifted copy of the image: long runs to copy. The matrix
    # product reads its transpose in place.
    shifted = np.empty((kernel, kernel, channels, *lead), dtype=values.dtype)
    for row in range(kernel):
        for column in range(kernel):
            window = values[:, row : row + lead[1], column : column + lead[2], :]
            shifted[row, column] = window.transpose(3, 0, 1, 2)
    return _Columns(shifted.reshape(kernel**2 * channels, -1).T, lead, activation.bits)


def _shift_to_hidden_bits(activation: _Activation) -> _Activation:
    shift = activation.bits - HIDDEN_BITS
    if shift <= 0:
        return activation
    if activation.values.dtype == np.float64:
        # A power of two: the product is exact, the floor is that of the integer.
        return _Activation(np.floor(activation.values * 2.0**-shift), HIDDEN_BITS)
    return _Activation(activation.values.astype(np.int64) >> shift, HIDDEN_BITS)


def _run_plain_layer(layer: AnyLayer, activation: _Activation) -> _Activation:
    """Run a layer without parameters."""
    values = activation.values
    match layer:
        case Relu():
            values = np.maximum(values, 0)
        case MaxPool2():
            height, width = values.shape[1] // 2 * 2, values.shape[2] // 2 * 2
            rows = np.maximum(values[:, 0:height:2], values[:, 1:height:2])
            values = np.maximum(rows[:, :, 0:width:2], rows[:, :, 1:width:2])
        case Flatten():
            if values.ndim == 4:
                values = values.transpose(0, 3, 1, 2)
            values = values.reshape(len(values), -1)
        case _:
            raise AssertionError(f"{layer} has parameters")
    return _Activation(values, activation.bits)
