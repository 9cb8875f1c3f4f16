"""Which networks `gradients` trains and `fast_exact` evaluates, and how their vector is cut.

They are those of the shape of `protocol.model.cnn`: convolution, relu and 2x2 maximum in either
order, flatten, linear. Here is nothing of numba, so that who has other networks never loads it.
"""

from dataclasses import dataclass
from math import prod
from typing import Final, NamedTuple, Self

import torch

from protocol.layers import Conv2d, Flatten, Linear, MaxPool2d, Relu
from protocol.model import InputKind, ModelDescription, count_model_operations

MIN_OPERATIONS: Final = 1 << 15
"""Of one sample. Below, as with 8x8 digits, autograd is done before the loops are compiled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionShape:
    """The sizes of such a network."""

    channels: int
    """Of the images."""
    kernel: tuple[int, int]
    filters: int
    pooled: tuple[int, int]
    """Height and width of what is left of an image after the maximum."""
    outputs: int

    @classmethod
    def read(cls, model: ModelDescription) -> Self | None:
        """Read a valid description; None if it is of another kind, or not worth the compiling."""
        match model.layers:
            case (
                Conv2d() as convolution,
                Relu(),
                MaxPool2d() as pool,
                Flatten(),
                Linear() as last,
            ) | (Conv2d() as convolution, MaxPool2d() as pool, Relu(), Flatten(), Linear() as last):
                pass
            case _:
                return None
        if (
            model.input_kind is not InputKind.IMAGE
            or model.is_regression
            or (convolution.stride, convolution.padding) != ((1, 1), (0, 0))
            or (pool.kernel, pool.stride) != ((2, 2), (2, 2))
            or not (convolution.bias and last.bias)
            or count_model_operations(model) < MIN_OPERATIONS
        ):
            return None
        channels, *size = model.input_shape
        height, width = (
            (side - kernel + 1) // 2 for side, kernel in zip(size, convolution.kernel, strict=True)
        )
        return cls(
            channels=channels,
            kernel=convolution.kernel,
            filters=convolution.out_channels,
            pooled=(height, width),
            outputs=model.outputs,
        )

    @property
    def windows(self) -> int:
        """How many windows of the maximum an image has."""
        return self.pooled[0] * self.pooled[1]

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Of the matrix that `windows.Part.convolve` takes, see `split_matrix`."""
        rows, columns = self.kernel
        return 2 * self.filters, rows * self.channels * (columns + 1)

    def split_matrix(self, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """View where a matrix of the convolution holds its weight; the rest is zeros.

        It has a row for each filter, first as the left column of a window of the maximum sees it,
        then as the right one does. A row runs over what both read: (kernel row, channel, column).
        So both views have the shape (filters, kernel row, channel, kernel column).
        """
        rows, columns = self.kernel
        left, right = matrix.view(2, self.filters, rows, self.channels, columns + 1)
        return left[..., :-1], right[..., 1:]

    def split(self, flat: torch.Tensor) -> "Tensors":
        """View a flat vector as weight and bias of the convolution, then of the linear layer."""
        pieces = torch.split_with_sizes(flat, [prod(shape) for shape in self._tensor_shapes])
        return Tensors(
            *(one.view(shape) for one, shape in zip(pieces, self._tensor_shapes, strict=True))
        )

    @property
    def parameter_count(self) -> int:
        """Length of the flat vector."""
        return sum(prod(shape) for shape in self._tensor_shapes)

    @property
    def _tensor_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (
            (self.filters, self.channels, *self.kernel),
            (self.filters,),
            (self.outputs, self.filters * self.windows),
            (self.outputs,),
        )


class Tensors(NamedTuple):
    """Views of a flat vector."""

    weight: torch.Tensor
    bias: torch.Tensor
    last_weight: torch.Tensor
    last_bias: torch.Tensor
