"""Changes that keep the outer form of an input: lengths that are true, MessagePack that is read.

Bytes changed anywhere are mostly no message at all. So half of the inputs are taken apart first,
changed in one place, and put together again.
"""

import random
import struct
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import msgpack
from libp2p.stream_muxer.yamux.yamux import TYPE_DATA, YAMUX_HEADER_FORMAT
from libp2p.utils.varint import decode_uvarint, encode_uvarint

ChangeBytes = Callable[[bytes], bytes]
"""What libFuzzer does to bytes."""

NUMBERS = (
    0,
    1,
    2,
    3,
    5,
    10,
    100,
    1000,
    127,
    128,
    255,
    256,
    2**16,
    2**31,
    2**32,
    2**62,
    2**63,
    2**64 - 1,
    -1,
    -(2**63),
)
MUXED_HEADER = YAMUX_HEADER_FORMAT
MUXED_BYTES = struct.calcsize(MUXED_HEADER)
LENGTHS = (0, 1, 31, 32, 33, 64, 65, 66, 255, 256, 1024, 1025)


class Form(Enum):
    """How an input is put together, behind what its reader takes for itself."""

    PLAIN = "bytes"
    PACKED = "one value of MessagePack"
    FRAMES = "values of MessagePack, each behind four bytes of length"
    VARINT = "bytes behind a varint of their length"
    MUXED = "frames of yamux"


def change(data: bytes, form: Form, dice: random.Random, change_bytes: ChangeBytes) -> bytes:
    """Change one thing of an input of a form; of one that is not of it, any bytes."""
    match form:
        case Form.PACKED:
            return _change_packed(data, dice, change_bytes)
        case Form.FRAMES:
            return _change_frames(data, dice, change_bytes)
        case Form.VARINT:
            return _change_behind_varint(data, change_bytes)
        case Form.MUXED:
            return _change_muxed(data, dice, change_bytes)
        case Form.PLAIN:
            return change_bytes(data)


def _change_frames(data: bytes, dice: random.Random, change_bytes: ChangeBytes) -> bytes:
    frames, rest = [], data
    while len(rest) >= 4:
        size = int.from_bytes(rest[:4], "big")
        frames.append(rest[4 : 4 + size])
        rest = rest[4 + size :]
    if not frames:
        return change_bytes(data)
    at = dice.randrange(len(frames))
    match dice.randrange(6):
        case 0:
            frames.insert(at, dice.choice(frames))
        case 1:
            del frames[at]
        case 2:
            rest = change_bytes(rest)
        case _:
            frames[at] = _change_packed(frames[at], dice, change_bytes)
    return b"".join(len(one).to_bytes(4, "big") + one for one in frames) + rest


def _change_behind_varint(data: bytes, change_bytes: ChangeBytes) -> bytes:
    size = 1
    while size < len(data) and data[size - 1] & 0x80:
        size += 1
    try:
        length = decode_uvarint(data[:size])
    except Exception:  # noqa: BLE001 - no varint, in whichever of the library's ways
        return change_bytes(data)
    body = change_bytes(data[size : size + length])
    return bytes(encode_uvarint(len(body))) + body + data[size + length :]


def split_muxed(data: bytes) -> list[bytes]:
    """Cut bytes into frames of yamux, and what is left of them."""
    frames = []
    while len(data) >= MUXED_BYTES:
        _, kind, _, _, length = struct.unpack_from(MUXED_HEADER, data)
        end = MUXED_BYTES + (length if kind == TYPE_DATA else 0)
        frames.append(data[:end])
        data = data[end:]
    return [*frames, data]


def _change_muxed(data: bytes, dice: random.Random, change_bytes: ChangeBytes) -> bytes:
    """Change one frame, or their order; the length of data stays true, but for once in a while."""
    *frames, rest = split_muxed(data)
    if not frames:
        return change_bytes(data)
    at = dice.randrange(len(frames))
    match dice.randrange(6):
        case 0:
            frames.insert(at, dice.choice(frames))
        case 1:
            del frames[at]
        case _:
            frames[at] = _change_frame(frames[at], dice, change_bytes)
    return b"".join(frames) + rest


def _change_frame(frame: bytes, dice: random.Random, change_bytes: ChangeBytes) -> bytes:
    version, kind, flags, stream_id, length = struct.unpack_from(MUXED_HEADER, frame)
    body = frame[MUXED_BYTES:]
    match dice.randrange(6):
        case 0:
            kind = dice.choice((0, 1, 2, 3, 4))
        case 1:
            flags = dice.choice((0, 1, 2, 4, 8, 5, 9, 12, 15))
        case 2:
            stream_id = dice.choice((0, 1, 2, 3, 4, 5, 7, 2**32 - 1))
        case 3:
            lied = dice.choice([one for one in NUMBERS if 0 <= one < 2**32])
            return struct.pack(MUXED_HEADER, version, kind, flags, stream_id, lied) + body
        case _:
            body = change_bytes(body)
    length = len(body) if kind == TYPE_DATA else length
    return struct.pack(MUXED_HEADER, version, kind, flags, stream_id, length) + body


def _change_packed(data: bytes, dice: random.Random, change_bytes: ChangeBytes) -> bytes:
    try:
        value = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException):
        return change_bytes(data)
    packed = msgpack.packb(_change_value(value, dice, change_bytes))
    assert isinstance(packed, bytes)
    return packed


def _change_value(value: Any, dice: random.Random, change_bytes: ChangeBytes) -> Any:
    """Change one thing in a value, however deep."""
    match value:
        case bool():
            return not value
        case int():
            return (
                dice.choice(NUMBERS) if dice.randrange(2) else _bound(value + dice.choice((1, -1)))
            )
        case bytes():
            return _change_bytes_value(value, dice, change_bytes)
        case str():
            return change_bytes(value.encode()).decode(errors="ignore")
        case list() if value:
            return _change_list(value, dice, change_bytes)
        case _:
            return dice.choice((0, b"", [], None, "x", 1.5))


def _bound(number: int) -> int:
    return min(max(number, -(2**63)), 2**64 - 1)


def _change_bytes_value(value: bytes, dice: random.Random, change_bytes: ChangeBytes) -> bytes:
    changed = change_bytes(value)
    match dice.randrange(4):
        case 0:
            return changed
        case 1:
            return changed[: dice.choice(LENGTHS)].ljust(dice.choice(LENGTHS), b"\x00")
        case _:  # most have one right length
            return changed[: len(value)].ljust(len(value), b"\x00")


def _change_list(
    values: Sequence[Any], dice: random.Random, change_bytes: ChangeBytes
) -> list[Any]:
    changed, at = list(values), dice.randrange(len(values))
    match dice.randrange(12):
        case 0:
            del changed[at]
        case 1:
            changed.insert(at, dice.choice(changed))
        case 2:
            changed.append(dice.choice(NUMBERS))
        case 3:
            changed[at] = dice.choice((dice.choice(NUMBERS), bytes(dice.choice(LENGTHS)), [], None))
        case 4:
            other = dice.randrange(len(changed))
            changed[at], changed[other] = changed[other], changed[at]
        case _:
            changed[at] = _change_value(changed[at], dice, change_bytes)
    return changed
