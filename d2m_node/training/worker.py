"""The training process: ``python -m d2m_node.training.worker``, started by `runner` alone.

It keeps torch, and whatever torch does to memory and devices, out of the node; and it leaves the
node's interpreter lock alone. It reads requests from its standard input and answers on its
standard output. It ends when its input does: the kernel closes the pipe when the node dies,
however it dies.
"""

import os
import queue
import signal
import sys
import threading
from typing import BinaryIO, Final

from d2m_node.errors import UserError
from d2m_node.ports import Samples, TrainingTask
from d2m_node.settings import Device
from d2m_node.training.devices import select_device
from d2m_node.training.pipe import (
    AnyRequest,
    Cancel,
    ChooseNoise,
    ComputeEpsilon,
    Done,
    Failed,
    InvalidFrame,
    Load,
    NoDevice,
    Number,
    Prepare,
    Refused,
    Stopped,
    ToNode,
    Train,
    decode_samples,
    encode_head,
    read_frame,
)
from protocol.errors import InvalidParams
from protocol.model import count_parameters
from protocol.update import TensorKind, decode_tensor, encode_tensor

NICENESS: Final = 10
"""The network comes first where there are not enough cores."""


class _Cancelled(Exception):
    """The node does not want the answer any more."""


class Inbox:
    """Requests in their order, read by a thread of its own so that a cancellation is seen."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._requests: queue.SimpleQueue[tuple[AnyRequest, bytes]] = queue.SimpleQueue()
        self._cancelled = 0
        """The highest number that was cancelled; requests come one at a time."""

    def start(self) -> None:
        """Read until the node closes the pipe; then the process ends at once."""
        threading.Thread(target=self._read, daemon=True).start()

    def take(self) -> tuple[AnyRequest, bytes]:
        """Wait for the next request and its body."""
        return self._requests.get()

    def is_cancelled(self, number: int) -> bool:
        """Tell whether a request is not wanted any more."""
        return number <= self._cancelled

    def _read(self) -> None:
        status = 0
        try:
            while (frame := read_frame(self._stream.read)) is not None:
                message, body = frame
                if isinstance(message, Cancel):
                    self._cancelled = message.number
                else:
                    self._requests.put((message, body))
        except InvalidFrame as exc:
            sys.stderr.write(f"d2m-node training: {exc}\n")
            status = 1
        finally:
            # Nothing here is worth finishing for a node that is gone.
            os._exit(status)


class Worker:
    """Answers requests; keeps the device and the samples between them."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._device = Device.AUTO
        self._samples: Samples | None = None

    def answer(self, request: AnyRequest, body: bytes) -> tuple[ToNode, bytes]:
        """Do what is asked; return the answer and its body."""
        try:
            match request:
                case Prepare(device=device):
                    select_device(device)
                    self._device = device
                    return Done(), b""
                case Load():
                    self._samples = decode_samples(body)
                    return Done(), b""
                case Train():
                    return Done(), self._train(request, body)
                case ComputeEpsilon() | ChooseNoise():
                    return Number(value=_account(request)), b""
        except InvalidParams as error:
            return Refused(field=error.field, reason=error.reason), b""
        except UserError as error:
            return NoDevice(reason=str(error)), b""
        except _Cancelled:
            return Stopped(), b""

    def _train(self, request: Train, body: bytes) -> bytes:
        from d2m_node.training.local import train_locally

        assert self._samples is not None, "the node sends samples before it asks to train"
        size = count_parameters(request.model)
        task = TrainingTask(
            model=request.model,
            parameters=decode_tensor(body, TensorKind.PARAMETERS, size),
            spec=request.spec,
            samples=self._samples,
            seed=request.seed,
            round_index=request.round_index,
            private=request.private,
        )
        update = train_locally(
            task,
            device=select_device(self._device),
            check_cancelled=lambda: self._check(request.number),
        )
        return encode_tensor(TensorKind.UPDATE, update)

    def _check(self, number: int) -> None:
        if self._inbox.is_cancelled(number):
            raise _Cancelled


def _account(request: ComputeEpsilon | ChooseNoise) -> float:
    # Two more seconds, for those alone who train with noise.
    from d2m_node.training.accounting import choose_noise, compute_epsilon

    if isinstance(request, ComputeEpsilon):
        return compute_epsilon(request.history, request.delta)
    return choose_noise(
        epsilon=request.epsilon,
        delta=request.delta,
        sample_rate=request.sample_rate,
        steps=request.steps,
    )


def serve(inbox: Inbox, output: BinaryIO) -> None:
    """Answer requests for ever, in their order."""
    worker = Worker(inbox)
    while True:
        request, body = inbox.take()
        try:
            message, answer = worker.answer(request, body)
        except Exception as error:  # the node must hear why before this process ends
            output.write(encode_head(Failed(reason=f"{type(error).__name__}: {error}"[:1000]), 0))
            output.flush()
            raise
        output.write(encode_head(message, len(answer)))
        output.write(answer)
        output.flush()


def main() -> None:
    """Serve the node that started this process."""
    # Whoever stops the node may signal its whole group; the node decides when training ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(NICENESS)
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a library prints is no answer.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    inbox = Inbox(sys.stdin.buffer)
    inbox.start()
    serve(inbox, output)


if __name__ == "__main__":
    main()
