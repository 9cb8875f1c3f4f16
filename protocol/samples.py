"""Samples as bytes, and as the arrays that evaluation and training take.

A sample is committed, stored and served as bytes: its values in row-major order, those of 16 bits
big-endian. Which values they are, the model's description says. Source: MECHANISM 12.
"""

from collections.abc import Mapping
from math import prod
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from protocol.errors import RuleViolation
from protocol.fixed_point import Int64
from protocol.layers import Embedding
from protocol.model import InputKind, ModelDescription

UInt8 = NDArray[np.uint8]
SampleArray = NDArray[np.uint8] | NDArray[np.int16] | NDArray[np.uint16]
"""Shape (n, *input shape); the type of the values is that of the model's input kind."""

SampleType = np.dtype[np.uint8] | np.dtype[np.int16] | np.dtype[np.uint16]

DTYPES: Mapping[InputKind, SampleType] = MappingProxyType(
    {
        InputKind.IMAGE: np.dtype(np.uint8),
        InputKind.TABULAR: np.dtype(np.int16),
        InputKind.TOKENS: np.dtype(np.uint16),
    }
)

TABULAR_BITS = 8
"""Fractional bits of a tabular value."""

TARGET_BITS = 16
"""Fractional bits of a regression's target."""

MAX_TARGET_Q16 = (1 << 31) - 1
"""Targets are 32-bit integers: values up to about 32768."""


def encode_samples(samples: SampleArray) -> UInt8:
    """Encode samples as rows of bytes, shape (n, bytes per sample)."""
    big_endian = np.ascontiguousarray(samples, dtype=samples.dtype.newbyteorder(">"))
    return big_endian.reshape(len(samples), -1).view(np.uint8)


def decode_samples(model: ModelDescription, rows: UInt8) -> SampleArray:
    """Decode rows of bytes, shape (n, bytes per sample), to samples of shape (n, *input shape).

    Raises
    ------
    RuleViolation
        If the rows do not have the model's length, or a token is outside its vocabulary.
    """
    width = count_sample_bytes(model)
    if rows.shape[1] != width:
        raise RuleViolation(f"samples of {rows.shape[1]} bytes, the model reads {width}")
    rows = np.ascontiguousarray(rows)
    samples: SampleArray
    match model.input_kind:
        case InputKind.IMAGE:
            samples = rows
        case InputKind.TABULAR:
            samples = rows.view(">i2").astype(np.int16)
        case InputKind.TOKENS:
            samples = rows.view(">u2").astype(np.uint16)
    samples = samples.reshape(len(rows), *model.input_shape)
    validate_samples(model, samples)
    return samples


def count_sample_bytes(model: ModelDescription) -> int:
    """Count the bytes of one sample."""
    return prod(model.input_shape) * DTYPES[model.input_kind].itemsize


def validate_samples(model: ModelDescription, samples: SampleArray) -> None:
    """Check that a model can read samples.

    Raises
    ------
    RuleViolation
        If their shape or type is not the model's, or a token is outside its vocabulary.
    """
    shape, dtype = samples.shape[1:], DTYPES[model.input_kind]
    if shape != tuple(model.input_shape):
        raise RuleViolation(f"samples of shape {shape}, the model reads {model.input_shape}")
    if samples.dtype != dtype:
        raise RuleViolation(
            f"samples of type {samples.dtype}, a model for {model.input_kind} inputs reads {dtype}"
        )
    first = model.layers[0]
    if isinstance(first, Embedding) and samples.size and samples.max() >= first.vocabulary:
        raise RuleViolation(f"token {samples.max()} in a model for {first.vocabulary} tokens")


def shape_samples(model: ModelDescription, samples: SampleArray) -> SampleArray:
    """Bring n rows of a model's values to (n, *input shape), for an evaluator.

    Raises ValueError if their type or number is not the model's.
    """
    if samples.dtype != DTYPES[model.input_kind]:
        raise ValueError(f"{samples.dtype} is not the type of {model.input_kind} samples")
    return samples.reshape(len(samples), *model.input_shape)


def validate_labels(model: ModelDescription, labels: Int64) -> None:
    """Check that labels are classes of a model or, for a regression, targets in Q16.

    Raises RuleViolation if one is not.
    """
    if not len(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    least, most = (
        (-MAX_TARGET_Q16 - 1, MAX_TARGET_Q16) if model.is_regression else (0, model.outputs - 1)
    )
    if low < least or high > most:
        raise RuleViolation(f"labels from {low} to {high}, the model's are {least} to {most}")
