"""Chunks are shared out, and what is there is not written to again."""

import random

from d2m_node.network.assembly import MAX_COPIES, MAX_RUN, Assembly
from protocol.hashing import keccak
from protocol.wire.chunks import CHUNK_BYTES, list_chunks

BLOB = random.Random(3).randbytes(5 * CHUNK_BYTES + 99)


def chunk_of(index: int) -> memoryview:
    return memoryview(BLOB)[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]


def test_no_chunk_is_asked_for_twice_while_nobody_is_asked_for_others() -> None:
    assembly = Assembly(list_chunks(BLOB), workers=2)
    asked: list[int] = []
    while run := assembly.choose_run():
        assert len(run) <= MAX_RUN
        assembly.asked.update(run)
        asked += run
    assert sorted(asked) == list(range(6))


def test_a_copy_is_of_what_would_come_last_and_not_of_what_enough_are_at() -> None:
    assembly = Assembly(list_chunks(BLOB), workers=2)
    assembly.asked.update(range(6))
    copies = []
    while copy := assembly.choose_copy():
        assembly.asked.update(copy)
        copies += copy
    assert copies == [5, 4, 3, 2, 1, 0] * (MAX_COPIES - 1)


def test_a_second_copy_of_a_chunk_does_not_touch_the_first() -> None:
    assembly = Assembly(list_chunks(BLOB), workers=2)
    assembly.put(1, chunk_of(1))
    assembly.put(1, memoryview(bytes(CHUNK_BYTES)))
    assert assembly.blob.view(CHUNK_BYTES, 2 * CHUNK_BYTES) == chunk_of(1)


def test_a_chunk_of_another_blob_does_not_match() -> None:
    assembly = Assembly(list_chunks(BLOB), workers=1)
    assert assembly.matches(5, chunk_of(5))
    assert not assembly.matches(5, chunk_of(5)[:-1])
    assert not assembly.matches(4, chunk_of(5))


async def test_the_front_moves_over_chunks_that_came_before_it() -> None:
    assembly = Assembly(list_chunks(BLOB), workers=2)
    fronts = []
    for index in (2, 0, 1, 5, 3, 4):
        assembly.put(index, chunk_of(index))
        fronts.append(assembly.blob.front_bytes)
    size = CHUNK_BYTES
    assert fronts == [0, size, 3 * size, 3 * size, 4 * size, len(BLOB)]
    assert not assembly.missing
    assert await assembly.blob.finish() == keccak(BLOB)
    assert assembly.blob.take() == BLOB
