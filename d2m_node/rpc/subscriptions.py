"""A subscriber's way through what the chain and the node tell, at its own pace.

Subscribers read from what history and herald keep for all of them; none has a queue of its own. One
that falls so far behind that its next event is no longer kept is told so, and cut off. Nobody waits
for a subscriber.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Protocol

from d2m_node.client import (
    BLOCK_FOLLOWED,
    CHAIN_REORGANISED,
    START,
    STREAM_ENDED,
    STREAM_OPENED,
    NodeEvent,
)
from d2m_node.errors import UserError
from d2m_node.ports import ChainPort, HistoryPort, TakenBack
from d2m_node.rpc.cursors import Place
from d2m_node.rpc.event_views import CHAIN_KINDS, KINDS, view_fact, view_recorded
from d2m_node.rpc.herald import Herald
from protocol.events import RecordedEvent
from protocol.job import job_of_event

REORG_BLOCKS: Final = 128
"""No node undoes a deeper turn of the chain. A subscriber whose last event is gone goes back so
far."""

MAX_KINDS: Final = 64
MAX_BATCH: Final = 100
"""So many events at once: then others have their turn."""


class EventsGone(UserError):
    """The events after a cursor are no longer kept."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a subscriber wants: of these kinds, or groups of kinds, and of this job."""

    kinds: Collection[str] = ()
    job: int | None = None

    def __post_init__(self) -> None:
        """Raise UserError if a kind does not exist."""
        if len(self.kinds) > MAX_KINDS:
            raise UserError(f"kind: at most {MAX_KINDS}")
        for wanted in self.kinds:
            if not any(_is_of(kind, wanted) for kind in KINDS):
                raise UserError(f"kind: {wanted[:40]!r} is none; docs/RPC.md lists them")

    @property
    def wants_blocks(self) -> bool:
        """Tell whether each followed block is of interest: only to those who say so."""
        return any(_is_of(BLOCK_FOLLOWED, wanted) for wanted in self.kinds)

    def takes(self, kind: str, job: int | None) -> bool:
        """Tell whether an event is wanted."""
        is_kind = not self.kinds or any(_is_of(kind, wanted) for wanted in self.kinds)
        return is_kind and (self.job is None or job == self.job)


def _is_of(kind: str, wanted: str) -> bool:
    return kind == wanted or kind.startswith(f"{wanted}.")


class Bell(Protocol):
    """Rings when there may be something new."""

    is_closing: bool
    """Whether the node stops."""

    async def wait(self) -> None:
        """Return at the next ring."""


class Subscription:
    """One subscriber's place, and what comes after it."""

    def __init__(
        self, chain: ChainPort, herald: Herald, bell: Bell, wanted: Filter, after: str | None
    ) -> None:
        """Begin after a cursor, or now. Raises UserError, EventsGone."""
        self._chain = chain
        self._herald = herald
        self._bell = bell
        self._wanted = wanted
        self._place = Place()
        self._next_told = self._next_fact = 0
        self._turned_at: int | None = None
        self._block = chain.state.block_number
        self._begin(after)

    def open(self) -> NodeEvent:
        """Return the first event: where the stream begins."""
        return NodeEvent(cursor=self._place.write(), kind=STREAM_OPENED)

    async def next(self) -> list[NodeEvent]:
        """Return the next events, as soon as there is one: some, not all that there are.

        The last one of a stream says that it ends. When this is cancelled, nothing is lost.
        """
        while True:
            if self._next_told < self._chain.history.first or self._next_fact < self._herald.first:
                return [self._end("too slow: the next events are no longer kept")]
            events = list(islice(iter(self._find_next, None), MAX_BATCH))
            if events:
                return events
            if self._bell.is_closing:
                return [self._end("the node stops")]
            await self._bell.wait()

    def _find_next(self) -> NodeEvent | None:
        """Return the next event that is wanted, if there is one by now."""
        history = self._chain.history
        if self._turned_at is not None:
            block, self._turned_at = self._turned_at, None
            return self._view_turn(block)
        while self._next_fact < self._herald.end:
            fact = self._herald.read(self._next_fact)
            self._next_fact += 1
            self._place = replace(self._place, fact=fact.number)
            if self._wanted.takes(fact.kind, fact.job_id):
                return view_fact(fact, self._place.write())
        while self._next_told < history.end:
            told = history.read(self._next_told)
            self._next_told += 1
            if isinstance(told, TakenBack):
                self._place = _place_before(history, self._next_told - 1, self._place)
                return self._view_turn(told.block_number)
            self._place = self._place.after_event(told)
            if self._wanted.takes(CHAIN_KINDS[type(told.event)], job_of_event(told.event)):
                return view_recorded(told, self._place.write())
        block = self._chain.state.block_number
        if self._wanted.wants_blocks and block > self._block:
            self._block = block
            return NodeEvent(cursor=self._place.write(), kind=BLOCK_FOLLOWED, block=block)
        return None

    def _view_turn(self, block: int) -> NodeEvent:
        """Say from which block on everything is told anew. Every subscriber must know."""
        self._block = self._chain.state.block_number
        return NodeEvent(cursor=self._place.write(), kind=CHAIN_REORGANISED, block=block)

    def _end(self, reason: str) -> NodeEvent:
        return NodeEvent(cursor=self._place.write(), kind=STREAM_ENDED, facts={"reason": reason})

    def _begin(self, after: str | None) -> None:
        history, herald = self._chain.history, self._herald
        if after is None:
            self._next_told, self._next_fact = history.end, herald.end
            self._place = replace(_place_before(history, history.end, Place()), fact=herald.end - 1)
            return
        if after == START:
            self._next_told, self._next_fact = history.first, herald.first
            self._place = Place(fact=herald.first - 1)
            return
        self._place = Place.read(after)
        self._next_fact = self._place.fact + 1
        if self._next_fact > herald.end:  # of another data directory
            self._next_fact = herald.first
        self._next_told = self._find_told()
        if self._next_fact < herald.first or self._next_told < history.first:
            raise EventsGone(
                "after: the events after this cursor are no longer kept; "
                "read the state anew, and subscribe from now"
            )

    def _find_told(self) -> int:
        """Return the number of what the chain told after the subscriber's place.

        Before `first` if it is no longer kept. If the event at the place is on the chain no more,
        everything since the block that cannot have been undone is told again.
        """
        history, place = self._chain.history, self._place
        if place.is_before_chain:
            return history.first if history.first == 0 else -1
        for number in range(history.end - 1, history.first - 1, -1):
            told = history.read(number)
            if isinstance(told, RecordedEvent) and place.is_at(told):
                return number + 1
        self._turned_at = max(place.block - REORG_BLOCKS, 0)
        for number in range(history.first, history.end):
            told = history.read(number)
            if isinstance(told, RecordedEvent) and told.block_number > self._turned_at:
                is_gap_before = history.first > 0 and number == history.first
                return -1 if is_gap_before else number
        return history.end


def _place_before(history: HistoryPort, number: int, place: Place) -> Place:
    """Return the place after the last event that still holds before an entry of the history."""
    limit: int | None = None
    for earlier in range(number, history.first - 1, -1):
        if earlier >= history.end:
            continue
        told = history.read(earlier)
        if isinstance(told, TakenBack):
            limit = told.block_number if limit is None else min(limit, told.block_number)
        elif limit is None or told.block_number <= limit:
            return place.after_event(told)
    return Place(fact=place.fact)
