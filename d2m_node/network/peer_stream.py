"""One libp2p stream: length-prefixed messages, a bound on every wait, our own errors."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID

from d2m_node.errors import PeerUnreachable, StreamTimeout
from d2m_node.network.counts import NetworkCounts
from d2m_node.network.fast_lane import receive_into
from d2m_node.network.settings import NetworkSettings
from protocol.errors import InvalidMessage
from protocol.wire.codec import decode_message, encode_message
from protocol.wire.messages import AnyMessage, Message
from protocol.wire.topics import (
    BLOB_PROTOCOL,
    CHUNKS_PROTOCOL,
    DIAL_BACK_PROTOCOL,
    MESSAGES_PROTOCOL,
)

LENGTH_BYTES: Final = 4
CLOSE_SECONDS: Final = 1.0

KINDS: Final = {
    BLOB_PROTOCOL: "blobs",
    CHUNKS_PROTOCOL: "blobs",
    MESSAGES_PROTOCOL: "messages",
    DIAL_BACK_PROTOCOL: "messages",
}
"""What a protocol's bytes are counted as."""


STOPPED_SENDING: Final = "the peer stopped sending"


class PeerStream:
    """A stream to or from one peer.

    Every method raises PeerUnreachable if the stream breaks or ends and StreamTimeout if the peer
    neither takes nor gives for `NetworkSettings.io_seconds`.
    """

    def __init__(
        self, stream: INetStream, io_seconds: float, counts: NetworkCounts, kind: str
    ) -> None:
        """Wrap a stream; its bytes are counted as of ``kind``."""
        self.peer_id = stream.muxed_conn.peer_id.to_bytes()
        self._stream = stream
        self._io_seconds = io_seconds
        self._counts = counts
        self._kind = kind
        self._ahead = b""
        """What was read to see whether anything comes."""

    async def send(self, data: bytes | memoryview) -> None:
        """Send bytes; returns when they are out or buffered by the system."""
        with self._patience("the peer does not take what we send"):
            await self._stream.write(data)  # type: ignore[arg-type]  # a buffer
        self._counts.sent_bytes[self._kind] += len(data)

    async def receive_some(self, max_bytes: int) -> bytes:
        """Return between 1 and ``max_bytes`` bytes."""
        with self._patience(STOPPED_SENDING):
            data = await self._stream.read(max_bytes)
        self._count_received(len(data))
        return data

    async def receive_into(self, into: memoryview) -> int:
        """Fill a buffer from its front; return how much has come, at least a byte."""
        with self._patience(STOPPED_SENDING):
            count = await receive_into(self._stream, into)
        self._count_received(count)
        return count

    @contextmanager
    def _patience(self, reason: str) -> Iterator[None]:
        """Wait so long for the peer; say what went wrong in our own words."""
        try:
            with trio.fail_after(self._io_seconds):
                yield
        except trio.TooSlowError as exc:
            raise StreamTimeout(reason) from exc
        except Exception as exc:  # libp2p lets errors of any layer through
            raise PeerUnreachable(f"stream broken: {exc!r}") from exc

    def _count_received(self, count: int) -> None:
        if not count:
            raise PeerUnreachable("the stream ended early")
        self._counts.received_bytes[self._kind] += count

    async def send_message(self, message: Message) -> None:
        """Send a message behind its length."""
        encoded = encode_message(message)
        await self.send(len(encoded).to_bytes(LENGTH_BYTES, "big") + encoded)

    async def receive_message(self, max_bytes: int) -> AnyMessage:
        """Return the next message. Raises InvalidMessage, before it takes in too many bytes."""
        try:
            with trio.fail_after(self._io_seconds):  # for all of it: a drip is a stall too
                length = int.from_bytes(await self._receive_exactly(LENGTH_BYTES), "big")
                if length > max_bytes:
                    raise InvalidMessage(f"frame of {length} bytes, at most {max_bytes} allowed")
                return decode_message(await self._receive_exactly(length), max_bytes)
        except trio.TooSlowError as exc:
            raise StreamTimeout("the peer did not finish its message") from exc

    async def receive_next(self, max_bytes: int) -> AnyMessage | None:
        """Return the next message, or None if the peer has closed its side.

        Raises InvalidMessage.
        """
        try:
            with trio.fail_after(self._io_seconds):
                self._ahead += await self.receive_some(1)
        except trio.TooSlowError as exc:
            raise StreamTimeout("the peer asks for nothing more") from exc
        except PeerUnreachable:
            return None
        return await self.receive_message(max_bytes)

    async def close(self) -> None:
        """Say that we are done; never fails and never waits long."""
        with trio.move_on_after(CLOSE_SECONDS) as closing:
            closing.shield = True
            try:
                await self._stream.close()
            except Exception:  # noqa: BLE001 - closing what is broken already
                await self._stream.reset()

    async def reset(self) -> None:
        """Give up the stream; never fails and never waits long."""
        with trio.move_on_after(CLOSE_SECONDS) as closing:
            closing.shield = True
            await self._stream.reset()

    async def _receive_exactly(self, count: int) -> bytes:
        received = bytearray(self._ahead[:count])
        self._ahead = self._ahead[count:]
        while len(received) < count:
            received += await self.receive_some(count - len(received))
        return bytes(received)


@asynccontextmanager
async def open_peer_stream(
    host: IHost,
    peer_id: bytes,
    protocol: str,
    settings: NetworkSettings,
    counts: NetworkCounts,
) -> AsyncIterator[PeerStream]:
    """Open a stream to a connected peer; closed at the end, reset if the body raises.

    Raises PeerUnreachable, StreamTimeout.
    """
    try:
        with trio.fail_after(settings.dial_seconds):
            raw = await host.new_stream(ID(peer_id), [TProtocol(protocol)])
    except trio.TooSlowError as exc:
        raise StreamTimeout(f"{protocol}: no answer") from exc
    except Exception as exc:  # libp2p lets errors of any layer through
        raise PeerUnreachable(f"{protocol}: {exc}") from exc
    stream = PeerStream(raw, settings.io_seconds, counts, KINDS[protocol])
    try:
        yield stream
    except BaseException:
        await stream.reset()
        raise
    await stream.close()
