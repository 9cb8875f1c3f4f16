"""Fetch blobs by hash, and pull a peer's gossip of one step.

Both protocols start with one length-prefixed request; a blob's answer is a header and then its
bytes from the offset asked for, a messages request's is one batch.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import structlog
import trio
from libp2p.abc import IHost
from libp2p.peer.id import ID

from d2m_node.errors import PeerFault, PeerUnreachable, StreamTimeout, TransientError
from d2m_node.measures import Transfer
from d2m_node.network.chunk_fetch import ChunkFetch
from d2m_node.network.counts import NetworkCounts
from d2m_node.network.fairness import PeerSlots
from d2m_node.network.filling_blob import FillingBlob, filling
from d2m_node.network.partials import Partials
from d2m_node.network.peer_stream import KINDS, PeerStream, open_peer_stream
from d2m_node.network.peers import Peers
from d2m_node.network.settings import NetworkSettings
from protocol.errors import InvalidMessage, ProtocolError, RuleViolation
from protocol.types import Digest
from protocol.wire.codec import MAX_BATCH_BYTES, decode_message
from protocol.wire.messages import (
    BlobHeader,
    BlobRequest,
    MessageBatch,
    MessagesRequest,
    PulledMessage,
)
from protocol.wire.topics import BLOB_PROTOCOL, MESSAGES_PROTOCOL

log = structlog.get_logger(__name__)

MAX_REQUEST_BYTES: Final = 128
MIN_CHUNKED_BYTES: Final = 4 * 1024 * 1024
"""Smaller blobs are there before all sources have said what they have."""
KEPT_AT_ONCE_BYTES: Final = 4 * 1024 * 1024
"""So much at most is fetched again after a crash."""
EARLIER_RUN: Final = b""
"""Stands for the sources of what an earlier run of this node left: nobody knows them any more."""
MIN_GAIN_BYTES: Final = 64 * 1024
"""What a source that breaks off must have given to be asked again: so attempts are bounded."""


class _Contradiction(TransientError):
    """Two peers name different sizes of one blob, and nobody can say who lies."""


@dataclass(slots=True)
class _Partial:
    """What has arrived of a blob, and from whom."""

    beginning_bytes: int = 0
    """Left on the disk by an earlier run; in memory once the size of the whole is known."""
    blob: FillingBlob | None = None
    sources: list[bytes] = field(default_factory=list)
    kept_bytes: int = 0
    """Of the received ones, those that are on the disk."""

    @property
    def received_bytes(self) -> int:
        return self.beginning_bytes if self.blob is None else self.blob.front_bytes

    @property
    def is_complete(self) -> bool:
        return self.blob is not None and self.blob.front_bytes == self.blob.size_bytes

    def measure(self) -> tuple[int, int | None]:
        return self.received_bytes, self.blob.size_bytes if self.blob else None

    def clear(self) -> None:
        self.beginning_bytes = self.kept_bytes = 0
        self.blob = None
        self.sources.clear()


@dataclass(slots=True)
class _Fetch:
    """A blob that is being fetched, for whoever asks how far it is."""

    digest: Digest
    source_count: int
    measure: Callable[[], tuple[int, int | None]] = lambda: (0, None)

    def describe(self) -> Transfer:
        received, size = self.measure()
        return Transfer(
            digest=self.digest,
            received_bytes=received,
            size_bytes=size,
            source_count=self.source_count,
        )


class StreamClient:
    """Asks others; faults of theirs are blamed on them, and only the last failure is raised."""

    def __init__(
        self,
        host: IHost,
        peers: Peers,
        settings: NetworkSettings,
        counts: NetworkCounts,
    ) -> None:
        self._host = host
        self._partials = Partials(settings.partial_folder, settings.partial_bytes)
        self._peers = peers
        self._settings = settings
        self._counts = counts
        self._blob_slots = PeerSlots(settings.max_fetches_per_peer)
        self._slots = PeerSlots(settings.max_fetches_per_peer)
        self._fetches: dict[int, _Fetch] = {}
        self._numbers = count()

    async def fetch_blob(
        self, digest: Digest, *, sources: Sequence[bytes], max_bytes: int
    ) -> bytes:
        """Fetch a blob; see `NetworkPort.fetch_blob`.

        A large one comes in chunks from all sources at once. What is left of it, and every small
        one, comes from one source after another, each going on where the last one stopped. What
        there is of a large one when the node ends is there when it asks again.
        """
        number = next(self._numbers)
        self._fetches[number] = fetch = _Fetch(digest, len(sources))
        try:
            if len(sources) > 1 and max_bytes >= MIN_CHUNKED_BYTES:
                chunked = ChunkFetch(
                    self.open_stream, self._peers.blame, self._settings, self._partials
                )
                fetch.measure = chunked.measure
                blob = await chunked.run(digest, sources, max_bytes)
                if blob is not None:
                    await self._partials.drop(digest)
                    return blob
                sources = [source for source in sources if source not in chunked.liars]
            partial = _Partial()
            fetch.measure = partial.measure
            partial.beginning_bytes = min(self._partials.measure_beginning(digest), max_bytes)
            blob = await self._fetch_by_turns(digest, sources, partial, max_bytes)
            await self._partials.drop(digest)
            return blob
        finally:
            del self._fetches[number]

    async def tidy(self) -> None:
        """Throw away what earlier runs left of blobs that nobody has asked for any more."""
        await self._partials.tidy()

    def transfers(self) -> Sequence[Transfer]:
        """See `MeasuredNetwork.transfers`."""
        return [fetch.describe() for fetch in self._fetches.values()]

    async def _fetch_by_turns(
        self, digest: Digest, sources: Sequence[bytes], partial: _Partial, max_bytes: int
    ) -> bytes:
        failures: dict[bytes, str] = {}
        pending = deque(sources)
        resume = True
        while pending:
            source = pending.popleft()
            if not resume:
                partial.clear()
            had_bytes, began = partial.received_bytes, trio.current_time()
            try:
                await self._fetch_rest(source, digest, partial, max_bytes)
            except _Contradiction:
                partial.clear()
                await self._partials.drop(digest)
                pending.appendleft(source)
            except PeerFault as fault:
                self._peers.blame(source, str(fault.cause))
                failures[source] = str(fault)
            except TransientError as exc:
                await self._keep(digest, partial)
                failures[source] = f"peer {ID(source)}: {exc}"
                if resume and self._was_fast(partial.received_bytes - had_bytes, began):
                    pending.append(source)  # others may have been waiting for its turn
            if partial.blob is None or not partial.is_complete:
                continue
            if await partial.blob.finish() == digest:
                return partial.blob.take()
            await self._partials.drop(digest)
            failures[source] = f"peer {ID(source)}: wrong bytes"
            if len(partial.sources) == 1:
                self._peers.blame(source, "sent another blob than was asked for")
            else:  # One of several lied: ask each of them for all of it.
                pending.extend(one for one in partial.sources if one != EARLIER_RUN)
                resume = False
            partial.clear()
        reasons = "; ".join(failures.values()) or "no source"
        raise PeerUnreachable(f"blob {digest.hex()}: {reasons}")

    async def _begin(self, digest: Digest, partial: _Partial, size: int) -> FillingBlob:
        """Make room for a blob, and begin with what an earlier run of this node left of it."""
        blob = FillingBlob(size)
        beginning = partial.beginning_bytes
        if beginning:
            if not await self._partials.read_beginning(digest, blob.view(0, beginning)):
                raise _Contradiction("what was kept of it is gone")
            blob.move_front(beginning)
            partial.kept_bytes = beginning
            partial.sources.append(EARLIER_RUN)
        partial.blob = blob
        return blob

    async def _keep(self, digest: Digest, partial: _Partial) -> None:
        """Leave what has arrived to a later run."""
        blob, kept = partial.blob, partial.kept_bytes
        if blob is not None and blob.front_bytes > kept:
            partial.kept_bytes = blob.front_bytes
            news = blob.view(kept, blob.front_bytes)
            await self._partials.keep_beginning(digest, kept, news, blob.size_bytes)

    def _was_fast(self, arrived_bytes: int, began: float) -> bool:
        """Tell whether a source that broke off gave enough to be asked again."""
        needed = (trio.current_time() - began) * self._settings.min_bytes_per_second
        return arrived_bytes >= max(MIN_GAIN_BYTES, needed)

    async def fetch_messages(
        self, peer_id: bytes, request: MessagesRequest
    ) -> Sequence[PulledMessage]:
        """Pull a peer's messages of one step; see `NetworkPort.fetch_messages`."""
        try:
            async with self.open_stream(peer_id, MESSAGES_PROTOCOL) as stream:
                await stream.send_message(request)
                batch = await stream.receive_message(MAX_BATCH_BYTES)
                return _decode_batch(batch, request)
        except ProtocolError as exc:
            self._peers.blame(peer_id, str(exc))
            raise PeerUnreachable(f"peer {ID(peer_id)}: {exc}") from exc

    async def _fetch_rest(
        self, source: bytes, digest: Digest, partial: _Partial, max_bytes: int
    ) -> None:
        """Append what a source has beyond what we have. Raises PeerFault, TransientError."""
        try:
            async with self.open_stream(source, BLOB_PROTOCOL) as stream:
                await stream.send_message(BlobRequest(digest=digest, offset=partial.received_bytes))
                size = await _receive_header(stream, max_bytes)
                blob = partial.blob
                if partial.received_bytes > size or (blob and blob.size_bytes != size):
                    raise _Contradiction(f"{blob.size_bytes if blob else 'fewer'} bytes or {size}")
                blob = blob or await self._begin(digest, partial, size)
                if source not in partial.sources:
                    partial.sources.append(source)
                await self._receive_rest(stream, digest, partial, blob)
        except ProtocolError as exc:
            raise PeerFault(source, exc) from exc

    async def _receive_rest(
        self, stream: PeerStream, digest: Digest, partial: _Partial, blob: FillingBlob
    ) -> None:
        settings, size = self._settings, blob.size_bytes
        missing = size - blob.front_bytes

        async def keep_front() -> None:
            while partial.kept_bytes + KEPT_AT_ONCE_BYTES < size:
                await blob.wait_front(partial.kept_bytes + KEPT_AT_ONCE_BYTES)
                await self._keep(digest, partial)

        try:
            with trio.fail_after(settings.io_seconds + missing / settings.min_bytes_per_second):
                async with filling(blob, keep_front):
                    while blob.front_bytes < size:
                        rest = blob.view(blob.front_bytes, size)
                        blob.move_front(blob.front_bytes + await stream.receive_into(rest))
        except trio.TooSlowError as exc:
            raise StreamTimeout("too slow") from exc

    @asynccontextmanager
    async def open_stream(self, peer_id: bytes, protocol: str) -> AsyncIterator[PeerStream]:
        """Open a stream when a slot for this peer is free. Raises TransientError.

        Blobs have slots of their own: nothing else waits until they are there.
        """
        slots = self._blob_slots if KINDS[protocol] == "blobs" else self._slots
        async with slots.hold(peer_id):
            await self._peers.reach(peer_id)
            async with open_peer_stream(
                self._host, peer_id, protocol, self._settings, self._counts
            ) as stream:
                yield stream


async def _receive_header(stream: PeerStream, max_bytes: int) -> int:
    """Return the size of a blob. Raises ProtocolError, PeerUnreachable.

    A size above the limit is nobody's fault that could be proved: a buyer's offer or a seller's
    opening may name a blob of another kind, and its honest holders say how large it is.
    """
    header = await stream.receive_message(MAX_REQUEST_BYTES)
    if not isinstance(header, BlobHeader):
        raise InvalidMessage(f"{type(header).__name__} where a blob's header belongs")
    if not header.available:
        raise PeerUnreachable("does not have the blob, or not for us")
    if header.size_bytes > max_bytes:
        raise PeerUnreachable(f"blob of {header.size_bytes} bytes, at most {max_bytes} are allowed")
    return header.size_bytes


def _decode_batch(batch: object, request: MessagesRequest) -> Sequence[PulledMessage]:
    """Decode the answer to a request. Raises InvalidMessage."""
    if not isinstance(batch, MessageBatch):
        raise InvalidMessage(f"{type(batch).__name__} where a batch belongs")
    messages = []
    for encoded in batch.messages:
        message = decode_message(encoded)
        if not isinstance(message, PulledMessage):
            raise InvalidMessage(f"{type(message).__name__} in a batch")
        kind = message.__struct_config__.tag
        if (kind, message.job_id) != (request.kind, request.job_id):
            raise RuleViolation(f"{type(message).__name__} was not asked for")
        messages.append(message)
    return messages
