import threading

import numpy as np
import pytest
import trio

from d2m_node.errors import UserError
from d2m_node.ports import Samples
from d2m_node.settings import Device
from d2m_node.training import local
from d2m_node.training.runner import TorchTrainer
from protocol.errors import InvalidParams
from protocol.hashing import keccak
from protocol.model import initial_parameters, mlp
from protocol.request import TrainingSpec

MODEL = mlp((4,), 2, hidden=3)
PARAMETERS = initial_parameters(MODEL, keccak(b"start"))
SAMPLES = Samples(
    inputs=np.arange(40, dtype=np.uint8).reshape(10, 4), labels=np.arange(10, dtype=np.int64) % 2
)
SHORT = TrainingSpec(learning_rate_micros=10_000, batch_size=5, epochs=2)
ENDLESS = TrainingSpec(learning_rate_micros=1, batch_size=1, epochs=1_000)


async def test_the_trainer_returns_a_quantised_update() -> None:
    update = await TorchTrainer(Device.CPU).train(MODEL, PARAMETERS, SHORT, SAMPLES, seed=1)
    assert update.dtype == np.int32
    assert update.shape == PARAMETERS.shape
    assert update.any()


async def test_errors_of_the_training_reach_the_caller() -> None:
    three_classes = Samples(inputs=SAMPLES.inputs, labels=SAMPLES.labels + 1)
    with pytest.raises(InvalidParams, match="labels from 1 to 2, the model's are 0 to 1"):
        await TorchTrainer(Device.CPU).train(MODEL, PARAMETERS, SHORT, three_classes, seed=1)


async def test_a_cancelled_training_ends_between_two_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = trio.Event()
    batches = 0

    async def train_until_cancelled(scope: trio.CancelScope) -> None:
        with scope:
            await TorchTrainer(Device.CPU).train(MODEL, PARAMETERS, ENDLESS, SAMPLES, seed=1)

    train_locally = local.train_locally
    token = trio.lowlevel.current_trio_token()

    def counting(task, *, device, check_cancelled):
        def check() -> None:
            nonlocal batches
            batches += 1
            token.run_sync_soon(started.set)
            check_cancelled()

        return train_locally(task, device=device, check_cancelled=check)

    monkeypatch.setattr(local, "train_locally", counting)
    scope = trio.CancelScope()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(train_until_cancelled, scope)
            await started.wait()
            scope.cancel()
    assert scope.cancelled_caught
    assert batches < 10_000


async def test_one_training_runs_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()
    overlaps = []

    def exclusive(task, *, device, check_cancelled):
        overlaps.append(not lock.acquire(blocking=False))
        check_cancelled()
        lock.release()
        return task.parameters

    monkeypatch.setattr(local, "train_locally", exclusive)
    trainer = TorchTrainer(Device.CPU)
    async with trio.open_nursery() as nursery:
        for seed in range(4):

            async def train(seed: int = seed) -> None:
                await trainer.train(MODEL, PARAMETERS, SHORT, SAMPLES, seed=seed)

            nursery.start_soon(train)
    assert overlaps == [False] * 4


async def test_a_trainer_can_be_prepared_before_its_first_training() -> None:
    trainer = TorchTrainer(Device.CPU)
    await trainer.prepare()
    assert (await trainer.train(MODEL, PARAMETERS, SHORT, SAMPLES, seed=1)).any()


async def test_preparing_for_a_device_that_is_not_there_is_a_user_error() -> None:
    import torch

    missing = Device.CUDA if not torch.cuda.is_available() else Device.MPS
    with pytest.raises(UserError, match=f"no {missing}"):
        await TorchTrainer(missing).prepare()
