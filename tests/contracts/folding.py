"""What a node makes of the contracts' events: the fold of all that a world has logged."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from protocol import events
from protocol.course import Course
from protocol.market import MarketState, advance, apply_event
from protocol.params import ProtocolParams
from protocol.terms import JobTerms
from protocol.types import Address, BlockNumber
from tests.contracts.world import World

STRUCTS = (Course, JobTerms)


def fold(world: World) -> MarketState:
    """The market as a node that followed every block knows it."""
    return fold_entries(world.seen, world.blocks.number)


def fold_entries(seen: Sequence[tuple[int, Any]], block_number: int) -> MarketState:
    """The same from logs with their blocks."""
    state = MarketState()
    for position, (block, entry) in enumerate(seen):
        recorded = events.RecordedEvent(
            block_number=BlockNumber(block),
            log_index=position,
            transaction_hash=position.to_bytes(32, "big"),
            event=_read(entry),
        )
        state = apply_event(state, recorded)
    return advance(state, BlockNumber(block_number))


def params_of(world: World) -> ProtocolParams:
    values = {**world.params, "token": _plain(world.params["token"])}
    return ProtocolParams(**values)


def _read(entry: Any) -> Any:
    """A log of the in-process EVM as the class of the same name."""
    kind = getattr(events, type(entry).__name__)
    hints = get_type_hints(kind)
    values = {}
    for field in fields(kind):
        value = _plain(getattr(entry, field.name))
        struct = hints[field.name]
        if struct in STRUCTS:
            names = (one.name for one in fields(struct))
            value = struct(**dict(zip(names, value, strict=True)))
        values[field.name] = value
    return kind(**values)


def _plain(value: Any) -> Any:
    """Addresses as bytes, lists and structs as tuples, the rest as it is."""
    if isinstance(value, str):
        return Address(bytes.fromhex(value.removeprefix("0x")))
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value
