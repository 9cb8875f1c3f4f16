"""The training process: started, asked, cancelled, killed, crashed and replaced."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import trio

from d2m_node.errors import TrainingStopped, UserError
from d2m_node.ports import PrivateTraining, Samples, TrainingTask
from d2m_node.settings import Device
from d2m_node.training import runner
from d2m_node.training.pipe import Train
from d2m_node.training.runner import ProcessTrainer, open_trainer
from protocol.errors import InvalidParams
from protocol.hashing import keccak
from protocol.model import initial_parameters, mlp
from protocol.request import TrainingSpec
from protocol.types import RoundIndex
from protocol.update import TensorKind, encode_tensor

MODEL = mlp((4,), 2, hidden=3)
PARAMETERS = initial_parameters(MODEL, keccak(b"start"))
SAMPLES = Samples(
    inputs=np.arange(40, dtype=np.uint8).reshape(10, 4), labels=np.arange(10, dtype=np.int64) % 2
)
SHORT = TrainingSpec(learning_rate_micros=10_000, batch_size=5, epochs=2)
ENDLESS = TrainingSpec(learning_rate_micros=1, batch_size=1, epochs=1_000)
MANY = Samples(
    inputs=np.zeros((100_000, 4), dtype=np.uint8), labels=np.zeros(100_000, dtype=np.int64)
)
HOURS = TrainingTask(model=MODEL, parameters=PARAMETERS, spec=ENDLESS, samples=MANY, seed=1)
PATIENCE_SECONDS = 120


@pytest.fixture
async def trainer() -> AsyncIterator[ProcessTrainer]:
    with trio.fail_after(PATIENCE_SECONDS):
        async with open_trainer(Device.CPU) as opened:
            yield opened


def find_process() -> psutil.Process:
    """Return the one training process that this process started."""
    (process,) = (
        child
        for child in psutil.Process().children()
        if "d2m_node.training.worker" in child.cmdline()
    )
    return process


async def train(trainer: ProcessTrainer, samples: Samples = SAMPLES, seed: int = 1) -> np.ndarray:
    return await trainer.train(
        TrainingTask(model=MODEL, parameters=PARAMETERS, spec=SHORT, samples=samples, seed=seed)
    )


async def train_for_hours(trainer: ProcessTrainer, scope: trio.CancelScope) -> None:
    with scope:
        await trainer.train(HOURS)


class Watch:
    """Tells when a training has been asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = trio.Event()
        receive = runner._Worker._receive

        async def receive_and_tell(worker: runner._Worker, max_bytes: int) -> object:
            if max_bytes:
                self.asked.set()
            return await receive(worker, max_bytes)

        monkeypatch.setattr(runner._Worker, "_receive", receive_and_tell)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


async def wait_gone(pid: int) -> None:
    """Return when a process, of whoever, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)


async def test_the_trainer_returns_a_quantised_update(trainer: ProcessTrainer) -> None:
    update = await train(trainer)
    assert update.dtype == np.int32
    assert update.shape == PARAMETERS.shape
    assert update.any()


async def test_the_process_gives_the_update_that_the_same_code_gives_here(
    trainer: ProcessTrainer,
) -> None:
    import torch

    from d2m_node.training.local import train_locally

    task = TrainingTask(model=MODEL, parameters=PARAMETERS, spec=SHORT, samples=SAMPLES, seed=7)
    here = train_locally(task, device=torch.device("cpu"), check_cancelled=lambda: None)
    assert np.array_equal(await train(trainer, seed=7), here)


async def test_other_samples_replace_those_that_the_process_holds(trainer: ProcessTrainer) -> None:
    first = await train(trainer)
    turned = Samples(inputs=SAMPLES.inputs, labels=1 - SAMPLES.labels)
    assert not np.array_equal(await train(trainer, turned), first)
    assert np.array_equal(await train(trainer), first)


async def test_errors_of_the_training_reach_the_caller(trainer: ProcessTrainer) -> None:
    three_classes = Samples(inputs=SAMPLES.inputs, labels=SAMPLES.labels + 1)
    with pytest.raises(InvalidParams, match="labels from 1 to 2, the model's are 0 to 1"):
        await train(trainer, three_classes)
    assert (await train(trainer)).any()


async def test_parameters_that_do_not_fit_the_model_are_not_even_sent(
    trainer: ProcessTrainer,
) -> None:
    with pytest.raises(InvalidParams, match="parameters: shape"):
        await trainer.train(replace(HOURS, parameters=PARAMETERS[:-1]))


async def test_a_cancelled_training_ends_and_its_process_serves_the_next(
    trainer: ProcessTrainer, watch: Watch
) -> None:
    process = find_process()
    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(train_for_hours, trainer, scope)
        await watch.asked.wait()
        scope.cancel()
    assert scope.cancelled_caught
    assert (await train(trainer)).any()
    assert find_process().pid == process.pid


async def test_a_training_that_does_not_heed_its_cancellation_is_killed(
    trainer: ProcessTrainer, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = find_process()
    monkeypatch.setattr(runner, "CANCEL_SECONDS", 0.1)
    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(train_for_hours, trainer, scope)
        await watch.asked.wait()
        process.suspend()
        scope.cancel()
    assert not process.is_running()
    assert (await train(trainer)).any()
    assert find_process().pid != process.pid


async def test_a_training_process_that_dies_is_a_transient_error_and_is_replaced(
    trainer: ProcessTrainer, watch: Watch
) -> None:
    process = find_process()
    message = "was ended by SIGKILL; the system may be out of memory"
    with pytest.RaisesGroup(pytest.RaisesExc(TrainingStopped, match=message)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(train_for_hours, trainer, trio.CancelScope())
            await watch.asked.wait()
            process.kill()
    assert (await train(trainer)).any()


async def test_a_process_that_died_idle_is_replaced_once_it_is_noticed(
    trainer: ProcessTrainer,
) -> None:
    find_process().kill()
    with pytest.raises(TrainingStopped):
        await train(trainer)
    assert (await train(trainer)).any()


async def test_a_failure_inside_the_process_is_told_with_its_reason(
    trainer: ProcessTrainer,
) -> None:
    worker = trainer._worker
    assert worker is not None
    unprepared = Train(
        number=99, model=MODEL, spec=SHORT, seed=1, round_index=RoundIndex(0), private=None
    )
    body = encode_tensor(TensorKind.PARAMETERS, PARAMETERS)
    message = "the training process failed: AssertionError: the node sends samples before"
    with pytest.raises(TrainingStopped, match=message):
        await worker.ask(unprepared, body)
    assert (await train(trainer)).any()


async def test_signals_that_stop_a_node_do_not_stop_its_training(trainer: ProcessTrainer) -> None:
    process = find_process()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    assert (await train(trainer)).any()
    assert find_process().pid == process.pid


async def test_the_process_is_gone_with_the_context_whatever_it_does(watch: Watch) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery, open_trainer(Device.CPU) as trainer:
            process = find_process()
            nursery.start_soon(train_for_hours, trainer, trio.CancelScope())
            await watch.asked.wait()
            nursery.cancel_scope.cancel()
    assert not process.is_running()


async def test_the_process_dies_with_a_node_that_is_killed() -> None:
    code = (
        "import trio\n"
        "from d2m_node.training.runner import open_trainer\n"
        "async def main():\n"
        "    async with open_trainer() as trainer:\n"
        "        print(chr(10) + 'worker', trainer._worker._process.pid, flush=True)\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    node = await trio.lowlevel.open_process([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert node.stdout is not None
    heard = b""
    with trio.fail_after(PATIENCE_SECONDS):
        async for data in node.stdout:
            heard += data
            if b"\nworker " in heard and heard.endswith(b"\n"):
                break
        node.kill()
        await node.wait()
        await wait_gone(int(heard.split()[-1]))


async def test_the_process_is_nicer_than_the_node(trainer: ProcessTrainer) -> None:
    assert find_process().nice() == min(19, os.nice(0) + 10)


async def test_trainings_take_turns(trainer: ProcessTrainer) -> None:
    updates: dict[int, np.ndarray] = {}

    async def train_one(seed: int) -> None:
        updates[seed] = await train(trainer, seed=seed)

    async with trio.open_nursery() as nursery:
        for seed in range(4):
            nursery.start_soon(train_one, seed)
    alone = {seed: await train(trainer, seed=seed) for seed in range(4)}
    assert all(np.array_equal(updates[seed], alone[seed]) for seed in range(4))


async def test_preparing_for_a_device_that_is_not_there_is_a_user_error() -> None:
    import torch

    missing = Device.CUDA if not torch.cuda.is_available() else Device.MPS
    with trio.fail_after(PATIENCE_SECONDS), pytest.raises(UserError, match=f"no {missing}"):
        async with open_trainer(missing):
            pass
    assert not [one for one in psutil.Process().children() if "worker" in str(one.cmdline())]


def test_modules_of_the_working_directory_are_not_run(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('hostile')\n")
    code = (
        "import trio\n"
        "from d2m_node.training.runner import open_trainer\n"
        "async def main():\n"
        "    async with open_trainer():\n"
        "        pass\n"
        "trio.run(main)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    subprocess.run(
        [sys.executable, "-P", "-c", code],
        check=True,
        cwd=tmp_path,
        env=environment,
        timeout=PATIENCE_SECONDS,
    )


async def test_the_process_trains_privately_and_does_the_sums(trainer: ProcessTrainer) -> None:
    private = PrivateTraining(noise_multiplier=2.0, max_grad_norm=0.5, sample_rate=0.5, steps=4)
    task = TrainingTask(
        model=MODEL, parameters=PARAMETERS, spec=SHORT, samples=SAMPLES, seed=1, private=private
    )
    assert not np.array_equal(await trainer.train(task), await trainer.train(task))
    one, two = [await trainer.compute_epsilon([(private, times)], 1e-5) for times in (1, 2)]
    assert 0 < one < two
    noise = await trainer.choose_noise(epsilon=two, delta=1e-5, sample_rate=0.5, steps=8)
    assert noise == pytest.approx(2.0, rel=0.02)
    with pytest.raises(InvalidParams, match="epsilon_per_job"):
        await trainer.choose_noise(epsilon=1e-12, delta=1e-5, sample_rate=1.0, steps=8)


@pytest.mark.gpu
async def test_the_process_takes_a_gpu_if_there_is_one_and_gives_it_back() -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        async with open_trainer(Device.AUTO) as trainer:
            assert (await train(trainer)).any()
            process = find_process()
            assert any("cuda" in one.path for one in process.memory_maps())
    assert not process.is_running()
