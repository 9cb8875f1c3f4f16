"""The learning loop: the rules of the market without its machinery, and other rules beside them."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from d2m_node.errors import UserError
from d2m_node.ports import Int32Array, TrainingTask
from d2m_node.simulation.learning import (
    Helpers,
    LearningPlan,
    RoundNote,
    SeededSources,
    run_learning,
    train_inline,
)
from d2m_node.simulation.learning_rules import BaselineRules, Choice, MarketRules
from d2m_node.simulation.outcome import Outcome
from d2m_node.simulation.scenario import Scenario, parse_scenario
from d2m_node.simulation.server_step import ServerStep
from protocol.baselines.interface import Aggregate, Offers
from protocol.errors import InvalidParams
from protocol.update import MAX_UPDATE

MARKET = Choice(parameters={})


def make_scenario(**changes: Any) -> Scenario:
    table: dict[str, object] = {
        "seed": 1,
        "sizes": {"sellers": 8, "cones": 5},
        "data": {"validation_samples": 300, "test_samples": 100},
        "request": {
            "model": {"preset": "logreg", "input_shape": [1, 8, 8], "outputs": 10},
            "training": {"learning_rate": Decimal("0.01"), "batch_size": 16, "epochs": 1},
            "validation": {"final_count": 100, "subset_count": 150},
            "terms": {"target": Decimal("0.9"), "rounds_max": 4, "sellers_per_round": 6},
        },
    }
    return parse_scenario({**table, **changes})


def run(choice: Choice = MARKET, scenario: Scenario | None = None, **changes: Any) -> Outcome:
    plan = LearningPlan(scenario=scenario or make_scenario(), choice=choice, **changes)
    return run_learning(plan, data=None, helpers=Helpers(train=train_inline))


def same(one: Outcome, other: Outcome) -> bool:
    return replace(one, seconds=0) == replace(other, seconds=0)


def test_a_run_is_a_function_of_its_seed() -> None:
    first = run()
    assert same(first, run())
    assert first.log_digest != run(scenario=make_scenario(seed=2)).log_digest
    assert len(first.accuracy) == 4
    assert first.final_accuracy == first.accuracy[-1]


def test_a_model_learns() -> None:
    scenario = make_scenario()
    request = replace(scenario.request, terms=replace(scenario.request.terms, rounds_max=10))
    found = run(scenario=replace(scenario, request=request))
    assert found.final_accuracy > found.initial_accuracy + 0.4


def test_the_rules_of_the_market_taken_apart_lead_to_the_same_model() -> None:
    whole = run()
    parts = run(Choice(aggregator="gate+filter+round-krum", parameters={}))
    assert parts.accuracy == whole.accuracy
    assert parts.payouts == whole.payouts


@pytest.mark.parametrize(
    ("choice", "rules"),
    [
        (MARKET, MarketRules),
        (Choice(parameters={"keep_bps": 1}), BaselineRules),
        (Choice(sampler="uniform", parameters={}), BaselineRules),
        (Choice(aggregator="fedavg", parameters={}), BaselineRules),
        (Choice(server_momentum=1, parameters={}), BaselineRules),
    ],
)
def test_only_the_market_s_own_rules_go_through_its_round(choice: Choice, rules: type) -> None:
    assert choice.is_market == (rules is MarketRules)


@pytest.mark.parametrize(
    ("sampler", "aggregator", "parameters"),
    [
        ("uniform", "fedavg", {}),
        ("zlfk", "fedavg", {"eta": 1.0, "alpha": 0.1}),
        ("osmd", "multi-krum", {"byzantine_count": 1}),
        ("uniform", "nnm+krum", {"byzantine_count": 1}),
        ("uniform", "median", {}),
        ("uniform", "trimmed-mean", {"byzantine_count": 1}),
        ("uniform", "centred-clipping", {"radius": 1.0}),
        ("uniform", "corrected-osmd", {}),
    ],
)
def test_every_baseline_runs(sampler: str, aggregator: str, parameters: dict[str, object]) -> None:
    found = run(Choice(sampler=sampler, aggregator=aggregator, parameters=parameters))
    assert len(found.accuracy) == 4
    assert found.final_accuracy > 0.1


def test_other_rules_see_the_same_data_and_the_same_first_model() -> None:
    one, other = run(), run(Choice(sampler="uniform", aggregator="fedavg", parameters={}))
    assert one.initial_accuracy == other.initial_accuracy


def test_a_rule_that_cannot_hold_for_so_few_leaves_the_model_as_it_is() -> None:
    choice = Choice(sampler="uniform", aggregator="krum", parameters={"byzantine_count": 5})
    found = run(choice)
    assert set(found.accuracy) == {found.initial_accuracy}
    assert {payout.contribution for payout in found.payouts} == {0}


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(InvalidParams, match="no 'krumm'"):
        run(Choice(aggregator="krumm", parameters={}))


# --- hostile sellers --------------------------------------------------------------------------


def make_hostile(kind: str, count: int = 2) -> Scenario:
    return make_scenario(hostile={"sellers": [{"kind": kind, "count": count}]})


@pytest.mark.parametrize(
    "kind",
    ["noise", "sign-flip", "scaled", "alie", "inner-product", "identical", "idle", "replay"],
)
def test_hostile_sellers_send_what_their_attack_says(kind: str) -> None:
    found = run(scenario=make_hostile(kind))
    groups = [payout.group for payout in found.payouts]
    assert (groups.count(kind), groups.count("honest")) == (2, 6)


@pytest.mark.parametrize("kind", ["label-flip", "noisy", "poor"])
def test_sellers_with_other_data_train_on_them(kind: str) -> None:
    found = run(scenario=make_hostile(kind))
    assert found.log_digest != run().log_digest
    assert {payout.group for payout in found.payouts} == {"honest", kind}


def test_reversed_updates_are_not_paid() -> None:
    found = run(scenario=make_hostile("sign-flip"))
    paid = {one.node: one.payout_wei for one in found.payouts if one.group == "sign-flip"}
    assert set(paid.values()) == {0}
    assert sum(one.payout_wei for one in found.payouts) > 0


@pytest.mark.parametrize("kind", ["partial", "equivocate"])
def test_an_attack_that_needs_a_network_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match=f"{kind} needs a network; simulate the whole market"):
        run(scenario=make_hostile(kind))


def test_who_sends_noise_does_not_train() -> None:
    asked: list[int] = []

    def train(tasks: Sequence[TrainingTask]) -> list[Int32Array]:
        asked.append(len(tasks))
        return train_inline(tasks)

    plan = LearningPlan(scenario=make_hostile("idle", count=8), choice=MARKET)
    run_learning(plan, data=None, helpers=Helpers(train=train))
    assert set(asked) == {0}


# --- training, and the server's step ----------------------------------------------------------


def test_the_learning_rate_falls_with_each_round() -> None:
    rates: list[int] = []

    def train(tasks: Sequence[TrainingTask]) -> list[Int32Array]:
        rates.append(tasks[0].spec.learning_rate_micros)
        return train_inline(tasks)

    plan = LearningPlan(scenario=make_scenario(), choice=MARKET, rate_decay=Decimal("0.5"))
    run_learning(plan, data=None, helpers=Helpers(train=train))
    assert rates == [10_000, 5_000, 2_500, 1_250]


def test_each_round_is_told() -> None:
    told: list[RoundNote] = []
    plan = LearningPlan(scenario=make_scenario(), choice=MARKET)
    found = run_learning(plan, data=None, helpers=Helpers(train=train_inline, on_round=told.append))
    assert [note.round_index for note in told] == [0, 1, 2, 3]
    assert tuple(note.accuracy for note in told) == found.accuracy


class Fixed:
    """Aggregates to the first update."""

    def aggregate(self, offers: Offers) -> Aggregate:
        return Aggregate(step=offers.updates[0], contributors=(0,))


def make_offers(step: list[int], **changes: Any) -> Offers:
    best_at_ten = {"measure": lambda updates: [-abs(int(one[0]) - 10) for one in updates]}
    whole: dict[str, Any] = {**best_at_ten, **changes}
    return Offers(sellers=(0,), updates=(np.array(step, np.int32),), seed=b"\x00" * 32, **whole)


def test_the_length_that_measures_best_is_taken_and_the_first_of_equals() -> None:
    rule = ServerStep(Fixed(), factors=(256, 512, 1024))
    assert rule.aggregate(make_offers([5])).step.tolist() == [10]
    flat = make_offers([5], measure=lambda updates: [0] * len(updates))
    assert rule.aggregate(flat).step.tolist() == [5]


def test_one_length_is_not_measured() -> None:
    def refuse(_: object) -> list[int]:
        raise AssertionError("nothing is to be measured")

    rule = ServerStep(Fixed(), factors=(384,))
    assert rule.aggregate(make_offers([5, -5], measure=refuse)).step.tolist() == [8, -7]


def test_momentum_adds_a_part_of_the_last_step() -> None:
    rule = ServerStep(Fixed(), momentum=128)
    last = np.array([100], np.int32)
    assert rule.aggregate(make_offers([5], previous_step=last)).step.tolist() == [55]
    assert rule.aggregate(make_offers([5])).step.tolist() == [5]


def test_a_lengthened_step_stays_within_the_bound_of_an_update() -> None:
    rule = ServerStep(Fixed(), factors=(4096,))
    found = rule.aggregate(make_offers([MAX_UPDATE, -MAX_UPDATE]))
    assert found.step.tolist() == [MAX_UPDATE, -MAX_UPDATE]


@pytest.mark.parametrize("factors", [(), (0,), (-1,), (5000,)])
def test_a_length_that_makes_no_sense_is_refused(factors: tuple[int, ...]) -> None:
    with pytest.raises(InvalidParams, match="server_steps"):
        ServerStep(Fixed(), factors=factors)


def test_sources_of_one_seed_differ_by_purpose_round_and_seller() -> None:
    sources = SeededSources(1, ("seller-1", "seller-2"))
    drawn = [
        *(sources.seller_seed(number) for number in range(3)),
        *(sources.subset_seed(number) for number in range(3)),
        sources.initial_seed,
        sources.final_seed,
    ]
    assert len(set(drawn)) == len(drawn)
    trained = {sources.training_seed(number, name) for number in range(3) for name in "ab"}
    assert len(trained) == 6
