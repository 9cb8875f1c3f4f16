"""The exact evaluator on a torch device: the bytes of the int64 reference, from float64 kernels.

The layers' integer rules are those of `protocol.operations`, and why float64 holds them exactly
is proved in `protocol.bounds`: all values are integers below 2**53, in any order of adding. What
that asks of a kernel is that it really multiplies and adds. So:

* a product is always `torch.matmul` of float64, also for a convolution, whose input is unfolded.
  Convolution kernels may choose Winograd or FFT, which are not exact.
* float64 has no reduced mode such as TF32. Libraries can emulate it, though, so a device has to
  multiply integers exactly before it is used.
* division is by powers of two, which float64 does exactly, or in int64.

Source: MECHANISM 5, 12.1, 16.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isqrt, prod

import numpy as np
import torch
from torch.nn import functional

from d2m_node.errors import UserError
from protocol.bounds import HIDDEN_BITS, INPUT_SCALE, LOGIT_BITS, WEIGHT_BITS
from protocol.evaluation import Bias, Step, compute_logits_of_all, list_steps, pool_early
from protocol.fixed_point import FLOAT64_EXACT, Int32, Int64
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
)
from protocol.model import (
    InputKind,
    ModelDescription,
    count_model_values,
    count_parameters,
    validate_model,
)
from protocol.operations import Plain, Table, Values, Weights, prepare_parameters
from protocol.samples import TABULAR_BITS, SampleArray, shape_samples

PASS_VALUES = 1 << 25
"""Values that the widest step of one pass reads: 256 MiB, and a pass holds a few such arrays."""

_OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)
"""What CUDA's libraries say when they find no memory: torch has no type for it."""

MODELS_PER_PASS = 16
PARAMETERS_PER_PASS = 1 << 24


@dataclass(frozen=True, slots=True)
class _Activation:
    """Values of a batch for several models, 1.0 being 255 * 2**bits.

    Images are (models, n, height, width, channels), with one model where it makes no difference.
    """

    values: torch.Tensor
    bits: int


@dataclass(frozen=True, slots=True)
class _Stack:
    """The parameters of one layer for several models.

    ``weight`` is (models, fan_in, outputs), an embedding's (models, vocabulary, features). The
    bias is (models, outputs), in both precisions.
    """

    weight: torch.Tensor
    bias_q12: torch.Tensor
    bias_q20: torch.Tensor


class TorchEvaluator:
    """Evaluates on one device, as `protocol.evaluation.Evaluator` asks.

    Raises UserError if the device does not multiply exactly.
    """

    def __init__(self, device: torch.device, *, pass_values: int = PASS_VALUES) -> None:
        self._device = device
        self._pass_values = pass_values
        check_products(device)

    def __call__(
        self, model: ModelDescription, candidates: Iterable[Int32], samples: SampleArray
    ) -> Int64:
        """Return the logits, shape (models, n, outputs).

        Candidates are consumed lazily, some at a time. Raises as `compute_logits_of_all`.
        """
        validate_model(model)
        samples = shape_samples(model, samples)
        remaining = iter(candidates)
        per_pass = self._count_models_per_pass(model)
        results: list[Int64] = [np.zeros((0, len(samples), model.outputs), dtype=np.int64)]
        while group := list(islice(remaining, per_pass)):
            results.append(self._evaluate(model, group, samples))
        return np.concatenate(results)

    def _count_models_per_pass(self, model: ModelDescription) -> int:
        by_parameters = PARAMETERS_PER_PASS // count_parameters(model)
        by_values = self._pass_values // count_model_values(model)
        return max(1, min(MODELS_PER_PASS, by_parameters, by_values))

    def _evaluate(
        self, model: ModelDescription, group: Sequence[Int32], samples: SampleArray
    ) -> Int64:
        try:
            return self._evaluate_on_device(model, group, samples)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            # Others use the device too. A slow vote is a vote, and it has the same bytes.
            return compute_logits_of_all(model, group, samples)

    @torch.inference_mode()
    def _evaluate_on_device(
        self, model: ModelDescription, group: Sequence[Int32], samples: SampleArray
    ) -> Int64:
        stacks = self._load_parameters(model, group)
        steps = pool_early(list_steps(model))
        logits = np.empty((len(group), len(samples), model.outputs), dtype=np.int64)
        size = max(1, self._pass_values // (len(group) * count_model_values(model)))
        for start in range(0, len(samples), size):
            batch = self._load_samples(model.input_kind, samples[start : start + size])
            result = _run(model, steps, stacks, batch)
            logits[:, start : start + size] = result.to(torch.int64).cpu().numpy()
        return logits

    def _load_samples(self, kind: InputKind, samples: SampleArray) -> torch.Tensor:
        """Return one batch, (1, n, ...); tokens as int64, all else as float64."""
        if kind is InputKind.TOKENS:
            return torch.from_numpy(samples.astype(np.int64)).to(self._device)[None]
        # The samples travel in their own type, an eighth or a quarter of float64's size.
        values = torch.tensor(samples, device=self._device).to(torch.float64)[None]
        return values.permute(0, 1, 3, 4, 2) if values.ndim == 5 else values

    def _load_parameters(
        self, model: ModelDescription, group: Sequence[Int32]
    ) -> Mapping[int, _Stack]:
        prepared = [prepare_parameters(model, parameters, np.float64) for parameters in group]
        return {index: self._stack([one[index] for one in prepared]) for index in prepared[0]}

    def _stack(self, layers: Sequence[Weights | Table]) -> _Stack:
        def load(arrays: Sequence[Values | Int32]) -> torch.Tensor:
            return torch.from_numpy(np.stack(arrays)).to(device=self._device, dtype=torch.float64)

        none = torch.empty(0)
        tables = [layer.rows for layer in layers if isinstance(layer, Table)]
        if tables:
            return _Stack(load(tables), none, none)
        weights = [layer for layer in layers if isinstance(layer, Weights)]
        q12 = [layer.bias_q12 for layer in weights if layer.bias_q12 is not None]
        q20 = [layer.bias_q20 for layer in weights if layer.bias_q20 is not None]
        return _Stack(
            load([layer.weight for layer in weights]),
            load(q12) if q12 else none,
            load(q20) if q20 else none,
        )


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(
        status in str(error) for status in _OUT_OF_MEMORY
    )


# --- the steps ----------------------------------------------------------------------------------


def _run(
    model: ModelDescription,
    steps: Iterable[Step],
    stacks: Mapping[int, _Stack],
    batch: torch.Tensor,
) -> torch.Tensor:
    """Take a batch through all steps; logits (models, n, outputs)."""
    last = len(model.layers) - 1
    activation = _read_inputs(model.input_kind, batch)
    for step in steps:
        match step.layer:
            case Embedding():
                activation = _look_up(stacks[step.index], batch)
            case Conv2d() | Linear() as layer:
                weight = stacks[step.index].weight
                activation = _multiply(layer, activation, weight, is_last=step.index == last)
            case Bias():
                activation = _add_bias(activation, stacks[step.index])
            case layer:
                activation = _run_plain_layer(layer, activation)
    return activation.values


def _read_inputs(kind: InputKind, batch: torch.Tensor) -> _Activation:
    if kind is InputKind.TABULAR:
        return _Activation(batch * INPUT_SCALE, TABULAR_BITS)
    return _Activation(batch, bits=0)


def _look_up(table: _Stack, tokens: torch.Tensor) -> _Activation:
    """Read the rows of tokens (1, n, tokens) as an image of width 1, a channel per feature."""
    _, count, length = tokens.shape
    rows = table.weight.index_select(1, tokens.reshape(-1))
    return _Activation(rows.reshape(len(rows), count, length, 1, -1), WEIGHT_BITS)


def _multiply(
    layer: Conv2d | Linear, activation: _Activation, weight: torch.Tensor, *, is_last: bool
) -> _Activation:
    activation = _shift_to_hidden_bits(activation)
    columns = activation.values
    if isinstance(layer, Conv2d):
        columns = _unfold(layer, columns)
    matrix = columns.reshape(len(columns), -1, columns.shape[-1])
    values = torch.matmul(matrix, weight)
    bits = activation.bits + WEIGHT_BITS
    if is_last and bits < LOGIT_BITS:
        values *= 1 << (LOGIT_BITS - bits)
        bits = LOGIT_BITS
    return _Activation(values.reshape(len(values), *columns.shape[1:-1], -1), bits)


def _unfold(layer: Conv2d, images: torch.Tensor) -> torch.Tensor:
    """Lay out what each result is the sum of: (models, n, height, width, fan_in)."""
    (top, left), (rows, columns) = layer.padding, layer.stride
    padded = functional.pad(images, (0, 0, left, left, top, top))
    windows = padded.unfold(2, layer.kernel[0], rows).unfold(3, layer.kernel[1], columns)
    # The order of the weight's rows is (row, column, channel).
    return windows.permute(0, 1, 2, 3, 5, 6, 4).flatten(start_dim=4)


def _add_bias(activation: _Activation, stack: _Stack) -> _Activation:
    values, bits = activation.values, activation.bits
    at_logits = bits == LOGIT_BITS
    bias = stack.bias_q20 if at_logits else stack.bias_q12 * (1 << (bits - WEIGHT_BITS))
    values += bias.reshape(len(bias), *[1] * (values.ndim - 2), -1)
    return activation


def _run_plain_layer(layer: Plain, activation: _Activation) -> _Activation:
    values, bits = activation.values, activation.bits
    match layer:
        case Relu():
            values.clamp_(min=0)
        case Clip(limit=limit):
            end = float(limit * INPUT_SCALE << bits)
            values.clamp_(-end, end)
        case Scale(shift=shift):
            bits += shift
        case MaxPool2d():
            values = _reduce_windows(layer, values, torch.maximum)
        case AvgPool2d(kernel=kernel):
            total = _reduce_windows(layer, values, torch.add).to(torch.int64)
            mean = torch.div(total, prod(kernel), rounding_mode="floor")
            values = mean.to(torch.float64)
        case Flatten():
            # In the order (row, column, channel): the next layer's weight has it too.
            values = values.flatten(start_dim=2)
    return _Activation(values, bits)


def _reduce_windows(
    layer: Pool, images: torch.Tensor, reduce: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Reduce each window, first along the height, then along the width."""
    for axis, kernel, stride in zip((2, 3), layer.kernel, layer.stride, strict=True):
        windows = images.unfold(axis, kernel, stride)
        images = functools.reduce(reduce, windows.unbind(dim=-1))
    return images


def _shift_to_hidden_bits(activation: _Activation) -> _Activation:
    shift = activation.bits - HIDDEN_BITS
    if shift <= 0:
        return activation
    # A power of two: the product is exact, the floor is that of the integer.
    return _Activation(activation.values.mul_(2.0**-shift).floor_(), HIDDEN_BITS)


# --- is the device exact? -----------------------------------------------------------------------

_PROBES = (
    ((3, 256, 256), (3, 256, 256)),
    ((256, 256), (256, 256)),
    ((1024, 1024), (1024, 1024)),
    ((1 << 16, 27), (27, 8)),
)
"""Shapes to multiply: libraries choose the kernel by them. The last is a convolution's."""


def check_products(device: torch.device) -> None:
    """Multiply integers whose sums need all 53 bits: a batch, small, large, tall and thin.

    Raises UserError if the device gives other integers.
    """
    generator = np.random.Generator(np.random.PCG64(1))
    if not all(_is_exact(device, generator, left, right) for left, right in _PROBES):
        raise UserError(
            f"device: {device} does not multiply float64 exactly, perhaps because it is emulated; "
            "take 'cpu'"
        )


def _is_exact(
    device: torch.device,
    generator: np.random.Generator,
    left: tuple[int, ...],
    right: tuple[int, ...],
) -> bool:
    """Tell whether a product is right, by Freivalds' check modulo 2**64.

    It multiplies the product and the factors by one vector, which costs no matrix product in
    integers. The vector's entries are odd, so one wrong entry of the product always shows.
    """
    # Large ones without signs, so that the sums need all 53 bits.
    largest = isqrt((FLOAT64_EXACT - 1) // left[-1])
    one, other = (generator.integers(largest * 3 // 4, largest, size) for size in (left, right))
    vector = generator.integers(-(1 << 62), 1 << 62, (right[-1], 1)) | 1
    factors = (
        torch.from_numpy(array).to(device=device, dtype=torch.float64) for array in (one, other)
    )
    product = torch.matmul(*factors).to(torch.int64).cpu().numpy()
    return np.array_equal(product @ vector, one @ (other @ vector))
