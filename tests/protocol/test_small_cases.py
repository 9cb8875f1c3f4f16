"""Cases by hand that the recorded vectors do not reach."""

import numpy as np

from protocol.gate import select_aligned, select_candidates
from protocol.osmd import project

# Two camps that point against each other; all six differ enough not to be copies.
CAMPS = {
    index: np.array(row, dtype=np.int32) * 1000
    for index, row in enumerate(
        [
            (40, 12, 0, 0),
            (40, -12, 6, 0),
            (40, 0, 0, 12),
            (-40, 0, 12, 0),
            (-40, 0, -12, 6),
            (-40, 6, 0, 12),
        ]
    )
}


def test_the_updates_of_most_use_give_the_direction() -> None:
    candidates = select_candidates(CAMPS)
    assert candidates.indices == tuple(range(6))
    first_camp = dict(enumerate([9, 8, 7, 3, 2, 1]))
    assert select_aligned(candidates, first_camp, sellers_per_round=6) == (0, 1, 2)
    second_camp = dict(enumerate([1, 2, 3, 7, 8, 9]))
    assert select_aligned(candidates, second_camp, sellers_per_round=6) == (3, 4, 5)


def test_of_equally_useful_updates_the_first_give_the_direction() -> None:
    candidates = select_candidates(CAMPS)
    assert select_aligned(candidates, dict.fromkeys(range(6), 5), 6) == (0, 1, 2)


def test_units_that_rounding_leaves_go_to_the_first_sellers_below_the_cap() -> None:
    assert project([1 << 62] * 3, 11, low=1, high=10) == [4, 4, 3]
    assert project([1 << 62, 1 << 50, 1 << 50], 15, low=1, high=10) == [10, 3, 2]
