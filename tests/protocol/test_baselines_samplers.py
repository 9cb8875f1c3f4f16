import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.baselines.interface import Feedback, Sampler
from protocol.baselines.samplers import (
    OsmdSampling,
    UniformSampling,
    ZlfkSampler,
    ZlfkSampling,
    project_onto_floor,
)
from protocol.errors import InvalidParams
from protocol.hashing import keccak, word
from protocol.osmd import ONE_Q30, StepRules, compute_floor, project, update

UNIT = 1 << 20
LOG_WEIGHTS = st.lists(st.floats(-6, 6), min_size=1, max_size=6)
SAMPLERS: list[Sampler] = [
    UniformSampling(3).start(8),
    OsmdSampling(3).start(8),
    ZlfkSampling(3).start(8),
]


def learn(drawn: tuple[int, ...], utilities: dict[int, int]) -> Feedback:
    return Feedback(drawn=drawn, utilities=utilities)


def compute_divergence(shares: np.ndarray, weights: np.ndarray) -> float:
    return float((shares * np.log(shares / weights)).sum())


def project_by_trying_all(weights: np.ndarray, floor: float) -> np.ndarray:
    """Try every set of sellers at the floor; the others share the rest in proportion."""
    count = len(weights)
    best, least = np.full(count, 1 / count), math.inf
    for is_floored in itertools.product([False, True], repeat=count):
        floored = np.array(is_floored)
        if floored.all():
            continue
        shares = np.full(count, floor)
        shares[~floored] = (1 - floor * floored.sum()) * weights[~floored]
        shares[~floored] /= weights[~floored].sum()
        if (shares >= floor * (1 - 1e-12)).all():
            divergence = compute_divergence(shares, weights)
            if divergence < least:
                best, least = shares, divergence
    return best


@settings(max_examples=60)
@given(LOG_WEIGHTS, st.floats(0.001, 0.9))
def test_the_published_projection_is_the_kl_optimum(logs: list[float], alpha: float) -> None:
    floor = alpha / len(logs)
    projected = project_onto_floor(logs, floor)
    assert projected.sum() == pytest.approx(1)
    assert (projected >= floor * (1 - 1e-12)).all()
    assert projected == pytest.approx(project_by_trying_all(np.exp(logs), floor), abs=1e-9)


def test_the_published_projection_by_hand() -> None:
    # M = 4, floor 0.05. The smallest goes to the floor; the rest, 0.95, is shared 2 : 3 : 5.
    logs = np.log([0.01, 2, 3, 5])
    assert project_onto_floor(logs, 0.05) == pytest.approx([0.05, 0.19, 0.285, 0.475])
    # Nobody is below the floor: only normalised.
    assert project_onto_floor(np.log([1, 3]), 0.1) == pytest.approx([0.25, 0.75])


def test_huge_logarithms_do_not_overflow_the_published_projection() -> None:
    projected = project_onto_floor([0.0, 20_000.0, -20_000.0], 0.01)
    assert projected == pytest.approx([0.01, 0.98, 0.01])


def test_the_published_step_by_hand() -> None:
    # u / (K p) = 0.2 / (2 * 0.25) = 0.4 for seller 1, which counts once though drawn twice.
    sampler = ZlfkSampling(2, eta=0.5, alpha=0.01).start(4)
    stepped = sampler.step(learn((1, 1), {1: UNIT // 5}))
    gain = math.exp(0.5 * (UNIT // 5 / UNIT) / (2 * 0.25))
    expected = np.array([1, gain, 1, 1]) / (3 + gain)
    assert stepped.shares == pytest.approx(expected)


def test_a_rarely_drawn_seller_learns_more_from_one_utility() -> None:
    rules = ZlfkSampling(2, eta=0.1, alpha=0.01)
    sampler = ZlfkSampler(rules, (0.1, 0.4, 0.5))
    stepped = sampler.step(learn((0, 1), {0: UNIT // 10, 1: UNIT // 10}))
    assert stepped.shares[0] / stepped.shares[2] == pytest.approx(0.1 / 0.5 * math.exp(0.05))
    assert stepped.shares[1] / stepped.shares[2] == pytest.approx(0.4 / 0.5 * math.exp(0.0125))


def test_whom_the_published_rule_did_not_see_keeps_its_weight() -> None:
    sampler = ZlfkSampling(2).start(4)
    stepped = sampler.step(learn((0, 3), {0: UNIT // 4}))
    assert stepped.shares[3] == stepped.shares[1] == stepped.shares[2] < stepped.shares[0]


@given(st.lists(st.floats(0.05, 1), min_size=3, max_size=8), st.floats(0.05, 0.5))
def test_the_exact_projection_equals_the_published_one_where_the_cap_is_inactive(
    shares: list[float], alpha: float
) -> None:
    published = project_onto_floor(np.log(shares), alpha / len(shares))
    exact = project(
        [round(share * 2**60) for share in shares],
        ONE_Q30,
        round(alpha / len(shares) * ONE_Q30),
        ONE_Q30,
    )
    assert np.array(exact) / ONE_Q30 == pytest.approx(published, abs=1e-6)


@given(st.lists(st.integers(-UNIT // 20, UNIT // 20), min_size=3, max_size=3), st.integers(0, 9))
def test_an_exact_step_equals_the_published_step_with_centred_utilities(
    utilities: list[int], first: int
) -> None:
    # Neither cap nor clipping is active: K p < 1 and eta * u / (K p) < ln 2.
    sellers, per_round = 12, 3
    drawn = tuple(sorted((first + 3 * place) % sellers for place in range(per_round)))
    offered = dict(zip(drawn, utilities, strict=True))
    centre = sorted(utilities)[1]
    centred = {index: utility - centre for index, utility in offered.items()}
    exact = OsmdSampling(per_round, alpha_bps=100).start(sellers).step(learn(drawn, offered))
    published = ZlfkSampling(per_round, alpha=0.01).start(sellers).step(learn(drawn, centred))
    assert exact.shares == pytest.approx(published.shares, abs=1e-6)


def test_the_exact_sampler_takes_the_step_of_the_market() -> None:
    sampler = OsmdSampling(3, eta_q16=1 << 15, alpha_bps=1000).start(8)
    stepped = sampler.step(learn((1, 4, 6), {1: 4000, 6: -9000}))
    rules = StepRules(1 << 15, compute_floor(8, 3, 1000))
    assert stepped.state == update(sampler.state, {1: 4000, 6: -9000}, [4], rules)
    assert sum(stepped.shares) == pytest.approx(1)


def test_the_exact_sampler_removes_who_was_absent_three_times() -> None:
    # Without exploration the floor is one unit: three halvings alone do not reach it.
    sampler = OsmdSampling(2, alpha_bps=0).start(6)
    floor = 1
    absent = Feedback(drawn=(0, 5), absent=frozenset({5}), utilities={0: 0})
    rejected = Feedback(drawn=(0, 5), utilities={0: 0})
    twice = sampler.step(absent).step(absent)
    assert twice.state[5] > floor
    assert twice.step(absent).state[5] == floor
    assert twice.step(absent).step(learn((5,), {5: UNIT})).state[5] == floor
    assert twice.step(rejected).misses[5] == 2  # rejected is not absent


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
@given(seed=st.binary(min_size=32, max_size=32))
def test_a_draw_is_ascending_and_has_k_accesses(sampler: Sampler, seed: bytes) -> None:
    drawn = sampler.draw(seed)
    assert len(drawn) == 3
    assert list(drawn) == sorted(drawn)
    assert set(drawn) <= set(range(8))
    assert drawn == sampler.draw(seed)


@pytest.mark.parametrize("sampler", SAMPLERS[:2], ids=lambda sampler: type(sampler).__name__)
def test_without_replacement_sellers_are_distinct(sampler: Sampler) -> None:
    assert all(len(set(sampler.draw(keccak(word(number))))) == 3 for number in range(50))


def test_with_replacement_a_seller_can_be_drawn_more_than_once() -> None:
    draws = [ZlfkSampling(3).start(8).draw(keccak(word(number))) for number in range(50)]
    assert any(len(set(drawn)) < 3 for drawn in draws)


@pytest.mark.parametrize(
    "sampler",
    [
        UniformSampling(3).start(5),
        OsmdSampling(2).start(5).step(learn((0, 4), {0: UNIT, 4: -UNIT})),
        ZlfkSampler(ZlfkSampling(4), (0.05, 0.1, 0.15, 0.2, 0.5)),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_sellers_are_drawn_as_often_as_their_shares_say(sampler: Sampler) -> None:
    draws = 1500
    counts = Counter(
        index for number in range(draws) for index in sampler.draw(keccak(word(number)))
    )
    accesses = sum(counts.values())
    for index, share in enumerate(sampler.shares):
        sigma = math.sqrt(accesses * share * (1 - share))
        assert abs(counts[index] - accesses * share) < 4 * sigma


def test_only_samplers_that_learn_ask_for_utilities() -> None:
    assert [sampler.uses_utilities for sampler in SAMPLERS] == [False, True, True]
    uniform = SAMPLERS[0]
    assert uniform.step(learn((0, 1, 2), {0: UNIT})).shares == uniform.shares


@pytest.mark.parametrize("count", [0, 9])
@pytest.mark.parametrize("rules", [UniformSampling, OsmdSampling])
def test_no_more_sellers_can_be_sampled_than_there_are(rules, count: int) -> None:
    with pytest.raises(InvalidParams, match="sellers_per_round"):
        rules(count).start(8)


def test_with_replacement_more_can_be_drawn_than_there_are() -> None:
    assert len(ZlfkSampling(9).start(2).draw(keccak(b"seed"))) == 9
    with pytest.raises(InvalidParams):
        ZlfkSampling(0).start(2)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, float("nan")])
def test_a_floor_of_nothing_or_of_all_is_refused(alpha: float) -> None:
    with pytest.raises(InvalidParams, match="alpha"):
        ZlfkSampling(2, alpha=alpha)
