import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from protocol.errors import TooFewUpdates
from protocol.fixed_point import Int32
from protocol.krum import KrumMode, KrumResult, aggregate_krum, compute_krum_scores, select_krum
from protocol.linear_algebra import compute_gram, compute_squared_distances, measure_update
from protocol.update import MAX_UPDATE
from tests.protocol.vectors import load_vectors

VECTORS = load_vectors()
ROWS = st.lists(st.lists(st.integers(-1000, 1000), min_size=3, max_size=3), min_size=5, max_size=9)


def as_vectors(rows: list[list[int]]) -> list[Int32]:
    return [np.array(row, dtype=np.int32) for row in rows]


def score(rows: list[list[int]], byzantine_count: int) -> list[int]:
    updates = [measure_update(vector) for vector in as_vectors(rows)]
    distances = compute_squared_distances(compute_gram(updates))
    return compute_krum_scores(distances, byzantine_count)


@pytest.mark.parametrize("mode", list(KrumMode))
def test_krum_gives_the_recorded_step(mode: KrumMode) -> None:
    recorded = VECTORS[f"krum_{mode.value}"]
    assert score(recorded["U"], recorded["f"]) == recorded["scores"]
    result = aggregate_krum(
        recorded["ids"],
        as_vectors(recorded["U"]),
        byzantine_count=recorded["f"],
        accepted_count=3,
        mode=mode,
    )
    assert list(result.accepted) == recorded["accepted"]
    assert result.step.tolist() == recorded["delta"]


@given(ROWS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_scores_follow_a_permutation(rows: list[list[int]], byzantine_count: int, random) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)
    scores = score(rows, byzantine_count)
    assert score([rows[i] for i in order], byzantine_count) == [scores[i] for i in order]


@given(ROWS, st.integers(0, 3), st.integers(-5000, 5000))
def test_scores_are_invariant_under_translation(
    rows: list[list[int]], byzantine_count: int, offset: int
) -> None:
    moved = [[value + offset for value in row] for row in rows]
    assert score(moved, byzantine_count) == score(rows, byzantine_count)


@given(ROWS, st.integers(0, 3), st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_result_belongs_to_the_sellers_and_not_to_their_order_of_arrival(
    rows: list[list[int]], byzantine_count: int, accepted_count: int, random
) -> None:
    """Scores are equal for a seller wherever it stands; only exact ties go by the index."""
    scores = score(rows, byzantine_count)
    assume(len(set(scores)) == len(scores))
    order = list(range(len(rows)))
    random.shuffle(order)

    def aggregate(of: list[list[int]]) -> KrumResult:
        return aggregate_krum(
            range(len(of)),
            as_vectors(of),
            byzantine_count=byzantine_count,
            accepted_count=accepted_count,
        )

    straight, shuffled = aggregate(rows), aggregate([rows[i] for i in order])
    assert {order[i] for i in shuffled.accepted} == set(straight.accepted)
    assert (shuffled.step == straight.step).all()


@given(ROWS, st.integers(1, 9))
def test_the_medoid_is_the_accepted_update_closest_to_the_mean(
    rows: list[list[int]], accepted_count: int
) -> None:
    arguments = (range(len(rows)), as_vectors(rows))
    counts = {"byzantine_count": 1, "accepted_count": accepted_count}
    mean = aggregate_krum(*arguments, **counts)
    medoid = aggregate_krum(*arguments, **counts, mode=KrumMode.MEDOID)
    assert medoid.accepted == mean.accepted
    away = {i: sum((rows[i] - mean.step.astype(int)) ** 2) for i in mean.accepted}
    assert medoid.step.tolist() == rows[min(away, key=lambda i: (away[i], i))]


def test_the_medoid_of_saturated_updates_is_found() -> None:
    """Their differences to the mean exceed the bound of an update."""
    high, low = [MAX_UPDATE] * 3, [-MAX_UPDATE] * 3
    result = aggregate_krum(
        range(5),
        as_vectors([low, high, low, high, low]),
        byzantine_count=0,
        accepted_count=5,
        mode=KrumMode.MEDOID,
    )
    assert result.step.tolist() == low


@given(ROWS, st.data())
def test_one_far_outlier_is_never_accepted(rows: list[list[int]], data: st.DataObject) -> None:
    hostile = data.draw(st.integers(0, len(rows) - 1))
    rows[hostile] = [500_000, -500_000, 500_000]
    result = aggregate_krum(
        range(len(rows)), as_vectors(rows), byzantine_count=1, accepted_count=len(rows) - 1
    )
    assert hostile not in result.accepted


@settings(max_examples=50)
@given(
    st.integers(1, 3), st.lists(st.integers(-900_000, 900_000), min_size=3, max_size=3), st.data()
)
def test_colluders_do_not_move_the_step_out_of_the_accepted_box(
    byzantine_count: int, hostile: list[int], data: st.DataObject
) -> None:
    count = 2 * byzantine_count + 3
    honest = data.draw(
        st.lists(
            st.lists(st.integers(-1000, 1000), min_size=3, max_size=3),
            min_size=count - byzantine_count,
            max_size=count - byzantine_count,
        )
    )
    rows = np.array([hostile] * byzantine_count + honest)
    result = aggregate_krum(
        range(count),
        as_vectors(rows.tolist()),
        byzantine_count=byzantine_count,
        accepted_count=count - byzantine_count,
    )
    accepted = rows[list(result.accepted)]
    assert (accepted.min(axis=0) <= result.step).all()
    assert (result.step <= accepted.max(axis=0)).all()


def test_equal_scores_are_decided_by_the_smaller_index() -> None:
    distances = [[0, 4, 4], [4, 0, 4], [4, 4, 0]]
    accepted = select_krum([2, 5, 9], distances, byzantine_count=0, accepted_count=2)
    assert accepted == (2, 5)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_small_rounds_lower_the_tolerated_number(count: int) -> None:
    rows = [[10 * i, 0, 0] for i in range(count)]
    assert score(rows, byzantine_count=3) == score(rows, byzantine_count=0)


def test_a_lone_update_is_accepted() -> None:
    result = aggregate_krum(
        [4], as_vectors([[1, 2, 3]]), byzantine_count=1, accepted_count=1, mode=KrumMode.MEDOID
    )
    assert (result.accepted, result.step.tolist()) == ((4,), [1, 2, 3])


def test_no_update_is_too_few() -> None:
    with pytest.raises(TooFewUpdates):
        aggregate_krum([], [], byzantine_count=0, accepted_count=1)
