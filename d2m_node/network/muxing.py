"""What stock Yamux gets wrong: windows that nobody enforces, peers that never answer, half frames.

These are part of the patches of `d2m_node.network.hardening`.
"""

import struct
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog
import trio
from libp2p.exceptions import BaseLibp2pError
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.stream.net_stream import NetStream
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH
from libp2p.stream_muxer.yamux import yamux
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

from d2m_node.network.fast_lane import BATCH_FRAMES, read_body
from d2m_node.network.noise_lane import Held

log = structlog.get_logger(__name__)

WINDOW_BYTES: Final = 2 * 1024 * 1024
"""What a peer may send on one stream before we have read it; a stream begins with an eighth."""

MAX_UNREAD_BYTES: Final = 8 * WINDOW_BYTES
"""Of all streams of one connection together."""

MAX_ALL_UNREAD_BYTES: Final = 128 * WINDOW_BYTES
"""Of all connections together. Beyond it those go that hold more than a window."""

KEEPALIVE_SECONDS: Final = 15.0
PONG_SECONDS: Final = 15.0
"""Generous: with training on every core an honest node may be slow to answer."""

FRAME_SECONDS: Final = 15.0
"""For the system to take a slice. A peer that reads nothing for so long is gone."""

SLICE_BYTES: Final = BATCH_FRAMES * MAX_PLAINTEXT_LENGTH
"""Of a batch of frames, so much is encrypted while the system sends what comes before it."""

HURRY_SECONDS: Final = 1.0
"""The same once the writer is cancelled: nobody waits long for a peer that takes nothing."""

_stock_new_stream = SwarmConn.new_stream
_stock_finalize = Yamux._finalize_stream_locked
_stock_reset = YamuxStream.reset
_connections: weakref.WeakSet[Yamux] = weakref.WeakSet()


def _get_window(self: YamuxStream) -> int:
    return self._counted_window  # type: ignore[attr-defined, no-any-return]


def _set_window(self: YamuxStream, left: int) -> None:
    """Count a window down; whoever sends more than it was given loses its connection."""
    if left < 0:
        _cut_off(self.conn, "window_exceeded", stream=self.stream_id, excess_bytes=-left)
    self._counted_window = left  # type: ignore[attr-defined]


def _cut_off(connection: Yamux, event: str, **fields: int) -> None:
    log.warning(event, peer=connection.peer_id.to_bytes(), **fields)
    # The one exception upon which yamux closes the connection instead of going on.
    raise trio.TooSlowError


def _count_unread(connection: Yamux) -> int:
    return sum(map(len, connection.stream_buffers.values()))


def _admit_body(self: Yamux, length: int) -> None:
    """Cut a peer off that sends more than it may, before it is taken in."""
    if length > WINDOW_BYTES:
        _cut_off(self, "frame_exceeds_window", frame_bytes=length)
    unread = length + _count_unread(self)
    if unread > MAX_UNREAD_BYTES:
        _cut_off(self, "too_much_unread", unread_bytes=unread)
    _connections.add(self)
    if unread > WINDOW_BYTES and sum(map(_count_unread, _connections)) > MAX_ALL_UNREAD_BYTES:
        _cut_off(self, "too_much_unread_by_all", unread_bytes=unread)


async def _bounded_read_body(self: Yamux, length: int) -> bytes:
    self._admit_body(length)  # type: ignore[attr-defined]
    return await read_body(self, length)


async def _credit_half_windows(self: YamuxStream, *, bytes_read: int = 0) -> None:
    async with Held(self.window_lock):
        self._pending_recv_release += bytes_read
        if self._pending_recv_release < self.target_recv_window // 2:
            return
        increment = self._pending_recv_release + WINDOW_BYTES - self.target_recv_window
        self._pending_recv_release = 0
        self.target_recv_window = WINDOW_BYTES
        self.recv_window += increment
    await self.send_window_update(increment)


async def _keep_alive(self: Yamux) -> None:
    while not self.event_shutting_down.is_set():
        with trio.move_on_after(KEEPALIVE_SECONDS) as idle:
            await self.event_shutting_down.wait()
        if not idle.cancelled_caught:
            return
        with trio.move_on_after(PONG_SECONDS) as patience:
            self._ping_id += 1
            self._ping_event = trio.Event()
            frame = struct.pack(
                yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_PING, yamux.FLAG_SYN, 0, self._ping_id
            )
            try:
                await self._write_frame(frame)
            except Exception:  # noqa: BLE001 - left to the reading task, which sees it and cleans up
                return
            await self._ping_event.wait()
        if patience.cancelled_caught:
            log.info("peer_silent", peer=self.peer_id.to_bytes())
            # The reading task fails on the closed socket and tells everybody.
            with suppress(BaseLibp2pError, OSError):
                await self.secured_conn.close()


class _Patience:
    """How long the system may take for what is written; a writer that is cancelled hurries."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope(shield=True)
        self._latest = float("inf")

    def renew(self) -> None:
        """Give the next slice its time."""
        self.scope.deadline = min(self._latest, trio.current_time() + FRAME_SECONDS)

    async def hurry_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._latest = trio.current_time() + HURRY_SECONDS
            self.scope.deadline = min(self.scope.deadline, self._latest)


async def _write_whole_frame(self: Yamux, data: bytes) -> None:
    patience, failure = _Patience(), None
    async with Held(self._write_lock), trio.open_nursery() as nursery:
        nursery.start_soon(patience.hurry_when_cancelled)
        with patience.scope:
            try:
                for start in range(0, len(data), SLICE_BYTES):
                    patience.renew()
                    part = memoryview(data)[start : start + SLICE_BYTES]
                    await self.secured_conn.write(part)  # type: ignore[arg-type]  # a buffer
            except Exception as exc:  # noqa: BLE001 - raised below, where it is not grouped
                failure = exc
        if patience.scope.cancelled_caught:
            failure = ConnectionClosedError("the peer takes nothing", transport="tcp")
            log.info("peer_takes_nothing", peer=self.peer_id.to_bytes())
            with suppress(BaseLibp2pError, OSError):
                await self.secured_conn.close()
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    await trio.lowlevel.checkpoint()


async def _open_whole_stream(self: SwarmConn) -> NetStream:
    with trio.fail_after(FRAME_SECONDS) as scope:
        scope.shield = True
        return await _stock_new_stream(self)


def _forget_unreadable(self: Yamux, stream: YamuxStream, *, fully_closed: bool) -> None:
    """Forget a stream that its peer reset: unless the peer had ended it before, none may read."""
    if fully_closed and stream.reset_received and not stream.recv_closed:
        self.stream_buffers[stream.stream_id] = bytearray()
    _stock_finalize(self, stream, fully_closed=fully_closed)


async def _reset_and_forget(self: YamuxStream) -> None:
    """Reset a stream, and forget it: whoever resets reads no more."""
    await _stock_reset(self)
    connection = self.conn
    async with connection.streams_lock:
        if connection.streams.get(self.stream_id) is self:
            connection.stream_buffers[self.stream_id] = bytearray()
            _stock_finalize(connection, self, fully_closed=True)


MUXING_PATCHES: Final[Sequence[tuple[object, str, object]]] = (
    # A full frame of 65536 bytes does not fit one Noise message and travels as two.
    (yamux, "MAX_MESSAGE_SIZE", 65519),
    # Stock sends a window update with every read, and grows windows to 16 MiB for each stream.
    (YamuxStream, "_auto_tune_and_send_window_update", _credit_half_windows),
    # Stock logs that a peer ignores its window, and keeps what it sends: 180 MB were seen.
    (YamuxStream, "recv_window", property(_get_window, _set_window)),
    # Stock takes frames of 16 MiB, and any number of unread bytes.
    (Yamux, "_read_data_body", _bounded_read_body),
    (Yamux, "_admit_body", _admit_body),
    # Stock keeps a stream that was reset, with all that nobody will read, for up to 90 seconds.
    (Yamux, "_finalize_stream_locked", _forget_unreadable),
    (YamuxStream, "reset", _reset_and_forget),
    # Stock pings, but a peer that never answers stays connected for over a minute.
    (Yamux, "_measure_rtt_loop", _keep_alive),
    # Stock lets a cancelled task leave half a frame, or a gap in the numbers of the encrypted
    # messages: the peer can read nothing any more, and all streams are lost for the sake of one.
    (Yamux, "_write_frame", _write_whole_frame),
    # Stock forgets a stream whose opener is cancelled, and never gives its place back: after 256
    # a connection opens none any more. Once it is open, its opener resets it.
    (SwarmConn, "new_stream", _open_whole_stream),
)
