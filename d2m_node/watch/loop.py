"""How late the event loop wakes its tasks: what blocks it shows here."""

from collections import deque
from collections.abc import Callable
from typing import NoReturn

import trio

PERIOD_SECONDS = 1.0
REMEMBERED = 60
"""Periods that `worst_seconds` looks back."""


class LoopMonitor:
    """Sleeps for a period, again and again, and notes by how much it overslept."""

    def __init__(self) -> None:
        self._lags: deque[float] = deque(maxlen=REMEMBERED)
        self._due: float | None = None

    def worst_seconds(self) -> float:
        """Return the largest lag of the last minute."""
        return max(self._lags, default=0.0)

    def late_seconds(self) -> float:
        """Return by how much the task that sleeps here is late now."""
        return 0.0 if self._due is None else max(trio.current_time() - self._due, 0.0)

    async def run(self, observe: Callable[[float], None]) -> NoReturn:
        """Tell ``observe`` each lag in seconds, until cancelled."""
        while True:
            self._due = due = trio.current_time() + PERIOD_SECONDS
            await trio.sleep_until(due)
            lag = max(trio.current_time() - due, 0.0)
            self._lags.append(lag)
            observe(lag)
