"""Streams of events that go on after a break, from where they were.

    with node.events(kinds=["round", "job.settled"], job=3) as events:
        for event in events:
            ...

It is connected when the context is open. A stream ends only by an error: NodeUnreachable when the
node stays away longer than the patience, CallRefused with EVENTS_GONE when the next events are no
longer kept.
"""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import httpx
import msgspec

from d2m_node.client.events import STREAM_ENDED, STREAM_OPENED, NodeEvent
from d2m_node.client.method import ErrorCode
from d2m_node.client.places import CONNECT_SECONDS, CallRefused, Place, read_answer

PATIENCE_SECONDS: Final = 60.0
"""How long an unreachable node is tried again."""
PAUSE_SECONDS: Final = 0.5
SILENCE_SECONDS: Final = 45.0
"""A node sends something at least every 15 seconds; three times as long means that it is gone."""

_TIMEOUT: Final = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
_PATH: Final = "events"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events, and from where on."""

    kinds: Iterable[str] = ()
    """Kinds like round.decided, or groups of them like round; all but blocks if empty."""
    job: int | None = None
    after: str | None = None
    """A cursor, or START; from now on if None."""
    patience_seconds: float = PATIENCE_SECONDS

    def params(self, cursor: str | None) -> httpx.QueryParams:
        """Return the query's parameters, to go on after a cursor."""
        found: list[tuple[str, str]] = [("kind", kind) for kind in self.kinds]
        if self.job is not None:
            found.append(("job", str(self.job)))
        if cursor is not None:
            found.append(("after", cursor))
        return httpx.QueryParams(tuple(found))


class _Progress:
    """What a stream has seen, and for how long the node has been away."""

    def __init__(self, query: EventQuery, place: Place, now: Callable[[], float]) -> None:
        self.cursor = query.after
        self._patience_seconds = query.patience_seconds
        self._place = place
        self._now = now
        self._lost_since: float | None = None

    def take(self, event: NodeEvent) -> bool:
        """Note an event; return whether it is for the reader."""
        self.cursor = event.cursor
        self._lost_since = None
        return event.kind not in (STREAM_OPENED, STREAM_ENDED)

    def lose(self, error: httpx.TransportError) -> None:
        """Note a break. Raises NodeUnreachable when patience is over."""
        now = self._now()
        self._lost_since = self._lost_since or now
        if now - self._lost_since >= self._patience_seconds:
            raise self._place.explain(error) from error


class EventStream:
    """Events, one after the other, in a blocking loop."""

    def __init__(self, http: httpx.Client, place: Place, query: EventQuery) -> None:
        self._http = http
        self._place = place
        self._query = query
        self._progress = _Progress(query, place, time.monotonic)
        self._open = ExitStack()
        self._lines: Iterator[str] | None = None

    @property
    def cursor(self) -> str | None:
        """Where the stream stands: another one can go on from here."""
        return self._progress.cursor

    def __enter__(self) -> Self:
        """Connect: what happens from now on is not missed. Raises NodeUnreachable, CallRefused."""
        try:
            self._progress.take(self._read())
        except httpx.TransportError as exc:
            self._hang_up()
            raise self._place.explain(exc) from exc
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> NodeEvent:
        """Return the next event. Raises NodeUnreachable, CallRefused."""
        while True:
            try:
                event = self._read()
            except httpx.TransportError as exc:
                self._hang_up()
                self._progress.lose(exc)
                time.sleep(PAUSE_SECONDS)
                continue
            if self._progress.take(event):
                return event
            if event.kind == STREAM_ENDED:
                self._hang_up()
                time.sleep(PAUSE_SECONDS)

    def _read(self) -> NodeEvent:
        if self._lines is None:
            self._place.check_connect()
            params = self._query.params(self._progress.cursor)
            request = self._http.stream("GET", _PATH, params=params, timeout=_TIMEOUT)
            response = self._open.enter_context(request)
            if response.status_code != httpx.codes.OK:
                response.read()
                read_answer(response)
            self._lines = response.iter_lines()
        for line in self._lines:
            if line.startswith("data:"):
                return _parse(line)
        raise httpx.RemoteProtocolError("the stream broke off")

    def _hang_up(self) -> None:
        self._lines = None
        self._open.close()


class AsyncEventStream:
    """The same, awaited under trio."""

    def __init__(self, http: httpx.AsyncClient, place: Place, query: EventQuery) -> None:
        self._http = http
        self._place = place
        self._query = query
        import trio  # the blocking client, and so the command line, does without

        self._pause = trio.sleep
        self._progress = _Progress(query, place, trio.current_time)
        self._response: httpx.Response | None = None
        self._lines: AsyncIterator[str] | None = None

    @property
    def cursor(self) -> str | None:
        """Where the stream stands: another one can go on from here."""
        return self._progress.cursor

    async def __aenter__(self) -> Self:
        """Connect: what happens from now on is not missed. Raises NodeUnreachable, CallRefused."""
        try:
            self._progress.take(await self._read())
        except httpx.TransportError as exc:
            await self._hang_up()
            raise self._place.explain(exc) from exc
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._hang_up()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> NodeEvent:
        """Return the next event. Raises NodeUnreachable, CallRefused."""
        while True:
            try:
                event = await self._read()
            except httpx.TransportError as exc:
                await self._hang_up()
                self._progress.lose(exc)
                await self._pause(PAUSE_SECONDS)
                continue
            if self._progress.take(event):
                return event
            if event.kind == STREAM_ENDED:
                await self._hang_up()
                await self._pause(PAUSE_SECONDS)

    async def _read(self) -> NodeEvent:
        if self._lines is None:
            self._place.check_connect()
            params = self._query.params(self._progress.cursor)
            request = self._http.build_request("GET", _PATH, params=params, timeout=_TIMEOUT)
            self._response = await self._http.send(request, stream=True)
            if self._response.status_code != httpx.codes.OK:
                await self._response.aread()
                read_answer(self._response)
            self._lines = self._response.aiter_lines()
        async for line in self._lines:
            if line.startswith("data:"):
                return _parse(line)
        raise httpx.RemoteProtocolError("the stream broke off")

    async def _hang_up(self) -> None:
        response, lines = self._response, self._lines
        self._response = self._lines = None
        if response is not None:
            await response.aclose()
        if lines is not None:
            # httpx reads through many generators: by failing at the closed connection all end now.
            with suppress(httpx.TransportError):
                async for _ in lines:
                    pass


def _parse(line: str) -> NodeEvent:
    try:
        return msgspec.convert(json.loads(line.removeprefix("data:")), NodeEvent)
    except (ValueError, msgspec.ValidationError) as exc:
        message = f"the node is of another version: {exc}"
        raise CallRefused(ErrorCode.INTERNAL, message) from exc
