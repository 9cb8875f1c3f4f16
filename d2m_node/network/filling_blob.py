"""A blob that fills up; a thread computes the Keccak of its front while more of it comes."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Final

import trio

from protocol.hashing import begin_keccak
from protocol.types import Digest

STEP_BYTES: Final = 512 * 1024
"""A thread is started for so much, at least; the end of a blob is hashed whatever it is."""

MOST_BYTES: Final = 2 * 1024 * 1024
"""Hashed in one call: whoever is cancelled waits for that, and not for all that has come."""


class FillingBlob:
    """The bytes of a blob of a known size, in memory once, as they come."""

    def __init__(self, size_bytes: int) -> None:
        """Set room aside; the system gives it as it is filled."""
        self.size_bytes = size_bytes
        self.front_bytes = 0
        """So many bytes from the front are there, without a gap."""
        self._data = BytesIO(bytes(size_bytes))
        self._view = self._data.getbuffer()
        self._keccak = begin_keccak()
        self.hashed_bytes = 0
        self._is_stopped = False
        self._moved = trio.Event()
        self._hashing = trio.Lock()

    def view(self, start: int, end: int) -> memoryview:
        """Return a part, to be filled or read."""
        return self._view[start:end]

    def move_front(self, end: int) -> None:
        """Say up to where all bytes are there; those are not written to any more."""
        self.front_bytes = end
        self._moved.set()
        self._moved = trio.Event()

    async def wait_front(self, end: int) -> None:
        """Wait until the front is there, or the end of the blob if that comes before."""
        while self.front_bytes < min(end, self.size_bytes):
            await self._moved.wait()

    async def hash_front(self) -> None:
        """Hash what comes, until all is hashed or this is cancelled."""
        while self.hashed_bytes < self.size_bytes:
            await self.wait_front(self.hashed_bytes + STEP_BYTES)
            await self._catch_up()

    def stop(self) -> None:
        """Let a thread that hashes end soon."""
        self._is_stopped = True

    async def finish(self) -> Digest:
        """Hash what is left; return the Keccak-256 of the front."""
        await self._catch_up()
        return Digest(self._keccak.digest())

    def take(self) -> bytes:
        """Return the whole blob, without a copy; nobody writes to it any more."""
        self._view.release()
        return self._data.getvalue()

    async def _catch_up(self) -> None:
        # A visit to a thread is not cut short by a cancellation: nothing is hashed twice.
        async with self._hashing:
            self._is_stopped = False
            await trio.to_thread.run_sync(self._hash)

    def _hash(self) -> None:
        """Hash up to the front, which may move on meanwhile."""
        while self.hashed_bytes < self.front_bytes and not self._is_stopped:
            end = min(self.front_bytes, self.hashed_bytes + MOST_BYTES)
            self._keccak.update(self._view[self.hashed_bytes : end])
            self.hashed_bytes = end


@asynccontextmanager
async def filling(
    blob: FillingBlob, *followers: Callable[[], Awaitable[None]]
) -> AsyncGenerator[None, None]:
    """Hash a blob, and whatever else is to follow it, while the context fills it."""
    failure = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(blob.hash_front)
        for follower in followers:
            nursery.start_soon(follower)
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - raised below, where it is not grouped
            failure = exc
        finally:
            blob.stop()
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
