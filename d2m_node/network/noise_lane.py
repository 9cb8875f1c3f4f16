"""Noise messages between socket and session, sealed and opened where they lie.

None of it changes what goes over the wire. These are part of the patches of
`d2m_node.network.hardening`.
"""

from collections.abc import Sequence
from typing import Final

import trio
from libp2p.io.exceptions import ConnectionClosedError, IncompleteReadError
from libp2p.io.trio import TrioTCPStream
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH, NoiseTransportReadWriter

READ_BYTES: Final = 120 * 1024
"""What the system is asked for at once; larger buffers would be mapped anew for each call."""

LENGTH_BYTES: Final = 2
TAG_BYTES: Final = 16


async def _write_messages(
    self: NoiseTransportReadWriter,
    msg: bytes | memoryview,
    prefix_encoded: bool = False,  # noqa: ARG001 - of handshakes
) -> None:
    """Encrypt all messages that the bytes fill, then send them in one call.

    Their numbers do not run out: 2**64 messages are more than any line carries.
    """
    state = self.noise_state.noise_protocol.cipher_state_encrypt
    plain, count = memoryview(msg), -(-len(msg) // MAX_PLAINTEXT_LENGTH)
    sealed = memoryview(bytearray(len(msg) + count * (LENGTH_BYTES + TAG_BYTES)))
    at = 0
    for start in range(0, len(msg), MAX_PLAINTEXT_LENGTH):
        part = plain[start : start + MAX_PLAINTEXT_LENGTH]
        size = len(part) + TAG_BYTES
        sealed[at : at + LENGTH_BYTES] = size.to_bytes(LENGTH_BYTES, "big")
        at += LENGTH_BYTES
        nonce = state.cipher.format_nonce(state.n)
        state.cipher.cipher.encrypt_into(nonce, part, None, sealed[at : at + size])
        state.n += 1
        at += size
    await self.read_writer.read_write_closer.write(sealed)  # type: ignore[arg-type]  # a buffer


async def _read_message(
    self: NoiseTransportReadWriter,
    prefix_encoded: bool = False,  # noqa: ARG001 - of handshakes
) -> bytes:
    """Decrypt the next message of what the system gave, which may be many at once."""
    ahead: bytearray = self.__dict__.setdefault("_ahead", bytearray())
    start = self.__dict__.get("_opened", 0)
    while True:
        body = start + LENGTH_BYTES
        end = body + int.from_bytes(ahead[start:body], "big")
        if body <= len(ahead) and end <= len(ahead):
            break
        del ahead[:start]
        start = self._opened = 0  # type: ignore[attr-defined]
        await _fill(self, ahead)
    self._opened = end  # type: ignore[attr-defined]
    state = self.noise_state.noise_protocol.cipher_state_decrypt
    nonce = state.cipher.format_nonce(state.n)
    with memoryview(ahead) as view:
        opened: bytes = state.cipher.cipher.decrypt(nonce, view[body:end], None)
    state.n += 1
    if end == len(ahead):  # an idle connection holds nothing
        ahead.clear()
        self._opened = 0  # type: ignore[attr-defined]
    return opened


class Held:
    """A lock, without a turn of the event loop if it is free."""

    def __init__(self, lock: trio.Lock) -> None:
        self._lock = lock

    async def __aenter__(self) -> None:
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


async def _write_socket(self: TrioTCPStream, data: bytes) -> None:
    """Send bytes; as in stock, to a connection that this node closed itself nothing is sent."""
    async with Held(self.write_lock):
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError as exc:
            raise ConnectionClosedError(f"reset by the peer: {exc}", transport="tcp") from exc
        except trio.ClosedResourceError:
            return


async def _read_socket(self: TrioTCPStream, n: int | None = None) -> bytes:
    """Return what has come; nothing at the end, or if this node closed the connection itself."""
    async with Held(self.read_lock):
        try:
            return bytes(await self.stream.receive_some(n))
        except trio.BrokenResourceError as exc:
            raise ConnectionClosedError(f"reset by the peer: {exc}", transport="tcp") from exc
        except trio.ClosedResourceError:
            return b""


async def _fill(connection: NoiseTransportReadWriter, ahead: bytearray) -> None:
    """Have more bytes ahead. Raises IncompleteReadError at the end of the connection."""
    more = await connection.read_writer.read_write_closer.read(READ_BYTES)
    if not more:
        raise IncompleteReadError(
            "the connection ended", expected_bytes=LENGTH_BYTES, received_bytes=len(ahead)
        )
    ahead += more


NOISE_PATCHES: Final[Sequence[tuple[object, str, object]]] = (
    # Stock asks the system once per message to send, and twice to read: first for two bytes.
    (NoiseTransportReadWriter, "write_msg", _write_messages),
    (NoiseTransportReadWriter, "read_msg", _read_message),
    # Stock takes a turn of the event loop for a lock that nobody else wants.
    (TrioTCPStream, "write", _write_socket),
    (TrioTCPStream, "read", _read_socket),
)
