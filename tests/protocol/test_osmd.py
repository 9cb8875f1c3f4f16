import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.hashing import keccak, word
from protocol.osmd import (
    ONE_Q30,
    State,
    StepRules,
    compute_floor,
    initial_state,
    project,
    sample_sellers,
    update,
)
from tests.protocol.vectors import load_vectors

RECORDED = load_vectors()["osmd"]
UTILITY = st.one_of(st.integers(-(1 << 20), 1 << 20), st.integers(-(1 << 62), 1 << 62))


@st.composite
def rounds(draw: st.DrawFn) -> tuple[State, dict[int, int], list[int], int]:
    """A state reached by some rounds, and the utilities and missing sellers of the next."""
    count = draw(st.integers(3, 12))
    per_round = draw(st.integers(1, count))
    floor = compute_floor(count, per_round, draw(st.sampled_from([0, 100, 2000, 10_000])))
    state = initial_state(count, per_round)
    for _ in range(draw(st.integers(1, 4))):
        sampled = draw(st.permutations(range(count)))[:per_round]
        split = draw(st.integers(0, per_round))
        utilities = {index: draw(UTILITY) for index in sampled[:split]}
        missing = sampled[split:]
        before = state
        state = update(before, utilities, missing, StepRules(1 << 16, floor))
    return before, utilities, missing, floor


def step(state: State, utilities: dict[int, int], missing: list[int], floor: int) -> State:
    return update(state, utilities, missing, StepRules(1 << 16, floor))


def test_osmd_gives_the_recorded_states() -> None:
    count, per_round = RECORDED["M"], RECORDED["K"]
    floor = compute_floor(count, per_round, alpha_bps=2000)
    state = initial_state(count, per_round)
    assert (list(state), floor) == (RECORDED["rho0"], RECORDED["lo"])
    assert list(sample_sellers(state, keccak(b"osmd"))) == RECORDED["S"]

    utilities = {int(index): value for index, value in RECORDED["util"].items()}
    state = update(state, utilities, [], StepRules(RECORDED["eta_q16"], floor))
    assert list(state) == RECORDED["rho1"]
    state = update(state, {0: 1000, 3: -2000}, [1], StepRules(RECORDED["eta_q16"], floor))
    assert list(state) == RECORDED["then util {0:1000,3:-2000} missing [1]"]


@pytest.mark.parametrize(("count", "per_round"), [(4, 5), (4, 0)])
def test_a_round_cannot_sample_more_than_all_or_nobody(count: int, per_round: int) -> None:
    with pytest.raises(ValueError, match="cannot sample"):
        initial_state(count, per_round)


@settings(max_examples=200)
@given(rounds())
def test_the_sum_and_the_bounds_survive_any_update(
    case: tuple[State, dict[int, int], list[int], int],
) -> None:
    state, utilities, missing, floor = case
    after = step(state, utilities, missing, floor)
    assert sum(after) == sum(state) == sum(state) // ONE_Q30 * ONE_Q30
    assert all(floor <= inclusion_weight <= ONE_Q30 for inclusion_weight in after)


@given(rounds(), st.data())
def test_the_sum_and_the_bounds_survive_removals_too(
    case: tuple[State, dict[int, int], list[int], int], data: st.DataObject
) -> None:
    state, utilities, missing, floor = case
    removed = frozenset(data.draw(st.sets(st.integers(0, len(state) - 1))))
    after = update(state, utilities, missing, StepRules(1 << 16, floor, removed))
    assert sum(after) == sum(state)
    assert all(floor <= inclusion_weight <= ONE_Q30 for inclusion_weight in after)


@given(rounds(), st.integers(-(1 << 40), 1 << 40))
def test_adding_a_constant_to_all_utilities_changes_nothing(
    case: tuple[State, dict[int, int], list[int], int], constant: int
) -> None:
    state, utilities, missing, floor = case
    shifted = {index: utility + constant for index, utility in utilities.items()}
    assert step(state, shifted, missing, floor) == step(state, utilities, missing, floor)


@given(rounds(), st.randoms(use_true_random=False))
def test_an_update_follows_a_permutation_of_the_sellers(
    case: tuple[State, dict[int, int], list[int], int], random
) -> None:
    state, utilities, missing, floor = case
    place = list(range(len(state)))
    random.shuffle(place)
    permuted = [0] * len(state)
    for index, target in enumerate(place):
        permuted[target] = state[index]
    moved = step(
        tuple(permuted),
        {place[index]: utility for index, utility in utilities.items()},
        [place[index] for index in missing],
        floor,
    )
    straight = step(state, utilities, missing, floor)
    # Units of the remainder go by index: each seller may differ by those.
    assert all(
        abs(moved[target] - straight[index]) <= len(state) for index, target in enumerate(place)
    )


def test_a_missing_seller_is_halved_against_the_others() -> None:
    state = initial_state(10, 2)
    after = update(state, {}, [4], StepRules(1 << 16, 1))
    assert math.isclose(after[4] / after[0], 0.5, rel_tol=1e-6)


def test_a_better_seller_gains_and_a_worse_one_loses_at_most_a_factor_of_two() -> None:
    state = initial_state(10, 3)
    after = update(state, {0: 1 << 40, 1: 0, 2: -(1 << 40)}, [], StepRules(1 << 16, 1))
    assert after[0] > after[1] > after[2]
    assert math.isclose(after[0] / after[1], 2, rel_tol=1e-6)
    assert math.isclose(after[1] / after[2], 2, rel_tol=1e-6)


def test_a_removed_seller_stays_at_the_floor_and_the_sum_is_kept() -> None:
    floor = compute_floor(6, 3, 2000)
    after = update(
        initial_state(6, 3), {1: 9000, 2: 0}, [], StepRules(1 << 16, floor, frozenset({1}))
    )
    assert after[1] == floor
    assert sum(after) == 3 * ONE_Q30


def test_nobody_is_removed_when_too_few_others_would_be_left() -> None:
    state = initial_state(4, 3)
    floor = compute_floor(4, 3, 2000)
    kept = update(state, {}, [], StepRules(1 << 16, floor, frozenset({0, 1})))
    assert kept == state


@given(rounds(), st.binary(min_size=32, max_size=32))
def test_a_sample_holds_k_distinct_sellers_in_ascending_order(
    case: tuple[State, dict[int, int], list[int], int], seed: bytes
) -> None:
    state = case[0]
    sampled = sample_sellers(state, seed)
    assert len(sampled) == sum(state) // ONE_Q30
    assert list(sampled) == sorted(set(sampled))
    assert set(range(len(state))) >= set(sampled)


def test_sellers_are_sampled_as_often_as_their_inclusion_weight_says() -> None:
    shares = [0.9, 0.5, 0.3, 0.2, 0.1]
    state = tuple(round(share * ONE_Q30) for share in shares)
    state = (*state[:4], 2 * ONE_Q30 - sum(state[:4]))
    counts = [0] * 5
    draws = 2000
    for number in range(draws):
        for index in sample_sellers(state, keccak(word(number))):
            counts[index] += 1
    for count, share in zip(counts, shares, strict=True):
        assert abs(count - draws * share) < 4 * math.sqrt(draws * share * (1 - share))


def test_a_seller_with_full_weight_is_always_sampled() -> None:
    state = (ONE_Q30, ONE_Q30 // 2, ONE_Q30 // 2)
    assert all(0 in sample_sellers(state, keccak(word(number))) for number in range(200))


@given(
    st.lists(st.integers(1 << 50, 1 << 64), min_size=2, max_size=10),
    st.integers(1, 9),
)
def test_projection_keeps_the_ratios_of_unclipped_entries(weights: list[int], share: int) -> None:
    high = ONE_Q30
    low = high // 50
    total = len(weights) * (low + (high - low) * share // 10)
    projected = project(weights, total, low, high)
    assert sum(projected) == total
    assert all(low <= entry <= high for entry in projected)
    free = [
        (entry, weight)
        for entry, weight in zip(projected, weights, strict=True)
        if low + len(weights) < entry < high - len(weights)
    ]
    for entry, weight in free[1:]:
        assert math.isclose(entry * free[0][1], free[0][0] * weight, rel_tol=1e-5)


@given(
    st.lists(st.integers(1 << 50, 1 << 64), min_size=2, max_size=10),
    st.integers(1, 9),
)
def test_projection_clips_only_what_would_leave_the_bounds(weights: list[int], share: int) -> None:
    """The other half of the KKT conditions: no multiplier has the wrong sign."""
    high = ONE_Q30
    low = high // 50
    total = len(weights) * (low + (high - low) * share // 10)
    ratios: dict[str, list[float]] = {"low": [], "free": [], "high": []}
    for entry, weight in zip(project(weights, total, low, high), weights, strict=True):
        # Units of the remainder may lift an entry off its bound.
        is_low, is_high = entry <= low + len(weights), entry >= high - len(weights)
        ratios["low" if is_low else "high" if is_high else "free"].append(entry / weight)
    slack = 1 + 1e-5
    assert max(ratios["high"], default=0) <= min(ratios["free"], default=math.inf) * slack
    assert max(ratios["free"], default=0) <= min(ratios["low"], default=math.inf) * slack
    assert max(ratios["high"], default=0) <= min(ratios["low"], default=math.inf) * slack


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=10))
def test_projection_equals_the_published_closed_form_when_the_cap_is_inactive(
    shares: list[float],
) -> None:
    count = len(shares)
    alpha = 0.2
    mass = [share / sum(shares) for share in sorted(shares)]
    first = next(
        i for i in range(count) if mass[i] * (1 - alpha * i / count) > alpha / count * sum(mass[i:])
    )
    expected = [alpha / count] * first + [
        (1 - alpha * first / count) * entry / sum(mass[first:]) for entry in mass[first:]
    ]
    total = ONE_Q30
    weights = [round(entry * 2**62) for entry in mass]
    projected = project(weights, total, round(alpha / count * total), 2 * total)
    for entry, share in zip(projected, expected, strict=True):
        assert abs(entry / total - share) < 1e-6


@pytest.mark.parametrize(
    ("weights", "total"), [([1 << 62] * 3, 2), ([1 << 62] * 3, 31), ([1 << 62, 0, 1], 20)]
)
def test_projection_refuses_what_has_no_solution(weights: list[int], total: int) -> None:
    with pytest.raises(ValueError, match="cannot sum"):
        project(weights, total, low=1, high=10)


def test_the_floor_is_never_zero() -> None:
    assert compute_floor(5, 2, alpha_bps=0) == 1
