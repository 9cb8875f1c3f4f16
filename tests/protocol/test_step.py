"""The step of a round's model: exact, bounded, and nothing that changes who is paid."""

import json
from dataclasses import replace
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.aggregation import RoundResult, aggregate_round
from protocol.evaluation import compute_logits
from protocol.metrics import compute_utility
from protocol.request import PPM, TrainingSpec, compute_rate_nanos
from protocol.step import MAX_LENGTH, MAX_LENGTHS, ONE_STEP, PLAIN_STEP, StepSpec, iter_steps
from protocol.types import RoundIndex
from protocol.update import MAX_PARAMETER, MAX_UPDATE
from tests.support.small_round import MODEL, ROUND_RULES, make_round_inputs

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "step.json").read_text())
INPUTS = make_round_inputs(seed=1)
PLAIN = aggregate_round(ROUND_RULES, INPUTS)
AGGREGATE = PLAIN.parameters - INPUTS.parameters

UPDATES = st.integers(-MAX_UPDATE, MAX_UPDATE)
LAST_STEPS = st.integers(-2 * MAX_PARAMETER, 2 * MAX_PARAMETER)
LENGTHS = st.lists(
    st.integers(1, MAX_LENGTH * ONE_STEP), min_size=1, max_size=MAX_LENGTHS, unique=True
)
MOMENTA = st.integers(0, ONE_STEP - 1)


def as_array(values: list[int]) -> np.ndarray[Any, np.dtype[np.int32]]:
    return np.array(values, dtype=np.int32)


def step_by_hand(length: int, momentum: int, aggregate: int, last_step: int) -> int:
    """Round each product half up, add them, and clip."""
    half = Fraction(1, 2)
    moved = floor(Fraction(length, ONE_STEP) * aggregate + half)
    carried = floor(Fraction(momentum, ONE_STEP) * last_step + half)
    return max(-MAX_UPDATE, min(MAX_UPDATE, moved + carried))


# --- arithmetic ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", VECTORS["steps"])
def test_steps_are_the_recorded_ones(case: dict[str, Any]) -> None:
    spec = StepSpec(lengths_q16=tuple(case["lengths_q16"]), momentum_q16=case["momentum_q16"])
    last_step = None if case["last_step"] is None else as_array(case["last_step"])
    steps = list(iter_steps(spec, as_array(case["aggregate"]), last_step))
    assert [step.tolist() for step in steps] == case["steps"]
    assert {step.dtype for step in steps} == {np.dtype(np.int32)}


@given(LENGTHS, MOMENTA, st.lists(st.tuples(UPDATES, LAST_STEPS), min_size=1, max_size=8))
def test_a_step_is_the_rounded_sum_within_the_bound(
    lengths: list[int], momentum: int, rows: list[tuple[int, int]]
) -> None:
    spec = StepSpec(lengths_q16=tuple(lengths), momentum_q16=momentum)
    aggregate, last_step = (as_array(list(column)) for column in zip(*rows, strict=True))
    steps = list(iter_steps(spec, aggregate, last_step))
    assert [step.tolist() for step in steps] == [
        [step_by_hand(length, momentum, *row) for row in rows] for length in lengths
    ]


@given(st.lists(UPDATES, min_size=1, max_size=8), st.none() | LAST_STEPS)
def test_the_default_step_is_the_aggregate_itself(values: list[int], last: int | None) -> None:
    last_step = None if last is None else as_array([last] * len(values))
    (step,) = iter_steps(PLAIN_STEP, as_array(values), last_step)
    assert step.tolist() == values


def test_the_first_round_has_no_momentum() -> None:
    spec = StepSpec(momentum_q16=ONE_STEP // 2)
    (step,) = iter_steps(spec, as_array([5, -5]), None)
    assert step.tolist() == [5, -5]


def test_steps_change_none_of_what_they_are_made_of() -> None:
    aggregate, last_step = as_array([5, -5]), as_array([7, 7])
    list(iter_steps(StepSpec(lengths_q16=(3, 5), momentum_q16=9), aggregate, last_step))
    assert (aggregate.tolist(), last_step.tolist()) == ([5, -5], [7, 7])


@pytest.mark.parametrize(
    "fields",
    [
        [[], 0],
        [[1, 2, 3, 4, 5], 0],
        [[0], 0],
        [[-1], 0],
        [[MAX_LENGTH * ONE_STEP + 1], 0],
        [[ONE_STEP], -1],
        [[ONE_STEP], ONE_STEP],
        [[ONE_STEP], 0, 0],
        [[1.5], 0],
        ["65536", 0],
    ],
)
def test_a_step_out_of_bounds_is_refused(fields: list[object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(fields, StepSpec)


def test_a_step_at_its_bounds_is_taken() -> None:
    spec = msgspec.convert([[1, MAX_LENGTH * ONE_STEP], ONE_STEP - 1], StepSpec)
    assert spec == StepSpec(lengths_q16=(1, MAX_LENGTH * ONE_STEP), momentum_q16=ONE_STEP - 1)


# --- a round ------------------------------------------------------------------------------------


def run(spec: StepSpec, **changes: Any) -> RoundResult:
    return aggregate_round(replace(ROUND_RULES, step=spec), replace(INPUTS, **changes))


def measure(parameters: np.ndarray[Any, np.dtype[np.int32]]) -> int:
    logits = compute_logits(MODEL, parameters, INPUTS.samples)
    return compute_utility(ROUND_RULES.metric, logits, INPUTS.labels)


def test_a_step_of_half_the_length_goes_half_the_way() -> None:
    result = run(StepSpec(lengths_q16=(ONE_STEP // 2,)))
    assert (result.parameters == INPUTS.parameters + ((AGGREGATE + 1) >> 1)).all()
    assert result.utility_after == measure(result.parameters)


def test_momentum_adds_a_part_of_the_last_step() -> None:
    last_step = np.arange(len(AGGREGATE), dtype=np.int32) * 64
    spec = StepSpec(momentum_q16=ONE_STEP // 4)
    result = run(spec, previous_parameters=INPUTS.parameters - last_step)
    assert (result.parameters == PLAIN.parameters + last_step // 4).all()


def test_of_several_lengths_the_best_on_the_rounds_samples_is_taken() -> None:
    lengths = (2 * ONE_STEP, ONE_STEP // 64, 8 * ONE_STEP)
    alone = [run(StepSpec(lengths_q16=(length,))) for length in lengths]
    utilities = [one.utility_after for one in alone]
    assert len(set(utilities)) == 3
    best = alone[utilities.index(max(utilities))]
    for order in (lengths, lengths[::-1]):
        result = run(StepSpec(lengths_q16=order))
        assert (result.parameters == best.parameters).all()
        assert result.utility_after == best.utility_after == max(utilities)


def test_of_equally_good_lengths_the_first_is_taken() -> None:
    near = (ONE_STEP, ONE_STEP + 64)
    models = [run(StepSpec(lengths_q16=(length,))).parameters for length in near]
    assert measure(models[0]) == measure(models[1])
    assert (models[0] != models[1]).any()
    assert (run(StepSpec(lengths_q16=near)).parameters == models[0]).all()
    assert (run(StepSpec(lengths_q16=near[::-1])).parameters == models[1]).all()


def test_the_step_does_not_change_who_is_accepted_and_what_each_update_is_worth() -> None:
    spec = StepSpec(lengths_q16=(ONE_STEP // 3, 3 * ONE_STEP), momentum_q16=ONE_STEP // 2)
    result = run(spec, previous_parameters=INPUTS.parameters + 1000)
    assert (result.parameters != PLAIN.parameters).any()
    for name in ("accepted", "utilities", "state", "utility_before", "distances"):
        assert getattr(result, name) == getattr(PLAIN, name)
    assert (result.logits == PLAIN.logits).all()


def test_a_round_that_accepts_nobody_moves_nothing_whatever_the_momentum() -> None:
    spec = StepSpec(lengths_q16=(ONE_STEP, 2 * ONE_STEP), momentum_q16=ONE_STEP // 2)
    result = run(spec, previous_parameters=INPUTS.parameters - 1000, updates={})
    assert result.accepted == ()
    assert (result.parameters == INPUTS.parameters).all()
    assert result.utility_after == result.utility_before


def test_a_model_at_its_bound_stays_within_it() -> None:
    edge = np.full_like(INPUTS.parameters, MAX_PARAMETER)
    spec = StepSpec(lengths_q16=(16 * ONE_STEP,), momentum_q16=ONE_STEP - 1)
    result = run(spec, parameters=edge, previous_parameters=-edge)
    assert result.accepted
    assert result.parameters.max() == MAX_PARAMETER
    assert result.parameters.min() >= MAX_PARAMETER - MAX_UPDATE


# --- the learning rate --------------------------------------------------------------------------


def training(learning_rate_micros: int, rate_decay_ppm: int) -> TrainingSpec:
    return TrainingSpec(
        learning_rate_micros=learning_rate_micros,
        batch_size=1,
        epochs=1,
        rate_decay_ppm=rate_decay_ppm,
    )


@pytest.mark.parametrize("case", VECTORS["rates"])
def test_rates_are_the_recorded_ones(case: dict[str, int]) -> None:
    spec = training(case["learning_rate_micros"], case["rate_decay_ppm"])
    assert compute_rate_nanos(spec, RoundIndex(case["round"])) == case["rate_nanos"]


@given(st.integers(1, 10_000_000), st.integers(1, PPM), st.integers(0, 999))
def test_a_rate_is_the_exact_one_rounded_down_and_never_rises(
    rate: int, decay: int, round_index: int
) -> None:
    spec = training(rate, decay)
    exact = Fraction(rate, PPM) * Fraction(decay, PPM) ** round_index
    found = compute_rate_nanos(spec, RoundIndex(round_index))
    assert found == max(1, floor(exact * 10**9))
    assert compute_rate_nanos(spec, RoundIndex(round_index + 1)) <= found
