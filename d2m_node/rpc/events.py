"""`GET /events`: what the chain and the node tell, as server-sent events."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import msgspec
import structlog
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from d2m_node.client import STREAM_ENDED, ErrorCode, NodeEvent
from d2m_node.client.method import MAX_JOB
from d2m_node.errors import UserError
from d2m_node.ports import ChainPort
from d2m_node.rpc.gates import Refused
from d2m_node.rpc.herald import Herald
from d2m_node.rpc.subscriptions import EventsGone, Filter, Subscription

log = structlog.get_logger(__name__)

SILENCE_SECONDS: Final = 15.0
"""After so long without an event a comment is sent, so that both sides see a dead connection."""

MAX_SUBSCRIBERS: Final = 32

JOB_DIGITS: Final = 19

_PARAMETERS: Final = frozenset({"kind", "job", "after"})
_STILL_HERE: Final = b": still here\n\n"


class EventDesk:
    """Takes subscribers, and wakes them when there may be something new."""

    def __init__(self, chain: ChainPort, herald: Herald) -> None:
        self._chain = chain
        self._herald = herald
        self._bell = trio.Event()
        self._subscribers = 0
        self.is_closing = False

    async def run(self, stop: trio.Event) -> NoReturn:
        """Wake subscribers until cancelled; let them go when the node is told to stop."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_chain)
            nursery.start_soon(self._watch_herald)
            await stop.wait()
            self.is_closing = True
            self._ring()
            await trio.sleep_forever()

    async def wait(self) -> None:
        """Return when there may be something new."""
        await self._bell.wait()

    def subscribe(self, request: Request) -> Response:
        """Answer a request with a stream. Raises Refused."""
        if self._subscribers >= MAX_SUBSCRIBERS:
            message = f"{MAX_SUBSCRIBERS} subscribers are here; try again"
            raise Refused(ErrorCode.BUSY, message, status=503)
        try:
            wanted, after = _read_query(request)
            subscription = Subscription(self._chain, self._herald, self, wanted, after)
        except EventsGone as exc:
            raise Refused(ErrorCode.EVENTS_GONE, str(exc), status=410) from exc
        except UserError as exc:
            raise Refused(ErrorCode.WRONG_PARAMS, str(exc), status=400) from exc
        return _EventResponse(self, subscription)

    @contextmanager
    def count(self) -> Iterator[None]:
        """Count a subscriber as long as it is here."""
        self._subscribers += 1
        try:
            yield
        finally:
            self._subscribers -= 1

    async def _watch_chain(self) -> None:
        seen = self._chain.state
        while True:
            seen = await self._chain.wait_for(lambda now: None if now is seen else now)  # noqa: B023
            self._ring()

    async def _watch_herald(self) -> None:
        while True:
            await self._herald.wait()
            self._ring()

    def _ring(self) -> None:
        self._bell.set()
        self._bell = trio.Event()


class _EventResponse(Response):
    """A stream of events, until its client goes or it ends."""

    media_type = "text/event-stream"

    def __init__(self, desk: EventDesk, subscription: Subscription) -> None:
        super().__init__(headers={"cache-control": "no-store", "connection": "close"})
        del self.headers["content-length"]
        self._desk = desk
        self._subscription = subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        if scope["method"] == "HEAD":  # it has no body, and nothing to wait for
            await send(start)
            await send(_make_body(b"", is_last=True))
            return
        last: NodeEvent | None = None
        with self._desk.count():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_watch_client, receive, nursery.cancel_scope)
                await send(start)
                last = await self._send_events(send)
                nursery.cancel_scope.cancel()
            if last is not None:
                # Nobody watches any more: hypercorn calls the end of a stream a disconnect too.
                await send(_make_body(_format(last), is_last=True))

    async def _send_events(self, send: Send) -> NodeEvent:
        """Send events for as long as there are any to come; return the last one."""
        events = [self._subscription.open()]
        while events[-1].kind != STREAM_ENDED:
            await send(_make_body(b"".join(map(_format, events))))
            events = await self._wait_events(send)
        return events[-1]

    async def _wait_events(self, send: Send) -> list[NodeEvent]:
        """Return the next events; meanwhile show now and then that the node is still here."""
        while True:
            with trio.move_on_after(SILENCE_SECONDS):
                return await self._subscription.next()
            await send(_make_body(_STILL_HERE))


async def _watch_client(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _make_body(chunk: bytes, *, is_last: bool = False) -> dict[str, object]:
    return {"type": "http.response.body", "body": chunk, "more_body": not is_last}


def _format(event: NodeEvent) -> bytes:
    """Write an event: its cursor is the id, which browsers send back when they reconnect."""
    data = msgspec.json.encode(event).decode()
    return f"id: {event.cursor}\nevent: {event.kind}\ndata: {data}\n\n".encode()


def _read_query(request: Request) -> tuple[Filter, str | None]:
    """Return what is asked for, and after which cursor. Raises UserError."""
    query = request.query_params
    for name in query:
        if name not in _PARAMETERS:
            raise UserError(f"unknown parameter {name[:40]!r}; known: after, job, kind")
    job: int | None = None
    if "job" in query:
        text = query["job"]
        job = int(text) if text.isascii() and text.isdecimal() and len(text) <= JOB_DIGITS else 0
        if not 1 <= job <= MAX_JOB:
            raise UserError(f"job: {text[:40]!r} is no number of a job")
    after = query.get("after", request.headers.get("last-event-id"))
    return Filter(kinds=tuple(query.getlist("kind")), job=job), after
