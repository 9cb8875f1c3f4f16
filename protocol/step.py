"""From what a round aggregates to the step that its model takes: a length, and momentum.

Sellers train a few epochs from the same model. Their mean update points the right way, stops short
of where they would go together, and turns with every draw of sellers. A request may therefore ask
for longer or shorter steps, and for a part of the last step to be added. In the long run steps are
length / (1 - momentum) times as long as the aggregates, and averages of about 1 / (1 - momentum)
rounds.

Everything is integer, so the step is the same on every machine. Who is accepted and paid is decided
before, from the updates alone.
"""

from collections.abc import Iterator
from typing import Annotated, Final

import numpy as np
from msgspec import Meta, Struct

from protocol.fixed_point import Int32, Int64
from protocol.update import MAX_UPDATE

STEP_BITS: Final = 16
ONE_STEP: Final = 1 << STEP_BITS
MAX_LENGTH: Final = 16
"""The longest step, in aggregates. Products stay below 2**48, far within int64."""
MAX_LENGTHS: Final = 4
"""Each length to choose from costs every CONE node one evaluation more in every round."""


class StepSpec(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """How a round's model moves. The default moves it by the aggregate itself."""

    lengths_q16: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=MAX_LENGTH * ONE_STEP)], ...],
        Meta(min_length=1, max_length=MAX_LENGTHS),
    ] = (ONE_STEP,)
    """What the aggregate is multiplied by, 65536 is 1. Of several the one whose model has the best
    utility on the round's samples is taken, of equally good ones the first."""
    momentum_q16: Annotated[int, Meta(ge=0, lt=ONE_STEP)] = 0
    """Part of the last step that is added, 65536 is 1."""


PLAIN_STEP: Final = StepSpec()


def iter_steps(spec: StepSpec, aggregate: Int32, last_step: Int32 | None) -> Iterator[Int32]:
    """Yield the step of each length, in the order of the request.

    Parameters
    ----------
    aggregate : shape (d,)
        The mean of the accepted updates, Q20.
    last_step : shape (d,)
        What the last decided round added to the parameters, Q20; None before the first one.

    Products are rounded half up on their own, the sum is clipped to an update's bound.
    """
    carried = None
    if last_step is not None and spec.momentum_q16:
        carried = _scale(last_step, spec.momentum_q16)
    for length in spec.lengths_q16:
        step = _scale(aggregate, length)
        if carried is not None:
            step += carried
        yield np.clip(step, -MAX_UPDATE, MAX_UPDATE, out=step).astype(np.int32)


def _scale(values: Int32, factor_q16: int) -> Int64:
    scaled = values.astype(np.int64)
    scaled *= factor_q16
    scaled += ONE_STEP // 2
    scaled >>= STEP_BITS
    return scaled
