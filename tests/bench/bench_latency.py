"""How late the event loop of a node is while it trains or evaluates, and how long training takes.

A tick asks to be woken every 10 ms; what is measured is the 99th percentile of its delay, with a
stream over loopback beside it. Training runs in its process, as a node does it, and in a thread.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from time import perf_counter

import numpy as np
import torch
import trio
from trio.testing import open_stream_to_socket_listener

from d2m_node.ports import Samples, TrainingTask
from d2m_node.settings import Device
from d2m_node.training.local import train_locally
from d2m_node.training.runner import open_trainer
from protocol.evaluation import compute_logits_of_all
from protocol.hashing import keccak
from protocol.model import ModelDescription, cnn, initial_parameters
from protocol.request import TrainingSpec
from tests.bench.rows import Plan, Row, Timing

TICK_SECONDS = 0.01
WATCH_SECONDS = 3.0
CHUNK_BYTES = 1 << 16
EVALUATED = 10

CASES = {
    "cnn, digits, batch 16": (cnn((1, 8, 8), 10), 300, 16, 60),
    "cnn, MNIST, batch 64": (cnn((1, 28, 28), 10), 1000, 64, 12),
}


def run(plan: Plan) -> list[Row]:
    """Measure every model: the delay of a tick, and the time of a training beside a stream."""
    rows = []
    for name, (model, count, batch_size, epochs) in CASES.items():
        task = make_task(model, count, batch_size, epochs)
        rows += [
            compare(f"delay of a tick, {name}", measure_delay, task, plan.repetitions),
            compare(f"training, {name}", measure_training, task, plan.repetitions),
        ]
    return rows


def make_task(model: ModelDescription, count: int, batch_size: int, epochs: int) -> TrainingTask:
    generator = np.random.default_rng(1)
    return TrainingTask(
        model=model,
        parameters=initial_parameters(model, keccak(b"bench")),
        spec=TrainingSpec(learning_rate_micros=1000, batch_size=batch_size, epochs=epochs),
        samples=Samples(
            inputs=generator.integers(0, 256, (count, *model.input_shape)).astype(np.uint8),
            labels=generator.integers(0, model.outputs, count),
        ),
        seed=1,
    )


Work = Callable[[TrainingTask], object]


def compare(case: str, measure: Callable, task: TrainingTask, repetitions: int) -> Row:  # type: ignore[type-arg]
    places = {"process": in_process, "thread": in_thread}
    if measure is measure_delay:
        places |= {"exact evaluation": in_evaluation, "nothing": in_nothing}
    timings = [
        Timing(name, tuple(trio.run(measure, place, task) for _ in range(repetitions)))
        for name, place in places.items()
    ]
    return Row(case=case, ours=timings[0], others=tuple(timings[1:]))


@asynccontextmanager
async def in_process() -> AsyncIterator[Work]:
    async with open_trainer(Device.CPU) as trainer:
        yield trainer.train


@asynccontextmanager
async def in_thread() -> AsyncIterator[Work]:
    async def train(task: TrainingTask) -> None:
        check = trio.from_thread.check_cancelled
        await trio.to_thread.run_sync(
            partial(train_locally, task, device=torch.device("cpu"), check_cancelled=check)
        )

    yield train


@asynccontextmanager
async def in_evaluation() -> AsyncIterator[Work]:
    async def evaluate(task: TrainingTask) -> None:
        candidates, inputs = [task.parameters] * EVALUATED, task.samples.inputs
        while True:
            await trio.to_thread.run_sync(compute_logits_of_all, task.model, candidates, inputs)

    yield evaluate


@asynccontextmanager
async def in_nothing() -> AsyncIterator[Work]:
    async def rest(_: TrainingTask) -> None:
        await trio.sleep_forever()

    yield rest


async def measure_delay(place: Callable, task: TrainingTask) -> float:  # type: ignore[type-arg]
    """Return the 99th percentile of a tick's delay while the work goes on."""
    endless = replace(task, spec=replace_epochs(task.spec, 1000))
    delays: list[float] = []
    async with place() as work:
        await work(replace(task, spec=replace_epochs(task.spec, 1))) if place in TRAINS else None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work, endless)
            nursery.start_soon(stream_for_ever)
            with trio.move_on_after(WATCH_SECONDS):
                await tick(delays)
            nursery.cancel_scope.cancel()
    return compute_percentile(delays, 99)


async def measure_training(place: Callable, task: TrainingTask) -> float:  # type: ignore[type-arg]
    """Return the time of one training beside a stream."""
    async with place() as work, trio.open_nursery() as nursery:
        await work(replace(task, spec=replace_epochs(task.spec, 1)))
        nursery.start_soon(stream_for_ever)
        start = perf_counter()
        await work(task)
        elapsed = perf_counter() - start
        nursery.cancel_scope.cancel()
    return elapsed


TRAINS = (in_process, in_thread)
"""Where torch is warmed up before anything is measured."""


def replace_epochs(spec: TrainingSpec, epochs: int) -> TrainingSpec:
    return TrainingSpec(
        learning_rate_micros=spec.learning_rate_micros, batch_size=spec.batch_size, epochs=epochs
    )


async def tick(delays: list[float]) -> None:
    while True:
        due = perf_counter() + TICK_SECONDS
        await trio.sleep(TICK_SECONDS)
        delays.append(perf_counter() - due)


async def stream_for_ever() -> None:
    """Send bytes to and fro over loopback, and hash some of them, as a node does with blobs."""

    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        stream = await open_stream_to_socket_listener(listener)
        data = bytes(CHUNK_BYTES)
        while True:
            await stream.send_all(data)
            received = 0
            while received < CHUNK_BYTES:
                received += len(await stream.receive_some(CHUNK_BYTES))
            keccak(data[:4096])


def compute_percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) * percent // 100]
