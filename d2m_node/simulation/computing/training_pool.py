"""Training in parallel under a clock that does not move.

A training takes real seconds, and others could use them. So it is handed to a pool of training
processes at its virtual beginning, and waited for at its virtual end: the whole simulation stands
still then, if it must. What comes out, and in which order, never depends on who was faster.
"""

import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Protocol

import trio

from d2m_node.errors import NodeError
from d2m_node.ports import Int32Array, PrivateTraining, Samples, TrainingTask
from d2m_node.settings import Device
from d2m_node.training.child import build_command, build_environment
from d2m_node.training.devices import select_device
from d2m_node.training.pipe import (
    PREFIX,
    AnyRequest,
    Done,
    InvalidFrame,
    Load,
    NoDevice,
    Prepare,
    Refused,
    ToNode,
    Train,
    decode_to_node,
    encode_head,
    encode_samples,
    read_prefix,
)
from protocol.errors import InvalidParams
from protocol.model import count_parameters
from protocol.update import TENSOR_HEADER_BYTES, TensorKind, decode_tensor, encode_tensor


class Pool(Protocol):
    """Where trainings are done."""

    def submit(self, task: TrainingTask) -> "Future[Int32Array]":
        """Begin a training; its update is the future's result."""


class InlinePool:
    """Trains when asked, in this process: for small models, for which a process is too dear."""

    def submit(self, task: TrainingTask) -> "Future[Int32Array]":
        """Train at once."""
        from d2m_node.training.local import train_locally

        done: Future[Int32Array] = Future()
        try:
            update = train_locally(task, device=select_device(Device.CPU), check_cancelled=_go_on)
        except InvalidParams as refusal:
            done.set_exception(refusal)
        else:
            done.set_result(update)
        return done


def _go_on() -> None:
    """Nobody cancels what is waited for."""


class ProcessPool:
    """Trains in so many processes, each asked one thing at a time."""

    def __init__(self, size: int, device: Device = Device.CPU) -> None:
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="training")
        self._own = threading.local()
        self._device = device
        self._processes: list[TrainingProcess] = []

    def submit(self, task: TrainingTask) -> "Future[Int32Array]":
        """Begin a training as soon as a process is free."""
        return self._threads.submit(self._train, task)

    def close(self) -> None:
        """Forget what has not begun, and end the processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.kill()
        self._threads.shutdown(wait=True)

    def _train(self, task: TrainingTask) -> Int32Array:
        process: TrainingProcess | None = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = TrainingProcess(self._device)
            self._processes.append(process)
        return process.train(task)


@contextmanager
def open_pool(size: int, device: Device = Device.CPU) -> Iterator[Pool]:
    """Give a pool of so many processes; of none: training in this process."""
    if size == 0:
        yield InlinePool()
        return
    pool = ProcessPool(size, device)
    try:
        yield pool
    finally:
        pool.close()


class TrainingProcess:
    """One training process behind blocking pipes; the same program that a seller's node starts."""

    def __init__(self, device: Device) -> None:
        self._numbers = count(1)
        self._held: Samples | None = None
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            build_command("d2m_node.training.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=build_environment(),
            start_new_session=True,
        )
        self._ask(Prepare(number=next(self._numbers), device=device))

    def train(self, task: TrainingTask) -> Int32Array:
        """Train and return the update (d,), Q20. Raises InvalidParams, NodeError."""
        if self._held is not task.samples:
            self._ask(Load(number=next(self._numbers)), encode_samples(task.samples))
            self._held = task.samples
        size = count_parameters(task.model)
        request = Train(
            number=next(self._numbers),
            model=task.model,
            spec=task.spec,
            seed=task.seed,
            round_index=task.round_index,
            private=task.private,
        )
        body = encode_tensor(TensorKind.PARAMETERS, task.parameters)
        answer = self._ask(request, body, max_answer_bytes=TENSOR_HEADER_BYTES + 4 * size)
        return decode_tensor(answer, TensorKind.UPDATE, size)

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _ask(self, request: AnyRequest, body: bytes = b"", *, max_answer_bytes: int = 0) -> bytes:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(encode_head(request, len(body)) + body)
            self._process.stdin.flush()
            message, answer = self._receive(max_answer_bytes)
        except (OSError, ValueError, InvalidFrame) as exc:
            raise NodeError(f"a training process failed: {exc}") from exc
        match message:
            case Done():
                return answer
            case Refused(field=field, reason=reason):
                raise InvalidParams(field, reason)
            case NoDevice(reason=reason):
                raise NodeError(reason)
            case _:
                raise NodeError(f"a training process failed: {message}")

    def _receive(self, max_body_bytes: int) -> tuple[ToNode, bytes]:
        head_bytes, body_bytes = read_prefix(self._read(PREFIX.size), max_body_bytes=max_body_bytes)
        return decode_to_node(self._read(head_bytes)), self._read(body_bytes)

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if len(data) < size:
            raise InvalidFrame("its output ended in a frame")
        return data


class PooledTrainer:
    """`TrainerPort` of one simulated seller."""

    def __init__(self, pool: Pool, seconds: float) -> None:
        """``seconds`` is what a training takes by the simulated clock."""
        self.pool = pool
        self.seconds = seconds

    async def train(self, task: TrainingTask) -> Int32Array:
        """Train in the pool while the simulated time of a training passes."""
        future = self.pool.submit(task)
        try:
            await trio.sleep(self.seconds)
        except trio.Cancelled:
            future.cancel()  # what has begun goes on, and nobody asks for it
            raise
        return future.result()

    async def compute_epsilon(
        self, history: Sequence[tuple[PrivateTraining, int]], delta: float
    ) -> float:
        """Raise: simulated sellers keep no differential privacy."""
        raise NotImplementedError

    async def choose_noise(
        self, *, epsilon: float, delta: float, sample_rate: float, steps: int
    ) -> float:
        """Raise: simulated sellers keep no differential privacy."""
        raise NotImplementedError
