"""Blobs that are being served: one copy in memory each, however many peers take it."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from d2m_node.ports import Library
from protocol.types import Digest
from protocol.wire import chunks
from protocol.wire.messages import ChunkList

LINGER_SECONDS: Final = 3.0


@dataclass(slots=True)
class OpenBlob:
    """A blob in memory, and how many streams are sending it."""

    data: bytes
    users: int = 0
    chunk_list: ChunkList | None = None

    async def list_chunks(self) -> ChunkList:
        """Hash the chunks once."""
        if self.chunk_list is None:
            self.chunk_list = await trio.to_thread.run_sync(chunks.list_chunks, self.data)
        return self.chunk_list


class OpenBlobs:
    """Opens blobs for peers that may have them, within a budget.

    A blob stays a moment after its last user, who may ask for more of it. When the budget is used
    up, a blob is opened only once others are closed; one larger than the budget is opened alone.
    Those who take the others have to make way then.
    """

    def __init__(
        self, library: Library, max_bytes: int, make_way: Callable[[], float] = lambda: math.inf
    ) -> None:
        """``make_way`` lets somebody go, and returns after how many seconds to ask it again."""
        self._library = library
        self._max_bytes = max_bytes
        self._make_way = make_way
        self._open: dict[Digest, OpenBlob] = {}
        self._loading = trio.Lock()
        self._closed = trio.Event()

    async def run(self) -> None:
        """Forget blobs some time after their last user, until cancelled."""
        while True:
            await self._closed.wait()
            await trio.sleep(LINGER_SECONDS)
            self._forget_closed()

    @asynccontextmanager
    async def open(self, peer_id: bytes, digest: Digest) -> AsyncIterator[OpenBlob | None]:
        """Hold a blob in memory; None if the library has it not, or not for this peer."""
        blob = await self._find(peer_id, digest)
        if blob is None:
            yield None
            return
        try:
            yield blob
        finally:
            blob.users -= 1
            self._closed.set()
            self._closed = trio.Event()

    async def _find(self, peer_id: bytes, digest: Digest) -> OpenBlob | None:
        """Return a blob with one user more."""
        if not await self._library.admits(peer_id, digest):
            return None
        if digest not in self._open:
            async with self._loading:
                if not await self._load(peer_id, digest):
                    return None
        blob = self._open[digest]
        blob.users += 1
        return blob

    async def _load(self, peer_id: bytes, digest: Digest) -> bool:
        """Have a blob in memory. Who takes one that is there does not wait for this."""
        if digest not in self._open:
            await self._make_room()
            data = await self._library.read_blob(peer_id, digest)
            if data is None:
                return False
            self._open[digest] = OpenBlob(data)
        return True

    async def _make_room(self) -> None:
        while self._count_bytes() >= self._max_bytes:
            self._forget_closed()
            if self._count_bytes() >= self._max_bytes:
                with trio.move_on_after(self._make_way()):
                    await self._closed.wait()

    def _forget_closed(self) -> None:
        self._open = {digest: blob for digest, blob in self._open.items() if blob.users}

    def _count_bytes(self) -> int:
        return sum(len(blob.data) for blob in self._open.values())
