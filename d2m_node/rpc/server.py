"""JSON-RPC 2.0 by HTTP POST on a unix socket of mode 0600."""

import logging
import os
import socket as sockets
import stat
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Final, Literal

import hypercorn.trio
import msgspec
import structlog
import trio
from hypercorn.config import Config
from msgspec import UNSET, Struct, UnsetType
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from d2m_node.client import MAX_REQUEST_BYTES, NODE_STOP, ErrorCode
from d2m_node.errors import (
    FatalError,
    JobFailed,
    NodeError,
    TransactionReverted,
    TransientError,
    UserError,
)
from d2m_node.rpc.methods import ENDPOINTS, RpcContext
from d2m_node.user_input import explain_mismatch, explain_unknown_key
from protocol.errors import ProtocolError

log = structlog.get_logger(__name__)

READ_SECONDS: Final = 10.0
"""For a request to arrive whole."""

MAX_BRACKETS: Final = 1000

_CODES: Final = (
    (UserError, ErrorCode.USER_ERROR),
    (TransientError, ErrorCode.UNAVAILABLE),
    (TransactionReverted, ErrorCode.REVERTED),
    (JobFailed, ErrorCode.JOB_FAILED),
    (ProtocolError, ErrorCode.RULE_BROKEN),
    (FatalError, ErrorCode.FATAL),
)


class _Call(Struct, frozen=True, kw_only=True):
    """The envelope of a request; without an id it is a notification, and not answered."""

    jsonrpc: Literal["2.0"]
    method: str
    params: dict[str, object] = {}
    id: int | str | UnsetType | None = UNSET


async def serve_rpc(
    socket: Path,
    context: RpcContext,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer the operator until cancelled. Started once the socket takes connections.

    Raises
    ------
    UserError
        If the socket cannot be made there.
    FatalError
        If a method met one: it is answered, then the node must stop.
    """
    server = _Server(context)
    config = Config()
    config.errorlog = logging.getLogger("hypercorn.error")
    config.read_timeout = None
    with _open_socket(socket) as descriptor:
        config.bind = [f"fd://{descriptor}"]
        async with trio.open_nursery() as nursery:
            await nursery.start(hypercorn.trio.serve, server.app, config)
            log.info("rpc_ready", socket=str(socket))
            task_status.started()
            await server.failed.wait()
            assert server.failure is not None
            raise server.failure


class _Server:
    """The HTTP application, and the error that ends it."""

    def __init__(self, context: RpcContext) -> None:
        self._context = context
        self.app = Starlette(routes=[Route("/", self._post, methods=["POST"])])
        self.failed = trio.Event()
        self.failure: FatalError | None = None

    async def _post(self, request: Request) -> Response:
        try:
            call = _decode_call(await _read_body(request))
        except _Refused as refused:
            return JSONResponse(_answer(None, refused.outcome), status_code=refused.status)
        outcome = await self._run(call)
        stops = call.method == NODE_STOP.name and "result" in outcome
        follow_up = BackgroundTask(self._follow_up, stops=stops)
        if isinstance(call.id, UnsetType):
            return Response(status_code=204, background=follow_up)
        return JSONResponse(_answer(call.id, outcome), background=follow_up)

    async def _follow_up(self, *, stops: bool) -> None:
        """End what is to end. After the answer: stopping cuts off whatever is being sent."""
        if stops:
            self._context.stop.set()
        if self.failure is not None:
            self.failed.set()

    async def _run(self, call: _Call) -> dict[str, object]:
        endpoint = ENDPOINTS.get(call.method)
        if endpoint is None:
            return _error(ErrorCode.UNKNOWN_METHOD, explain_unknown_key(call.method, ENDPOINTS))
        try:
            return {"result": await endpoint.call(self._context, call.params)}
        except msgspec.ValidationError as exc:
            return _error(ErrorCode.WRONG_PARAMS, explain_mismatch(exc))
        except (NodeError, ProtocolError, ExceptionGroup) as exc:
            return self._explain(call, _find_only_error(exc))

    def _explain(self, call: _Call, error: NodeError | ProtocolError) -> dict[str, object]:
        code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
        if code is None:
            raise error
        log.info("rpc_refused", method=call.method, reason=str(error))
        if isinstance(error, FatalError):
            self.failure = error
        return _error(code, str(error))


class _Refused(Exception):
    """What arrived is no call."""

    def __init__(self, code: ErrorCode, message: str, status: int = 200) -> None:
        self.outcome = _error(code, message)
        self.status = status


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        try:
            with trio.fail_after(READ_SECONDS):
                async for chunk in chunks:
                    body += chunk
                    if len(body) > MAX_REQUEST_BYTES:
                        message = f"a request has at most {MAX_REQUEST_BYTES} bytes"
                        raise _Refused(ErrorCode.NO_REQUEST, message, status=413)
        except trio.TooSlowError:
            message = f"a request arrives within {READ_SECONDS:.0f} seconds"
            raise _Refused(ErrorCode.NO_REQUEST, message, status=408) from None
    return bytes(body)


def _decode_call(body: bytes) -> _Call:
    # Some libraries raise the recursion limit beyond what the stack of C holds.
    if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
        raise _Refused(ErrorCode.NO_REQUEST, f"a request has at most {MAX_BRACKETS} brackets")
    try:
        return msgspec.json.decode(body, type=_Call)
    except msgspec.ValidationError as exc:
        raise _Refused(ErrorCode.NO_REQUEST, explain_mismatch(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise _Refused(ErrorCode.NO_JSON, "the body is no JSON") from exc


def _find_only_error(error: Exception) -> NodeError | ProtocolError:
    """Return the one error of ours that a nursery may have wrapped; raise anything else."""
    found = error
    while isinstance(found, ExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    if not isinstance(found, NodeError | ProtocolError):
        raise error
    return found


def _error(code: ErrorCode, message: str) -> dict[str, object]:
    return {"error": {"code": code.value, "message": " ".join(message.split())}}


def _answer(call_id: int | str | None, outcome: dict[str, object]) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": call_id, **outcome}


@contextmanager
def _open_socket(path: Path) -> Iterator[int]:
    """Make the socket; yield its descriptor, which the server takes over and closes.

    A socket that a killed node left is replaced: the lock of the data directory says that no
    other node listens here. Raises UserError.
    """
    listener = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    # Closed to others from its first moment on.
    mask = os.umask(0o177)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()
        listener.bind(str(path))
    except OSError as exc:
        listener.close()
        raise UserError(f"rpc.socket: {path}: {exc.strerror or exc}; set another path") from exc
    finally:
        os.umask(mask)
    try:
        yield listener.detach()
    finally:
        path.unlink(missing_ok=True)
