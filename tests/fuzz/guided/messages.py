"""Readers of our own messages: the codec, the streams that they come on, and lists in them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from d2m_node.errors import TransientError
from d2m_node.network.counts import NetworkCounts
from d2m_node.network.peer_stream import KINDS, PeerStream
from d2m_node.network.serving import MAX_BATCH_COUNT, StreamServer
from d2m_node.network.streams import MIN_CHUNKED_BYTES, StreamClient
from d2m_node.roles.statements import tag_of
from protocol.errors import ProtocolError
from protocol.hashing import keccak
from protocol.wire import messages as wire
from protocol.wire.chunks import CHUNK_BYTES, list_chunks, validate_chunks
from protocol.wire.codec import (
    MAX_BATCH_BYTES,
    decode_message,
    encode_message,
)
from protocol.wire.messages import Message
from protocol.wire.topics import (
    BLOB_PROTOCOL,
    CHUNKS_PROTOCOL,
    MESSAGES_PROTOCOL,
    Topic,
    find_topic,
)
from tests.fuzz.guided.forms import Form
from tests.fuzz.guided.reader import PEER, HostileStream, Reader, run_alone
from tests.support.network import Shelf, build_bitmap, build_settings

WORD, SIGNATURE = bytes(range(32)), bytes(range(65))
BLOB = bytes(range(100))
DIGEST = keccak(BLOB)
GOSSIP: list[Message] = [
    wire.UpdateCommit(
        job_id=1, round_index=2, seller_index=3, commitment=WORD, signature=SIGNATURE
    ),
    wire.UpdateOpening(
        job_id=1, round_index=2, seller_index=3, digest=WORD, salt=WORD, signature=SIGNATURE
    ),
    build_bitmap(300),
    wire.VoteCommit(
        job_id=1, round_index=2, mini=2**33, cone_index=4, commitment=WORD, signature=SIGNATURE
    ),
    wire.VoteOpening(
        job_id=1, round_index=2, mini=0, cone_index=4, digest=WORD, trace=WORD, chain_element=WORD
    ),
    wire.ValidationOffer(job_id=1, part=1, digest=WORD, size_bytes=2**20, signature=SIGNATURE),
    wire.ValidationReceipt(job_id=1, part=1, cone_index=4, signature=SIGNATURE),
]
STATE_KEY = wire.StateKey(job_id=1, round_index=2, digest=WORD, sealed_digest=WORD, box=bytes(112))
REQUESTS: dict[str, list[Message]] = {
    BLOB_PROTOCOL: [
        wire.BlobRequest(digest=DIGEST, offset=0),
        wire.BlobRequest(digest=DIGEST, offset=len(BLOB) + 1),
    ],
    CHUNKS_PROTOCOL: [
        wire.ChunkListRequest(digest=DIGEST),
        wire.ChunkRequest(digest=DIGEST, first=1, count=2048),
        wire.ChunkRequest(digest=WORD, first=2048, count=0),
    ],
    MESSAGES_PROTOCOL: [wire.MessagesRequest(job_id=1, kind=3, step=2**40)],
}
BATCH = wire.MessageBatch(messages=[encode_message(one) for one in (*GOSSIP, STATE_KEY)])
ANSWERS: list[Message] = [
    wire.BlobHeader(available=True, size_bytes=2**31),
    wire.ChunkHeader(available=False, size_bytes=0),
    wire.ChunkList(available=True, size_bytes=CHUNK_BYTES + 1, hashes=bytes(64)),
    BATCH,
    wire.DialBackRequest(),
    wire.DialBackAnswer(outcome=2),
]
MESSAGES = [*GOSSIP, STATE_KEY, *(one for asked in REQUESTS.values() for one in asked), *ANSWERS]
SETTINGS = build_settings(Path())


def prefix(message: Message) -> bytes:
    """Encode a message as it goes over a stream."""
    encoded = encode_message(message)
    return len(encoded).to_bytes(4, "big") + encoded


def read_message(data: bytes) -> None:
    """A message has one encoding, and fits the bounds of its type."""
    message = decode_message(data)
    assert encode_message(message) == data
    if isinstance(message, wire.GossipMessage):
        assert find_topic(message) in Topic
    if isinstance(message, wire.ChunkList):
        validate_chunks(message)


def read_stream(data: bytes) -> None:
    """What is read off a stream ends with it, and takes no more than what was sent."""
    stream = HostileStream(data[1:])
    limit = MAX_BATCH_BYTES if data[:1] == b"\x01" else 128

    async def read_all() -> None:
        wrapped = PeerStream(stream, 20.0, NetworkCounts(), KINDS[CHUNKS_PROTOCOL])  # type: ignore[arg-type]
        while True:
            message = await wrapped.receive_next(limit)
            if message is None:
                return
            assert len(encode_message(message)) <= limit

    run_alone(read_all)


class _Host:
    """Where a server leaves its handlers."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def set_stream_handler(self, protocol: str, handler: Any) -> None:
        self.handlers[str(protocol)] = handler


def serve(protocol: str, data: bytes) -> None:
    """A server answers requests to the end of the stream, and a hostile one with no more."""
    library = Shelf()
    library.blobs[DIGEST] = BLOB
    library.messages = [build_bitmap(0)]
    stream, host = HostileStream(data), _Host()

    async def run() -> None:
        StreamServer(host, library, SETTINGS, NetworkCounts(), lambda _: True)  # type: ignore[arg-type]
        await host.handlers[protocol](stream)

    try:
        run_alone(run)
    finally:
        asked = 1 + len(data) // 5
        assert len(stream.written) <= asked * (len(BLOB) + 1024)
    assert stream.is_ended


def _name(number: int) -> bytes:
    return PEER[:-1] + bytes([number])


class _Client(StreamClient):
    """Asks peers of which each has sent its answers already."""

    def __init__(self, answers: Sequence[bytes]) -> None:
        super().__init__(None, _Peers(), SETTINGS, NetworkCounts())  # type: ignore[arg-type]
        self._streams = [HostileStream(one, _name(n)) for n, one in enumerate(answers)]

    @asynccontextmanager
    async def open_stream(self, peer_id: bytes, protocol: str) -> AsyncIterator[PeerStream]:
        # A second stream of a peer goes on where the first one stopped.
        yield PeerStream(self._streams[peer_id[-1]], 20.0, NetworkCounts(), KINDS[protocol])  # type: ignore[arg-type]


class _Peers:
    """Blames nobody in earnest."""

    def blame(self, _peer_id: bytes, _reason: str) -> None:
        pass


def fetch_messages(data: bytes) -> None:
    """A pull yields what was asked for, and no more of it than was allowed."""
    kind = data[0] if data else 0
    request = wire.MessagesRequest(job_id=1, kind=kind, step=0)
    messages = run_alone(_Client([data[1:]]).fetch_messages, _name(0), request)
    assert len(messages) <= MAX_BATCH_COUNT
    assert all(one.__struct_config__.tag == kind and one.job_id == 1 for one in messages)


def fetch_blob(data: bytes) -> None:
    """A blob is what its digest names, from two sources or one, in chunks or as a whole."""
    first, second = _halve(data[1:])
    most = MIN_CHUNKED_BYTES if data[:1] >= b"\x80" else len(BLOB)

    async def fetch() -> bytes:
        client = _Client([first, second])
        return await client.fetch_blob(DIGEST, sources=[_name(0), _name(1)], max_bytes=most)

    assert run_alone(fetch) == BLOB


def _halve(data: bytes) -> tuple[bytes, bytes]:
    """Cut in two where the first byte says."""
    at = 1 + (data[0] * 8 if data else 0)
    return data[1:at], data[at:]


def _join(first: bytes, second: bytes) -> bytes:
    """Put two together as `_halve` cuts them; the first has a length of eights."""
    padded = first + bytes(-len(first) % 8)
    return bytes([len(padded) // 8]) + padded + second


def _build_blob_seeds() -> list[bytes]:
    whole = prefix(wire.BlobHeader(available=True, size_bytes=len(BLOB))) + BLOB
    none = prefix(wire.BlobHeader(available=False, size_bytes=0))
    chunks = prefix(list_chunks(BLOB))
    chunks += prefix(wire.ChunkHeader(available=True, size_bytes=len(BLOB))) + BLOB
    return [
        b"\x00" + _join(whole, b""),
        b"\x00" + _join(none, whole),
        b"\x80" + _join(chunks, chunks),
        b"\x80" + _join(none, chunks),
        b"\x80" + _join(chunks[:-1], whole),
    ]


def _build_servers() -> Sequence[Reader]:
    readers = []
    for protocol, requests in REQUESTS.items():
        seeds = [prefix(one) for one in requests]
        seeds.append(b"".join(seeds))
        name = f"server of {protocol}"
        refusals = (ProtocolError, TransientError)
        readers.append(Reader(name, partial(serve, protocol), refusals, seeds, Form.FRAMES))
    return readers


READERS = [
    Reader(
        "message",
        read_message,
        (ProtocolError,),
        [encode_message(one) for one in MESSAGES],
        Form.PACKED,
    ),
    Reader(
        "stream",
        read_stream,
        (ProtocolError, TransientError),
        [b"\x00" + b"".join(map(prefix, MESSAGES[:3])), b"\x01" + prefix(BATCH)],
        Form.FRAMES,
        own_bytes=1,
    ),
    Reader(
        "pulled messages",
        fetch_messages,
        (TransientError,),
        [
            bytes([tag_of(type(one))]) + prefix(wire.MessageBatch(messages=[encode_message(one)]))
            for one in (*GOSSIP, STATE_KEY)
        ],
        Form.FRAMES,
        own_bytes=1,
    ),
    Reader("fetched blob", fetch_blob, (TransientError,), _build_blob_seeds()),
    *_build_servers(),
]
