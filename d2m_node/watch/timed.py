"""A trainer whose trainings are timed."""

from collections.abc import Callable, Sequence

import trio

from d2m_node.ports import Int32Array, PrivateTraining, TrainerPort, TrainingTask


class TimedTrainer:
    """`TrainerPort` around another one."""

    def __init__(self, trainer: TrainerPort, observe: Callable[[str, float], None]) -> None:
        """Tell ``observe`` of each training how it ended and how many seconds it took."""
        self._trainer = trainer
        self._observe = observe

    async def train(self, task: TrainingTask) -> Int32Array:
        """See `TrainerPort.train`."""
        started_at, result = trio.current_time(), "failed"
        try:
            update = await self._trainer.train(task)
            result = "done"
        except trio.Cancelled:
            result = "cancelled"
            raise
        finally:
            self._observe(result, trio.current_time() - started_at)
        return update

    async def compute_epsilon(
        self, history: Sequence[tuple[PrivateTraining, int]], delta: float
    ) -> float:
        """See `TrainerPort.compute_epsilon`."""
        return await self._trainer.compute_epsilon(history, delta)

    async def choose_noise(
        self, *, epsilon: float, delta: float, sample_rate: float, steps: int
    ) -> float:
        """See `TrainerPort.choose_noise`."""
        return await self._trainer.choose_noise(
            epsilon=epsilon, delta=delta, sample_rate=sample_rate, steps=steps
        )
