"""The Keccak of a blob that is still coming in, computed by a thread while more of it comes."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import trio

from protocol.hashing import begin_keccak
from protocol.types import Digest

STEP_BYTES: Final = 1024 * 1024
"""Hashed per visit to a thread, at least; a smaller blob is hashed in one go at its end."""

MAX_BEHIND_BYTES: Final = 4 * STEP_BYTES
"""Pieces that wait to be hashed. Beyond it no more is taken from the network."""


class RunningHash:
    """Hashes pieces in the order in which they are put."""

    def __init__(self) -> None:
        self._keccak = begin_keccak()
        self._pieces: list[bytes] = []
        self._behind_bytes = 0
        self._changed = trio.Event()
        self._hashing = trio.Lock()

    @asynccontextmanager
    async def keep_up(self) -> AsyncGenerator[None, None]:
        """Hash what is put while the context is open."""
        failure = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow)
            try:
                yield
            except Exception as exc:  # noqa: BLE001 - raised below, where it is not grouped
                failure = exc
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def put(self, piece: bytes) -> None:
        """Add a piece; waits while too many are not hashed yet and somebody keeps up."""
        self._pieces.append(piece)
        self._behind_bytes += len(piece)
        if self._behind_bytes >= STEP_BYTES:
            self._tell()
        while self._behind_bytes > MAX_BEHIND_BYTES:
            await self._changed.wait()

    async def finish(self) -> Digest:
        """Hash the rest; return the Keccak-256 of all that was put."""
        await self._catch_up()
        return Digest(self._keccak.digest())

    async def _follow(self) -> None:
        while True:
            if self._behind_bytes < STEP_BYTES:
                await self._changed.wait()
            else:
                await self._catch_up()

    async def _catch_up(self) -> None:
        async with self._hashing:
            # A visit to a thread is not cut short by a cancellation: nothing is hashed twice.
            with trio.CancelScope(shield=True):
                # In one piece: a thread would wait for the interpreter's lock after each.
                data = b"".join(self._pieces)
                self._pieces.clear()
                await trio.to_thread.run_sync(self._keccak.update, data)
                self._behind_bytes -= len(data)
            self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
