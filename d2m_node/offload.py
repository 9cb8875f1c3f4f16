"""Where work goes that would hold up the event loop: to a thread, unless the run says otherwise.

Roles offload what they compute, and say no more about it. In a simulation a thread would finish
when the machine pleases, with other tasks going on meanwhile. There the work is done on the spot,
so that the order of all steps follows from the seed alone.
"""

from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

import trio

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

_is_inline: Final = trio.lowlevel.RunVar("work_is_inline", default=False)


async def offload(work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
    """Do synchronous work without holding up other tasks; return or raise what it does.

    Once begun, it is not cancelled.
    """
    if _is_inline.get():
        await trio.lowlevel.checkpoint()
        return work(*arguments)
    return await trio.to_thread.run_sync(work, *arguments)


def work_inline() -> None:
    """Use no threads from now on, until the end of this call of `trio.run`."""
    _is_inline.set(True)
