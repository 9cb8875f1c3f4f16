"""The way of bytes between session and stream, with fewer copies, calls and waits than stock has.

None of it changes what goes over the wire. These are part of the patches of
`d2m_node.network.hardening`; `python -m tests.bench bulk` shows what they are worth.
"""

import io
import struct
from collections.abc import Sequence
from typing import Final

import trio
from libp2p.abc import INetStream
from libp2p.io.exceptions import ConnectionClosedError, IncompleteReadError
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux import yamux
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

from d2m_node.network.noise_lane import NOISE_PATCHES

BATCH_FRAMES: Final = 4
"""Frames of one stream that go out in one call, to begin with; other streams wait for so many."""

MAX_BATCH_FRAMES: Final = 17
"""The same while they go out quickly: a piece of a blob."""

QUICK_SECONDS: Final = 0.05
"""For a batch. What waits behind one is not late."""

BLOCK_BYTES: Final = 512 * 1024
"""A reader of a blob is woken when so much is there, or all that may come at once."""

BLOCK_SECONDS: Final = 0.1
"""So long it waits for more than a byte."""

WINDOW_SECONDS: Final = 5.0
"""For a reader to open its window again; as long as in stock."""

RESET_SECONDS: Final = 0.1
"""How often a writer that waits for its window looks whether the stream is still there."""

BODY_SECONDS: Final = 60.0
"""For the body of a frame whose header is there; as long as in stock."""

BODY_BYTES: Final = MAX_PLAINTEXT_LENGTH - yamux.HEADER_SIZE
"""Of a frame that fills one Noise message."""

_HEADER: Final = struct.Struct(yamux.YAMUX_HEADER_FORMAT)
_stock_handle_incoming = Yamux.handle_incoming


def _get_send_window(self: YamuxStream) -> int:
    return self._open_window  # type: ignore[attr-defined, no-any-return]


def _set_send_window(self: YamuxStream, left: int) -> None:
    """Count the window, and wake the writer that waits for it."""
    self._open_window = left  # type: ignore[attr-defined]
    opened: trio.Event | None = self.__dict__.get("_window_opened")
    if left > 0 and opened is not None:
        opened.set()


async def _write_batches(self: YamuxStream, data: bytes | memoryview) -> None:
    """Send several frames in one call, as far as the window is open."""
    view, sent = memoryview(data), 0
    frames: int = self.__dict__.get("_batch_frames", BATCH_FRAMES)
    while sent < len(view):
        if self.send_closed or self.closed:
            raise MuxedStreamError("Stream is closed for sending")
        size = min(self.send_window, frames * BODY_BYTES, len(view) - sent)
        if size <= 0:
            await _wait_for_window(self)
            continue
        self.send_window -= size
        began = trio.current_time()
        await self.conn._write_frame(_build_frames(self.stream_id, view[sent : sent + size]))
        is_quick = trio.current_time() - began < QUICK_SECONDS
        frames = min(2 * frames, MAX_BATCH_FRAMES) if is_quick else BATCH_FRAMES
        self._batch_frames = frames  # type: ignore[attr-defined]
        sent += size


def _build_frames(stream_id: int, data: memoryview) -> bytes:
    parts: list[bytes | memoryview] = []
    for start in range(0, len(data), BODY_BYTES):
        body = data[start : start + BODY_BYTES]
        parts.append(_HEADER.pack(0, yamux.TYPE_DATA, 0, stream_id, len(body)))
        parts.append(body)
    return b"".join(parts)


async def _wait_for_window(stream: YamuxStream) -> None:
    """Wait for credit. Raises MuxedStreamError if none comes, or the stream is closed."""
    opened = trio.Event()
    stream._window_opened = opened  # type: ignore[attr-defined]
    with trio.move_on_after(WINDOW_SECONDS) as patience:
        while stream.send_window <= 0:
            if stream.closed:
                raise MuxedStreamError("Stream is closed")
            with trio.move_on_after(RESET_SECONDS):
                await opened.wait()
    if patience.cancelled_caught:
        raise MuxedStreamError("the reader has not opened its window")


async def _read_session(self: SecureSession, n: int | None = None) -> bytes:
    """Return ``n`` bytes; fewer at the end of the connection, whatever there is without ``n``."""
    found = self.buf.read(-1 if n is None else n)
    if len(found) == n or (n is None and found):
        return found
    parts, missing = [found], 0 if n is None else n - len(found)
    while True:
        message = await self.conn.read_msg()
        if not message:
            if len(parts) > 1 or found:
                return b"".join(parts)
            raise ConnectionClosedError("Connection closed")
        if n is None:
            return message
        if len(message) > missing:
            # Shares the bytes with the message: no copy.
            self.buf = io.BytesIO(message)
            message = self.buf.read(missing)
        parts.append(message)
        missing -= len(message)
        if not missing:
            return b"".join(parts) if len(parts) > 2 or found else message


async def _handle_incoming(self: Yamux) -> None:
    """Let `_read_header` know whose headers it reads."""
    self.secured_conn._multiplexer = self  # type: ignore[attr-defined]
    await _stock_handle_incoming(self)


async def _read_header(session: SecureSession, n: int) -> bytes:
    """Return the next header of a frame that is more than plain data of an open stream.

    Those are most frames; they are put into their stream's buffer here. Stock takes a lock for
    each, and lets the reader run in between. Here it runs when all that has arrived is there.
    """
    connection: Yamux = session._multiplexer  # type: ignore[attr-defined]
    while True:
        is_sealed = isinstance(session, SecureSession)  # all of ours are
        if is_sealed and not _count_ahead(session) and await _take_message(session, connection):
            continue
        header = await _read_exactly(session, n)
        _, kind, flags, stream_id, length = _HEADER.unpack(header)
        if kind != yamux.TYPE_DATA or flags or not length or stream_id not in connection.streams:
            return header
        _deliver(connection, stream_id, await connection._read_data_body(length))


async def _take_message(session: SecureSession, connection: Yamux) -> bool:
    """Deliver the next message if it is one frame of plain data, as most are; else keep it."""
    message = await session.conn.read_msg()
    if not message:
        raise ConnectionClosedError("Connection closed")
    if len(message) > yamux.HEADER_SIZE:
        _, kind, flags, stream_id, length = _HEADER.unpack_from(message)
        is_whole = yamux.HEADER_SIZE + length == len(message)
        if is_whole and kind == yamux.TYPE_DATA and not flags and stream_id in connection.streams:
            connection._admit_body(length)  # type: ignore[attr-defined]
            _deliver(connection, stream_id, memoryview(message)[yamux.HEADER_SIZE :])
            return True
    session.buf = io.BytesIO(message)
    return False


def _deliver(connection: Yamux, stream_id: int, body: bytes | memoryview) -> None:
    """Put bytes into a stream's buffer, and wake its reader if that is what it waits for."""
    stream = connection.streams.get(stream_id)
    if stream is None:  # it was closed meanwhile
        return
    buffer = connection.stream_buffers[stream_id]
    buffer += body
    stream.recv_window -= len(body)
    if len(buffer) >= stream.__dict__.get("_wanted_bytes", 1):
        connection.stream_events[stream_id].set()


def _count_ahead(session: SecureSession) -> int:
    return session.buf.getbuffer().nbytes - session.buf.tell()


async def read_body(connection: Yamux, length: int) -> bytes:
    """Read the body of a frame. Raises IncompleteReadError, TooSlowError."""
    session = connection.secured_conn
    assert isinstance(session, SecureSession)
    if _count_ahead(session) >= length:
        return session.buf.read(length)
    with trio.fail_after(BODY_SECONDS):
        return await _read_exactly(session, length)


async def _read_exactly(session: SecureSession, n: int) -> bytes:
    data = await session.read(n)
    if len(data) < n:
        raise IncompleteReadError(
            "the connection ended", expected_bytes=n, received_bytes=len(data)
        )
    return data


async def receive_into(stream: INetStream, into: memoryview) -> int:
    """Fill a buffer from its front with what has come on a stream; return how much that is.

    Waits a moment for `BLOCK_BYTES`, or all that the peer may send before this node reads, so that
    a blob costs few turns of the event loop. Raises what the stream's own reading raises.
    """
    muxed = stream.muxed_stream  # type: ignore[attr-defined]
    assert isinstance(muxed, YamuxStream)
    connection, stream_id = muxed.conn, muxed.stream_id
    try:
        with trio.move_on_after(BLOCK_SECONDS):
            await _wait_for_block(muxed, min(len(into), BLOCK_BYTES))
        await _wait_for_block(muxed, 1)
    finally:
        muxed.__dict__.pop("_wanted_bytes", None)
    buffer = connection.stream_buffers.get(stream_id)
    if not buffer or muxed.recv_closed:
        data = await stream.read(len(into))  # stock knows what an end means
        into[: len(data)] = data
        return len(data)
    count = min(len(into), len(buffer))
    with memoryview(buffer) as view:
        into[:count] = view[:count]
    del buffer[:count]
    await muxed._auto_tune_and_send_window_update(bytes_read=count)
    return count


async def _wait_for_block(stream: YamuxStream, size: int) -> None:
    """Wait until so much has come, or all that may come, or the end."""
    connection, stream_id = stream.conn, stream.stream_id
    while not stream.recv_closed and not stream.closed:
        buffer = connection.stream_buffers.get(stream_id)
        event = connection.stream_events.get(stream_id)
        if buffer is None or event is None or connection.event_shutting_down.is_set():
            return
        wanted = min(size, len(buffer) + stream.recv_window)
        if len(buffer) >= wanted:
            return
        stream._wanted_bytes = wanted  # type: ignore[attr-defined]
        if event.is_set():  # of bytes that are not enough
            connection.stream_events[stream_id] = event = trio.Event()
        await event.wait()


FAST_LANE_PATCHES: Final[Sequence[tuple[object, str, object]]] = (
    *NOISE_PATCHES,
    # Stock sends frame by frame, and looks every 10 ms whether a closed window is open again.
    (YamuxStream, "write", _write_batches),
    (YamuxStream, "send_window", property(_get_send_window, _set_send_window)),
    # Stock copies each byte five times between message and frame.
    (SecureSession, "read", _read_session),
    # Stock needs a lock, three turns of the event loop and ten lines of a log that nobody reads
    # for each frame.
    (Yamux, "handle_incoming", _handle_incoming),
    (yamux, "read_exactly", _read_header),
)
