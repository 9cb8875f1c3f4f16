import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.baselines.exact import CorrectedKrum, Gate, RoundKrum, UtilityFilter
from protocol.baselines.floats import Context, FloatAggregator, FloatRule, compute_float_distances
from protocol.baselines.interface import Aggregate
from protocol.baselines.mixing import Bucketing, NearestNeighbourMixing
from protocol.baselines.rules import (
    CentredClipping,
    CoordinateMedian,
    FedAvg,
    Krum,
    MultiKrum,
    TrimmedMean,
    WeightedFedAvg,
)
from protocol.baselines.samplers import OsmdSampling
from protocol.errors import InvalidParams, TooFewUpdates
from protocol.hashing import keccak, word
from protocol.krum import select_krum
from protocol.linear_algebra import compute_gram, compute_squared_distances, measure_update
from tests.support.offers import SEED, make_offers

UNIT = 1 << 20
# Multiples of 64 units: means of a few of them are exact in float32.
VALUE = st.integers(-1000, 1000).map(lambda value: 64 * value)
ROWS = st.lists(st.lists(VALUE, min_size=3, max_size=3), min_size=7, max_size=9)
CONTEXT = Context(seed=SEED, previous_step=None, sample_counts=None)
RULES = [
    FedAvg(),
    Krum(2),
    MultiKrum(2),
    MultiKrum(2, 2),
    CoordinateMedian(),
    TrimmedMean(2),
    CentredClipping(radius=1e-2),
]
# Centred clipping starts at zero, wherever the updates are.
INVARIANT_RULES = RULES[:-1]


def combine(rule: FloatRule, rows: list[list[int]]) -> Aggregate:
    return FloatAggregator(rule).aggregate(make_offers(rows))


def test_fedavg_is_the_mean_and_everybody_contributes() -> None:
    result = combine(FedAvg(), [[4, 0, -8], [8, 2, 0], [0, 1, 2]])
    assert result.step.tolist() == [4, 1, -2]
    assert result.step.dtype == np.int32
    assert result.contributors == (0, 1, 2)
    assert result.utilities is None


def test_a_seller_that_was_drawn_twice_counts_and_is_paid_twice() -> None:
    offers = make_offers([[6, 0], [6, 0], [0, 3]], sellers=(4, 4, 9))
    result = FloatAggregator(FedAvg()).aggregate(offers)
    assert result.step.tolist() == [4, 1]
    assert result.contributors == (4, 4, 9)


def test_the_weighted_mean_follows_the_claimed_sample_counts() -> None:
    offers = make_offers([[8, 0], [0, 4], [99, 99]], sample_counts=(3, 1, 0))
    result = FloatAggregator(WeightedFedAvg()).aggregate(offers)
    assert result.step.tolist() == [6, 1]
    assert result.contributors == (0, 1)  # no sample, no part of the step


@pytest.mark.parametrize("counts", [None, (0, 0), (1, -1), (1, 2, 3)])
def test_the_weighted_mean_refuses_counts_that_are_none(counts: tuple[int, ...] | None) -> None:
    offers = make_offers([[8, 0], [0, 4]], sample_counts=counts)
    with pytest.raises(InvalidParams, match="sample_counts"):
        FloatAggregator(WeightedFedAvg()).aggregate(offers)


def test_mixed_updates_have_no_sample_counts() -> None:
    rule = FloatAggregator(WeightedFedAvg(), (Bucketing(1),))
    with pytest.raises(InvalidParams, match="mix nothing before"):
        rule.aggregate(make_offers([[8, 0], [0, 4]], sample_counts=(1, 1)))


def test_krum_takes_the_update_with_the_nearest_others() -> None:
    # f = 1, n = 5: two nearest others. Squared scores 1 + 9, 1 + 4, 4 + 9, 25 + 49, far.
    result = combine(Krum(1), [[0, 0], [1, 0], [3, 0], [8, 0], [900, 0]])
    assert result.step.tolist() == [1, 0]
    assert result.contributors == (1,)


def test_krum_adds_squares_of_distances() -> None:
    # Two nearest others: 9 + 16 is less than 1 + 25, but 3 + 4 is more than 1 + 5.
    assert combine(Krum(1), [[0], [1], [6], [9], [13]]).contributors == (3,)


def test_krum_does_not_count_an_update_as_its_own_neighbour() -> None:
    # n - f - 2 = 1: the nearest other decides. Counting itself all scores would be 0 and 0 win.
    assert combine(Krum(0), [[0], [50], [51]]).contributors == (1,)


def test_krum_takes_the_smaller_index_of_equally_good_updates() -> None:
    assert combine(Krum(1), [[9], [0], [1], [2], [3]]).contributors == (2,)
    assert combine(Krum(0), [[0], [1], [2], [3]]).contributors == (1,)


def test_krum_falls_to_a_seller_that_was_drawn_often() -> None:
    """Why distinct sellers matter: copies have distance zero (MECHANISM 10.2)."""
    honest = [[0, 0], [3, 0], [0, 3], [3, 3]]
    offers = make_offers([*honest, *[[90, 90]] * 4], sellers=(0, 1, 2, 3, 7, 7, 7, 7))
    assert FloatAggregator(Krum(2)).aggregate(offers).contributors == (7,)


@pytest.mark.parametrize("rule", [Krum(2), MultiKrum(2)])
def test_krum_refuses_fewer_than_two_f_and_three_updates(rule: FloatRule) -> None:
    combine(rule, [[0]] * 7)
    with pytest.raises(TooFewUpdates) as refusal:
        combine(rule, [[0]] * 6)
    assert (refusal.value.received, refusal.value.required) == (6, 7)


def test_multi_krum_averages_the_best() -> None:
    # f = 1, n = 6: three nearest others; scores of the first four 56, 24, 24, 56.
    rows = [[0], [2], [4], [6], [40], [900]]
    assert combine(MultiKrum(1, 2), rows).step.tolist() == [3]
    assert combine(MultiKrum(1, 2), rows).contributors == (1, 2)
    assert combine(MultiKrum(1), rows).contributors == (0, 1, 2)  # n - f - 2, tie by index


def test_multi_krum_refuses_to_accept_more_than_the_paper_allows() -> None:
    rows = [[0], [2], [4], [6], [40], [900]]
    with pytest.raises(TooFewUpdates) as refusal:
        combine(MultiKrum(1, 4), rows)
    assert refusal.value.required == 7


@given(ROWS, st.integers(0, 2))
def test_float_krum_chooses_as_exact_krum_where_the_paper_holds(
    rows: list[list[int]], byzantine_count: int
) -> None:
    updates = [measure_update(np.array(row, dtype=np.int32)) for row in rows]
    exact = select_krum(
        range(len(rows)),
        compute_squared_distances(compute_gram(updates)),
        byzantine_count=byzantine_count,
        accepted_count=1,
    )
    assert combine(Krum(byzantine_count), rows).contributors == exact


def test_the_median_is_taken_per_coordinate() -> None:
    result = combine(CoordinateMedian(), [[1, 90], [5, 2], [900, 4]])
    assert result.step.tolist() == [5, 4]
    assert combine(CoordinateMedian(), [[2], [4], [10], [900]]).step.tolist() == [7]


def test_the_trimmed_mean_leaves_out_the_extremes_of_each_coordinate() -> None:
    rows = [[-900, 1], [2, 3], [4, 5], [6, 900], [800, -7]]
    assert combine(TrimmedMean(1), rows).step.tolist() == [4, 3]
    assert combine(TrimmedMean(0), [[3], [5]]).step.tolist() == [4]


def test_the_trimmed_mean_must_leave_something() -> None:
    with pytest.raises(TooFewUpdates):
        combine(TrimmedMean(2), [[1]] * 4)


def test_centred_clipping_pulls_far_updates_to_the_radius() -> None:
    # Radius 10 units around the start (0, 0): (30, 40) becomes (6, 8), (6, 0) stays.
    rule = CentredClipping(radius=10 / UNIT)
    assert combine(rule, [[30, 40], [6, 0]]).step.tolist() == [6, 4]


def test_centred_clipping_starts_from_the_step_before() -> None:
    offers = make_offers([[130, 140], [106, 100]], previous_step=[100, 100])
    rule = FloatAggregator(CentredClipping(radius=10 / UNIT))
    assert rule.aggregate(offers).step.tolist() == [106, 104]


def test_centred_clipping_goes_on_from_its_estimate() -> None:
    # From 0: +8 of +-8; from 8 again +8; an update that is reached does not divide by zero.
    one, two, many = (CentredClipping(8 / UNIT, iterations) for iterations in (1, 2, 9))
    assert combine(one, [[32], [32]]).step.tolist() == [8]
    assert combine(two, [[32], [32]]).step.tolist() == [16]
    assert combine(many, [[32], [32]]).step.tolist() == [32]


def test_one_hostile_update_moves_centred_clipping_by_a_share_of_the_radius() -> None:
    calm = combine(CentredClipping(16 / UNIT), [[0], [0], [0], [0]])
    hostile = combine(CentredClipping(16 / UNIT), [[0], [0], [0], [1_000_000]])
    assert (calm.step.tolist(), hostile.step.tolist()) == ([0], [4])


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Krum(-1), "byzantine_count"),
        (lambda: MultiKrum(-1), "byzantine_count"),
        (lambda: MultiKrum(1, 0), "accepted_count"),
        (lambda: TrimmedMean(-1), "byzantine_count"),
        (lambda: CentredClipping(0.0), "radius"),
        (lambda: CentredClipping(float("nan")), "radius"),
        (lambda: CentredClipping(1.0, 0), "iterations"),
        (lambda: NearestNeighbourMixing(-1), "byzantine_count"),
        (lambda: Bucketing(0), "bucket_size"),
        (lambda: Gate(0), "sellers_per_round"),
        (lambda: UtilityFilter(0), "sellers_per_round"),
        (lambda: UtilityFilter(5, keep_bps=0), "keep_bps"),
        (lambda: CorrectedKrum(-1), "byzantine_count"),
        (lambda: CorrectedKrum(1, 0), "accepted_count"),
        (lambda: RoundKrum(0), "sellers_per_round"),
        (lambda: OsmdSampling(5, eta_q16=-1), "eta_q16"),
        (lambda: OsmdSampling(5, alpha_bps=10_001), "alpha_bps"),
        (lambda: OsmdSampling(5, alpha_bps=-1), "alpha_bps"),
    ],
)
def test_parameters_that_make_no_rule_are_refused(make, field: str) -> None:
    with pytest.raises(InvalidParams) as refusal:
        make()
    assert refusal.value.field == field


@pytest.mark.parametrize("rule", RULES, ids=str)
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), random=st.randoms(use_true_random=False))
def test_a_float_rule_does_not_care_about_the_order_of_updates(
    rule: FloatRule, seed: int, random
) -> None:
    # Wide random values: no two rows score alike, so no tie goes by index.
    rows = np.random.default_rng(seed).integers(-500_000, 500_000, (8, 3)).tolist()
    order = list(range(len(rows)))
    random.shuffle(order)
    straight, moved = combine(rule, rows), combine(rule, [rows[place] for place in order])
    assert np.abs(straight.step - moved.step).max() <= 1  # sums round in another order
    assert straight.contributors == tuple(sorted(order[i] for i in moved.contributors))


@pytest.mark.parametrize("rule", INVARIANT_RULES, ids=str)
@settings(max_examples=30)
@given(rows=ROWS, offset=VALUE)
def test_a_float_rule_follows_a_translation(
    rule: FloatRule, rows: list[list[int]], offset: int
) -> None:
    moved = combine(rule, [[value + offset for value in row] for row in rows])
    straight = combine(rule, rows)
    assert np.abs(moved.step - offset - straight.step).max() <= 1
    assert moved.contributors == straight.contributors


@pytest.mark.parametrize(
    "rule", [Krum(2), MultiKrum(2), CoordinateMedian(), TrimmedMean(2)], ids=str
)
@settings(max_examples=30)
@given(
    rows=ROWS,
    hostile=st.lists(st.sampled_from([-1_000_000, 1_000_000]), min_size=3, max_size=3),
    is_split=st.booleans(),
)
def test_f_outliers_do_not_move_a_robust_rule_out_of_the_honest_box(
    rule: FloatRule, rows: list[list[int]], hostile: list[int], is_split: bool
) -> None:
    other = [-value for value in hostile] if is_split else hostile
    honest = np.array(rows[2:])
    step = combine(rule, [hostile, other, *rows[2:]]).step
    assert (honest.min(axis=0) - 1 <= step).all()
    assert (step <= honest.max(axis=0) + 1).all()


def test_fedavg_is_moved_by_a_single_outlier() -> None:
    assert combine(FedAvg(), [[0], [0], [0], [400]]).step.tolist() == [100]


def test_nearest_neighbour_mixing_averages_the_nearest_with_itself() -> None:
    rows = np.array([[0.0], [2.0], [6.0], [100.0]], dtype=np.float32)
    mixture = NearestNeighbourMixing(1).mix(rows, CONTEXT)
    assert mixture.members == ((0, 1, 2), (0, 1, 2), (0, 1, 2), (1, 2, 3))
    assert np.allclose(mixture.rows.ravel(), [8 / 3, 8 / 3, 8 / 3, 36])


def test_of_equally_near_rows_the_earlier_is_a_neighbour() -> None:
    rows = np.array([[0.0], [2.0], [-2.0], [-4.0]], dtype=np.float32)
    assert NearestNeighbourMixing(1).mix(rows, CONTEXT).members[0] == (0, 1, 2)
    assert NearestNeighbourMixing(1).mix(rows[[0, 2, 1, 3]], CONTEXT).members[0] == (0, 1, 2)
    rows = np.array([[0.0], [2.0], [-2.0]], dtype=np.float32)
    assert NearestNeighbourMixing(1).mix(rows, CONTEXT).members[0] == (0, 1)


def test_nearest_neighbour_mixing_needs_an_honest_majority() -> None:
    rows = np.zeros((4, 1), dtype=np.float32)
    with pytest.raises(TooFewUpdates) as refusal:
        NearestNeighbourMixing(2).mix(rows, CONTEXT)
    assert refusal.value.required == 5


def test_everybody_in_a_mixed_row_that_is_used_contributes() -> None:
    # Krum takes the mixture around row 0; it is made of 0, 1 and 2 of the five.
    rows = [[0], [2], [4], [300], [900]]
    result = FloatAggregator(Krum(1), (NearestNeighbourMixing(2),)).aggregate(make_offers(rows))
    assert result.step.tolist() == [2]
    assert result.contributors == (0, 1, 2)


def test_bucketing_puts_each_update_into_one_bucket() -> None:
    rows = np.arange(7, dtype=np.float32)[:, np.newaxis] * 4
    mixture = Bucketing(3).mix(rows, CONTEXT)
    assert [len(members) for members in mixture.members] == [3, 3, 1]
    assert sorted(row for members in mixture.members for row in members) == list(range(7))
    for mixed, members in zip(mixture.rows, mixture.members, strict=True):
        assert mixed == pytest.approx(np.mean([rows[row] for row in members]))


def test_buckets_depend_on_the_seed_and_on_nothing_else() -> None:
    rows = [[10 * index] for index in range(9)]
    rule = FloatAggregator(CoordinateMedian(), (Bucketing(2),))
    seeds = [keccak(word(number)) for number in range(6)]
    steps = [rule.aggregate(make_offers(rows, seed=seed)).step.tolist() for seed in seeds]
    again = [rule.aggregate(make_offers(rows, seed=seed)).step.tolist() for seed in seeds]
    assert steps == again
    assert len({tuple(step) for step in steps}) > 1


def test_mixing_rules_are_applied_in_order_and_members_follow() -> None:
    # Buckets of one only shuffle; the mixture's members must be traced back through them.
    rows = [[0], [2], [4], [300], [900]]
    rule = FloatAggregator(Krum(1), (Bucketing(1), NearestNeighbourMixing(2)))
    result = rule.aggregate(make_offers(rows, sellers=(3, 5, 6, 8, 9)))
    assert result.step.tolist() == [2]
    assert result.contributors == (3, 5, 6)


def test_distances_of_wide_rows_are_exact_enough() -> None:
    generator = np.random.default_rng(1)
    rows = generator.normal(0, 1, (3, 200_000)).astype(np.float32)
    rows[1] = rows[0] + np.float32(1e-3)
    direct = ((rows[0].astype(np.float64) - rows[1]) ** 2).sum()
    distances = compute_float_distances(rows)
    assert distances[0, 1] == pytest.approx(direct, rel=1e-6)
    assert (distances == distances.T).all()
    assert (distances.diagonal() == 0).all()
