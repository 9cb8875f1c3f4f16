import tracemalloc
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.aggregation import (
    RoundInputs,
    RoundResult,
    RoundRules,
    aggregate_round,
    compute_tolerated,
    count_misses,
)
from protocol.digest import NO_UTILITY
from protocol.evaluation import compute_logits
from protocol.fixed_point import Int32, Int64
from protocol.gate import select_candidates
from protocol.hashing import keccak
from protocol.krum import aggregate_krum
from protocol.metrics import compute_utility
from protocol.model import ModelDescription, count_parameters, initial_parameters, logreg
from protocol.osmd import ONE_Q30, compute_floor, initial_state
from protocol.samples import SampleArray
from protocol.terms import MAX_SELLERS, Metric
from protocol.update import MAX_UPDATE, apply_update, quantise
from tests.support.small_round import ROUND_RULES, make_round_inputs

SELLERS = 8
PER_ROUND = 5
MODEL = logreg((1, 4, 4), 3)
RULES = RoundRules(
    model=MODEL,
    metric=Metric.ACC,
    sellers_per_round=PER_ROUND,
    alpha_bps=2000,
    eta_q16=1 << 16,
    keep_bps=7000,
)
PARAMETERS = initial_parameters(MODEL, keccak(b"init"))


def make_data(count: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """Three classes, each bright in its own rows of the image."""
    generator = np.random.default_rng(3)
    labels = np.arange(count) % 3
    samples = generator.integers(0, 120, (count, 4, 4))
    for sample, label in zip(samples, labels, strict=True):
        sample[label] += 110
    return samples.astype(np.uint8)[:, np.newaxis], labels


SAMPLES, LABELS = make_data()


def train(seed: int, steps: int = 25) -> Int32:
    """A seller's honest update: softmax regression on its own few and skewed samples.

    The noise stands for what else sets sellers apart; without it their updates are near copies.
    """
    generator = np.random.default_rng(seed)
    share = generator.dirichlet([2.0] * 3)[LABELS]
    chosen = generator.choice(len(LABELS), 12, p=share / share.sum())
    x = SAMPLES[chosen].reshape(12, 16) / 255 + generator.normal(0, 0.2, (12, 16))
    y = np.eye(3)[LABELS[chosen]]
    weight = PARAMETERS[:48].reshape(3, 16) / 2**20
    bias = PARAMETERS[48:] / 2**20
    start = np.concatenate([weight.ravel(), bias])
    for _ in range(steps):
        scores = np.exp(x @ weight.T + bias)
        error = scores / scores.sum(axis=1, keepdims=True) - y
        weight = weight - 0.5 * error.T @ x / 12
        bias = bias - 0.5 * error.mean(axis=0)
    return quantise((np.concatenate([weight.ravel(), bias]) - start).astype(np.float32))


HONEST = {seller: train(seller) for seller in range(SELLERS)}


def make_inputs(updates: dict[int, Int32], sampled: tuple[int, ...] | None = None) -> RoundInputs:
    return RoundInputs(
        parameters=PARAMETERS,
        state=initial_state(SELLERS, PER_ROUND),
        misses=(0,) * SELLERS,
        sampled=sampled or tuple(sorted(updates)),
        updates=updates,
        samples=SAMPLES,
        labels=LABELS,
    )


def pick(*sellers: int) -> dict[int, Int32]:
    return {seller: HONEST[seller] for seller in sellers}


def assert_equal_results(one: RoundResult, other: RoundResult) -> None:
    assert (one.parameters == other.parameters).all()
    assert (one.logits == other.logits).all()
    for name in ("state", "accepted", "utilities", "utility_before", "utility_after", "distances"):
        assert getattr(one, name) == getattr(other, name)


def test_an_honest_round_improves_the_model() -> None:
    result = aggregate_round(RULES, make_inputs(pick(0, 2, 3, 5, 7)))
    assert result.utility_after > result.utility_before
    assert len(result.accepted) == 4  # five candidates, one Byzantine assumed
    assert set(result.accepted) <= {0, 2, 3, 5, 7}
    assert sum(result.state) == PER_ROUND * ONE_Q30


def test_a_round_is_the_composition_of_its_rules() -> None:
    inputs = make_inputs(pick(0, 2, 3, 5, 7))
    result = aggregate_round(RULES, inputs)
    candidates = select_candidates(inputs.updates)
    equalised = [candidate.build() for candidate in candidates.updates]
    models = [PARAMETERS, *(apply_update(PARAMETERS, one) for one in equalised)]
    logits = [compute_logits(MODEL, parameters, SAMPLES) for parameters in models]
    utilities = [compute_utility(Metric.ACC, one, LABELS) for one in logits]
    krum = aggregate_krum(candidates.indices, equalised, byzantine_count=1, accepted_count=4)
    assert (result.logits == np.stack(logits)).all()
    assert result.utility_before == utilities[0]
    assert result.utilities == tuple(utility - utilities[0] for utility in utilities[1:])
    assert result.accepted == krum.accepted
    assert (result.parameters == apply_update(PARAMETERS, krum.step)).all()
    distances = candidates.distances
    assert result.distances == tuple(distances[i][j] for i in range(5) for j in range(i + 1, 5))
    after = compute_logits(MODEL, result.parameters, SAMPLES)
    assert result.utility_after == compute_utility(Metric.ACC, after, LABELS)


@settings(max_examples=20)
@given(st.permutations([0, 2, 3, 5, 7]))
def test_the_result_does_not_depend_on_the_order_of_arrival(arrival: list[int]) -> None:
    assert_equal_results(
        aggregate_round(RULES, make_inputs(pick(*arrival))),
        aggregate_round(RULES, make_inputs(pick(0, 2, 3, 5, 7))),
    )


@given(st.integers(1, PER_ROUND))
def test_identical_updates_are_one_voice_and_their_step_is_that_update(count: int) -> None:
    copies = {seller: HONEST[3].copy() for seller in range(count)}
    result = aggregate_round(RULES, make_inputs(copies))
    assert result.accepted == (0,)
    assert (result.parameters == apply_update(PARAMETERS, HONEST[3])).all()


@settings(max_examples=40)
@given(st.integers(0, 1 << 20), st.integers(100, MAX_UPDATE), st.integers(1, 3))
def test_colluders_get_one_voice_and_do_not_move_the_step_out_of_the_accepted_box(
    seed: int, scale: int, colluders: int
) -> None:
    """f_s colluders of K >= 2 f_s + 3 send one arbitrary vector."""
    rules = replace(RULES, sellers_per_round=2 * colluders + 3)
    hostile = np.random.default_rng(seed).integers(-scale, scale, PARAMETERS.size, endpoint=True)
    updates = {seller: hostile.astype(np.int32) for seller in range(colluders)}
    updates |= {colluders + i: train(100 + i) for i in range(colluders + 3)}
    inputs = replace(
        make_inputs(updates),
        state=initial_state(2 * colluders + 3, 2 * colluders + 3),
        misses=(0,) * (2 * colluders + 3),
    )
    result = aggregate_round(rules, inputs)
    assert len(set(result.accepted) & set(range(colluders))) <= 1
    candidates = select_candidates(updates)
    box = np.stack(
        [
            update.build()
            for index, update in zip(candidates.indices, candidates.updates, strict=True)
            if index in result.accepted
        ]
    )
    step = result.parameters - PARAMETERS
    assert (box.min(axis=0) <= step).all()
    assert (step <= box.max(axis=0)).all()


@pytest.mark.parametrize(
    "hostile_update",
    [
        np.zeros_like(HONEST[7]),
        (HONEST[7] // 50).astype(np.int32),
        (-HONEST[7]).astype(np.int32),
        np.full_like(HONEST[7], MAX_UPDATE),
        HONEST[0].copy(),
        np.random.default_rng(5).integers(-60_000, 60_000, HONEST[7].shape).astype(np.int32),
    ],
    ids=["zero", "tiny", "reversed", "huge", "copied", "noise"],
)
def test_a_hostile_update_is_neither_accepted_nor_paid(hostile_update: Int32) -> None:
    updates = pick(0, 2, 3, 5) | {7: hostile_update}
    result = aggregate_round(RULES, make_inputs(updates))
    assert 7 not in result.accepted
    assert set(result.accepted) == {0, 2, 3, 5}
    assert result.state[7] < result.state[1]


def test_missing_and_rejected_sellers_are_marked_and_halved() -> None:
    updates = pick(0, 2, 3) | {5: np.zeros_like(HONEST[5])}
    result = aggregate_round(RULES, make_inputs(updates, sampled=(0, 2, 3, 5, 7)))
    assert result.utilities[3:] == (NO_UTILITY, NO_UTILITY)
    assert NO_UTILITY not in result.utilities[:3]
    assert result.state[5] == result.state[7] < result.state[1]


def test_a_round_without_updates_changes_nothing_but_the_weights() -> None:
    result = aggregate_round(RULES, make_inputs({}, sampled=(0, 2, 3, 5, 7)))
    assert (result.parameters == PARAMETERS).all()
    assert result.accepted == ()
    assert result.utility_after == result.utility_before
    assert result.utilities == (NO_UTILITY,) * 5
    assert result.logits.shape == (1, len(LABELS), 3)
    assert result.distances == ()
    assert sum(result.state) == PER_ROUND * ONE_Q30


def test_the_third_miss_holds_a_seller_at_the_floor() -> None:
    inputs = make_inputs(pick(0, 2, 3, 5), sampled=(0, 2, 3, 5, 7))
    floor = compute_floor(SELLERS, PER_ROUND, RULES.alpha_bps)
    second = aggregate_round(RULES, replace(inputs, misses=(0,) * 7 + (1,)))
    third = aggregate_round(RULES, replace(inputs, misses=(0,) * 7 + (2,)))
    assert second.state[7] > floor
    assert third.state[7] == floor
    assert sum(third.state) == PER_ROUND * ONE_Q30


def test_a_miss_is_to_be_sampled_and_not_available() -> None:
    assert count_misses((0, 1, 2, 3), sampled=0b1011, available=0b0010) == (1, 1, 2, 4)


def test_an_update_of_a_seller_that_was_not_sampled_is_refused() -> None:
    with pytest.raises(ValueError, match="not sampled"):
        aggregate_round(RULES, make_inputs(pick(0, 1), sampled=(0,)))


def test_an_update_of_another_length_is_refused() -> None:
    updates = pick(0, 2) | {3: HONEST[3][:-1]}
    with pytest.raises(ValueError, match="seller 3"):
        aggregate_round(RULES, make_inputs(updates))


def consume(model: ModelDescription, candidates: Iterable[Int32], samples: SampleArray) -> Int64:
    """Look at one candidate after the other, and judge by its first coordinate."""
    return np.array([[[int(one[0]), 0, 0]] * len(samples) for one in candidates], dtype=np.int64)


@pytest.mark.parametrize("length", [20_000, 150_000])
def test_a_round_holds_at_most_twice_the_bytes_of_the_updates(length: int) -> None:
    generator = np.random.default_rng(1)
    common = generator.normal(size=length)
    updates = {
        seller: (20_000 * (common + generator.normal(size=length))).astype(np.int32)
        for seller in range(20)
    }
    inputs = replace(
        make_inputs(updates),
        parameters=np.zeros(length, dtype=np.int32),
        state=initial_state(20, 20),
        misses=(0,) * 20,
    )
    held = sum(update.nbytes for update in updates.values())
    tracemalloc.start()
    try:
        result = aggregate_round(replace(RULES, sellers_per_round=20), inputs, consume)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(result.accepted) == 13
    assert held + peak <= 2 * held


def test_cross_entropy_measures_a_round_too() -> None:
    rules = replace(RULES, metric=Metric.NEG_CE, eta_q16=1 << 14)
    result = aggregate_round(rules, make_inputs(pick(0, 2, 3, 5, 7)))
    assert result.utility_before < result.utility_after < 0


@pytest.mark.parametrize(
    ("sellers_per_round", "tolerated"), [(3, 0), (5, 1), (7, 2), (10, 3), (20, 6)]
)
def test_tolerated_sellers_follow_the_table(sellers_per_round: int, tolerated: int) -> None:
    assert compute_tolerated(sellers_per_round) == tolerated


def test_a_round_of_ten_keeps_seven_and_accepts_six() -> None:
    rules = replace(RULES, sellers_per_round=10)
    updates = {seller: train(100 + seller) for seller in range(10)}
    inputs = replace(make_inputs(updates), state=initial_state(20, 10), misses=(0,) * 20)
    result = aggregate_round(rules, inputs)
    refined = sorted(range(10), key=lambda index: (-result.utilities[index], index))[:7]
    assert len(result.accepted) == 6
    assert set(result.accepted) <= set(refined)


def test_the_largest_round_of_all_sellers_keeps_its_invariants() -> None:
    rules = replace(ROUND_RULES, sellers_per_round=MAX_SELLERS)
    generator = np.random.default_rng(1)
    length = count_parameters(rules.model)
    common = generator.normal(0, 20_000, length)
    updates = {
        seller: (common + generator.normal(0, 20_000, length)).astype(np.int32)
        for seller in range(MAX_SELLERS)
    }
    inputs = replace(
        make_round_inputs(1),
        state=initial_state(MAX_SELLERS, MAX_SELLERS),
        misses=(0,) * MAX_SELLERS,
        sampled=tuple(range(MAX_SELLERS)),
        updates=updates,
    )
    result = aggregate_round(rules, inputs)
    assert sum(result.state) == MAX_SELLERS * ONE_Q30
    assert 0 < len(result.accepted) <= MAX_SELLERS * 7 // 10
    assert len(result.utilities) == MAX_SELLERS
