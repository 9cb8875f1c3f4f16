import pytest

from protocol.baselines.exact import CorrectedKrum, Gate, RoundKrum, Staged, UtilityFilter
from protocol.baselines.floats import FloatAggregator
from protocol.baselines.mixing import Bucketing, NearestNeighbourMixing
from protocol.baselines.registry import (
    AGGREGATORS,
    MECHANISMS,
    MIXERS,
    SAMPLERS,
    STAGES,
    create_aggregator,
    create_mechanism,
    create_sampler,
)
from protocol.baselines.rules import CentredClipping, FedAvg, Krum, MultiKrum
from protocol.baselines.samplers import OsmdSampling, UniformSampling, ZlfkSampling
from protocol.errors import InvalidParams
from protocol.krum import KrumMode
from tests.support.offers import make_offers, make_updates, measure_sum

PARAMETERS: dict[str, dict[str, object]] = {
    "krum": {"byzantine_count": 2},
    "multi-krum": {"byzantine_count": 2},
    "trimmed-mean": {"byzantine_count": 2},
    "centred-clipping": {"radius": 0.5},
    "corrected-krum": {"byzantine_count": 2},
    "round-krum": {"sellers_per_round": 9},
    "corrected-osmd": {"sellers_per_round": 9},
}


@pytest.mark.parametrize("name", AGGREGATORS)
def test_every_named_aggregator_makes_a_step(name: str) -> None:
    offers = make_offers(make_updates(9), measure=measure_sum, sample_counts=(1,) * 9)
    aggregate = create_aggregator(name, PARAMETERS.get(name, {})).aggregate(offers)
    assert aggregate.step.any()
    assert aggregate.contributors


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_named_sampler_draws(name: str) -> None:
    assert len(create_sampler(name, 9, {"sellers_per_round": 4}).draw(bytes(32))) == 4


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_named_mechanism_runs_a_round(name: str) -> None:
    mechanism = create_mechanism(name, 9, {"sellers_per_round": 7})
    drawn = mechanism.sampler.draw(bytes(32))
    updates = make_updates(9)
    offers = make_offers([updates[i] for i in drawn], sellers=drawn, measure=measure_sum)
    aggregate, after = mechanism.run_round(drawn, offers)
    assert aggregate.contributors
    assert type(after.sampler) is type(mechanism.sampler)


def test_the_named_mechanisms_are_what_they_say() -> None:
    parameters = {"sellers_per_round": 10, "eta_q16": 7, "keep_bps": 100}
    ours = create_mechanism("corrected-osmd", 20, parameters)
    assert ours.aggregator == Staged((Gate(10), UtilityFilter(10, 100)), RoundKrum(10))
    assert ours.sampler == OsmdSampling(10, eta_q16=7).start(20)
    ablated = create_mechanism("no-corrected-osmd", 20, {"sellers_per_round": 10})
    assert ablated.aggregator == FloatAggregator(FedAvg())
    assert ablated.sampler == UniformSampling(10).start(20)
    published = create_mechanism("zlfk", 20, {"sellers_per_round": 10, "eta": 0.1})
    assert published.aggregator == FloatAggregator(FedAvg())
    assert published.sampler == ZlfkSampling(10, eta=0.1).start(20)


def test_parts_in_front_of_a_rule_are_applied_in_their_order() -> None:
    made = create_aggregator(
        "filter+gate+bucketing+nnm+multi-krum",
        {"sellers_per_round": 10, "byzantine_count": 1, "bucket_size": 2, "accepted_count": 3},
    )
    inner = FloatAggregator(MultiKrum(1, 3), (Bucketing(2), NearestNeighbourMixing(1)))
    assert made == Staged((UtilityFilter(10), Gate(10)), inner)
    assert create_aggregator("nnm+krum", {"byzantine_count": 1}) == FloatAggregator(
        Krum(1), (NearestNeighbourMixing(1),)
    )


def test_parameters_are_converted_to_their_kinds() -> None:
    made = create_aggregator("corrected-krum", {"byzantine_count": 1, "mode": "medoid"})
    assert made == CorrectedKrum(1, mode=KrumMode.MEDOID)
    assert create_aggregator("centred-clipping", {"radius": 2}) == FloatAggregator(
        CentredClipping(2.0)
    )


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("krumm", {}, "no 'krumm'; known are fedavg, weighted-fedavg, krum"),
        ("", {}, "no ''"),
        ("gates+fedavg", {}, "no 'gates'; known are gate, filter, nnm, bucketing"),
        ("krum+fedavg", {}, "no 'krum'; known are gate"),
        ("nnm+gate+fedavg", {}, "nnm must come after all stages"),
        ("nnm+corrected-krum", {"byzantine_count": 1}, "corrected-krum is exact"),
        ("bucketing+corrected-osmd", {"sellers_per_round": 5}, "must come after all stages"),
        ("krum", {}, "Krum: .*missing.*byzantine_count"),
        ("krum", {"byzantine_count": "two"}, "Krum: Expected `int`"),
        ("krum", {"byzantine_count": -2}, "byzantine_count: must be at least 0"),
        ("fedavg", {"radius": 1.0}, "radius: no such parameter"),
        ("krum", {"byzantine_count": 1, "f": 1}, "f: no such parameter; known are byzantine_count"),
        ("corrected-krum", {"byzantine_count": 1, "mode": "median"}, "CorrectedKrum: .*median"),
    ],
)
def test_what_makes_no_aggregator_is_refused_by_name(
    name: str, parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidParams, match=message):
        create_aggregator(name, parameters)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("thompson", {}, "no 'thompson'; known are uniform, osmd, zlfk"),
        ("uniform", {"sellers_per_round": 10}, "must be 1 to 9"),
        ("uniform", {"sellers_per_round": 3, "eta": 1.0}, "eta: no such parameter"),
    ],
)
def test_what_makes_no_sampler_is_refused_by_name(
    name: str, parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidParams, match=message):
        create_sampler(name, 9, parameters)


def test_what_makes_no_mechanism_is_refused_by_name() -> None:
    with pytest.raises(InvalidParams, match="known are corrected-osmd, no-corrected-osmd, zlfk"):
        create_mechanism("osmd", 9, {})
    with pytest.raises(InvalidParams, match="keep_bps: no such parameter"):
        create_mechanism("zlfk", 9, {"sellers_per_round": 3, "keep_bps": 7000})


def test_no_name_means_two_parts() -> None:
    names = [*STAGES, *MIXERS, *AGGREGATORS]
    assert len(names) == len(set(names))
    assert not any("+" in name for name in names)
