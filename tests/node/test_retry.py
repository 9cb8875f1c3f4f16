"""Backoff: only for what may work if tried again, and not for ever."""

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from d2m_node.errors import ChainUnavailable, WrongNetwork
from d2m_node.retry import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, retry_transient


class Flaky:
    """Fails with an error a number of times, then returns the number of calls."""

    def __init__(self, failures: int, error: Exception) -> None:
        self._failures = failures
        self._error = error
        self.calls: list[float] = []

    async def __call__(self) -> int:
        self.calls.append(trio.current_time())
        if len(self.calls) <= self._failures:
            raise self._error
        return len(self.calls)


async def test_a_transient_error_is_tried_again(autojump_clock: MockClock) -> None:
    operation = Flaky(3, ChainUnavailable("down"))
    assert await retry_transient(operation, patience_seconds=60) == 4


async def test_another_error_passes_at_once(autojump_clock: MockClock) -> None:
    operation = Flaky(1, WrongNetwork("other chain"))
    with pytest.raises(WrongNetwork):
        await retry_transient(operation, patience_seconds=60)
    assert len(operation.calls) == 1


async def test_patience_ends_with_the_last_error(autojump_clock: MockClock) -> None:
    operation = Flaky(1000, ChainUnavailable("down"))
    started = trio.current_time()
    with pytest.raises(ChainUnavailable, match="down"):
        await retry_transient(operation, patience_seconds=60)
    assert trio.current_time() - started <= 60


async def test_pauses_grow_up_to_a_bound(autojump_clock: MockClock) -> None:
    operation = Flaky(20, ChainUnavailable("down"))
    await retry_transient(operation, patience_seconds=600)
    pauses = [later - earlier for earlier, later in pairwise(operation.calls)]
    expected = [min(FIRST_PAUSE_SECONDS * 2**n, LONGEST_PAUSE_SECONDS) for n in range(20)]
    assert pauses == pytest.approx(expected)
