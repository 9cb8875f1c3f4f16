"""What the protocol adds to a round: the market's rules against a plain FedAvg loop, on one core.

Both get the same updates. What is timed is the rules, and then what a person writes first: a mean
of floats, and the loss of what comes out. The time of training is added to both. All of it is the
processor's time, and in this process, so that it does not count what else the machine does.
"""

from collections.abc import Sequence
from time import process_time

import numpy as np
import torch
from torch.nn import functional

from d2m_node.ports import Samples
from d2m_node.simulation.computing.federation import Federation
from d2m_node.simulation.computing.training_pool import open_pool
from d2m_node.training.models import build_module, load_parameters
from protocol.fixed_point import Int32
from protocol.model import ModelDescription
from protocol.update import dequantise
from tests.bench.loops import (
    MARKET,
    SELLERS,
    Loop,
    create_loop_rules,
    describe,
    load_federation,
    name_data,
    train_all,
)
from tests.bench.rows import Plan, Row, Timing, measure_in_turn


def run(plan: Plan) -> list[Row]:
    """Measure one round; ``max_values`` limits the sellers' samples."""
    return [measure_protocol(load_federation(plan.max_values), plan.repetitions)]


def measure_protocol(federation: Federation, repetitions: int) -> Row:
    """Train once per repetition; both rules get the same updates and the same time of training."""
    model = describe(federation)
    market = create_loop_rules(MARKET, model, threads=1)
    plain = PlainLoop(model, market.parameters, federation.validation)
    updates: dict[int, Int32] = {}
    with open_pool(0) as pool:

        def train(drawn: Sequence[int], parameters: Int32, index: int) -> dict[int, Int32]:
            return updates

        loop = Loop(rules=market, federation=federation, train=train)

        def train_first() -> None:
            everybody = range(SELLERS)
            updates.update(
                train_all(pool, federation, everybody, market.parameters, loop.rounds_done)
            )

        training, ours, theirs = measure_in_turn(
            {
                "training": train_first,
                "market's rules": loop.run_round,
                "plain FedAvg": lambda: plain.run_round(list(updates.values())),
            },
            repetitions,
            clock=process_time,
        )
    case = f"protocol: {name_data(federation)}, one core, training included"
    return Row(case=case, ours=add(training, ours), others=(add(training, theirs),))


def add(training: Timing, rules: Timing) -> Timing:
    """Add the same time of training to both contenders: the best, which flatters neither."""
    return Timing(rules.name, tuple(training.best + one for one in rules.seconds))


class PlainLoop:
    """FedAvg as one writes it first: the mean of float updates, and the loss of what comes out."""

    def __init__(self, model: ModelDescription, start: Int32, validation: Samples) -> None:
        self.parameters = dequantise(start).astype(np.float32)
        self._module = build_module(model)
        self._inputs = torch.from_numpy(validation.inputs).float() / 255
        self._labels = torch.from_numpy(validation.labels)

    @torch.inference_mode()
    def run_round(self, updates: Sequence[Int32]) -> float:
        mean = np.mean([dequantise(one).astype(np.float32) for one in updates], axis=0)
        self.parameters = self.parameters + mean
        load_parameters(self._module, self.parameters)
        return float(functional.cross_entropy(self._module(self._inputs), self._labels))
