"""Gradients of a network with one convolution, by hand: up to three times as fast as autograd.

What the windows of the maximum read is laid out once. The convolution is then two matrix products,
one for the top row of all windows and one for the bottom row, and its four values of a window lie
in four planes. Between the products are a few loops, compiled by numba. A batch goes through
the convolution in parts that stay in the processor's cache.

The loops are compiled when a process first needs them, which takes about a second. They are not
kept on disk: numba trusts what it finds there, and a torn file would end every training. The model
alone decides who trains with them (`convolution`), so a task has one update wherever it is done.
"""

from typing import Final

import numba
import numpy as np
import numpy.typing as npt
import torch

from d2m_node.training.convolution import ConvolutionShape
from protocol.bounds import INPUT_SCALE

Float32Array = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

_PART_VALUES: Final = 1 << 18
"""Results of the convolution for one part of a batch: one megabyte."""

_NO_WINNER: Final = 4
"""Of a window whose largest value relu sets to zero: it has no gradient."""


class Scratch:
    """What a batch of ``count`` images is computed in; new memory each time would cost more."""

    def __init__(self, shape: ConvolutionShape, count: int) -> None:
        self.hidden = np.empty((count, shape.filters, shape.windows), dtype=np.float32)
        """What the linear layer reads; later its gradient."""
        self.winners = np.empty((count, shape.filters, shape.windows), dtype=np.uint8)
        self.features = torch.from_numpy(self.hidden).view(count, -1)
        size = min(count, max(1, _PART_VALUES // (4 * shape.filters * shape.windows)))
        values = torch.empty(4 * shape.filters * size * shape.windows)
        self.parts = [
            Part(shape, range(start, min(start + size, count)), values)
            for start in range(0, count, size)
        ]


class Part:
    """Some images of a batch. All parts share the memory of ``values``."""

    def __init__(self, shape: ConvolutionShape, images: range, values: torch.Tensor) -> None:
        rows, columns = shape.kernel
        count, fan_in = len(images), rows * shape.channels * (columns + 1)
        pixels = count * shape.windows
        self.images = slice(images.start, images.stop)
        shifted = torch.empty(rows + 1, shape.channels, columns + 1, count, *shape.pooled)
        self.shifted = shifted.numpy()
        """The images, shifted by (row, column), every second pixel of every second row."""
        top_bottom = values[: 4 * shape.filters * pixels].view(2, 2 * shape.filters, pixels)
        self.values = top_bottom.view(4, shape.filters, count, shape.windows).numpy()
        """What the convolution gives, for each member of a window; later its gradient."""
        # The two rows of a window read overlapping parts of the same memory.
        self.products = [
            (top_bottom[0], shifted[:-1].view(fan_in, pixels)),
            (top_bottom[1], shifted[1:].view(fan_in, pixels)),
        ]


class GradientComputer:
    """Computes the gradient of the mean cross-entropy at ``parameters``, a flat vector.

    The vector is read at each call, so an optimizer may change it in place.
    """

    def __init__(self, shape: ConvolutionShape, parameters: torch.Tensor) -> None:
        self._shape = shape
        self._now = shape.split(parameters)
        self.gradient = torch.zeros_like(parameters)
        """Of the last call; the next one overwrites it."""
        self._gradients = shape.split(self.gradient)
        rows, columns = shape.kernel
        # A row for each filter, first as the left column of a window sees it, then as the right
        # one does. It runs over (kernel row, channel, column of both together).
        matrix = torch.zeros(2, shape.filters, rows, shape.channels, columns + 1)
        self._matrix = matrix.view(2 * shape.filters, -1)
        self._left, self._right = matrix[0, ..., :columns], matrix[1, ..., 1:]
        self._scratch: dict[int, Scratch] = {}

    def compute(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Leave the gradient for uint8 images (n, channels, height, width), int64 labels (n,)."""
        count = len(images)
        if count not in self._scratch:
            self._scratch[count] = Scratch(self._shape, count)
        scratch = self._scratch[count]
        self._convolve(images, scratch)
        self._compute_last_layer(scratch.features, labels)
        self._add_up_convolution(scratch)

    def _convolve(self, images: torch.Tensor, scratch: Scratch) -> None:
        weight = self._now.weight.transpose(1, 2)
        self._left.copy_(weight)
        self._right.copy_(weight)
        bias, pixels = self._now.bias.numpy(), images.numpy()
        for part in scratch.parts:
            shift_images(pixels[part.images], part.shifted)
            for values, shifted in part.products:
                torch.mm(self._matrix, shifted, out=values)
            hidden, winners = scratch.hidden[part.images], scratch.winners[part.images]
            pool(part.values, bias, hidden, winners)

    def _compute_last_layer(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Leave the gradient of the linear layer, and that of its input in ``features``."""
        logits = torch.addmm(self._now.last_bias, features, self._now.last_weight.t())
        errors = torch.softmax(logits, dim=1)
        errors[torch.arange(len(labels)), labels] -= 1
        errors /= len(labels)
        torch.mm(errors.t(), features, out=self._gradients.last_weight)
        torch.sum(errors, dim=0, out=self._gradients.last_bias)
        torch.mm(errors, self._now.last_weight, out=features)

    def _add_up_convolution(self, scratch: Scratch) -> None:
        total = torch.zeros_like(self._matrix)
        for part in scratch.parts:
            unpool(scratch.hidden[part.images], scratch.winners[part.images], part.values)
            for values, shifted in part.products:
                total.addmm_(values, shifted.t())
        sum_winners(scratch.hidden, scratch.winners, self._gradients.bias.numpy())
        left, right = total.view(2, *self._left.shape[:-1], -1)
        gradient = left[..., :-1] + right[..., 1:]
        self._gradients.weight.copy_(gradient.transpose(1, 2))


# --- the loops that numba compiles --------------------------------------------------------------


@numba.njit(nogil=True)
def shift_images(images: UInt8Array, shifted: Float32Array) -> None:
    """Fill ``shifted``, as `Scratch` says, with numbers from 0 to 1."""
    rows, channels, columns, count, height, width = shifted.shape
    scale = np.float32(1 / INPUT_SCALE)
    for index in range(count):
        for row in range(rows):
            for channel in range(channels):
                for column in range(columns):
                    for y in range(height):
                        line = images[index, channel, 2 * y + row]
                        for x in range(width):
                            value = line[2 * x + column] * scale
                            shifted[row, channel, column, index, y, x] = value


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
