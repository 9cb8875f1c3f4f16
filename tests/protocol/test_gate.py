import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.fixed_point import Int32
from protocol.gate import Candidates, is_norm_in_band, select_aligned, select_candidates
from protocol.linear_algebra import compute_gram, compute_squared_distances, compute_squared_norm
from protocol.update import MAX_UPDATE

RECORDED = {
    0: (40, 0, 0, 4),
    1: (36, 8, 0, 0),
    2: (30, 20, 4, 0),
    3: (1, 0, 0, 0),
    4: (0, -40, 0, 0),
    5: (36, 8, 0, 0),
    6: (400, 0, 0, 0),
    7: (0, 0, 36, 0),
}
RECORDED_UTILITIES = {0: 100, 2: 80, 4: -50, 7: 95}
SEEDS = st.integers(0, 1 << 20)


def as_updates(rows: dict[int, tuple[int, ...]]) -> dict[int, Int32]:
    return {index: 1000 * np.array(row, dtype=np.int32) for index, row in rows.items()}


def draw_updates(count: int, length: int = 64, seed: int = 0) -> dict[int, Int32]:
    generator = np.random.default_rng(seed)
    common = generator.normal(size=length)
    return {
        index: (20_000 * (common + generator.normal(size=length))).astype(np.int32)
        for index in range(count)
    }


def draw_equal_norms(count: int, seed: int) -> dict[int, Int32]:
    """Updates that only their direction sets apart."""
    return {
        index: (update * (160_000 / np.linalg.norm(update))).astype(np.int32)
        for index, update in draw_updates(count, seed=seed).items()
    }


def test_the_gate_keeps_the_recorded_sellers() -> None:
    candidates = select_candidates(as_updates(RECORDED))
    # 3 and 6 are outside the norm band; 1 and 5 are copies of 0 after equalising.
    assert candidates.indices == (0, 2, 4, 7)
    assert [update.build().tolist() for update in candidates.updates] == [
        [36695, 0, 0, 3670],
        [30497, 20332, 4066, 0],
        [0, -36878, 0, 0],
        [0, 0, 36878, 0],
    ]
    assert select_aligned(candidates, RECORDED_UTILITIES, sellers_per_round=8) == (0, 2)


def test_the_products_belong_to_the_survivors() -> None:
    candidates = select_candidates(as_updates(RECORDED))
    expected = compute_gram(candidates.updates)
    assert [list(row) for row in candidates.gram] == expected
    assert [list(row) for row in candidates.distances] == compute_squared_distances(expected)
    first, second = (update.build().astype(int) for update in candidates.updates[:2])
    assert candidates.distances[0][1] == ((first - second) ** 2).sum()


@given(st.integers(1, 1 << 40))
def test_the_band_reaches_from_a_quarter_to_four_times_the_median_norm(median: int) -> None:
    assert is_norm_in_band(16 * median, median)
    assert not is_norm_in_band(16 * median + 1, median)
    assert is_norm_in_band(-(-median // 16), median)
    assert not is_norm_in_band(-(-median // 16) - 1, median)


@given(st.integers(0, 5), st.integers(0, 5))
def test_nobody_passes_when_the_median_update_is_zero(silent: int, honest: int) -> None:
    zero = np.zeros(64, dtype=np.int32)
    updates = draw_updates(honest) | {honest + index: zero for index in range(silent)}
    passed = select_candidates(updates).indices
    assert passed == (() if silent >= honest else tuple(range(honest)))


@given(st.sampled_from([0.0, 1e-4, 0.02, 0.2]), st.integers(0, 6), SEEDS)
def test_zero_and_tiny_updates_never_pass(factor: float, idle_seller: int, seed: int) -> None:
    updates = draw_equal_norms(7, seed)
    updates[idle_seller] = (updates[idle_seller] * factor).astype(np.int32)
    assert select_candidates(updates).indices == tuple(sorted(set(range(7)) - {idle_seller}))


@given(SEEDS)
def test_all_candidates_have_the_median_norm(seed: int) -> None:
    updates = draw_updates(7, seed=seed)
    norms = sorted(float(np.linalg.norm(update)) for update in updates.values())
    for candidate in select_candidates(updates).updates:
        # Rounding moves each of the 64 coordinates by at most a half.
        assert abs(compute_squared_norm(candidate) ** 0.5 - norms[3]) <= 5


@given(st.floats(0.26, 3.9), st.integers(0, 6), SEEDS)
def test_scaling_an_update_does_not_change_who_survives(
    factor: float, scaled_seller: int, seed: int
) -> None:
    updates = draw_equal_norms(7, seed)
    expected = select_candidates(updates)
    updates[scaled_seller] = np.rint(updates[scaled_seller] * factor).astype(np.int32)
    scaled = select_candidates(updates)
    assert scaled.indices == expected.indices
    for before, after in zip(expected.updates, scaled.updates, strict=True):
        # Rounding a quarter of an update costs two units after scaling back; its norm a few more.
        assert np.abs(before.build() - after.build()).max() <= 8


@given(st.integers(1, 8), SEEDS)
def test_identical_updates_collapse_to_the_first(count: int, seed: int) -> None:
    update = draw_updates(1, seed=seed)[0]
    candidates = select_candidates({3 * index: update.copy() for index in range(count)})
    assert candidates.indices == (0,)
    assert (candidates.updates[0].build() == update).all()


@given(st.integers(2, 5), st.floats(0.3, 3.5), SEEDS)
def test_near_copies_have_one_voice_whatever_their_scale(
    copies: int, factor: float, seed: int
) -> None:
    updates = draw_equal_norms(6, seed)
    noise = np.random.default_rng(seed).normal(0, 100, (copies, 64))
    for index in range(copies):
        copy = updates[1] * (factor if index % 2 else 1.0) + noise[index]
        updates[6 + index] = copy.astype(np.int32)
    assert select_candidates(updates).indices == tuple(range(6))


def test_a_duplicate_of_a_rejected_duplicate_stays_if_it_is_far_from_the_first() -> None:
    # Neighbours are nearer than a quarter of the norm, 0 and 2 are not.
    rows = {0: (100, 0), 1: (98, 20), 2: (92, 39)}
    assert select_candidates(as_updates(rows)).indices == (0, 2)


@given(st.permutations(sorted(RECORDED)))
def test_the_gate_does_not_depend_on_the_order_of_arrival(arrival: list[int]) -> None:
    updates = as_updates(RECORDED)
    expected = select_candidates(updates)
    candidates = select_candidates({index: updates[index] for index in arrival})
    assert candidates.indices == expected.indices
    assert candidates.gram == expected.gram
    assert select_aligned(candidates, RECORDED_UTILITIES, sellers_per_round=8) == (0, 2)


def test_no_updates_give_no_candidates() -> None:
    candidates = select_candidates({})
    assert candidates == Candidates(indices=(), updates=(), gram=(), distances=())
    assert select_aligned(candidates, {}, 5) == ()


def test_fewer_than_three_candidates_are_not_compared() -> None:
    opposed = select_candidates(as_updates({0: (40, 0), 5: (-40, 0)}))
    assert select_aligned(opposed, {0: 1, 5: 0}, sellers_per_round=5) == (0, 5)


@given(SEEDS, st.permutations(range(8)))
def test_orthogonal_and_reversed_updates_are_rejected(seed: int, ranks: list[int]) -> None:
    updates = draw_equal_norms(6, seed)
    basis = np.linalg.qr(np.stack(list(updates.values())).T)[0]
    noise = np.random.default_rng(seed).normal(size=64)
    noise -= basis @ (basis.T @ noise)
    total = sum(update.astype(float) for update in updates.values())
    updates[6] = (-160_000 * total / np.linalg.norm(total)).astype(np.int32)
    updates[7] = (160_000 * noise / np.linalg.norm(noise)).astype(np.int32)
    candidates = select_candidates(updates)
    assert candidates.indices == tuple(range(8))
    utilities = dict(enumerate(ranks))
    aligned = select_aligned(candidates, utilities, sellers_per_round=16)
    assert aligned == (0, 1, 2, 3, 4, 5)


ALIGNED_ROWS = st.lists(
    st.lists(st.integers(-9, 9), min_size=3, max_size=3).filter(any), min_size=3, max_size=8
)


@given(ALIGNED_ROWS, st.integers(3, 12), st.data())
def test_alignment_is_the_cosine_to_the_sum_of_the_other_references(
    rows: list[list[int]], sellers_per_round: int, data: st.DataObject
) -> None:
    candidates = select_candidates(as_updates({i: tuple(row) for i, row in enumerate(rows)}))
    passed = zip(candidates.indices, candidates.updates, strict=True)
    vectors = {index: update.build().astype(object) for index, update in passed}
    utilities = {index: data.draw(st.integers(-2, 2)) for index in vectors}
    best = sorted(vectors, key=lambda index: (-utilities[index], index))
    references = best[: max(3, -(-sellers_per_round // 2))]
    expected = []
    for index, vector in vectors.items():
        total = sum((vectors[other] for other in references if other != index), np.zeros(3, object))
        product = vector @ total
        if len(vectors) < 3 or (
            product > 0 and 100 * product**2 >= (vector @ vector) * (total @ total)
        ):
            expected.append(index)
    assert select_aligned(candidates, utilities, sellers_per_round) == tuple(expected)


def test_an_update_is_rejected_when_the_other_references_cancel_out() -> None:
    candidates = select_candidates(as_updates({0: (40, 0), 1: (-40, 0), 2: (0, 40)}))
    assert select_aligned(candidates, {0: 0, 1: 0, 2: 0}, sellers_per_round=3) == ()


def test_an_update_beyond_its_bound_is_refused() -> None:
    updates = draw_updates(3) | {1: np.full(64, MAX_UPDATE + 1, dtype=np.int32)}
    with pytest.raises(ValueError, match="exact"):
        select_candidates(updates)
