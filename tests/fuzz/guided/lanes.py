"""Readers below the streams: multiplexed frames in the messages of a secured session."""

import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace

import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.peer.id import ID
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux import yamux
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

from d2m_node.network.fast_lane import receive_into
from d2m_node.network.hardening import apply_patches
from d2m_node.network.muxing import MAX_UNREAD_BYTES
from tests.fuzz.guided.forms import MUXED_HEADER, Form, split_muxed
from tests.fuzz.guided.reader import PEER, Reader, run_alone

PATIENCE_SECONDS = 60.0
"""By a clock that jumps to whatever is waited for."""
STREAM_END = (MuxedStreamError, trio.ClosedResourceError, trio.EndOfChannel)


@contextmanager
def _watch_reading() -> Iterator[list[Exception]]:
    """Collect what our ways of reading raise of their own: stock would end the connection, no more.

    What a peer's bytes may lead to is an end that came early, or too much of something.
    """
    found: list[Exception] = []
    ways = ((yamux, "read_exactly"), (Yamux, "_read_data_body"))
    stock = [getattr(place, name) for place, name in ways]

    def watch(read: Callable[..., Awaitable[bytes]]) -> Callable[..., Awaitable[bytes]]:
        async def watched(*args: object) -> bytes:
            try:
                return await read(*args)
            except (BaseLibp2pError, trio.TooSlowError):
                raise
            except Exception as exc:
                found.append(exc)
                raise

        return watched

    for (place, name), read in zip(ways, stock, strict=True):
        setattr(place, name, watch(read))
    try:
        yield found
    finally:
        for (place, name), read in zip(ways, stock, strict=True):
            setattr(place, name, read)


class _Messages:
    """The messages of a session that ends behind them; what is sent goes nowhere."""

    def __init__(self, messages: Sequence[bytes]) -> None:
        self._messages = list(messages)
        self.sent_bytes = 0
        self.is_closed = False

    async def read_msg(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._messages.pop(0) if self._messages else b""

    async def write_msg(self, data: bytes) -> None:
        self.sent_bytes += len(data)

    async def close(self) -> None:
        self.is_closed = True


def _cut(data: bytes) -> list[bytes]:
    """Cut an input into messages: one for each frame, as most are, or anywhere."""
    size, rest = 3 * data[0] if data else 0, data[1:]
    if not size:
        return [frame for frame in split_muxed(rest) if frame]
    return [rest[at : at + size] for at in range(0, len(rest), size)]


def take_frames(data: bytes) -> None:
    """Whatever frames come, the connection ends with them, and nothing of it is left."""
    apply_patches()  # here: tests that read what stock has may be loaded after this module
    messages = _Messages(_cut(data))
    session = SecureSession.__new__(SecureSession)
    session.conn = messages  # type: ignore[assignment]
    session._reset_internal_buffer()

    async def run() -> None:
        connection = Yamux(session, ID(PEER), is_initiator=False)
        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_accept, connection, nursery)
                await connection.handle_incoming()
        assert connection.event_closed.is_set()
        assert not connection.stream_buffers
        assert not connection.streams

    with _watch_reading() as found:
        run_alone(run)
    if found:
        raise found[0]
    assert messages.is_closed


async def _accept(connection: Yamux, nursery: trio.Nursery) -> None:
    """Take every stream, and read it in one of the two ways."""
    async for stream in connection.new_stream_receive_channel:
        nursery.start_soon(_read, connection, stream)


async def _read(connection: Yamux, stream: YamuxStream) -> None:
    into, whole = memoryview(bytearray(300)), SimpleNamespace(muxed_stream=stream, read=stream.read)
    try:
        await stream.write(b"hello")
        while True:
            assert sum(map(len, connection.stream_buffers.values())) <= MAX_UNREAD_BYTES
            if stream.stream_id % 4 == 1:
                count = await receive_into(whole, into)  # type: ignore[arg-type]
            else:
                count = len(await stream.read(300))
            if not count:
                break
        await stream.close()
    except STREAM_END:
        await stream.reset()


def _build(kind: int, flags: int, stream_id: int, body: bytes = b"", length: int = 0) -> bytes:
    return struct.pack(MUXED_HEADER, 0, kind, flags, stream_id, length or len(body)) + body


def _build_seeds() -> list[bytes]:
    opened = _build(yamux.TYPE_WINDOW_UPDATE, yamux.FLAG_SYN, 1, length=1000)
    opened += _build(yamux.TYPE_DATA, yamux.FLAG_SYN, 3, b"first")
    data = _build(yamux.TYPE_DATA, 0, 1, bytes(400)) + _build(yamux.TYPE_DATA, 0, 3, b"second")
    ended = _build(yamux.TYPE_DATA, yamux.FLAG_FIN, 1) + _build(yamux.TYPE_DATA, yamux.FLAG_RST, 3)
    pinged = _build(yamux.TYPE_PING, yamux.FLAG_SYN, 0, length=7)
    pinged += _build(yamux.TYPE_PING, yamux.FLAG_ACK, 0, length=1)
    gone = _build(yamux.TYPE_GO_AWAY, 0, 0)
    large = _build(yamux.TYPE_DATA, 0, 1, length=2**31)
    acked = _build(yamux.TYPE_DATA, yamux.FLAG_ACK, 2, b"x")
    whole = [opened + data + ended, opened + pinged + data + gone, opened + large, acked + opened]
    return [bytes([cut]) + one for one in whole for cut in (0, 1, 40)]


READERS = [
    Reader("multiplexed frames", take_frames, (), _build_seeds(), Form.MUXED, own_bytes=1),
]
