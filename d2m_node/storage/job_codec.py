"""A job's state as bytes: MessagePack, compressed. Read only by the node that wrote it.

A value is itself, or a list with its kind in front: a tuple, a mapping, a number beyond 64 bits,
or a class by name. What classes there are follows from the types of the state's fields.
"""

import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final, get_args, get_type_hints

import msgspec

from protocol.job import JobState

_TUPLE: Final = 0
_MAPPING: Final = 1
_NUMBER: Final = 2
_NUMBER_BYTES: Final = 33
"""Of 256 bits and a sign."""

MAX_BYTES: Final = 1 << 26
"""Of one job, before it is compressed; the largest that contracts can write is far smaller."""


def encode_job(job: JobState) -> bytes:
    """Encode a job; equal jobs have equal bytes."""
    return zlib.compress(msgspec.msgpack.encode(_flatten(job)))


def decode_job(data: bytes) -> JobState:
    """Decode what `encode_job` made. Raises ValueError if it is anything else."""
    decompressor = zlib.decompressobj()
    try:
        plain = decompressor.decompress(data, MAX_BYTES)
        job = _build(msgspec.msgpack.decode(plain)) if decompressor.eof else None
    except (zlib.error, msgspec.MsgspecError, LookupError, TypeError, ValueError) as exc:
        raise ValueError(f"the record is not one of a job: {exc}") from exc
    if not isinstance(job, JobState):
        raise ValueError("the record is not one of a job: it is cut off, too long, or another")
    return job


def _flatten(value: Any) -> Any:
    if isinstance(value, Enum) and type(value).__name__ in _CLASSES:
        return [type(value).__name__, value.value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return [_NUMBER, value.to_bytes(_NUMBER_BYTES, "big", signed=True)]
    if isinstance(value, tuple):
        return [_TUPLE, *map(_flatten, value)]
    if isinstance(value, Mapping):
        return [_MAPPING, *(_flatten(part) for item in value.items() for part in item)]
    if is_dataclass(value):
        parts = (_flatten(getattr(value, field.name)) for field in fields(value))
        return [type(value).__name__, *parts]
    return value


def _build(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    kind, *rest = value
    if kind == _NUMBER:
        return int.from_bytes(rest[0], "big", signed=True)
    parts = [_build(part) for part in rest]
    if kind == _TUPLE:
        return tuple(parts)
    if kind == _MAPPING:
        return dict(zip(parts[::2], parts[1::2], strict=True))
    return _CLASSES[kind](*parts) if issubclass(_CLASSES[kind], Enum) else _make(kind, parts)


def _make(kind: str, parts: list[Any]) -> Any:
    made = _CLASSES[kind]
    names = (field.name for field in fields(made))
    return made(**dict(zip(names, parts, strict=True)))


def _find_classes(hint: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Find the classes of a type and of all that it is made of, by name."""
    hint = getattr(hint, "__supertype__", hint)  # what a NewType is of
    if isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, Enum)):
        if hint.__name__ in found:
            assert found[hint.__name__] is hint, "a name stands for one class"
            return found
        found[hint.__name__] = hint
        for part in get_type_hints(hint).values() if is_dataclass(hint) else ():
            _find_classes(part, found)
    for part in get_args(hint):
        _find_classes(part, found)
    return found


_CLASSES: Final[Mapping[str, Any]] = _find_classes(JobState, {})
