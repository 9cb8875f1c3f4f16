"""Backoff for what may work if tried again, and only for it."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from d2m_node.errors import TransientError

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0

Result = TypeVar("Result")


async def retry_transient(
    operation: Callable[[], Awaitable[Result]], *, patience_seconds: float
) -> Result:
    """Repeat an operation while it raises TransientError, pausing twice as long each time.

    Raises the last TransientError once the next pause would end after ``patience_seconds``. An
    operation in progress is never cut short; every other exception passes at once.
    """
    deadline = trio.current_time() + patience_seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await operation()
        except TransientError:
            if trio.current_time() + pause > deadline:
                raise
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
