"""JSON-RPC 2.0 by HTTP POST: on a unix socket of mode 0600, and over TCP for those with a token."""

from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Final

import structlog
import trio
from msgspec import UnsetType
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from d2m_node.client import MAX_REQUEST_BYTES, NODE_STOP, ErrorCode
from d2m_node.rpc.calls import (
    Call,
    Dispatcher,
    Outcome,
    decode_call,
    describe_error,
    make_answer,
)
from d2m_node.rpc.events import EventDesk
from d2m_node.rpc.gates import Gate, Refused, SocketGate, TokenGate
from d2m_node.rpc.listeners import open_tcp_listener, open_unix_listener, serve_connections
from d2m_node.rpc.methods import RpcContext
from d2m_node.rpc.tokens import Tokens
from d2m_node.settings import RpcSettings
from d2m_node.user_input import parse_listen_address

log = structlog.get_logger(__name__)

READ_SECONDS: Final = 10.0
"""For a request to arrive whole."""

MAX_CALLS: Final = 64
"""Of one listener at a time; some wait for the chain."""

DAY_SECONDS: Final = 24 * 60 * 60


async def serve_rpc(
    settings: RpcSettings,
    context: RpcContext,
    *,
    task_status: trio.TaskStatus[int | None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer the operator until cancelled.

    Started once the socket takes connections, with the port of the TCP listener if there is one.

    Raises
    ------
    UserError
        If a listener cannot be opened there, or a token's file cannot be used.
    FatalError
        If a method met one: it is answered, then the node must stop.
    """
    tokens = None
    if settings.tcp is not None:
        tokens = Tokens(settings.tokens, settings.token_days * DAY_SECONDS)
        await trio.to_thread.run_sync(tokens.open)
    house = _House(replace(context, tokens=tokens))
    dispatcher = house.dispatcher
    with open_unix_listener(settings.socket) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.events.run, context.stop)
            app = _Door(house, SocketGate()).app
            await nursery.start(serve_connections, app, listener)
            port = None
            if tokens is not None:
                nursery.start_soon(tokens.run)
                port = await nursery.start(_serve_tcp, settings, house, tokens)
            log.info("rpc_ready", socket=str(settings.socket))
            task_status.started(port)
            await dispatcher.failed.wait()
            assert dispatcher.failure is not None
            raise dispatcher.failure


async def _serve_tcp(
    settings: RpcSettings,
    house: "_House",
    tokens: Tokens,
    *,
    task_status: trio.TaskStatus[int],
) -> None:
    assert settings.tcp is not None
    address, asked = parse_listen_address(settings.tcp)
    gate = TokenGate(tokens, [address, *settings.hosts])
    with open_tcp_listener(address, asked) as listener:
        port: int = listener.socket.getsockname()[1]
        log.info("rpc_tcp_ready", address=address, port=port)
        async with trio.open_nursery() as nursery:
            app = _Door(house, gate).app
            await nursery.start(serve_connections, app, listener)
            task_status.started(port)


class _House:
    """What all doors lead to."""

    def __init__(self, context: RpcContext) -> None:
        self.context = context
        self.dispatcher = Dispatcher(context)
        self.events = EventDesk(context.ports.chain, context.herald)


class _Door:
    """The HTTP application of one listener: who comes in by its gate may call."""

    def __init__(self, house: _House, gate: Gate) -> None:
        self._context = house.context
        self._dispatcher = house.dispatcher
        self._events = house.events
        self._gate = gate
        self._calls = 0
        routes = [
            Route("/", self._post, methods=["POST"]),
            Route("/events", self._subscribe, methods=["GET"]),
        ]
        self.app = Starlette(routes=routes)

    async def _post(self, request: Request) -> Response:
        try:
            scope = self._gate.admit(request.headers)
            _check_content_type(request)
            with self._count_call():
                call = decode_call(await _read_body(request))
                outcome = await self._dispatcher.run(call, scope)
        except Refused as refused:
            return _answer_refused(refused)
        return self._answer(call, outcome)

    async def _subscribe(self, request: Request) -> Response:
        try:
            self._gate.admit(request.headers)  # every scope may look
            return self._events.subscribe(request)
        except Refused as refused:
            return _answer_refused(refused)

    def _answer(self, call: Call, outcome: Outcome) -> Response:
        stops = call.method == NODE_STOP.name and "result" in outcome
        follow_up = BackgroundTask(self._follow_up, stops=stops)
        if isinstance(call.id, UnsetType):
            return Response(status_code=204, background=follow_up)
        return JSONResponse(make_answer(call.id, outcome), background=follow_up)

    async def _follow_up(self, *, stops: bool) -> None:
        """End what is to end. After the answer: stopping cuts off whatever is being sent."""
        if stops:
            self._context.stop.set()
        if self._dispatcher.failure is not None:
            self._dispatcher.failed.set()

    @contextmanager
    def _count_call(self) -> Iterator[None]:
        """Let no more than `MAX_CALLS` run at once. Raises Refused."""
        if self._calls >= MAX_CALLS:
            message = f"{MAX_CALLS} calls are under way; try again"
            raise Refused(ErrorCode.BUSY, message, status=503)
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1


def _answer_refused(refused: Refused) -> Response:
    headers = {"www-authenticate": "Bearer"} if refused.status == 401 else None
    outcome = describe_error(refused.code, str(refused))
    return JSONResponse(make_answer(None, outcome), status_code=refused.status, headers=headers)


def _check_content_type(request: Request) -> None:
    """Refuse what a web page can make a browser send without asking. Raises Refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        message = "the Content-Type of a request is application/json"
        raise Refused(ErrorCode.NO_REQUEST, message, status=415)


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        try:
            with trio.fail_after(READ_SECONDS):
                async for chunk in chunks:
                    body += chunk
                    if len(body) > MAX_REQUEST_BYTES:
                        message = f"a request has at most {MAX_REQUEST_BYTES} bytes"
                        raise Refused(ErrorCode.NO_REQUEST, message, status=413)
        except trio.TooSlowError:
            message = f"a request arrives within {READ_SECONDS:.0f} seconds"
            raise Refused(ErrorCode.NO_REQUEST, message, status=408) from None
        except ClientDisconnect:  # nobody reads this
            raise Refused(ErrorCode.NO_REQUEST, "the request broke off", status=400) from None
    return bytes(body)
