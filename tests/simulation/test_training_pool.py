"""Training in simulated time: in parallel or not, alone or as a ring, always the same."""

import numpy as np
import pytest
import trio

from d2m_node.ports import Samples, TrainingTask
from d2m_node.simulation.computing.training_pool import InlinePool, PooledTrainer, open_pool
from d2m_node.simulation.hostile.rings import Ring, RingTrainer
from d2m_node.simulation.hostile.update_attacks import UPDATE_ATTACKS
from d2m_node.simulation.world.virtual_time import run_in_virtual_time
from protocol.errors import InvalidParams
from protocol.hashing import keccak
from protocol.model import initial_parameters, logreg
from protocol.request import TrainingSpec

MODEL = logreg((1, 4, 4), 3)
SPEC = TrainingSpec(learning_rate_micros=10_000, batch_size=8, epochs=1)


def make_task(seller: int, start: int = 0) -> TrainingTask:
    generator = np.random.default_rng(seller)
    return TrainingTask(
        model=MODEL,
        parameters=initial_parameters(MODEL, keccak(b"start")) + np.int32(start),
        spec=SPEC,
        samples=Samples(
            inputs=generator.integers(0, 256, (24, 1, 4, 4), dtype=np.uint8),
            labels=np.arange(24) % 3,
        ),
        seed=seller,
    )


def test_processes_give_the_same_updates_as_this_one() -> None:
    tasks = [make_task(seller) for seller in range(6)]
    inline = [InlinePool().submit(task).result() for task in tasks]
    with open_pool(2) as pool:
        futures = [pool.submit(task) for task in tasks]
        for future, update in zip(futures, inline, strict=True):
            np.testing.assert_array_equal(future.result(), update)


def test_what_cannot_be_trained_is_refused_alike_by_both() -> None:
    task = make_task(1)
    broken = TrainingTask(
        model=task.model,
        parameters=task.parameters,
        spec=task.spec,
        samples=Samples(inputs=task.samples.inputs, labels=task.samples.labels + 9),
        seed=1,
    )
    for size in (0, 1):
        with open_pool(size) as pool, pytest.raises(InvalidParams, match="samples"):
            pool.submit(broken).result()


def test_a_training_takes_its_simulated_time_however_long_it_takes_really() -> None:
    async def train_all() -> list[float]:
        ended: list[float] = []

        async def train(seconds: float) -> None:
            await PooledTrainer(InlinePool(), seconds).train(make_task(1))
            ended.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for seconds in (30.0, 10.0, 20.0):
                nursery.start_soon(train, seconds)
        return ended

    assert run_in_virtual_time(train_all, seed=1) == [10.0, 20.0, 30.0]


def test_a_ring_makes_up_its_updates_from_what_all_members_of_the_round_learned() -> None:
    ring = Ring(UPDATE_ATTACKS["identical"](factor=1.0), b"seed")
    sent: dict[int, np.ndarray] = {}

    async def train_all() -> None:
        async def train(member: int, seconds: float) -> None:
            trainer = RingTrainer(PooledTrainer(InlinePool(), seconds), ring, member)
            sent[member] = await trainer.train(make_task(member))

        async with trio.open_nursery() as nursery:
            for member, seconds in ((1, 9.0), (2, 5.0), (3, 7.0)):
                nursery.start_soon(train, member, seconds)

    run_in_virtual_time(train_all, seed=1)
    honest = InlinePool().submit(make_task(1)).result()
    for update in sent.values():
        np.testing.assert_array_equal(update, -honest)


def test_a_free_rider_replays_the_step_of_the_model() -> None:
    ring = Ring(UPDATE_ATTACKS["replay"](noise=0.0), b"seed")

    async def train_twice() -> list[np.ndarray]:
        trainer = RingTrainer(PooledTrainer(InlinePool(), 1.0), ring, 0)
        return [await trainer.train(make_task(0, start)) for start in (0, 50)]

    first, second = run_in_virtual_time(train_twice, seed=1)
    assert not first.any()
    assert (second == 50).all()
