"""Events of the chain and facts of the node as subscribers read them."""

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Final, get_args

from d2m_node.client import BLOCK_FOLLOWED, CHAIN_REORGANISED, NodeEvent
from d2m_node.ports import UNTOLD, NodeFact
from d2m_node.rpc.views import to_hex
from protocol.bitmap import decode_bitmap
from protocol.events import Event, RecordedEvent
from protocol.job import job_of_event

_BITMAPS: Final = frozenset({"members", "voters", "wrong", "unopened", "bitmap"})
"""Fields of which each bit stands for a CONE node. Readers get indices."""

_JOB_FIELDS: Final = frozenset({"job", "auction"})

NODE_KINDS: Final = frozenset(
    {
        "role.enabled",
        "role.draining",
        "role.drained",
        "role.closing",
        "role.disabled",
        "role.failed",
        "job.refused",
    }
)


def name_kind(event: type) -> str:
    """Turn RoundDecided into round.decided, and MiniRoundOpened into mini_round.opened."""
    *subject, verb = re.findall(r"[A-Z][a-z]*", event.__name__)
    return f"{'_'.join(subject)}.{verb}".lower()


CHAIN_KINDS: Final[Mapping[type, str]] = {
    event: name_kind(event) for event in get_args(Event) if event not in UNTOLD
}
"""What is told of the chain, by the class of the event."""

KINDS: Final = frozenset(CHAIN_KINDS.values()) | NODE_KINDS | {BLOCK_FOLLOWED, CHAIN_REORGANISED}


def view_recorded(recorded: RecordedEvent, cursor: str) -> NodeEvent:
    """Describe an event of the chain."""
    event = recorded.event
    return NodeEvent(
        cursor=cursor,
        kind=CHAIN_KINDS[type(event)],
        job=job_of_event(event),
        block=recorded.block_number,
        log_index=recorded.log_index,
        transaction=to_hex(recorded.transaction_hash),
        facts={
            one.name: _view_field(one.name, getattr(event, one.name))
            for one in fields(event)
            if one.name not in _JOB_FIELDS
        },
    )


def view_fact(fact: NodeFact, cursor: str) -> NodeEvent:
    """Describe a fact of the node."""
    return NodeEvent(cursor=cursor, kind=fact.kind, job=fact.job_id, facts=fact.details)


def _view_field(name: str, value: object) -> object:
    if name in _BITMAPS and isinstance(value, int):
        return list(decode_bitmap(value))
    if name == "groups" and isinstance(value, tuple):  # of equal votes: digest, trace, who
        return [
            [to_hex(digest), to_hex(trace), list(decode_bitmap(members))]
            for digest, trace, members in value
        ]
    return _view(value)


def _view(value: object) -> object:
    match value:
        case bytes():
            return to_hex(value)
        case Enum():
            return value.value
        case tuple():
            return [_view(one) for one in value]
        case _ if is_dataclass(value):
            return {one.name: _view(getattr(value, one.name)) for one in fields(value)}
        case _:
            return value
