"""Rounds of a learning loop by the market's rules or others', for benchmarks.

Benchmark data are read from the folder that D2M_DATA names; without it, digits stand in.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from d2m_node.ports import TrainingTask
from d2m_node.simulation.computing.federation import DataPlan, Federation, share_out
from d2m_node.simulation.computing.training_pool import Pool
from d2m_node.simulation.learning.rules import (
    Choice,
    LearningRules,
    Material,
    Place,
    create_rules,
)
from d2m_node.training.fast_exact import FastEvaluator
from protocol.aggregation import DEFAULT_KEEP_BPS, RoundRules
from protocol.fixed_point import Int32
from protocol.hashing import Domain, keccak, word
from protocol.model import ModelDescription, cnn
from protocol.osmd import DEFAULT_ALPHA_BPS, DEFAULT_ETA_Q16
from protocol.request import TrainingSpec
from protocol.round import compute_initial_state
from protocol.terms import Metric
from protocol.types import Address, JobId, RoundIndex

SELLERS = 50
VALIDATION = 1000
FILTERS, KERNEL = 32, 5
SPEC = TrainingSpec(learning_rate_micros=3_000, batch_size=64, epochs=3)
FEDAVG = Choice(sampler="uniform", aggregator="fedavg", parameters={})
MARKET = Choice(parameters={})


def load_federation(max_values: int | None) -> Federation:
    """Share MNIST out by Dirichlet's law, alpha 0.5; digits where there is none."""
    folder = os.environ.get("D2M_DATA")
    if folder is None:
        return load_digits()
    plan = DataPlan(
        dataset="mnist",
        validation_count=VALIDATION,
        per_seller=None if max_values is None else max_values // (SELLERS * 28 * 28),
    )
    return share_out(plan, SELLERS, 1, Path(folder))


def load_digits() -> Federation:
    """Share scikit-learn's digits out."""
    return share_out(DataPlan(dataset="digits", validation_count=200), SELLERS, 1, None)


@dataclass(kw_only=True)
class Loop:
    """A learning loop, a round at a time."""

    rules: LearningRules
    federation: Federation
    train: Callable[[Sequence[int], Int32, int], dict[int, Int32]]
    """Updates by seller, from the sellers, the parameters and the number of the round."""
    rounds_done: int = field(default=0)

    def run_round(self) -> None:
        index = self.rounds_done
        seed = keccak(word(index))
        drawn = self.rules.draw(seed)
        updates = self.train(drawn, self.rules.parameters, index)
        self.rules.run(
            Material(
                round_index=RoundIndex(index),
                drawn=drawn,
                updates=updates,
                samples=self.federation.validation.inputs,
                labels=self.federation.validation.labels,
                seed=seed,
            )
        )
        self.rounds_done += 1


def create_loop_rules(choice: Choice, model: ModelDescription, threads: int) -> LearningRules:
    rules = RoundRules(
        model=model,
        metric=Metric.ACC,
        sellers_per_round=SELLERS,
        alpha_bps=DEFAULT_ALPHA_BPS,
        eta_q16=DEFAULT_ETA_Q16[Metric.ACC],
        keep_bps=DEFAULT_KEEP_BPS,
    )
    payees = tuple(Address(word(index)[:20]) for index in range(SELLERS))
    place = Place(domain=Domain(1, payees[0]), job_id=JobId(1), payees=payees)
    start = compute_initial_state(rules, keccak(b"bench"), SELLERS)
    return create_rules(choice, rules, start, place, FastEvaluator(threads))


def describe(federation: Federation) -> ModelDescription:
    return cnn(federation.test.inputs.shape[1:], 10, channels=FILTERS, kernel=KERNEL)


def name_data(federation: Federation) -> str:
    total = sum(len(own.labels) for own in federation.sellers)
    return f"{SELLERS} clients, {total} samples"


def train_all(
    pool: Pool, federation: Federation, drawn: Sequence[int], parameters: Int32, round_index: int
) -> dict[int, Int32]:
    """Train for all sellers, the largest first, so that no core waits for the last one."""
    model = describe(federation)
    largest_first = sorted(drawn, key=lambda one: -len(federation.sellers[one].labels))
    futures: dict[int, Future[Int32]] = {}
    for index in largest_first:
        task = TrainingTask(
            model=model,
            parameters=parameters,
            spec=SPEC,
            samples=federation.sellers[index],
            seed=round_index * SELLERS + index,
        )
        futures[index] = pool.submit(task)
    return {index: futures[index].result() for index in drawn}
