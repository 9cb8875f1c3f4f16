"""Gradients of a network with one convolution, by hand: up to three times as fast as autograd.

Matrix products of torch, in the layout of `windows`, and between them a few loops that numba
compiles. A batch goes through the convolution in parts that stay in the processor's cache.

The loops are compiled when a process first needs them, which takes about a second. They are not
kept on disk: numba trusts what it finds there, and a torn file would end every training. The model
alone decides who trains with them (`convolution`), so a task has one update wherever it is done.
"""

from typing import Final

import numba
import numpy as np
import torch

from d2m_node.training.convolution import ConvolutionShape
from d2m_node.training.models import Float32Array
from d2m_node.training.windows import UInt8Array, cut_batch
from protocol.bounds import INPUT_SCALE

_NO_WINNER: Final = 4
"""Of a window whose largest value relu sets to zero: it has no gradient."""


class Scratch:
    """What a batch of ``count`` images is computed in; new memory each time would cost more."""

    def __init__(self, shape: ConvolutionShape, count: int) -> None:
        self.hidden = np.empty((count, shape.filters, shape.windows), dtype=np.float32)
        """What the linear layer reads; later its gradient."""
        self.winners = np.empty((count, shape.filters, shape.windows), dtype=np.uint8)
        self.features = torch.from_numpy(self.hidden).view(count, -1)
        self.errors = torch.empty(count, shape.outputs)
        self.parts = [
            (part, self.hidden[part.images], self.winners[part.images])
            for part in cut_batch(shape, count, torch.float32)
        ]


class GradientComputer:
    """Computes the gradient of the mean cross-entropy at ``parameters``, a flat vector.

    The vector is read at each call, so an optimizer may change it in place.
    """

    def __init__(self, shape: ConvolutionShape, parameters: torch.Tensor) -> None:
        self._shape = shape
        self.gradient = torch.zeros_like(parameters)
        """Of the last call; the next one overwrites it."""
        self._now, self._gradients = shape.split(parameters), shape.split(self.gradient)
        # Views are made once: each would cost as much as a small product.
        self._bias, self._bias_gradient = self._now.bias.numpy(), self._gradients.bias.numpy()
        self._matrix = torch.zeros(shape.matrix_shape)
        self._matrix_gradient = torch.zeros(shape.matrix_shape)
        self._columns = shape.split_matrix(self._matrix)
        self._column_gradients = shape.split_matrix(self._matrix_gradient)
        self._scratch: dict[int, Scratch] = {}

    def compute(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Leave the gradient for uint8 images (n, channels, height, width), int64 labels (n,)."""
        count = len(images)
        if count not in self._scratch:
            self._scratch[count] = Scratch(self._shape, count)
        scratch = self._scratch[count]
        self._convolve(images, scratch)
        self._compute_last_layer(scratch, labels)
        self._add_up_convolution(scratch)

    def _convolve(self, images: torch.Tensor, scratch: Scratch) -> None:
        for column in self._columns:
            column.copy_(self._now.weight.transpose(1, 2))
        pixels = images.numpy()
        for part, hidden, winners in scratch.parts:
            part.load(pixels, 1 / INPUT_SCALE)
            part.convolve(self._matrix)
            pool(part.values, self._bias, hidden, winners)

    def _compute_last_layer(self, scratch: Scratch, labels: torch.Tensor) -> None:
        """Leave the gradient of the linear layer, and that of its input in ``hidden``."""
        now, gradients, errors = self._now, self._gradients, scratch.errors
        logits = torch.addmm(now.last_bias, scratch.features, now.last_weight.t())
        torch.softmax(logits, dim=1, out=errors)
        errors.scatter_add_(1, labels[:, None], errors.new_full((len(labels), 1), -1))
        errors /= len(labels)
        torch.mm(errors.t(), scratch.features, out=gradients.last_weight)
        torch.sum(errors, dim=0, out=gradients.last_bias)
        torch.mm(errors, now.last_weight, out=scratch.features)

    def _add_up_convolution(self, scratch: Scratch) -> None:
        self._matrix_gradient.zero_()
        for part, hidden, winners in scratch.parts:
            unpool(hidden, winners, part.values)
            part.add_gradient(self._matrix_gradient)
        sum_winners(scratch.hidden, scratch.winners, self._bias_gradient)
        left, right = self._column_gradients
        torch.add(left, right, out=self._gradients.weight.transpose(1, 2))


# --- the loops that numba compiles --------------------------------------------------------------


@numba.njit(nogil=True)
def pool(
    values: Float32Array, bias: Float32Array, hidden: Float32Array, winners: UInt8Array
) -> None:
    """Take the largest of each window, the first of equal ones; then bias and relu."""
    count, filters, windows = hidden.shape
    for one in range(filters):
        for index in range(count):
            for place in range(windows):
                best = values[0, one, index, place]
                winner = np.uint8(0)
                for member in range(1, 4):
                    value = values[member, one, index, place]
                    if value > best:
                        best = value
                        winner = np.uint8(member)
                best += bias[one]
                if best <= 0:
                    best = np.float32(0)
                    winner = np.uint8(_NO_WINNER)
                hidden[index, one, place] = best
                winners[index, one, place] = winner


@numba.njit(nogil=True)
def unpool(gradients: Float32Array, winners: UInt8Array, values: Float32Array) -> None:
    """Give each window's gradient to its winner in ``values``."""
    count, filters, windows = gradients.shape
    for member in range(4):
        for one in range(filters):
            for index in range(count):
                for place in range(windows):
                    is_winner = winners[index, one, place] == member
                    gradient = gradients[index, one, place] if is_winner else np.float32(0)
                    values[member, one, index, place] = gradient


@numba.njit(nogil=True, fastmath={"reassoc", "nsz"})
def sum_winners(gradients: Float32Array, winners: UInt8Array, totals: Float32Array) -> None:
    """Sum the gradients of all windows with a winner, for each filter and in any order."""
    count, filters, windows = gradients.shape
    totals[:] = 0
    for index in range(count):
        for one in range(filters):
            total = np.float32(0)
            for place in range(windows):
                has_winner = winners[index, one, place] != _NO_WINNER
                total += gradients[index, one, place] if has_winner else np.float32(0)
            totals[one] += total
