"""A run in virtual time takes no time, and its steps follow from the seed."""

import threading
import time

import pytest
import trio
from trio._core import _run as scheduler

from d2m_node.offload import offload
from d2m_node.simulation.world.virtual_time import run_in_virtual_time
from tests.support.elsewhere import run_elsewhere


async def race(runners: int) -> list[int]:
    """Let tasks run against each other; return who took each of their steps."""
    steps: list[int] = []

    async def step(number: int) -> None:
        for _ in range(3):
            steps.append(number)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for number in range(runners):
            nursery.start_soon(step, number)
    return steps


def test_the_seed_chooses_who_goes_on() -> None:
    first = run_in_virtual_time(race, 8, seed=1)
    assert run_in_virtual_time(race, 8, seed=1) == first
    assert run_in_virtual_time(race, 8, seed=2) != first


def test_the_order_is_the_same_in_a_process_with_other_hashes_and_addresses() -> None:
    script = (
        "from d2m_node.simulation.world.virtual_time import run_in_virtual_time\n"
        "from tests.simulation.test_virtual_time import race\n"
        "junk = [object() for _ in range(1000)]\n"
        "print(run_in_virtual_time(race, 8, seed=1))"
    )
    assert run_elsewhere(script) == f"{run_in_virtual_time(race, 8, seed=1)}\n"


def test_a_day_is_over_as_soon_as_nothing_can_go_on() -> None:
    async def sleep_a_day() -> float:
        await trio.sleep(86400)
        return trio.current_time()

    assert run_in_virtual_time(sleep_a_day, seed=1) == 86400


def test_time_stands_while_a_task_works() -> None:
    async def work() -> float:
        deadline = time.monotonic() + 0.02
        while time.monotonic() < deadline:
            await trio.lowlevel.checkpoint()
        return trio.current_time()

    assert run_in_virtual_time(work, seed=1) == 0.0


def test_no_thread_is_used() -> None:
    async def find_thread() -> bool:
        return await offload(threading.current_thread) is threading.main_thread()

    assert run_in_virtual_time(find_thread, seed=1)


def test_an_error_ends_the_run_and_leaves_trio_as_it_was() -> None:
    async def fail() -> None:
        raise ValueError("no such node")

    before = scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    with pytest.raises(ValueError, match="no such node"):
        run_in_virtual_time(fail, seed=1)
    assert (scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING) == before
