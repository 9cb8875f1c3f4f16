"""One large blob from several peers at once.

Each source first says what the blob consists of. A list is a claim: the digest does not bind it.
But the list follows from the blob, so that every lie is brought home to its source:

- who sends a chunk that is not in its own list lied in one of the two;
- when a list leads to a blob of another hash, all who gave that list lied;
- when a list leads to the blob, all who gave another list lied.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import structlog
import trio

from d2m_node.errors import PeerUnreachable, StreamTimeout, TransientError
from d2m_node.network.assembly import Assembly
from d2m_node.network.filling_blob import filling
from d2m_node.network.partials import Partials
from d2m_node.network.peer_stream import PeerStream
from d2m_node.network.settings import NetworkSettings
from protocol.errors import InvalidMessage, ProtocolError, RuleViolation
from protocol.types import Digest
from protocol.wire.chunks import CHUNK_BYTES, validate_chunks
from protocol.wire.messages import ChunkHeader, ChunkList, ChunkListRequest, ChunkRequest
from protocol.wire.topics import CHUNKS_PROTOCOL

log = structlog.get_logger(__name__)

MAX_LIST_BYTES: Final = 66 * 1024
MAX_HEADER_BYTES: Final = 64
MAX_SOURCES: Final = 8
"""More at once would not be faster."""
MAX_ASKED_RUNS: Final = 2
"""Runs asked of one source at once: the next is on its way when the last has come."""
GRACE_SECONDS: Final = 1.0
"""After the first list, so long others may take for theirs."""

OpenStream = Callable[[bytes, str], AbstractAsyncContextManager[PeerStream]]


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
        self._assembly: Assembly | None = None
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
            assembly = await self._assemble(digest, chunks, claimants)
            if assembly.missing:
                continue
            if await assembly.blob.finish() == digest:
                self._catch_others(chunks)
                return assembly.blob.take()
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
    ) -> Assembly:
        """Fetch all chunks of one list from those who gave it; some are missing if they fail."""
        assembly = self._assembly = Assembly(chunks, len(sources))
        view = assembly.blob.view(0, chunks.size_bytes)
        assembly.have(await self._partials.restore_chunks(digest, chunks, view))
        async with filling(assembly.blob), trio.open_nursery() as nursery:
            for source in sources:
                nursery.start_soon(self._fetch_from, source, digest, assembly)
            while assembly.missing and assembly.workers:
                await assembly.changed.wait()
            nursery.cancel_scope.cancel()
        return assembly

    async def _fetch_from(self, source: bytes, digest: Digest, assembly: Assembly) -> None:
        try:
            async with self._open_stream(source, CHUNKS_PROTOCOL) as stream:
                await self._fetch_runs(stream, digest, assembly)
        except ProtocolError as exc:
            self._catch(source, str(exc))
        except TransientError as exc:
            log.info("chunk_source_lost", peer=source, error=str(exc))
        finally:
            assembly.workers -= 1
            assembly.wake()

    async def _fetch_runs(self, stream: PeerStream, digest: Digest, assembly: Assembly) -> None:
        """Fetch runs until nothing is missing. Raises ProtocolError, TransientError."""
        asked: deque[range] = deque()
        try:
            while assembly.missing:
                while len(asked) < MAX_ASKED_RUNS:
                    run = assembly.choose_run()
                    if not run and not asked:
                        run = assembly.choose_copy()
                    if not run:
                        break
                    asked.append(run)
                    assembly.asked.update(run)
                    await stream.send_message(
                        ChunkRequest(digest=digest, first=run.start, count=len(run))
                    )
                if asked:
                    await self._receive_run(stream, digest, assembly, asked[0])
                    assembly.asked.subtract(asked.popleft())
                else:
                    await assembly.changed.wait()
            if asked:  # others brought what is still on its way here
                await stream.reset()
        finally:
            for run in asked:
                assembly.asked.subtract(run)

    async def _receive_run(
        self, stream: PeerStream, digest: Digest, assembly: Assembly, run: range
    ) -> None:
        """Receive a run that was asked for. Raises ProtocolError, TransientError."""
        settings, room = self._settings, memoryview(bytearray(assembly.size_of(run.start)))
        seconds = settings.io_seconds + len(run) * CHUNK_BYTES / settings.min_bytes_per_second
        try:
            with trio.fail_after(seconds):
                await self._receive_header(stream, assembly, run)
                for index in run:
                    chunk = room[: assembly.size_of(index)]
                    filled = 0
                    while filled < len(chunk):
                        filled += await stream.receive_into(chunk[filled:])
                    await self._settle(digest, assembly, index, chunk)
        except trio.TooSlowError as exc:
            raise StreamTimeout("too slow") from exc

    async def _settle(
        self, digest: Digest, assembly: Assembly, index: int, chunk: memoryview
    ) -> None:
        """Keep a chunk. Raises RuleViolation if it is not the one of the list."""

        def check_and_write() -> bool:
            if not assembly.matches(index, chunk):
                return False
            self._partials.write_chunk(digest, index, chunk, assembly.chunks.size_bytes)
            return True

        if not await trio.to_thread.run_sync(check_and_write):
            raise RuleViolation(f"chunk {index} is not the one in its own list")
        assembly.put(index, chunk)

    async def _receive_header(self, stream: PeerStream, assembly: Assembly, run: range) -> None:
        header = await stream.receive_message(MAX_HEADER_BYTES)
        if not isinstance(header, ChunkHeader):
            raise InvalidMessage(f"{type(header).__name__} where a header of chunks belongs")
        if not header.available:
            raise PeerUnreachable("does not have the chunks any more, or not for us")
        if header.size_bytes != sum(map(assembly.size_of, run)):
            raise RuleViolation(f"{header.size_bytes} bytes for {len(run)} chunks")
