"""A blob that several peers bring in chunks: who fetches what, and what of it is there."""

from collections import Counter
from typing import Final

import trio

from d2m_node.network.filling_blob import FillingBlob
from protocol.wire.chunks import CHUNK_BYTES, HASH_BYTES, count_chunks, hash_chunk
from protocol.wire.messages import ChunkList

MAX_RUN: Final = 8
"""Chunks asked for at once: enough to keep a line busy, few enough to be shared out."""
MAX_COPIES: Final = 2
"""Sources that fetch one chunk at the same time, when one of them may be stuck."""


class Assembly:
    """A blob that is being put together after one list."""

    def __init__(self, chunks: ChunkList, workers: int) -> None:
        """Begin with nothing; ``workers`` sources are at it."""
        self.chunks = chunks
        self.blob = FillingBlob(chunks.size_bytes)
        self.missing = set(range(count_chunks(chunks.size_bytes)))
        self.workers = workers
        self.asked: Counter[int] = Counter()
        self.changed = trio.Event()
        self._front = 0

    def size_of(self, index: int) -> int:
        """Return how many bytes a chunk has."""
        return min(CHUNK_BYTES, self.chunks.size_bytes - index * CHUNK_BYTES)

    def matches(self, index: int, chunk: memoryview) -> bool:
        """Tell whether a chunk is the one of the list. Takes a while: belongs into a thread."""
        expected = self.chunks.hashes[HASH_BYTES * index : HASH_BYTES * (index + 1)]
        return hash_chunk(chunk) == expected

    def choose_run(self) -> range:
        """Choose the next chunks that nobody fetches; empty if there are none."""
        free = {one for one in self.missing if not self.asked[one]}
        if not free:
            return range(0)
        first = min(free)
        longest = max(1, min(MAX_RUN, len(self.missing) // (2 * self.workers)))
        end = first + 1
        while end in free and end - first < longest:
            end += 1
        return range(first, end)

    def choose_copy(self) -> range:
        """Choose a chunk that another source may be stuck with: what it would come to last."""
        open_chunks = [one for one in self.missing if self.asked[one] < MAX_COPIES]
        if not open_chunks:
            return range(0)
        fewest = min(self.asked[one] for one in open_chunks)
        last = max(one for one in open_chunks if self.asked[one] == fewest)
        return range(last, last + 1)

    def put(self, index: int, chunk: memoryview) -> None:
        """Keep a chunk that matches, if it is not there yet: what is there is being hashed."""
        if index in self.missing:
            start = index * CHUNK_BYTES
            self.blob.view(start, start + len(chunk))[:] = chunk
            self.have({index})

    def have(self, indices: set[int]) -> None:
        """Note chunks that are in their places."""
        self.missing -= indices
        end = count_chunks(self.chunks.size_bytes)
        while self._front < end and self._front not in self.missing:
            self._front += 1
        self.blob.move_front(min(self._front * CHUNK_BYTES, self.chunks.size_bytes))
        self.wake()

    def wake(self) -> None:
        """Let sources that wait look for work again."""
        self.changed.set()
        self.changed = trio.Event()
