"""The way of bytes between socket and stream, with fewer copies, calls and waits than stock has.

None of it changes what goes over the wire. These are part of the patches of
`d2m_node.network.hardening`; `python -m tests.bench bulk` shows what they are worth.
"""

import io
import struct
from collections.abc import Sequence
from typing import Final

import trio
from libp2p.io.exceptions import ConnectionClosedError, IncompleteReadError
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH, NoiseTransportReadWriter
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux import yamux
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

BATCH_FRAMES: Final = 4
"""Frames of one stream that go out in one call; other streams wait for so many."""

READ_BYTES: Final = 256 * 1024
"""What the system is asked for at once."""

WINDOW_SECONDS: Final = 5.0
"""For a reader to open its window again; as long as in stock."""

RESET_SECONDS: Final = 0.1
"""How often a writer that waits for its window looks whether the stream is still there."""

BODY_SECONDS: Final = 60.0
"""For the body of a frame whose header is there; as long as in stock."""

LENGTH_BYTES: Final = 2
BODY_BYTES: Final = MAX_PLAINTEXT_LENGTH - yamux.HEADER_SIZE
"""Of a frame that fills one Noise message."""

_stock_handle_incoming = Yamux.handle_incoming


def _get_send_window(self: YamuxStream) -> int:
    return self._open_window  # type: ignore[attr-defined, no-any-return]


def _set_send_window(self: YamuxStream, left: int) -> None:
    """Count the window, and wake the writer that waits for it."""
    self._open_window = left  # type: ignore[attr-defined]
    opened: trio.Event | None = self.__dict__.get("_window_opened")
    if left > 0 and opened is not None:
        opened.set()


async def _write_batches(self: YamuxStream, data: bytes) -> None:
    """Send several frames in one call, as far as the window is open."""
    view, sent = memoryview(data), 0
    while sent < len(view):
        if self.send_closed or self.closed:
            raise MuxedStreamError("Stream is closed for sending")
        size = min(self.send_window, BATCH_FRAMES * BODY_BYTES, len(view) - sent)
        if size <= 0:
            await _wait_for_window(self)
            continue
        self.send_window -= size
        await self.conn._write_frame(_build_frames(self.stream_id, view[sent : sent + size]))
        sent += size


def _build_frames(stream_id: int, data: memoryview) -> bytes:
    parts: list[bytes | memoryview] = []
    for start in range(0, len(data), BODY_BYTES):
        body = data[start : start + BODY_BYTES]
        parts.append(
            struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_DATA, 0, stream_id, len(body))
        )
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


async def _write_messages(
    self: NoiseTransportReadWriter,
    msg: bytes,
    prefix_encoded: bool = False,  # noqa: ARG001 - of handshakes
) -> None:
    """Encrypt all messages that the bytes fill, then send them in one call."""
    parts = []
    for start in range(0, len(msg), MAX_PLAINTEXT_LENGTH):
        sealed = self.encrypt(msg[start : start + MAX_PLAINTEXT_LENGTH])
        parts.append(len(sealed).to_bytes(LENGTH_BYTES, "big"))
        parts.append(sealed)
    await self.read_writer.read_write_closer.write(b"".join(parts))


async def _read_message(
    self: NoiseTransportReadWriter,
    prefix_encoded: bool = False,  # noqa: ARG001 - of handshakes
) -> bytes:
    """Decrypt the next message of what the system gave, which may be many at once."""
    await _fill(self, LENGTH_BYTES)
    ahead: bytearray = self._ahead  # type: ignore[attr-defined]
    size = LENGTH_BYTES + int.from_bytes(ahead[:LENGTH_BYTES], "big")
    await _fill(self, size)
    with memoryview(ahead) as view:
        sealed = view[LENGTH_BYTES:size].tobytes()
    del ahead[:size]
    return self.decrypt(sealed)


async def _fill(connection: NoiseTransportReadWriter, size: int) -> None:
    """Have so many bytes ahead. Raises IncompleteReadError at the end of the connection."""
    ahead: bytearray = connection.__dict__.setdefault("_ahead", bytearray())
    while len(ahead) < size:
        more = await connection.read_writer.read_write_closer.read(READ_BYTES)
        if not more:
            raise IncompleteReadError(
                "the connection ended", expected_bytes=size, received_bytes=len(ahead)
            )
        ahead += more


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
        header = await _read_exactly(session, n)
        _, kind, flags, stream_id, length = struct.unpack(yamux.YAMUX_HEADER_FORMAT, header)
        if kind != yamux.TYPE_DATA or flags or not length or stream_id not in connection.streams:
            return header
        body = await connection._read_data_body(length)
        stream = connection.streams.get(stream_id)
        if stream is not None:  # it may have been closed meanwhile
            connection.stream_buffers[stream_id].extend(body)
            stream.recv_window -= length
            connection.stream_events[stream_id].set()


async def read_body(connection: Yamux, length: int) -> bytes:
    """Read the body of a frame. Raises IncompleteReadError, TooSlowError."""
    session = connection.secured_conn
    assert isinstance(session, SecureSession)
    if session.buf.getbuffer().nbytes - session.buf.tell() >= length:
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


FAST_LANE_PATCHES: Final[Sequence[tuple[object, str, object]]] = (
    # Stock sends frame by frame, and looks every 10 ms whether a closed window is open again.
    (YamuxStream, "write", _write_batches),
    (YamuxStream, "send_window", property(_get_send_window, _set_send_window)),
    # Stock asks the system once per message to send, and twice to read: first for two bytes.
    (NoiseTransportReadWriter, "write_msg", _write_messages),
    (NoiseTransportReadWriter, "read_msg", _read_message),
    # Stock copies each byte five times between message and frame.
    (SecureSession, "read", _read_session),
    # Stock needs a lock, three turns of the event loop and ten lines of a log that nobody reads
    # for each frame.
    (Yamux, "handle_incoming", _handle_incoming),
    (yamux, "read_exactly", _read_header),
)
