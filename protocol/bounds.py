"""How large the integers of an evaluation can become, whatever the parameters and the samples.

Float64 is exact for integers below 2**53 in any order of adding, so a model whose bound stays
below may be evaluated by any kernel that multiplies and adds. Source: MECHANISM 5, 12.1.
"""

from dataclasses import dataclass
from math import prod

from protocol.errors import InvalidParams
from protocol.layers import AnyLayer, AvgPool2d, Clip, Conv2d, Embedding, Linear, Relu, Scale, Shape
from protocol.update import MAX_PARAMETER

INPUT_SCALE = 255
"""A value of 1.0 is held as 255 * 2**bits: a pixel of 255 stands for 1.0 at no bits."""

WEIGHT_BITS = 12
HIDDEN_BITS = 8
LOGIT_BITS = 20
MAX_WEIGHT_Q12 = (1 << 15) - 1

MAX_BITS = 52
"""So that a floor shift to HIDDEN_BITS stays within what int64 and float64 can shift by."""


@dataclass(frozen=True, slots=True)
class Range:
    """Where the activations after a layer lie, 1.0 being 255 * 2**bits."""

    low: int
    high: int
    bits: int

    @property
    def magnitude(self) -> int:
        """Largest absolute value."""
        return max(-self.low, self.high)

    def shift_to_hidden_bits(self) -> "Range":
        """Apply the floor shift that precedes a layer with parameters."""
        shift = self.bits - HIDDEN_BITS
        if shift <= 0:
            return self
        return Range(self.low >> shift, self.high >> shift, HIDDEN_BITS)


def compute_layer_range(
    layer: AnyLayer, shape: Shape, before: Range, *, is_last: bool
) -> tuple[Range, int]:
    """Compute where a layer's results lie, and the largest absolute value of any partial sum.

    A layer with parameters adds ``count`` products and a bias. Parameters may have any sign, so
    the sum of the absolute values

        count * activation * MAX_WEIGHT_Q12 + bias

    is reached, and bounds every partial sum in every order. ``count`` leaves out the padding,
    which multiplies zeros. A mean adds its whole window before it divides. Relu, clip, pooling
    and the floor shift are monotone, so the ends of a range go to the ends of the next.

    Parameters
    ----------
    layer, shape :
        The layer, and the shape of its input.
    before :
        Where its input lies.
    is_last :
        Whether its result are the logits, which have LOGIT_BITS.
    """
    match layer:
        case Conv2d() | Linear():
            return _bound_products(layer, shape, before.shift_to_hidden_bits(), is_last=is_last)
        case Embedding():
            largest = MAX_WEIGHT_Q12 * INPUT_SCALE
            return Range(-largest, largest, WEIGHT_BITS), largest
        case AvgPool2d(kernel=kernel):
            return before, prod(kernel) * before.magnitude
        case Relu():
            after = Range(max(before.low, 0), max(before.high, 0), before.bits)
        case Clip(limit=limit):
            end = limit * INPUT_SCALE << before.bits
            low, high = (min(max(value, -end), end) for value in (before.low, before.high))
            after = Range(low, high, before.bits)
        case Scale(shift=shift):
            if before.bits + shift > MAX_BITS:
                raise InvalidParams("shift", "divides a value to nothing; use fewer scale layers")
            after = Range(before.low, before.high, before.bits + shift)
        case _:
            after = before
    return after, before.magnitude


def _bound_products(
    layer: Conv2d | Linear, shape: Shape, before: Range, *, is_last: bool
) -> tuple[Range, int]:
    count = shape[0]
    if isinstance(layer, Conv2d):
        windows = zip(layer.kernel, shape[1:], strict=True)
        count *= prod(min(kernel, size) for kernel, size in windows)
    largest = count * before.magnitude * MAX_WEIGHT_Q12
    bits = before.bits + WEIGHT_BITS
    if is_last:
        largest <<= LOGIT_BITS - bits
        bits = LOGIT_BITS
    if layer.bias:
        largest += compute_bias_bound(bits)
    return Range(-largest, largest, bits), largest


def compute_bias_bound(bits: int) -> int:
    """Compute the largest bias of a sum with ``bits`` fractional bits (``operations.py``)."""
    if bits == LOGIT_BITS:
        return MAX_PARAMETER * INPUT_SCALE
    return MAX_WEIGHT_Q12 * INPUT_SCALE << (bits - WEIGHT_BITS)
