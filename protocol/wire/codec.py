"""Bytes ↔ message: strict, bounded, and one encoding for each message."""

from typing import Final

import msgpack
import msgspec

from protocol.errors import InvalidMessage
from protocol.wire.messages import AnyMessage, Message

MAX_MESSAGE_BYTES: Final = 64 * 1024
"""Anything larger travels on a stream as a blob, by hash."""

MAX_BATCH_BYTES: Final = 600 * 1024
"""A `MessageBatch` holds at most 512 messages of 1 KiB."""


def encode_message(message: Message) -> bytes:
    """Encode a message as positional MessagePack."""
    packed = msgpack.packb(msgspec.to_builtins(message, builtin_types=(bytes,)))
    assert isinstance(packed, bytes)
    return packed


def decode_message(data: bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> AnyMessage:
    """Decode one message from hostile bytes.

    Raises
    ------
    InvalidMessage
        If the bytes are too many, no MessagePack, no known message, out of a field's bounds, or
        not the one encoding of the message they hold.
    """
    if len(data) > max_bytes:
        raise InvalidMessage(f"message of {len(data)} bytes, at most {max_bytes} are allowed")
    try:
        plain = msgpack.unpackb(
            data,
            strict_map_key=True,
            max_bin_len=max_bytes,
            max_str_len=0,
            max_array_len=512,
            max_map_len=0,
            max_ext_len=0,
        )
        message: AnyMessage = msgspec.convert(plain, AnyMessage, builtin_types=(bytes,))
    except (ValueError, msgpack.UnpackException, msgspec.ValidationError, TypeError) as exc:
        raise InvalidMessage(f"no message of this protocol: {exc}") from exc
    if encode_message(message) != data:
        raise InvalidMessage("not the canonical encoding of its message")
    return message
