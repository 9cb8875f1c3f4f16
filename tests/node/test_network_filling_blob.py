"""A blob that fills up is hashed on the way, and whole in the end."""

import os

import pytest
import trio

from d2m_node.errors import PeerUnreachable
from d2m_node.network.filling_blob import MOST_BYTES, STEP_BYTES, FillingBlob, filling
from protocol.hashing import keccak


def fill(blob: FillingBlob, data: bytes) -> None:
    """Put the next bytes to the front."""
    start, end = blob.front_bytes, blob.front_bytes + len(data)
    blob.view(start, end)[:] = data
    blob.move_front(end)


@pytest.mark.parametrize("size", [0, 1, STEP_BYTES, 3 * MOST_BYTES + 5])
async def test_a_blob_has_the_hash_of_its_bytes(size: int) -> None:
    data, blob = os.urandom(size), FillingBlob(size)
    async with filling(blob):
        for start in range(0, size, 100_000):
            fill(blob, data[start : start + 100_000])
            await trio.lowlevel.checkpoint()
    assert await blob.finish() == keccak(data)
    assert blob.take() == data


async def test_all_but_the_last_step_is_hashed_while_the_rest_is_waited_for() -> None:
    data, blob = os.urandom(4 * MOST_BYTES), FillingBlob(4 * MOST_BYTES + 1)
    async with filling(blob):
        fill(blob, data)
        while blob.hashed_bytes < len(data):  # noqa: ASYNC110 - a thread's work has no event
            await trio.sleep(0.001)
        fill(blob, b"x")
    assert await blob.finish() == keccak(data + b"x")


async def test_what_was_hashed_before_a_break_is_not_hashed_again() -> None:
    first, second = os.urandom(2 * STEP_BYTES), os.urandom(STEP_BYTES + 3)
    blob = FillingBlob(len(first) + len(second))

    async def break_off() -> None:
        async with filling(blob):
            fill(blob, first)
            raise PeerUnreachable("broken")

    with pytest.raises(PeerUnreachable, match="broken"):
        await break_off()
    async with filling(blob):
        fill(blob, second)
    assert await blob.finish() == keccak(first + second)


async def test_a_cancelled_fetch_leaves_the_hash_whole() -> None:
    data = os.urandom(8 * MOST_BYTES)
    blob = FillingBlob(len(data))
    with trio.CancelScope() as scope:
        async with filling(blob):
            fill(blob, data)
            await trio.lowlevel.checkpoint()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert await blob.finish() == keccak(data)


async def test_who_follows_is_told_of_the_front_and_let_go_at_the_end() -> None:
    blob, seen = FillingBlob(10), []

    async def follow() -> None:
        await blob.wait_front(4)
        seen.append(blob.front_bytes)
        await blob.wait_front(1000)  # beyond the end
        seen.append(blob.front_bytes)
        await trio.sleep_forever()

    async with filling(blob, follow):
        for _ in range(2):
            fill(blob, b"abcde")
            await trio.testing.wait_all_tasks_blocked()
    assert seen == [5, 10]


def test_a_blob_is_in_memory_once() -> None:
    blob = FillingBlob(1000)
    before = blob.view(0, 1000)
    before[:4] = b"once"
    del before
    taken = blob.take()
    assert taken[:4] == b"once"
    assert taken is blob._data.getvalue()
