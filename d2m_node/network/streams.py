"""Fetch and serve blobs by hash, and pull a peer's gossip of one step.

Both protocols start with one length-prefixed request; a blob's answer is a header and then its
bytes from the offset asked for, a messages request's is one batch.
"""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog
import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

from d2m_node.errors import PeerFault, PeerUnreachable, StreamTimeout, TransientError
from d2m_node.network.counts import NetworkCounts
from d2m_node.network.peer_stream import KINDS, PeerStream, open_peer_stream
from d2m_node.network.peers import Peers
from d2m_node.network.settings import NetworkSettings
from d2m_node.ports import Library
from protocol.errors import InvalidMessage, ProtocolError, RuleViolation
from protocol.hashing import keccak
from protocol.types import Digest
from protocol.wire.codec import MAX_BATCH_BYTES, decode_message, encode_message
from protocol.wire.messages import (
    BlobHeader,
    BlobRequest,
    GossipMessage,
    MessageBatch,
    MessagesRequest,
)
from protocol.wire.topics import BLOB_PROTOCOL, MESSAGES_PROTOCOL

log = structlog.get_logger(__name__)

PIECE_BYTES: Final = 1024 * 1024
MAX_REQUEST_BYTES: Final = 128
MAX_BATCH_COUNT: Final = 512


class _Contradiction(TransientError):
    """Two peers name different sizes of one blob, and nobody can say who lies."""


class _PeerSlots:
    """A limit on what is done at once with each peer; those beyond wait."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._limiters: dict[bytes, trio.CapacityLimiter] = {}

    @asynccontextmanager
    async def hold(self, peer_id: bytes) -> AsyncIterator[None]:
        limiter = self._limiters.setdefault(peer_id, trio.CapacityLimiter(self._count))
        try:
            async with limiter:
                yield
        finally:
            if not limiter.borrowed_tokens and not limiter.statistics().tasks_waiting:
                self._limiters.pop(peer_id, None)


class StreamServer:
    """Answers what others ask of our library."""

    def __init__(
        self, host: IHost, library: Library, settings: NetworkSettings, counts: NetworkCounts
    ) -> None:
        self._library = library
        self._settings = settings
        self._counts = counts
        self._peer_slots = _PeerSlots(settings.max_fetches_per_peer)
        self._slots = trio.CapacityLimiter(settings.max_serving_count)
        host.set_stream_handler(TProtocol(BLOB_PROTOCOL), self._serve_blob)
        host.set_stream_handler(TProtocol(MESSAGES_PROTOCOL), self._serve_messages)

    def _wrap(self, raw: INetStream, protocol: str) -> PeerStream:
        return PeerStream(raw, self._settings.io_seconds, self._counts, KINDS[protocol])

    async def _serve_blob(self, raw: INetStream) -> None:
        stream = self._wrap(raw, BLOB_PROTOCOL)
        request = await stream.receive_message(MAX_REQUEST_BYTES)
        if not isinstance(request, BlobRequest):
            raise InvalidMessage(f"{type(request).__name__} on the blob protocol")
        async with self._peer_slots.hold(stream.peer_id), self._slots:
            blob = await self._library.read_blob(stream.peer_id, Digest(request.digest))
            if blob is None:
                await stream.send_message(BlobHeader(available=False, size_bytes=0))
            else:
                await self._send_blob(stream, blob, request.offset)
        await stream.close()

    async def _send_blob(self, stream: PeerStream, blob: bytes, offset: int) -> None:
        settings = self._settings
        patience = settings.io_seconds + len(blob) / settings.min_bytes_per_second
        try:
            with trio.fail_after(patience):
                await stream.send_message(BlobHeader(available=True, size_bytes=len(blob)))
                for start in range(offset, len(blob), PIECE_BYTES):
                    await stream.send(blob[start : start + PIECE_BYTES])
        except trio.TooSlowError as exc:
            raise StreamTimeout("takes the blob too slowly") from exc

    async def _serve_messages(self, raw: INetStream) -> None:
        stream = self._wrap(raw, MESSAGES_PROTOCOL)
        request = await stream.receive_message(MAX_REQUEST_BYTES)
        if not isinstance(request, MessagesRequest):
            raise InvalidMessage(f"{type(request).__name__} on the messages protocol")
        async with self._peer_slots.hold(stream.peer_id), self._slots:
            found = await self._library.read_messages(stream.peer_id, request)
            encoded = [encode_message(message) for message in found[:MAX_BATCH_COUNT]]
            await stream.send_message(MessageBatch(messages=encoded))
        await stream.close()


@dataclass(slots=True)
class _Partial:
    """What has arrived of a blob, and from whom."""

    data: bytearray = field(default_factory=bytearray)
    size_bytes: int | None = None
    sources: list[bytes] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return len(self.data) == self.size_bytes

    def clear(self) -> None:
        self.data.clear()
        self.sources.clear()
        self.size_bytes = None


class StreamClient:
    """Asks others; faults of theirs are blamed on them, and only the last failure is raised."""

    def __init__(
        self, host: IHost, peers: Peers, settings: NetworkSettings, counts: NetworkCounts
    ) -> None:
        self._host = host
        self._peers = peers
        self._settings = settings
        self._counts = counts
        self._slots = _PeerSlots(settings.max_fetches_per_peer)

    async def fetch_blob(
        self, digest: Digest, *, sources: Sequence[bytes], max_bytes: int
    ) -> bytes:
        """Fetch a blob, going on where the last source stopped; see `NetworkPort.fetch_blob`."""
        partial = _Partial()
        failures: list[str] = []
        pending = deque(sources)
        resume = True
        while pending:
            source = pending.popleft()
            if not resume:
                partial.clear()
            try:
                await self._fetch_rest(source, digest, partial, max_bytes)
            except _Contradiction:
                partial.clear()
                pending.appendleft(source)
            except PeerFault as fault:
                self._peers.blame(source, str(fault.cause))
                failures.append(str(fault))
            except TransientError as exc:
                failures.append(f"peer {ID(source)}: {exc}")
            if not partial.is_complete:
                continue
            blob = bytes(partial.data)
            if await trio.to_thread.run_sync(keccak, blob) == digest:
                return blob
            failures.append(f"peer {ID(source)}: wrong bytes")
            if len(partial.sources) == 1:
                self._peers.blame(source, "sent another blob than was asked for")
            else:  # One of several lied: ask each of them for all of it.
                pending.extend(partial.sources)
                resume = False
            partial.clear()
        raise PeerUnreachable(f"blob {digest.hex()}: {'; '.join(failures) or 'no source'}")

    async def fetch_messages(
        self, peer_id: bytes, request: MessagesRequest
    ) -> Sequence[GossipMessage]:
        """Pull a peer's messages of one step; see `NetworkPort.fetch_messages`."""
        try:
            async with self._open(peer_id, MESSAGES_PROTOCOL) as stream:
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
            async with self._open(source, BLOB_PROTOCOL) as stream:
                await stream.send_message(BlobRequest(digest=digest, offset=len(partial.data)))
                size = await _receive_header(stream, max_bytes)
                if partial.size_bytes not in (None, size):
                    raise _Contradiction(f"{partial.size_bytes} bytes or {size}")
                partial.size_bytes = size
                partial.sources.append(source)
                await self._receive_rest(stream, partial, size)
        except ProtocolError as exc:
            raise PeerFault(source, exc) from exc

    async def _receive_rest(self, stream: PeerStream, partial: _Partial, size: int) -> None:
        settings = self._settings
        missing = size - len(partial.data)
        try:
            with trio.fail_after(settings.io_seconds + missing / settings.min_bytes_per_second):
                while len(partial.data) < size:
                    wanted = min(PIECE_BYTES, size - len(partial.data))
                    partial.data += await stream.receive_some(wanted)
        except trio.TooSlowError as exc:
            raise StreamTimeout("too slow") from exc

    @asynccontextmanager
    async def _open(self, peer_id: bytes, protocol: str) -> AsyncIterator[PeerStream]:
        """Open a stream when a slot for this peer is free. Raises TransientError."""
        async with self._slots.hold(peer_id):
            await self._peers.reach(peer_id)
            async with open_peer_stream(
                self._host, peer_id, protocol, self._settings, self._counts
            ) as stream:
                yield stream


async def _receive_header(stream: PeerStream, max_bytes: int) -> int:
    """Return the size of a blob. Raises ProtocolError, PeerUnreachable."""
    header = await stream.receive_message(MAX_REQUEST_BYTES)
    if not isinstance(header, BlobHeader):
        raise InvalidMessage(f"{type(header).__name__} where a blob's header belongs")
    if not header.available:
        raise PeerUnreachable("does not have the blob, or not for us")
    if header.size_bytes > max_bytes:
        raise RuleViolation(f"blob of {header.size_bytes} bytes, at most {max_bytes} are allowed")
    return header.size_bytes


def _decode_batch(batch: object, request: MessagesRequest) -> Sequence[GossipMessage]:
    """Decode the answer to a request. Raises InvalidMessage."""
    if not isinstance(batch, MessageBatch):
        raise InvalidMessage(f"{type(batch).__name__} where a batch belongs")
    messages = []
    for encoded in batch.messages:
        message = decode_message(encoded)
        if not isinstance(message, GossipMessage):
            raise InvalidMessage(f"{type(message).__name__} in a batch")
        kind = message.__struct_config__.tag
        if (kind, message.job_id) != (request.kind, request.job_id):
            raise RuleViolation(f"{type(message).__name__} was not asked for")
        messages.append(message)
    return messages
