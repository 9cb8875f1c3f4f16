"""What blocks the event loop shows; how long a training takes, too."""

from typing import Any, cast

import pytest
import trio
import trio.testing

from d2m_node.watch.loop import LoopMonitor
from d2m_node.watch.timed import TimedTrainer


async def test_a_loop_that_turns_is_not_late(autojump_clock: trio.testing.MockClock) -> None:
    lags: list[float] = []
    monitor = LoopMonitor()
    with trio.move_on_after(5.5):
        await monitor.run(lags.append)
    assert lags == [0.0] * 5
    assert monitor.worst_seconds() == 0.0


async def test_a_loop_that_was_blocked_shows_by_how_long(
    mock_clock: trio.testing.MockClock,
) -> None:
    lags: list[float] = []
    monitor = LoopMonitor()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(monitor.run, lags.append)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(4.0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert lags == [3.0]
    assert monitor.worst_seconds() == 3.0
    assert monitor.late_seconds() == 0.0, "it turns again"


async def test_a_task_that_is_not_woken_is_late(mock_clock: trio.testing.MockClock) -> None:
    monitor = LoopMonitor()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(monitor.run, lambda _: None)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(4.0)
            assert monitor.late_seconds() == 3.0
            scope.cancel()


class Trainer:
    """Takes a second, then does what the test wants."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure

    async def train(self, task: Any) -> Any:
        await trio.sleep(1.0)
        if self.failure is not None:
            raise self.failure
        return task


async def test_a_training_is_timed_by_how_it_ended(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[tuple[str, float]] = []

    def timed(failure: Exception | None = None) -> TimedTrainer:
        return TimedTrainer(cast(Any, Trainer(failure)), lambda *one: seen.append(one))

    task = cast(Any, "the task")
    assert await timed().train(task) == task
    with pytest.raises(ValueError, match="diverged"):
        await timed(ValueError("diverged")).train(task)
    with trio.move_on_after(0.5):
        await timed().train(task)
    assert seen == [("done", 1.0), ("failed", 1.0), ("cancelled", 0.5)]
