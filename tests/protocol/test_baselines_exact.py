from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from protocol.aggregation import RoundInputs, aggregate_round, compute_tolerated
from protocol.baselines.exact import CorrectedKrum, Gate, RoundKrum, Staged, UtilityFilter
from protocol.baselines.floats import FloatAggregator
from protocol.baselines.interface import Aggregate, Feedback, Mechanism, Offers
from protocol.baselines.registry import create_mechanism
from protocol.baselines.rules import FedAvg
from protocol.baselines.samplers import OsmdSampler, OsmdSampling, UniformSampling, ZlfkSampling
from protocol.digest import NO_UTILITY
from protocol.errors import TooFewUpdates
from protocol.evaluation import compute_logits_of_all
from protocol.fixed_point import Int32
from protocol.krum import KrumMode, aggregate_krum
from protocol.linear_algebra import compute_rounded_mean, measure_update
from protocol.metrics import compute_utility
from protocol.terms import Metric
from protocol.update import apply_update
from tests.protocol.vectors import load_vectors
from tests.support.offers import make_offers, make_updates, measure_sum, refuse_to_measure
from tests.support.small_round import ROUND_RULES, make_round_inputs

VECTORS = load_vectors()


@pytest.mark.parametrize("mode", list(KrumMode))
def test_corrected_krum_gives_the_recorded_step(mode: KrumMode) -> None:
    recorded = VECTORS[f"krum_{mode.value}"]
    offers = make_offers(recorded["U"], sellers=recorded["ids"])
    result = CorrectedKrum(recorded["f"], 3, mode).aggregate(offers)
    assert list(result.contributors) == recorded["accepted"]
    assert result.step.tolist() == recorded["delta"]
    assert result.utilities is None


def test_corrected_krum_hears_a_seller_once() -> None:
    honest = [[0, 0], [3, 0], [0, 3], [3, 3]]
    offers = make_offers([*honest, *[[90, 90]] * 4], sellers=(0, 1, 2, 3, 7, 7, 7, 7))
    assert CorrectedKrum(1, 1).aggregate(offers).contributors == (0,)


def test_corrected_krum_accepts_all_but_f_by_default() -> None:
    assert len(CorrectedKrum(2).aggregate(make_offers(make_updates(9))).contributors) == 7


@pytest.mark.parametrize(
    ("count", "byzantine_count"), [(10, 3), (9, 2), (8, 1), (7, 1), (5, 1), (4, 0), (1, 0)]
)
def test_the_rounds_krum_tolerates_less_when_fewer_are_left(
    count: int, byzantine_count: int
) -> None:
    offers = make_offers(make_updates(count))
    assert compute_tolerated(10) == 3
    result = RoundKrum(10).aggregate(offers)
    expected = aggregate_krum(
        range(count),
        offers.updates,
        byzantine_count=byzantine_count,
        accepted_count=count - byzantine_count,
    )
    assert result.contributors == expected.accepted
    assert (result.step == expected.step).all()


def test_the_gate_passes_on_equalised_updates_and_what_they_are_worth() -> None:
    honest = make_updates(5)
    tiny = [value // 100 for value in honest[0]]
    seen: list[Int32] = []

    def measure(updates: Sequence[Int32]) -> list[int]:
        seen.extend(updates)
        return measure_sum(updates)

    offers = make_offers([*honest, tiny], sellers=(1, 2, 4, 5, 8, 9), measure=measure)
    passed = Gate(6).select(offers)
    assert passed is not None
    assert passed.sellers == (1, 2, 4, 5, 8)
    norms = [float(np.linalg.norm(update)) for update in passed.updates]
    assert norms == pytest.approx([norms[0]] * 5, rel=1e-4)
    assert len(seen) == 5  # the rejected one costs no evaluation
    assert list(passed.measure_all().values()) == measure_sum(passed.updates)


def test_the_gate_counts_a_repeated_seller_once() -> None:
    honest = make_updates(5)
    offers = make_offers([*honest, honest[4]], sellers=(1, 2, 4, 5, 8, 8), measure=measure_sum)
    passed = Gate(6).select(offers)
    assert passed is not None
    assert passed.sellers == (1, 2, 4, 5, 8)


def test_the_filter_keeps_the_best_and_the_utilities_of_all() -> None:
    rows = [[30], [10], [20], [40], [40], [5], [1], [0]]
    offers = make_offers(rows, measure=lambda updates: [int(update[0]) for update in updates])
    kept = UtilityFilter(10, keep_bps=5000).select(offers)
    assert kept.sellers == (0, 1, 2, 3, 4)
    assert [int(update[0]) for update in kept.updates] == [30, 10, 20, 40, 40]
    assert dict(kept.measure_all()) == dict(enumerate(value for (value,) in rows))
    # At least five, and of equal utilities the smaller index first.
    assert UtilityFilter(4).select(offers).sellers == (0, 1, 2, 3, 4)
    tied = make_offers([[1]] * 7, measure=lambda updates: [0] * len(updates))
    assert UtilityFilter(5).select(tied).sellers == (0, 1, 2, 3, 4)


def test_what_was_measured_before_the_filter_is_not_measured_again() -> None:
    offers = replace(make_offers([[1], [2]]), utilities={0: 5, 1: 3})
    assert offers.measure is refuse_to_measure
    assert UtilityFilter(2).select(offers).sellers == (0, 1)


def test_a_rule_after_stages_reports_the_utilities_of_the_stages() -> None:
    offers = make_offers(make_updates(7), measure=measure_sum)
    result = Staged((Gate(7), UtilityFilter(7)), FloatAggregator(FedAvg())).aggregate(offers)
    passed = Gate(7).select(offers)
    assert passed is not None
    assert result.utilities == passed.utilities
    assert len(result.contributors) == 5  # keep = 0.7 of 7


def test_nobody_contributes_when_the_gate_leaves_nobody() -> None:
    offers = make_offers([[0] * 4] * 6, measure=measure_sum)
    result = Staged((Gate(6),), RoundKrum(6)).aggregate(offers)
    assert result.step.tolist() == [0] * 4
    assert (result.contributors, result.utilities) == ((), {})


def test_offers_must_fit_together() -> None:
    with pytest.raises(TooFewUpdates):
        make_offers([])
    with pytest.raises(ValueError, match="ascending"):
        make_offers([[1], [2]], sellers=(3, 1))
    with pytest.raises(ValueError, match="2 updates of 1 sellers"):
        make_offers([[1], [2]], sellers=(3,))
    with pytest.raises(ValueError, match="differ in shape"):
        make_offers([[1], [2, 3]])


class FirstOnly:
    """An aggregator that measures one update, and says so."""

    def aggregate(self, offers: Offers) -> Aggregate:
        return Aggregate(
            step=offers.updates[0],
            contributors=offers.sellers[:1],
            utilities={offers.sellers[0]: 9},
        )


def test_a_sampler_learns_from_what_the_aggregator_measured() -> None:
    sampler = OsmdSampling(2).start(4)
    offers = make_offers([[1], [2]], sellers=(0, 3))
    _, after = Mechanism(sampler, FirstOnly()).run_round((0, 2, 3), offers)
    learnt = Feedback(drawn=(0, 2, 3), absent=frozenset({2}), utilities={0: 9})
    assert after.sampler == sampler.step(learnt)


def test_updates_are_measured_as_sent_when_only_the_sampler_asks() -> None:
    sampler = ZlfkSampling(3).start(4)
    offers = make_offers([[7], [7], [-2]], sellers=(1, 1, 3), measure=measure_sum)
    result, after = Mechanism(sampler, FloatAggregator(FedAvg())).run_round((1, 1, 3), offers)
    assert result.step.tolist() == [4]
    assert after.sampler == sampler.step(Feedback(drawn=(1, 1, 3), utilities={1: 7, 3: -2}))


def test_nothing_is_measured_when_nobody_asks() -> None:
    mechanism = Mechanism(UniformSampling(2).start(4), FloatAggregator(FedAvg()))
    result, after = mechanism.run_round((0, 1), make_offers([[7], [-1]]))
    assert result.step.tolist() == [3]
    assert after == mechanism


def test_without_corrected_osmd_the_step_is_the_plain_mean_of_uniform_sellers() -> None:
    """The ablation of MECHANISM 18.20; the float mean is the exact one within a unit."""
    rows = make_updates(8)
    mechanism = Mechanism(UniformSampling(8).start(8), FloatAggregator(FedAvg()))
    offers = make_offers(rows)
    result, _ = mechanism.run_round(mechanism.sampler.draw(bytes(32)), offers)
    exact = compute_rounded_mean([measure_update(np.array(row, dtype=np.int32)) for row in rows])
    assert np.abs(result.step - exact).max() <= 1
    assert result.contributors == tuple(range(8))


def offer_to_market(inputs: RoundInputs) -> Offers:
    def measure(updates: Sequence[Int32]) -> list[int]:
        models = [inputs.parameters, *(apply_update(inputs.parameters, one) for one in updates)]
        logits = compute_logits_of_all(ROUND_RULES.model, models, inputs.samples)
        before, *after = (compute_utility(Metric.ACC, one, inputs.labels) for one in logits)
        return [utility - before for utility in after]

    return Offers(
        sellers=tuple(inputs.updates),
        updates=tuple(inputs.updates.values()),
        measure=measure,
        seed=bytes(32),
    )


@pytest.mark.parametrize("seed", range(6))
def test_named_corrected_osmd_is_the_round_that_the_market_votes_on(seed: int) -> None:
    inputs = make_round_inputs(seed)
    voted = aggregate_round(ROUND_RULES, inputs)
    mechanism = create_mechanism("corrected-osmd", 16, {"sellers_per_round": 10})
    result, after = mechanism.run_round(inputs.sampled, offer_to_market(inputs))
    assert result.contributors == voted.accepted
    assert (apply_update(inputs.parameters, result.step) == voted.parameters).all()
    assert result.utilities == {
        index: utility
        for index, utility in zip(inputs.sampled, voted.utilities, strict=True)
        if utility != NO_UTILITY
    }
    assert isinstance(after.sampler, OsmdSampler)
    assert after.sampler.state == voted.state
    assert inputs.sampled[5] not in result.contributors
