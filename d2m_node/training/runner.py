"""Training in a process of its own, that can be cancelled between batches and killed.

A thread would share the interpreter's lock with the network: training of small models then takes
twice as long, and the event loop waits for milliseconds each time.
"""

import signal
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog
import trio

from d2m_node.errors import TrainingStopped, UserError
from d2m_node.ports import PrivateTraining, Samples, TrainingTask
from d2m_node.settings import Device
from d2m_node.training.child import build_command, build_environment
from d2m_node.training.pipe import (
    PREFIX,
    AnyRequest,
    Cancel,
    ChooseNoise,
    ComputeEpsilon,
    Done,
    Failed,
    InvalidFrame,
    Load,
    Message,
    NoDevice,
    Number,
    Prepare,
    Refused,
    ToNode,
    Train,
    decode_to_node,
    encode_head,
    encode_samples,
    read_prefix,
)
from protocol.errors import InvalidMessage, InvalidParams
from protocol.model import count_parameters
from protocol.update import TENSOR_HEADER_BYTES, TensorKind, decode_tensor, encode_tensor

log = structlog.get_logger(__name__)

CANCEL_SECONDS: Final = 5.0
"""A training that has not stopped by then is killed."""
START_SECONDS: Final = 120.0
"""Importing torch takes seconds, on a machine under load many."""

_CHUNK_BYTES: Final = 1 << 20

Int32Array = npt.NDArray[np.int32]


@asynccontextmanager
async def open_trainer(device: Device = Device.AUTO) -> AsyncGenerator["ProcessTrainer", None]:
    """Start the training process; end it, and give its memory back, when the context closes.

    Raises UserError if the device that was asked for is not there.
    """
    trainer = ProcessTrainer(device)
    try:
        await trainer.prepare()
        yield trainer
    finally:
        with trio.CancelScope(shield=True):
            await trainer.close()


class ProcessTrainer:
    """The trainer and accountant ports over one training process at a time.

    Requests take turns, so that jobs do not slow each other down. A process that crashed is
    replaced by the next request. All methods raise TrainingStopped if it crashes meanwhile.
    """

    def __init__(self, device: Device = Device.AUTO) -> None:
        self._device = device
        self._turn = trio.Lock()
        self._worker: _Worker | None = None

    async def prepare(self) -> None:
        """Start the process now, so that a seller's first round does not begin with it.

        Raises UserError if the device that was asked for is not there.
        """
        async with self._turn:
            await self._find_worker()

    async def train(self, task: TrainingTask) -> Int32Array:
        """Train; return the update (d,), Q20.

        Raises
        ------
        InvalidParams
            If samples or parameters do not fit the model, or the training diverges.
        UserError
            If the device that was asked for is not there.
        """
        size = count_parameters(task.model)
        if task.parameters.shape != (size,):
            raise InvalidParams("parameters", f"shape {task.parameters.shape} is not the model's")
        async with self._turn:
            worker = await self._find_worker()
            await worker.hold(task.samples)
            request = Train(
                number=worker.next_number(),
                model=task.model,
                spec=task.spec,
                seed=task.seed,
                round_index=task.round_index,
                private=task.private,
            )
            _, answer = await worker.ask(
                request,
                encode_tensor(TensorKind.PARAMETERS, task.parameters),
                max_answer_bytes=TENSOR_HEADER_BYTES + 4 * size,
            )
        try:
            return decode_tensor(answer, TensorKind.UPDATE, size)
        except InvalidMessage as exc:
            raise TrainingStopped(f"the training process gave no update: {exc}") from exc

    async def compute_epsilon(
        self, history: Sequence[tuple[PrivateTraining, int]], delta: float
    ) -> float:
        """Return the epsilon of private trainings, each done so many times."""
        async with self._turn:
            worker = await self._find_worker()
            request = ComputeEpsilon(
                number=worker.next_number(), history=list(history), delta=delta
            )
            return await worker.ask_number(request)

    async def choose_noise(
        self, *, epsilon: float, delta: float, sample_rate: float, steps: int
    ) -> float:
        """Return the least noise multiplier that keeps ``steps`` within ``epsilon``.

        Raises InvalidParams if no sensible noise does.
        """
        async with self._turn:
            worker = await self._find_worker()
            request = ChooseNoise(
                number=worker.next_number(),
                epsilon=epsilon,
                delta=delta,
                sample_rate=sample_rate,
                steps=steps,
            )
            return await worker.ask_number(request)

    async def close(self) -> None:
        """End the process; a later request starts another one."""
        if self._worker is not None:
            await self._worker.kill()

    async def _find_worker(self) -> "_Worker":
        """Return the process, started if there is none that lives."""
        if self._worker is None or not self._worker.is_alive:
            worker = await _start_worker()
            try:
                with trio.move_on_after(START_SECONDS):
                    await worker.ask(Prepare(number=worker.next_number(), device=self._device))
                    self._worker = worker
                    return worker
                raise TrainingStopped(f"the training process did not start in {START_SECONDS:g} s")
            finally:
                if self._worker is not worker:
                    with trio.CancelScope(shield=True):
                        await worker.kill()
        return self._worker


async def _start_worker() -> "_Worker":
    # Shielded: nobody would end a process whose start was cancelled half way.
    with trio.CancelScope(shield=True):
        process = await trio.lowlevel.open_process(
            build_command("d2m_node.training.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=build_environment(),
            start_new_session=True,
        )
    log.info("training_process_started", pid=process.pid)
    return _Worker(process)


class _Worker:
    """One training process, asked one thing at a time."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._numbers = count(1)
        self._buffer = bytearray()
        self._held: Samples | None = None
        self.is_alive = True

    def next_number(self) -> int:
        """Return the number of the next request."""
        return next(self._numbers)

    async def hold(self, samples: Samples) -> None:
        """Send samples, unless they are those that the process holds."""
        if self._held is not samples:
            body = await trio.to_thread.run_sync(encode_samples, samples)
            self._held = None
            await self.ask(Load(number=self.next_number()), body)
            self._held = samples

    async def ask_number(self, request: AnyRequest) -> float:
        """Ask for a number."""
        message, _ = await self.ask(request)
        if not isinstance(message, Number):
            raise await self._fail(f"it gave no number but {message}")
        return message.value

    async def ask(
        self, request: AnyRequest, body: bytes = b"", *, max_answer_bytes: int = 0
    ) -> tuple[ToNode, bytes]:
        """Send a request and return its answer.

        A caller that is cancelled waits until the process has stopped working, or kills it.

        Raises InvalidParams, UserError and TrainingStopped.
        """
        is_sent = is_answered = False
        try:
            await self._send(request, body)
            is_sent = True
            message, answer = await self._receive(max_answer_bytes)
            is_answered = True
        finally:
            if not is_answered:
                with trio.CancelScope(shield=True):
                    await self._give_up(request, max_answer_bytes, is_sent=is_sent)
        match message:
            case Refused(field=field, reason=reason):
                raise InvalidParams(field, reason)
            case NoDevice(reason=reason):
                raise UserError(reason)
            case Failed(reason=reason):
                raise await self._fail(reason)
            case Done() | Number():
                return message, answer
            case _:
                raise await self._fail(f"it answered {message}")

    async def kill(self) -> None:
        """End the process, whatever it does."""
        self.is_alive = False
        self._held = None
        self._process.kill()
        await self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            await stream.aclose()

    async def _give_up(self, request: AnyRequest, max_answer_bytes: int, *, is_sent: bool) -> None:
        """Leave the process ready for another request, or dead."""
        is_stopped = False
        if is_sent and self.is_alive and isinstance(request, Train):
            with trio.move_on_after(CANCEL_SECONDS):
                try:
                    await self._send(Cancel(number=request.number))
                    await self._receive(max_answer_bytes)
                    is_stopped = True
                except TrainingStopped:  # the caller is on its way out with its own reason
                    return
        if not is_stopped and self.is_alive:
            log.warning("training_process_killed", pid=self._process.pid)
            await self.kill()

    async def _send(self, message: Message, body: bytes = b"") -> None:
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send_all(encode_head(message, len(body)))
            if body:
                await self._process.stdin.send_all(body)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise await self._fail() from None

    async def _receive(self, max_body_bytes: int) -> tuple[ToNode, bytes]:
        """Read one answer. A caller that is cancelled may read on from where it stopped."""
        try:
            await self._fill(PREFIX.size)
            head_bytes, body_bytes = read_prefix(
                bytes(self._buffer[: PREFIX.size]), max_body_bytes=max_body_bytes
            )
            end = PREFIX.size + head_bytes
            await self._fill(end + body_bytes)
            message = decode_to_node(bytes(self._buffer[PREFIX.size : end]))
        except InvalidFrame as exc:
            raise await self._fail(f"it sent nonsense: {exc}") from exc
        body = bytes(self._buffer[end : end + body_bytes])
        del self._buffer[: end + body_bytes]
        return message, body

    async def _fill(self, size: int) -> None:
        assert self._process.stdout is not None
        while len(self._buffer) < size:
            data = await self._process.stdout.receive_some(_CHUNK_BYTES)
            if not data:
                raise await self._fail()
            self._buffer += data

    async def _fail(self, reason: str | None = None) -> TrainingStopped:
        """Bury the process; return the error to raise."""
        with trio.CancelScope(shield=True):
            if reason is None:
                with trio.move_on_after(CANCEL_SECONDS):
                    await self._process.wait()
                reason = _explain_end(self._process.returncode)
            await self.kill()
        log.warning("training_process_failed", pid=self._process.pid, reason=reason)
        return TrainingStopped(f"the training process failed: {reason}")


def _explain_end(status: int | None) -> str:
    """Say how a process ended, as `subprocess` tells it."""
    if status is None:
        return "it closed its output"
    if status >= 0:
        return f"it ended with status {status}"
    name = signal.Signals(-status).name
    hint = "; the system may be out of memory" if name == "SIGKILL" else ""
    return f"it was ended by {name}{hint}"
