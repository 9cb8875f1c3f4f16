"""Serve blobs by hash, whole or in chunks, and the gossip of one step."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol

from d2m_node.network.counts import NetworkCounts
from d2m_node.network.fairness import Uplink
from d2m_node.network.lanes import IsKnown, Lane, Lanes
from d2m_node.network.open_blobs import OpenBlob, OpenBlobs
from d2m_node.network.peer_stream import KINDS, PeerStream
from d2m_node.network.settings import NetworkSettings
from d2m_node.ports import Library
from protocol.errors import InvalidMessage
from protocol.types import Digest
from protocol.wire.chunks import CHUNK_BYTES
from protocol.wire.codec import encode_message
from protocol.wire.messages import (
    BlobHeader,
    BlobRequest,
    ChunkHeader,
    ChunkList,
    ChunkListRequest,
    ChunkRequest,
    MessageBatch,
    MessagesRequest,
)
from protocol.wire.topics import BLOB_PROTOCOL, CHUNKS_PROTOCOL, MESSAGES_PROTOCOL

MAX_REQUEST_BYTES: Final = 128
MAX_BATCH_COUNT: Final = 512


class StreamServer:
    """Answers what others ask of our library."""

    def __init__(
        self,
        host: IHost,
        library: Library,
        settings: NetworkSettings,
        counts: NetworkCounts,
        is_known: IsKnown,
    ) -> None:
        self._library = library
        self._settings = settings
        self._counts = counts
        self._lanes, self._message_lanes = (
            # Apart: a round waits for messages, and not until slow readers have their blobs.
            Lanes(
                settings.max_serving_count,
                per_peer=settings.max_fetches_per_peer,
                turn_seconds=turn_seconds,
                is_known=is_known,
                on_cut=lambda peer_id: counts.refuse("slow", peer_id),
            )
            for turn_seconds in (settings.serving_turn_seconds, settings.message_turn_seconds)
        )
        self._uplink = Uplink(settings.upload_bytes_per_second)
        self._blobs = OpenBlobs(library, settings.max_open_blob_bytes, self._lanes.make_way)
        host.set_stream_handler(TProtocol(BLOB_PROTOCOL), self._serve_blob)
        host.set_stream_handler(TProtocol(CHUNKS_PROTOCOL), self._serve_chunks)
        host.set_stream_handler(TProtocol(MESSAGES_PROTOCOL), self._serve_messages)

    async def run(self) -> None:
        """Forget blobs that nobody takes any more, until cancelled."""
        await self._blobs.run()

    def _wrap(self, raw: INetStream, protocol: str) -> PeerStream:
        return PeerStream(raw, self._settings.io_seconds, self._counts, KINDS[protocol])

    async def _serve_blob(self, raw: INetStream) -> None:
        stream = self._wrap(raw, BLOB_PROTOCOL)
        request = await stream.receive_message(MAX_REQUEST_BYTES)
        if not isinstance(request, BlobRequest):
            raise InvalidMessage(f"{type(request).__name__} on the blob protocol")
        async with self._serve(stream, Digest(request.digest)) as (lane, blob):
            if blob is None:
                await stream.send_message(BlobHeader(available=False, size_bytes=0))
            else:
                size = len(blob.data)
                await stream.send_message(BlobHeader(available=True, size_bytes=size))
                await self._send(stream, lane, blob, range(request.offset, size))
        await stream.close()

    async def _serve_chunks(self, raw: INetStream) -> None:
        """Answer one request after another until the peer closes the stream."""
        stream = self._wrap(raw, CHUNKS_PROTOCOL)
        while True:
            request = await stream.receive_next(MAX_REQUEST_BYTES)
            match request:
                case None:
                    break
                case ChunkListRequest():
                    async with self._serve(stream, Digest(request.digest)) as (_, blob):
                        missing = ChunkList(available=False, size_bytes=0, hashes=b"")
                        await stream.send_message(await blob.list_chunks() if blob else missing)
                case ChunkRequest():
                    async with self._serve(stream, Digest(request.digest)) as (lane, blob):
                        await self._send_chunks(stream, lane, blob, request)
                case _:
                    raise InvalidMessage(f"{type(request).__name__} on the chunks protocol")
        await stream.close()

    async def _send_chunks(
        self, stream: PeerStream, lane: Lane, blob: OpenBlob | None, request: ChunkRequest
    ) -> None:
        size = len(blob.data) if blob else 0
        start = min(size, request.first * CHUNK_BYTES)
        end = min(size, start + request.count * CHUNK_BYTES)
        header = ChunkHeader(available=start < end, size_bytes=end - start)
        await stream.send_message(header)
        if blob is not None:
            await self._send(stream, lane, blob, range(start, end))

    @asynccontextmanager
    async def _serve(
        self, stream: PeerStream, digest: Digest
    ) -> AsyncIterator[tuple[Lane, OpenBlob | None]]:
        """Open a blob when it is this peer's turn; None if the library has none for it."""
        async with (
            self._lanes.enter(stream.peer_id) as lane,
            self._blobs.open(stream.peer_id, digest) as blob,
        ):
            if blob is None:
                self._counts.deny(stream.peer_id)
            lane.begin()
            yield lane, blob

    async def _send(self, stream: PeerStream, lane: Lane, blob: OpenBlob, extent: range) -> None:
        """Send a range by pieces. Who takes no piece within `io_seconds` loses the stream."""
        step, data = self._uplink.piece_bytes, memoryview(blob.data)
        for offset in extent[::step]:
            piece = data[offset : min(extent.stop, offset + step)]
            await self._uplink.take_turn(stream.peer_id, len(piece))
            await stream.send(piece)
            lane.sent_bytes += len(piece)

    async def _serve_messages(self, raw: INetStream) -> None:
        stream = self._wrap(raw, MESSAGES_PROTOCOL)
        request = await stream.receive_message(MAX_REQUEST_BYTES)
        if not isinstance(request, MessagesRequest):
            raise InvalidMessage(f"{type(request).__name__} on the messages protocol")
        async with self._message_lanes.enter(stream.peer_id) as lane:
            found = await self._library.read_messages(stream.peer_id, request)
            encoded = [encode_message(message) for message in found[:MAX_BATCH_COUNT]]
            lane.begin()
            await stream.send_message(MessageBatch(messages=encoded))
        await stream.close()
