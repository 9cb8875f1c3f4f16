"""A run of trio in virtual time, whose every step follows from a seed.

The clock stands while a task can go on, and jumps to the next deadline when none can. Of tasks that
could all go on trio chooses by chance: here the seed chooses. No threads are used, for they would
end when the machine pleases. What is left to programs is to iterate over nothing whose order
follows from addresses or from Python's hash seed, like a set of bytes.
"""

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar, TypeVarTuple

import trio
import trio.testing
from trio._core import _run as scheduler

from d2m_node.offload import work_inline

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

_SWITCH: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"
"""Hidden in trio, for the sake of Hypothesis; it makes trio order tasks before it shuffles them."""
_DICE: Final = "_r"


def run_in_virtual_time(
    main: Callable[[*Arguments], Awaitable[Result]], *arguments: *Arguments, seed: int
) -> Result:
    """Run ``main`` under `trio.run`; return or raise what it does. Time begins at 0."""

    async def run() -> Result:
        work_inline()
        return await main(*arguments)

    clock = trio.testing.MockClock(autojump_threshold=0)
    with _seeded_scheduling(seed):
        return trio.run(run, clock=clock)


@contextmanager
def _seeded_scheduling(seed: int) -> Iterator[None]:
    """Let trio choose the next task by a seed, and by chance again afterwards."""
    former = getattr(scheduler, _SWITCH), getattr(scheduler, _DICE)
    setattr(scheduler, _SWITCH, True)
    setattr(scheduler, _DICE, random.Random(seed))  # noqa: S311 - nothing secret hangs on it
    try:
        yield
    finally:
        setattr(scheduler, _SWITCH, former[0])
        setattr(scheduler, _DICE, former[1])
