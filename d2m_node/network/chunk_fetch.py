"""One large blob from several peers at once.

Each source first says what the blob consists of. A list is a claim: the digest does not bind it.
But the list follows from the blob, so that every lie is brought home to its source:

- who sends a chunk that is not in its own list lied in one of the two;
- when a list leads to a blob of another hash, all who gave that list lied;
- when a list leads to the blob, all who gave another list lied.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final

import structlog
import trio

from d2m_node.errors import PeerUnreachable, StreamTimeout, TransientError
from d2m_node.network.fairness import PIECE_BYTES
from d2m_node.network.partials import Partials
from d2m_node.network.peer_stream import PeerStream
from d2m_node.network.settings import NetworkSettings
from protocol.errors import InvalidMessage, ProtocolError, RuleViolation
from protocol.hashing import keccak
from protocol.types import Digest
from protocol.wire.chunks import CHUNK_BYTES, HASH_BYTES, count_chunks, hash_chunk, validate_chunks
from protocol.wire.messages import ChunkHeader, ChunkList, ChunkListRequest, ChunkRequest
from protocol.wire.topics import CHUNKS_PROTOCOL

log = structlog.get_logger(__name__)

MAX_LIST_BYTES: Final = 66 * 1024
MAX_HEADER_BYTES: Final = 64
MAX_SOURCES: Final = 8
"""More at once would not be faster."""
MAX_RUN: Final = 8
"""Chunks asked for at once: enough to keep a line busy, few enough to be shared out."""
MAX_COPIES: Final = 2
"""Sources that fetch one chunk at the same time, when one of them may be stuck."""
GRACE_SECONDS: Final = 1.0
"""After the first list, so long others may take for theirs."""

OpenStream = Callable[[bytes, str], AbstractAsyncContextManager[PeerStream]]


@dataclass(slots=True, eq=False)
class _Assembly:
    """A blob that is being put together after one list."""

    chunks: ChunkList
    data: BytesIO
    """As large as the blob from the start, and in the end the blob itself, without a copy."""
    missing: set[int]
    workers: int
    """Sources that are still at it."""
    asked: Counter[int] = field(default_factory=Counter)
    changed: trio.Event = field(default_factory=trio.Event)

    @classmethod
    def begin(cls, chunks: ChunkList, workers: int) -> "_Assembly":
        count = count_chunks(chunks.size_bytes)
        return cls(chunks, BytesIO(bytes(chunks.size_bytes)), set(range(count)), workers)

    def choose_run(self) -> range:
        """Choose the next chunks that fewest sources are fetching; empty if all have enough."""
        open_chunks = [one for one in self.missing if self.asked[one] < MAX_COPIES]
        if not open_chunks:
            return range(0)
        fewest = min(self.asked[one] for one in open_chunks)
        wanted = {one for one in open_chunks if self.asked[one] == fewest}
        if fewest:  # somebody is at it: begin with what it would come to last
            return range(max(wanted), max(wanted) + 1)
        first = min(wanted)
        longest = max(1, min(MAX_RUN, len(self.missing) // (2 * self.workers)))
        end = first + 1
        while end in wanted and end - first < longest:
            end += 1
        return range(first, end)

    def put(self, index: int, chunk: bytes) -> None:
        """Keep a chunk. Raises RuleViolation if it is not the one of the list."""
        expected = self.chunks.hashes[HASH_BYTES * index : HASH_BYTES * (index + 1)]
        if hash_chunk(chunk) != expected:
            raise RuleViolation(f"chunk {index} is not the one in its own list")
        self.data.seek(index * CHUNK_BYTES)
        self.data.write(chunk)
        self.missing.discard(index)

    def wake(self) -> None:
        """Let sources that wait look for work again."""
        self.changed.set()
        self.changed = trio.Event()


class ChunkFetch:
    """Fetches one blob; afterwards ``liars`` are the sources that were caught."""

    def __init__(
        self,
        open_stream: OpenStream,
        blame: Callable[[bytes, str], None],
        settings: NetworkSettings,
        partials: Partials,
    ) -> None:
        self._open_stream = open_stream
        self._blame = blame
        self._settings = settings
        self._partials = partials
        self._claims: dict[ChunkList, list[bytes]] = {}
        self._too_large: list[bytes] = []
        """Sources that say that the blob is larger than it may be: a lie only if it is not."""
        self._assembly: _Assembly | None = None
        self.liars: set[bytes] = set()

    def measure(self) -> tuple[int, int | None]:
        """Return how many bytes have arrived, and the size, as far as it is known."""
        if self._assembly is None:
            return 0, None
        size = self._assembly.chunks.size_bytes
        return max(0, size - len(self._assembly.missing) * CHUNK_BYTES), size

    async def run(self, digest: Digest, sources: Sequence[bytes], max_bytes: int) -> bytes | None:
        """Return the blob, or None if no list led to it."""
        await self._ask_all(digest, sources[:MAX_SOURCES], max_bytes)
        claims = sorted(self._claims.items(), key=lambda claim: -len(claim[1]))
        for chunks, claimants in claims:
            blob = await self._assemble(digest, chunks, claimants)
            if blob is None:
                continue
            if await trio.to_thread.run_sync(keccak, blob) == digest:
                self._catch_others(chunks)
                return blob
            await self._partials.drop(digest)
            for source in claimants:
                self._catch(source, "listed the chunks of another blob")
        return None

    def _catch(self, source: bytes, reason: str) -> None:
        if source not in self.liars:
            self.liars.add(source)
            self._blame(source, reason)

    def _catch_others(self, true_list: ChunkList) -> None:
        for chunks, claimants in self._claims.items():
            if chunks != true_list:
                for source in claimants:
                    self._catch(source, "listed the chunks of another blob")
        for source in self._too_large:
            self._catch(source, "listed the chunks of a larger blob")

    async def _ask_all(self, digest: Digest, sources: Sequence[bytes], max_bytes: int) -> None:
        """Collect lists until all have answered, or a little longer than the first needed."""
        first = trio.Event()

        async def ask(source: bytes) -> None:
            chunks = await self._ask(source, digest, max_bytes)
            if chunks is not None:
                self._claims.setdefault(chunks, []).append(source)
                first.set()

        async def end_after_grace(scope: trio.CancelScope) -> None:
            await first.wait()
            await trio.sleep(GRACE_SECONDS)
            scope.cancel()

        async with trio.open_nursery() as watch:
            watch.start_soon(end_after_grace, watch.cancel_scope)
            async with trio.open_nursery() as asking:
                for source in sources:
                    asking.start_soon(ask, source)
            watch.cancel_scope.cancel()

    async def _ask(self, source: bytes, digest: Digest, max_bytes: int) -> ChunkList | None:
        try:
            async with self._open_stream(source, CHUNKS_PROTOCOL) as stream:
                await stream.send_message(ChunkListRequest(digest=digest))
                chunks = await stream.receive_message(MAX_LIST_BYTES)
            if not isinstance(chunks, ChunkList):
                raise InvalidMessage(f"{type(chunks).__name__} where a list of chunks belongs")
            if not chunks.available:
                return None
            validate_chunks(chunks)
            if chunks.size_bytes > max_bytes:
                self._too_large.append(source)
                raise PeerUnreachable(f"{chunks.size_bytes} bytes, at most {max_bytes} are allowed")
        except ProtocolError as exc:
            self._catch(source, str(exc))
            return None
        except TransientError as exc:
            log.info("chunk_list_missing", peer=source, error=str(exc))
            return None
        return chunks

    async def _assemble(
        self, digest: Digest, chunks: ChunkList, sources: Sequence[bytes]
    ) -> bytes | None:
        """Fetch all chunks of one list from those who gave it; None if they fail."""
        assembly = self._assembly = _Assembly.begin(chunks, len(sources))
        assembly.missing -= await self._partials.restore_chunks(digest, chunks, assembly.data)
        async with trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(self._fetch_from, source, digest, assembly)
            while assembly.missing and assembly.workers:
                await assembly.changed.wait()
            nursery.cancel_scope.cancel()
        return None if assembly.missing else assembly.data.getvalue()

    async def _fetch_from(self, source: bytes, digest: Digest, assembly: _Assembly) -> None:
        try:
            async with self._open_stream(source, CHUNKS_PROTOCOL) as stream:
                while assembly.missing:
                    run = assembly.choose_run()
                    if run:
                        await self._fetch_run(stream, digest, assembly, run)
                    else:
                        await assembly.changed.wait()
        except ProtocolError as exc:
            self._catch(source, str(exc))
        except TransientError as exc:
            log.info("chunk_source_lost", peer=source, error=str(exc))
        finally:
            assembly.workers -= 1
            assembly.wake()

    async def _fetch_run(
        self, stream: PeerStream, digest: Digest, assembly: _Assembly, run: range
    ) -> None:
        """Fetch a run of chunks. Raises ProtocolError, TransientError."""
        assembly.asked.update(run)
        settings = self._settings
        wanted_bytes = len(run) * CHUNK_BYTES
        try:
            with trio.fail_after(
                settings.io_seconds + wanted_bytes / settings.min_bytes_per_second
            ):
                await stream.send_message(
                    ChunkRequest(digest=digest, first=run.start, count=len(run))
                )
                await self._receive_header(stream, assembly, run)
                for index in run:
                    chunk = await _receive_chunk(stream, assembly, index)
                    assembly.put(index, chunk)
                    assembly.wake()
                    size = assembly.chunks.size_bytes
                    await self._partials.keep_chunk(digest, index, chunk, size)
        except trio.TooSlowError as exc:
            raise StreamTimeout("too slow") from exc
        finally:
            assembly.asked.subtract(run)

    async def _receive_header(self, stream: PeerStream, assembly: _Assembly, run: range) -> None:
        header = await stream.receive_message(MAX_HEADER_BYTES)
        if not isinstance(header, ChunkHeader):
            raise InvalidMessage(f"{type(header).__name__} where a header of chunks belongs")
        if not header.available:
            raise PeerUnreachable("does not have the chunks any more, or not for us")
        end = min(assembly.chunks.size_bytes, run.stop * CHUNK_BYTES)
        if header.size_bytes != end - run.start * CHUNK_BYTES:
            raise RuleViolation(f"{header.size_bytes} bytes for {len(run)} chunks")


async def _receive_chunk(stream: PeerStream, assembly: _Assembly, index: int) -> bytes:
    size = min(CHUNK_BYTES, assembly.chunks.size_bytes - index * CHUNK_BYTES)
    received = bytearray()
    while len(received) < size:
        received += await stream.receive_some(min(PIECE_BYTES, size - len(received)))
    return bytes(received)
