"""The benchmark of simulated gossip compares like with like, and one task is the cheaper way."""

import time
from collections.abc import Callable

import pytest

from tests.bench.bench_gossip import gossip, gossip_by_tasks

NODES = 40


def test_both_ways_deliver_everything() -> None:
    assert gossip(NODES) == gossip_by_tasks(NODES) == NODES * (NODES - 1)


@pytest.mark.slow
def test_one_task_takes_at_most_half_of_what_a_task_for_each_delivery_takes() -> None:
    def processor_seconds(work: Callable[[int], int]) -> float:
        started = time.process_time()
        work(4 * NODES)
        return time.process_time() - started

    ours, other = (
        min(processor_seconds(work) for _ in range(3)) for work in (gossip, gossip_by_tasks)
    )
    assert ours <= other / 2
