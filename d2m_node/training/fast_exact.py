"""The exact evaluator of networks with one convolution on a processor, faster than numpy's.

The integers are those of `protocol.operations`; why float64 holds them exactly, in any order, is
proved in `protocol.bounds`. In the layout of `windows` the images are laid out once for several
candidates, and a compiled loop does all that lies between the two layers with weights. It is for
who evaluates on behalf of many nodes, as a simulation does: it takes torch, numba and all cores.

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

from d2m_node.training.convolution import ConvolutionShape
from d2m_node.training.exact import check_products
from d2m_node.training.windows import UInt8Array, cut_batch
from protocol.bounds import HIDDEN_BITS, INPUT_SCALE, LOGIT_BITS, WEIGHT_BITS
from protocol.evaluation import compute_logits_of_all
from protocol.fixed_point import Float64, Int32, Int64
from protocol.model import ModelDescription, validate_model
from protocol.operations import round_to_q12
from protocol.samples import SampleArray, shape_samples

_BATCH: Final = 64
"""Images that one thread takes at a time."""

_MODELS_PER_PASS: Final = 16

_TO_HIDDEN: Final = 2.0 ** (HIDDEN_BITS - WEIGHT_BITS)

assert HIDDEN_BITS + WEIGHT_BITS == LOGIT_BITS, "a last layer's product needs no shift"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Parameters ready to multiply, float64: the weights Q12, the biases at their layer's scale."""

    matrix: torch.Tensor
    bias: Float64
    last_weight: torch.Tensor
    last_bias: torch.Tensor


class FastEvaluator:
    """Evaluates as `protocol.evaluation.Evaluator` asks; other networks by numpy.

    Raises UserError if this processor's products are not exact.
    """

    def __init__(self, threads: int) -> None:
        check_products(torch.device("cpu"))
        self._threads = threads

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
        results: list[Int64] = [np.zeros((0, len(images), model.outputs), dtype=np.int64)]
        with self._open_pool() as pool:
            while group := [_prepare(shape, one) for one in islice(remaining, _MODELS_PER_PASS)]:
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


def _prepare(shape: ConvolutionShape, parameters: Int32) -> _Candidate:
    if parameters.shape != (shape.parameter_count,):
        raise ValueError(f"{parameters.shape} is not the shape of the model's parameters")
    q12 = shape.split(torch.from_numpy(round_to_q12(parameters).astype(np.float64)))
    q20 = shape.split(torch.from_numpy(parameters.astype(np.float64)))
    matrix = torch.zeros(shape.matrix_shape, dtype=torch.float64)
    for view in shape.split_matrix(matrix):
        view.copy_(q12.weight.transpose(1, 2))
    return _Candidate(
        matrix=matrix,
        bias=(q12.bias * INPUT_SCALE).numpy(),
        last_weight=q12.last_weight.t(),
        last_bias=q20.last_bias * INPUT_SCALE,
    )


def _evaluate(
    shape: ConvolutionShape, candidates: Sequence[_Candidate], images: UInt8Array, logits: Int64
) -> None:
    """Fill the logits of some images, shape (models, n, outputs)."""
    hidden = np.empty((len(images), shape.filters, shape.windows))
    features = torch.from_numpy(hidden).view(len(images), -1)
    parts = cut_batch(shape, len(images), torch.float64)
    for part in parts:
        part.load(images, 1)
    for index, one in enumerate(candidates):
        for part in parts:
            part.convolve(one.matrix)
            _pool(part.values, one.bias, hidden[part.images])
        logits[index] = torch.addmm(one.last_bias, features, one.last_weight).numpy()


@numba.njit(nogil=True)
def _pool(values: Float64, bias: Float64, hidden: Float64) -> None:
    """Take the largest of each window; then bias, relu, and the shift to HIDDEN_BITS."""
    count, filters, windows = hidden.shape
    for one in range(filters):
        for index in range(count):
            for place in range(windows):
                best = values[0, one, index, place]
                for member in range(1, 4):
                    best = max(best, values[member, one, index, place])
                # A power of two: the product is exact, the floor is that of the integer.
                best = np.floor(max(best + bias[one], 0.0) * _TO_HIDDEN)
                hidden[index, one, place] = best
