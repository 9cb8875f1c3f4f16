"""Training off the event loop, in a worker thread that can be cancelled between batches."""

import numpy as np
import numpy.typing as npt
import trio

from d2m_node.ports import Samples
from d2m_node.settings import Device
from d2m_node.training.devices import select_device
from protocol.model import ModelDescription
from protocol.request import TrainingSpec

Int32Array = npt.NDArray[np.int32]


class TorchTrainer:
    """The trainer port over torch, which is imported by `prepare` or the first training.

    One training runs at a time; others wait for it, so that jobs do not slow each other down.
    """

    def __init__(self, device: Device = Device.AUTO) -> None:
        self._device = device
        self._limiter = trio.CapacityLimiter(1)

    async def prepare(self) -> None:
        """Import torch now, so that a seller's first round does not begin with it.

        Raises UserError if the device that was asked for is not there.
        """
        await trio.to_thread.run_sync(select_device, self._device, limiter=self._limiter)

    async def train(
        self,
        model: ModelDescription,
        parameters: Int32Array,
        spec: TrainingSpec,
        samples: Samples,
        *,
        seed: int,
    ) -> Int32Array:
        """Train on ``samples`` from ``parameters`` (d,); return the update (d,), both Q20.

        Raises
        ------
        InvalidParams
            If the samples do not fit the model, or the training diverges.
        UserError
            If the device that was asked for is not there.
        """

        def train_in_thread() -> Int32Array:
            # Two seconds and 200 MB: a node that sells nothing never pays them.
            from d2m_node.training.local import TrainingTask, train_locally

            task = TrainingTask(
                model=model, parameters=parameters, spec=spec, samples=samples, seed=seed
            )
            return train_locally(
                task,
                device=select_device(self._device),
                check_cancelled=trio.from_thread.check_cancelled,
            )

        return await trio.to_thread.run_sync(train_in_thread, limiter=self._limiter)
