"""What is timed against Flower and a plain loop is the same learning."""

import numpy as np
import pytest
import torch

from d2m_node.simulation.computing.federation import Federation
from d2m_node.simulation.computing.training_pool import open_pool
from protocol.model import count_parameters, initial_parameters
from protocol.update import dequantise
from tests.bench.bench_overhead import PlainLoop
from tests.bench.bench_simulation import NO_OP, measure_market
from tests.bench.loops import (
    FEDAVG,
    MARKET,
    SELLERS,
    Loop,
    create_loop_rules,
    describe,
    load_digits,
    train_all,
)


@pytest.fixture(scope="module")
def federation() -> Federation:
    return load_digits()


def test_the_model_of_the_clients_that_do_nothing_has_four_tenths_of_a_megabyte() -> None:
    assert 0.39e6 < 4 * count_parameters(NO_OP) < 0.41e6


def test_all_sellers_train_in_the_timed_rounds_and_the_model_moves(
    federation: Federation,
) -> None:
    model = describe(federation)
    seen = {}
    with open_pool(0) as pool:

        def train(drawn, parameters, index):
            seen.update(train_all(pool, federation, drawn, parameters, index))
            return seen

        loop = Loop(
            rules=create_loop_rules(MARKET, model, threads=1),
            federation=federation,
            train=train,
        )
        before = loop.rules.parameters
        loop.run_round()
    assert sorted(seen) == list(range(SELLERS))
    assert all(np.any(update) for update in seen.values())
    assert np.any(loop.rules.parameters != before)


def test_the_plain_loop_takes_the_steps_of_fedavg_but_for_rounding(federation: Federation) -> None:
    model = describe(federation)
    updates = {
        index: initial_parameters(model, bytes([index] * 32)) // 10 for index in range(SELLERS)
    }
    loop = Loop(
        rules=create_loop_rules(FEDAVG, model, threads=1),
        federation=federation,
        train=lambda *_: updates,
    )
    plain = PlainLoop(model, loop.rules.parameters, federation.validation)
    plain.run_round(list(updates.values()))
    loop.run_round()
    difference = torch.from_numpy(dequantise(loop.rules.parameters) - plain.parameters)
    assert difference.abs().max() <= 2**-20


def test_each_round_of_the_timed_market_is_timed_once() -> None:
    assert len(measure_market(2, sellers=6).seconds) == 2
