"""Work that is offloaded: to a thread by default, on the spot if the run says so."""

import threading

import pytest
import trio

from d2m_node.offload import offload, work_inline


def describe(*words: str) -> tuple[bool, str]:
    return threading.current_thread() is threading.main_thread(), " ".join(words)


def fail() -> None:
    raise ValueError("no such file")


async def test_work_is_done_in_a_thread() -> None:
    assert await offload(describe, "a", "b") == (False, "a b")


async def test_work_is_done_on_the_spot_if_the_run_says_so() -> None:
    work_inline()
    assert await offload(describe, "a", "b") == (True, "a b")


async def test_one_run_does_not_change_the_next() -> None:
    assert await offload(describe) == (False, "")


@pytest.mark.parametrize("is_inline", [False, True])
async def test_an_error_reaches_whoever_offloaded_the_work(is_inline: bool) -> None:
    if is_inline:
        work_inline()
    with pytest.raises(ValueError, match="no such file"):
        await offload(fail)


@pytest.mark.parametrize("is_inline", [False, True])
async def test_cancelled_before_it_begins_nothing_is_done(is_inline: bool) -> None:
    if is_inline:
        work_inline()
    done: list[int] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await offload(done.append, 1)
    assert scope.cancelled_caught
    assert done == []
