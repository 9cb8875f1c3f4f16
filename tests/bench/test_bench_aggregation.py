"""What is timed as Corrected OSMD is Corrected OSMD, as MECHANISM 11 and 13 read."""

from math import isqrt

import pytest

from protocol.aggregation import compute_tolerated
from protocol.digest import NO_UTILITY
from protocol.fixed_point import Int32
from tests.bench.bench_aggregation import aggregate, draw_updates, measure_peak_memory


def equalise_all(updates: list[Int32]) -> list[list[int]]:
    """G2, coordinate by coordinate in Python's integers."""
    rows = [update.tolist() for update in updates]
    norms = [sum(value * value for value in row) for row in rows]
    median = sorted(norms)[(len(norms) - 1) // 2]
    scales = [isqrt((median << 40) // norm) for norm in norms]
    limit = (1 << 20) - 1
    return [
        [max(-limit, min((value * scale + (1 << 19)) >> 20, limit)) for value in row]
        for row, scale in zip(rows, scales, strict=True)
    ]


def square(row: list[int], other: list[int]) -> int:
    return sum((x - y) ** 2 for x, y in zip(row, other, strict=True))


@pytest.mark.parametrize("count", [5, 12])
def test_the_timed_round_is_the_rule(count: int) -> None:
    updates = draw_updates(count, 300)
    result = aggregate(updates)
    assert NO_UTILITY not in result.utilities  # all pass the gate, so no work is left out

    equalised = equalise_all(updates)
    distances = [square(a, b) for i, a in enumerate(equalised) for b in equalised[i + 1 :]]
    assert result.distances == tuple(distances)

    kept = max(5, -(-7 * count // 10))
    best = sorted(range(count), key=lambda index: (-result.utilities[index], index))[:kept]
    byzantine = max(1, compute_tolerated(count) - (count - kept))
    scores = {
        i: sum(sorted(square(equalised[i], equalised[j]) for j in best if j != i)[: kept - 3])
        for i in best
    }
    assert byzantine == 1
    accepted = sorted(sorted(best, key=lambda i: (scores[i], i))[: kept - byzantine])
    assert result.accepted == tuple(accepted)
    sums = [sum(column) for column in zip(*(equalised[i] for i in accepted), strict=True)]
    mean = [(2 * total + len(accepted)) // (2 * len(accepted)) for total in sums]
    assert result.parameters.tolist() == mean


def test_the_measured_memory_counts_the_updates_once() -> None:
    assert 1 < measure_peak_memory(draw_updates(20, 20_000)) <= 2
