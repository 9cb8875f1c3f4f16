"""The learning loop: the rules of the market without its machinery, and other rules beside them."""

from concurrent.futures import Future
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from d2m_node.errors import UserError
from d2m_node.ports import Int32Array, TrainingTask
from d2m_node.roles import sources
from d2m_node.simulation.computing.federation import share_out
from d2m_node.simulation.computing.training_pool import InlinePool
from d2m_node.simulation.hostile.kinds import assign_kinds, spoil_samples
from d2m_node.simulation.learning.loop import (
    Helpers,
    LearningPlan,
    RoundNote,
    SeededSources,
    run_learning,
)
from d2m_node.simulation.learning.rules import BaselineRules, Choice, MarketRules, Place
from d2m_node.simulation.nodes.identities import make_identity
from d2m_node.simulation.report.outcome import Outcome
from d2m_node.simulation.scenario.file import parse_scenario
from d2m_node.simulation.scenario.plan import Scenario
from protocol.errors import InvalidParams
from protocol.round import RoundWork, compute_initial_state, compute_round
from protocol.types import Digest

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
    return run_learning(plan, data=None, helpers=Helpers())


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


class Watched(InlinePool):
    """Trains, and keeps what it was asked."""

    def __init__(self) -> None:
        self.tasks: list[TrainingTask] = []

    def submit(self, task: TrainingTask) -> "Future[Int32Array]":
        self.tasks.append(task)
        return super().submit(task)


@pytest.mark.parametrize(
    ("key", "table"),
    [
        ("hostile.cones", {"hostile": {"cones": [{"kind": "stale", "count": 1}]}}),
        ("ablate", {"ablate": ["yoda"]}),
        ("random_faults", {"random_faults": {"rate": 0.1, "kinds": ["crash"]}}),
    ],
)
def test_what_only_a_market_has_is_refused(key: str, table: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"^{key}: the learning alone has none"):
        run(scenario=make_scenario(**table))


def test_who_sends_noise_does_not_train() -> None:
    pool = Watched()
    plan = LearningPlan(scenario=make_hostile("idle", count=8), choice=MARKET)
    run_learning(plan, data=None, helpers=Helpers(pool=pool))
    assert pool.tasks == []


# --- the request's learning rate and step ------------------------------------------------------

SCHEDULE = {
    "training": {
        "learning_rate": Decimal("0.01"),
        "batch_size": 16,
        "epochs": 1,
        "rate_decay": Decimal("0.5"),
    },
    "step": {"lengths": [Decimal("0.5"), Decimal(2)], "momentum": Decimal("0.8")},
}


def make_scheduled(**changes: Any) -> Scenario:
    plain = make_scenario().table["request"]
    assert isinstance(plain, dict)
    return make_scenario(request={**plain, **SCHEDULE}, **changes)


def test_the_learning_rate_falls_with_each_round() -> None:
    pool = Watched()
    plan = LearningPlan(scenario=make_scheduled(), choice=MARKET)
    run_learning(plan, data=None, helpers=Helpers(pool=pool))
    assert list(dict.fromkeys(task.learning_rate for task in pool.tasks)) == [
        0.01,
        0.005,
        0.0025,
        0.00125,
    ]


@pytest.mark.parametrize(
    "choice",
    [
        MARKET,
        Choice(sampler="uniform", aggregator="fedavg", parameters={}),
        Choice(aggregator="gate+filter+round-krum", parameters={}),
    ],
)
def test_the_step_of_the_request_is_taken_whatever_the_rules(choice: Choice) -> None:
    found, plain = run(choice, make_scheduled()), run(choice)
    assert found.initial_accuracy == plain.initial_accuracy
    assert found.log_digest != plain.log_digest


def test_the_rules_taken_apart_take_the_step_of_the_market() -> None:
    whole = run(scenario=make_scheduled())
    parts = run(Choice(aggregator="gate+filter+round-krum", parameters={}), make_scheduled())
    assert parts.accuracy == whole.accuracy
    assert parts.payouts == whole.payouts


def test_each_round_is_told() -> None:
    told: list[RoundNote] = []
    plan = LearningPlan(scenario=make_scenario(), choice=MARKET)
    found = run_learning(plan, data=None, helpers=Helpers(on_round=told.append))
    assert [note.round_index for note in told] == [0, 1, 2, 3]
    assert tuple(note.accuracy for note in told) == found.accuracy


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


# --- the market's bytes -----------------------------------------------------------------------


class Observed:
    """`Sources` out of what the nodes of a market took from their chain and their entropy."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.works: list[RoundWork] = []
        self.digests: list[Digest] = []
        self.sellers_seeds: dict[int, Digest] = {}
        self.subset_seeds: dict[int, Digest] = {}
        self.final_seed = self.initial_seed = Digest(b"")
        self.tasks: list[TrainingTask] = []

    @property
    def place(self) -> Place:
        work = self.works[0]
        return Place(domain=work.domain, job_id=work.job_id, payees=work.payees)

    @property
    def sellers(self) -> tuple[str, ...]:
        names = make_scenario().sizes.names_of("seller")
        accounts = {make_identity(self._seed, name).account: name for name in names}
        return tuple(accounts[account] for account in self.place.payees)

    def seller_seed(self, round_index: int) -> Digest:
        return self.sellers_seeds[round_index]

    def subset_seed(self, round_index: int) -> Digest:
        return self.subset_seeds[round_index]

    def training_seed(self, round_index: int, seller: str) -> int:
        before = self.works[round_index].before.parameters
        labels = self._labels[seller]
        (seed,) = {
            task.seed
            for task in self.tasks
            if np.array_equal(task.parameters, before)
            and np.array_equal(task.samples.labels, labels)
        }
        return seed

    def share_out(self, scenario: Scenario) -> None:
        """Remember who holds what, so that a training is known by its samples."""
        federation = share_out(scenario.data, scenario.sizes.sellers, scenario.seed, None)
        self._labels = {}
        kinds = assign_kinds(
            scenario.sizes.names_of("seller"), scenario.hostile_sellers, scenario.seed, "seller"
        )
        for name, samples in zip(
            scenario.sizes.names_of("seller"), federation.sellers, strict=True
        ):
            secret = make_identity(scenario.seed, name).secret
            self._labels[name] = spoil_samples(samples, kinds.get(name), secret).labels


def run_market(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> tuple[Observed, Outcome]:
    """Run the whole market, and keep what its rounds were computed from."""
    from d2m_node.roles import executor, findings, validation
    from d2m_node.simulation.world.market import run_scenario

    seen = Observed(scenario.seed)
    seen.share_out(scenario)

    def compute(work: RoundWork, *rest: Any) -> Any:
        result = compute_round(work, *rest)
        if work.round_index == len(seen.works):
            seen.works.append(work)
            seen.digests.append(result.digest)
        return result

    def keep(place: dict[int, Digest], compute_seed: Any) -> Any:
        def compute(domain: Any, job: Any, round_index: int, randomness: bytes) -> Digest:
            place[round_index] = compute_seed(domain, job, round_index, randomness)
            return place[round_index]

        return compute

    def split(seed: Digest, *rest: Any) -> Any:
        seen.final_seed = seed
        return validation_split(seed, *rest)

    def start(rules: Any, seed: Digest, count: int) -> Any:
        seen.initial_seed = seed
        return compute_initial_state(rules, seed, count)

    submit = InlinePool.submit
    validation_split = validation.split_validation_set
    monkeypatch.setattr(executor, "compute_round", compute)
    for name, place in (("seller", seen.sellers_seeds), ("subset", seen.subset_seeds)):
        attribute = f"compute_{name}_seed"
        monkeypatch.setattr(findings, attribute, keep(place, getattr(findings, attribute)))
    monkeypatch.setattr(validation, "split_validation_set", split)
    monkeypatch.setattr(sources, "compute_initial_state", start)
    monkeypatch.setattr(
        InlinePool, "submit", lambda self, task: (seen.tasks.append(task), submit(self, task))[1]
    )
    outcome = run_scenario(scenario)
    monkeypatch.undo()
    return seen, outcome


HOSTILE = {"sellers": [{"kind": "alie", "count": 2}, {"kind": "label-flip", "count": 1}]}


@pytest.mark.parametrize(
    "scenario",
    [make_scenario(), make_scenario(hostile=HOSTILE), make_scheduled(hostile=HOSTILE)],
    ids=["honest", "hostile", "scheduled"],
)
def test_rounds_have_the_bytes_of_those_of_the_whole_market(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, market = run_market(scenario, monkeypatch)
    told: list[RoundNote] = []
    plan = LearningPlan(scenario=scenario, choice=MARKET)
    alone = run_learning(plan, data=None, helpers=Helpers(on_round=told.append), sources=seen)
    assert len(seen.digests) == 4
    assert [note.digest for note in told] == seen.digests
    assert alone.accuracy == market.accuracy

    def weigh(outcome: Outcome) -> dict[str, int]:
        return {one.node: one.contribution for one in outcome.payouts if one.role == "seller"}

    assert weigh(alone) == weigh(market)
