"""The exact evaluator of networks with one convolution on a processor, faster than numpy's.

The integers are those of `protocol.operations`; why float64 holds them exactly, in any order, is
proved in `protocol.bounds`. Float32 holds those of the convolution, if the weights of each filter
are as small as they are in practice: all sums are integers below 2**24 then.

In the layout of `windows` the images are laid out once for several candidates, and a compiled loop
does all that lies between the two layers with weights. It is for who evaluates on behalf of many
nodes, as a simulation does: it takes torch, numba and all cores.

Source: MECHANISM 5, 12.1.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numba
import numpy as np
import torch

from d2m_node.training.convolution import ConvolutionShape, Tensors
from d2m_node.training.exact import check_products
from d2m_node.training.windows import FloatArray, Part, UInt8Array, cut_batch
from protocol.bounds import HIDDEN_BITS, INPUT_SCALE, LOGIT_BITS, WEIGHT_BITS
from protocol.evaluation import compute_logits_of_all
from protocol.fixed_point import Float64, Int32, Int64
from protocol.model import ModelDescription, validate_model
from protocol.operations import round_to_q12
from protocol.samples import SampleArray, shape_samples

_BATCH: Final = 64
"""Images that one thread takes at a time."""

_MODELS_PER_PASS: Final = 64
_PARAMETERS_PER_PASS: Final = 1 << 22
"""Candidates share the images as they are laid out, but no more of them than 32 MiB."""

_TO_HIDDEN: Final = 2.0 ** (HIDDEN_BITS - WEIGHT_BITS)

_FLOAT32_EXACT: Final = 1 << 24
"""Float32 holds all integers below."""

_FLOAT32_PROBES: Final = (((64, 30), (30, 9216)), ((128, 72), (72, 1000)), ((18, 12), (12, 144)))
"""Shapes of a convolution's factors, as `windows` multiplies them."""

assert HIDDEN_BITS + WEIGHT_BITS == LOGIT_BITS, "a last layer's product needs no shift"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Parameters ready to multiply: the weights Q12, the biases at their layer's scale.

    Those of the convolution are float32 where that is exact, else float64, as the others are.
    """

    matrix: torch.Tensor
    bias: FloatArray
    last_weight: torch.Tensor
    last_bias: torch.Tensor


class FastEvaluator:
    """Evaluates as `protocol.evaluation.Evaluator` asks; other networks by numpy.

    Raises UserError if this processor's products are not exact.
    """

    def __init__(self, threads: int) -> None:
        check_products(torch.device("cpu"))
        self._threads = threads
        self._narrow = torch.float32 if _multiplies_float32_exactly() else torch.float64

    def __call__(
        self, model: ModelDescription, candidates: Iterable[Int32], samples: SampleArray
    ) -> Int64:
        """Return the logits, shape (models, n, outputs). Raises as `compute_logits_of_all`."""
        validate_model(model)
        shape = ConvolutionShape.read(model)
        if shape is None:
            return compute_logits_of_all(model, candidates, samples)
        images = shape_samples(model, samples).astype(np.uint8, copy=False)
        remaining = iter(candidates)
        per_pass = max(1, min(_MODELS_PER_PASS, _PARAMETERS_PER_PASS // shape.parameter_count))
        results: list[Int64] = [np.zeros((0, len(images), model.outputs), dtype=np.int64)]
        with self._open_pool() as pool:
            while group := [
                _prepare(shape, one, self._narrow) for one in islice(remaining, per_pass)
            ]:
                logits = np.empty((len(group), len(images), model.outputs), dtype=np.int64)
                work = [
                    pool.submit(_evaluate, shape, group, images[batch], logits[:, batch])
                    for batch in _cut(len(images))
                ]
                for one in work:
                    one.result()
                results.append(logits)
        return np.concatenate(results)

    def _open_pool(self) -> ThreadPoolExecutor:
        """Start threads that share the images, and do their products on one core each.

        Torch counts cores for each thread anew.
        """
        return ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,))


def _cut(count: int) -> Iterator[slice]:
    for start in range(0, count, _BATCH):
        yield slice(start, start + _BATCH)


def _prepare(shape: ConvolutionShape, parameters: Int32, narrow: torch.dtype) -> _Candidate:
    if parameters.shape != (shape.parameter_count,):
        raise ValueError(f"{parameters.shape} is not the shape of the model's parameters")
    q12 = shape.split(torch.from_numpy(round_to_q12(parameters).astype(np.float64)))
    q20 = shape.split(torch.from_numpy(parameters.astype(np.float64)))
    dtype = narrow if _bound_convolution(q12) < _FLOAT32_EXACT else torch.float64
    matrix = torch.zeros(shape.matrix_shape, dtype=dtype)
    for view in shape.split_matrix(matrix):
        view.copy_(q12.weight.transpose(1, 2))
    return _Candidate(
        matrix=matrix,
        bias=(q12.bias * INPUT_SCALE).to(dtype).numpy(),
        last_weight=q12.last_weight.t(),
        last_bias=q20.last_bias * INPUT_SCALE,
    )


def _bound_convolution(q12: Tensors) -> float:
    """Return what no sum of any filter's products and bias exceeds, in whatever order."""
    largest = q12.weight.abs().sum(dim=(1, 2, 3)) + q12.bias.abs()
    return float(largest.max()) * INPUT_SCALE


def _multiplies_float32_exactly() -> bool:
    """Tell whether products of integers are, whose sums need all 24 bits of float32.

    Libraries may be told, or built, to multiply float32 in fewer bits.
    """
    generator = np.random.Generator(np.random.PCG64(1))
    for left, right in _FLOAT32_PROBES:
        pixels = generator.integers(INPUT_SCALE * 3 // 4, INPUT_SCALE, right)
        largest = (_FLOAT32_EXACT - 1) // (INPUT_SCALE * left[-1])
        weights = generator.integers(largest * 3 // 4, largest, left)
        one, other = (torch.from_numpy(array.astype(np.float32)) for array in (weights, pixels))
        if not np.array_equal(torch.mm(one, other).numpy(), weights @ pixels):
            return False
    return True


def _evaluate(
    shape: ConvolutionShape, candidates: Sequence[_Candidate], images: UInt8Array, logits: Int64
) -> None:
    """Fill the logits of some images, shape (models, n, outputs)."""
    hidden = np.empty((len(images), shape.filters, shape.windows))
    features = torch.from_numpy(hidden).view(len(images), -1)
    cut: dict[torch.dtype, Sequence[Part]] = {}
    for dtype in {one.matrix.dtype for one in candidates}:
        cut[dtype] = cut_batch(shape, len(images), dtype)
        for part in cut[dtype]:
            part.load(images, 1)
    for index, one in enumerate(candidates):
        for part in cut[one.matrix.dtype]:
            part.convolve(one.matrix)
            _pool(part.values, one.bias, hidden[part.images])
        logits[index] = torch.addmm(one.last_bias, features, one.last_weight).numpy()


@numba.njit(nogil=True)
def _pool(values: FloatArray, bias: FloatArray, hidden: Float64) -> None:
    """Take the largest of each window; then bias, relu, and the shift to HIDDEN_BITS."""
    kind = values.dtype.type
    zero, to_hidden = kind(0), kind(_TO_HIDDEN)
    count, filters, windows = hidden.shape
    for one in range(filters):
        for index in range(count):
            for place in range(windows):
                best = values[0, one, index, place]
                for member in range(1, 4):
                    best = max(best, values[member, one, index, place])
                # A power of two: the product is exact, the floor is that of the integer.
                hidden[index, one, place] = np.floor(max(best + bias[one], zero) * to_hidden)
