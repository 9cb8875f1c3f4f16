"""Rounds of the simulation against rounds of Flower's.

* ``no-op``: clients that give back what they got. What is timed is how a client is handled: in the
  learning loop, where a client is a call; and in a whole market with chain, gossip and votes, where
  it is a node.
* ``training``: the same network, data, batches and epochs on all cores, each with its own code for
  training. Ours includes what verifies a round: every update is evaluated in exact integers, the
  distances are computed, the result is encoded and hashed.
"""

import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from time import perf_counter
from unittest.mock import patch

import numpy as np

from d2m_node.ports import TrainingTask
from d2m_node.simulation.computing.federation import Federation
from d2m_node.simulation.computing.training_pool import open_pool
from d2m_node.simulation.report.progress import Progress
from d2m_node.simulation.scenario.file import parse_scenario
from d2m_node.simulation.scenario.plan import Scenario
from d2m_node.simulation.world import market
from d2m_node.simulation.world.quiet import silenced_logs
from protocol.fixed_point import Int32
from protocol.model import count_parameters, mlp
from tests.bench.flower import open_flower
from tests.bench.loops import (
    FEDAVG,
    FILTERS,
    KERNEL,
    MARKET,
    SELLERS,
    SPEC,
    Loop,
    create_loop_rules,
    describe,
    load_digits,
    load_federation,
    name_data,
    train_all,
)
from tests.bench.rows import Plan, Row, Timing, measure_in_turn

NO_OP = mlp((1, 8, 8), 10, hidden=1333)
"""0.4 MB of parameters."""

CONES = 7


def run(plan: Plan) -> list[Row]:
    """Measure both; ``max_values`` limits the sellers' samples."""
    federation = load_federation(plan.max_values)
    return [
        *measure_no_op(plan.repetitions),
        measure_training(federation, plan.repetitions),
    ]


# --- clients that do nothing --------------------------------------------------------------------


def measure_no_op(repetitions: int) -> list[Row]:
    size = count_parameters(NO_OP)
    nothing = np.zeros(size, dtype=np.int32)
    loop = Loop(
        rules=create_loop_rules(FEDAVG, NO_OP, threads=1),
        federation=load_digits(),
        train=lambda drawn, *_: {index: nothing.copy() for index in drawn},
    )
    with open_flower({"parameters": size, "epochs": 0}, SELLERS) as flower:
        ours, theirs = measure_in_turn(
            {"d2m-node": loop.run_round, "Flower": flower.run_round}, repetitions
        )
    market = measure_market(repetitions)
    case = f"no-op: {SELLERS} clients, {4 * size / 1e6:.1f} MB"
    return [
        Row(case=f"{case}, learning loop, FedAvg", ours=ours, others=(theirs,)),
        Row(case=f"{case}, market with {CONES} CONE nodes", ours=market, others=(theirs,)),
    ]


def measure_market(rounds: int, sellers: int = SELLERS) -> Timing:
    """Time the rounds of one job but its first, whose end is the first that is seen."""
    ends: list[float] = []

    def note(progress: Progress) -> None:
        if progress.rounds_done > len(ends):
            ends.append(perf_counter())

    with silenced_logs(), patch.object(market, "open_pool", open_idle_pool):
        market.run_scenario(describe_market(rounds + 1, sellers), on_progress=note)
    return Timing("d2m-node", tuple(np.diff(ends).tolist()))


class IdlePool:
    """Gives updates that cost nothing, each another: copies would count as one."""

    def submit(self, task: TrainingTask) -> Future[Int32]:
        generator = np.random.default_rng(task.seed % 2**63)
        done: Future[Int32] = Future()
        done.set_result(generator.integers(-999, 999, len(task.parameters), dtype=np.int32))
        return done


@contextmanager
def open_idle_pool(*_: object) -> Iterator[IdlePool]:
    yield IdlePool()


def describe_market(rounds: int, sellers: int) -> Scenario:
    return parse_scenario(
        {
            "seed": 1,
            "sizes": {"buyers": 1, "sellers": sellers, "cones": CONES},
            "data": {"dataset": "digits", "validation_samples": 20, "test_samples": 10},
            "request": {
                "model": {
                    "preset": "mlp",
                    "input_shape": [1, 8, 8],
                    "outputs": 10,
                    "hidden": 1333,
                },
                "training": {"learning_rate": 0.01, "batch_size": 16, "epochs": 1},
                "validation": {"final_count": 10, "subset_count": 10},
                "terms": {
                    "target": 1.0,
                    "rounds_max": rounds,
                    "sellers_per_round": sellers,
                    "lead": 3,
                    "first_set_size": 4,
                    "growth_numerator": 3,
                    "growth_denominator": 2,
                },
            },
        }
    )


# --- clients that train -------------------------------------------------------------------------


def measure_training(federation: Federation, repetitions: int) -> Row:
    model = describe(federation)
    cores = os.cpu_count() or 1
    described = {
        "channels": model.input_shape[0],
        "height": model.input_shape[1],
        "width": model.input_shape[2],
        "filters": FILTERS,
        "kernel": KERNEL,
        "outputs": model.outputs,
        "epochs": SPEC.epochs,
        "batch_size": SPEC.batch_size,
        "rate_micros": SPEC.learning_rate_micros,
    }
    with (
        open_pool(cores) as pool,
        open_flower(described, SELLERS, federation.sellers) as flower,
    ):
        loop = Loop(
            rules=create_loop_rules(MARKET, model, cores),
            federation=federation,
            train=lambda drawn, parameters, index: train_all(
                pool, federation, drawn, parameters, index
            ),
        )
        loop.run_round()  # the first one starts the processes that train
        ours, theirs = measure_in_turn(
            {"d2m-node": loop.run_round, "Flower": flower.run_round}, repetitions
        )
    case = f"training: {name_data(federation)}, {cores} cores, ours verified"
    return Row(case=case, ours=ours, others=(theirs,))
