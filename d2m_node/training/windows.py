"""The convolution of a network with one convolution and a 2x2 maximum, as matrix products.

The images are laid out once: shifted by each (row, column) that a window of the maximum reads,
every second pixel of every second row. The convolution is then two products, one for the top row
of all windows and one for the bottom row, and its four values of a window lie in four planes.
"""

from collections.abc import Sequence
from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt
import torch

from d2m_node.training.convolution import ConvolutionShape

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.floating[Any]]

_PART_BYTES: Final = 1 << 20
"""Of results of the convolution for one part of a batch: it stays in a processor's cache."""


class Part:
    """Some images of a batch. All parts of one share the memory of ``values``."""

    def __init__(self, shape: ConvolutionShape, images: range, values: torch.Tensor) -> None:
        rows, columns = shape.kernel
        count, fan_in = len(images), shape.matrix_shape[1]
        pixels = count * shape.windows
        self.images = slice(images.start, images.stop)
        shifted = torch.empty(
            (rows + 1, shape.channels, columns + 1, count, *shape.pooled), dtype=values.dtype
        )
        self._shifted = shifted.numpy()
        top_bottom = values[: 4 * shape.filters * pixels].view(2, 2 * shape.filters, pixels)
        self.values = top_bottom.view(4, shape.filters, count, shape.windows).numpy()
        """What the convolution gives, without its bias, for each member of a window."""
        # The two rows of a window read overlapping parts of the same memory.
        self._products = [
            (top_bottom[0], shifted[:-1].view(fan_in, pixels)),
            (top_bottom[1], shifted[1:].view(fan_in, pixels)),
        ]
        self._turned = [(values, shifted.t()) for values, shifted in self._products]
        self._scale_type = self._shifted.dtype.type

    def load(self, images: UInt8Array, scale: float) -> None:
        """Lay out this part's images of a batch (n, channels, height, width), times ``scale``."""
        _shift_images(images[self.images], self._scale_type(scale), self._shifted)

    def convolve(self, matrix: torch.Tensor) -> None:
        """Fill ``values`` by a matrix that holds the weight as `ConvolutionShape` says."""
        for values, shifted in self._products:
            torch.mm(matrix, shifted, out=values)

    def add_gradient(self, total: torch.Tensor) -> None:
        """Add the matrix's gradient, if ``values`` holds theirs, to ``total``."""
        for values, shifted in self._turned:
            total.addmm_(values, shifted)


def cut_batch(shape: ConvolutionShape, count: int, dtype: torch.dtype) -> Sequence[Part]:
    """Cut a batch of ``count`` images into parts."""
    per_image = 4 * shape.filters * shape.windows
    size = min(count, max(1, _PART_BYTES // (per_image * dtype.itemsize)))
    values = torch.empty(per_image * size, dtype=dtype)
    return [
        Part(shape, range(start, min(start + size, count)), values)
        for start in range(0, count, size)
    ]


@numba.njit(nogil=True)
def _shift_images(images: UInt8Array, scale: float, shifted: FloatArray) -> None:
    rows, channels, columns, count, height, width = shifted.shape
    for index in range(count):
        for row in range(rows):
            for channel in range(channels):
                for column in range(columns):
                    for y in range(height):
                        line = images[index, channel, 2 * y + row]
                        for x in range(width):
                            value = line[2 * x + column] * scale
                            shifted[row, channel, column, index, y, x] = value
