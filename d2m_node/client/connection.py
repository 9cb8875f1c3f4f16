"""Connections to a node's socket. The CLI and the devnet use nothing else."""

import itertools
import json
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
import msgspec

from d2m_node.client.method import ErrorCode, Method, P, R
from d2m_node.errors import NodeError, TransientError

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 600.0
"""Some calls wait for the chain to confirm."""

_BASE_URL: Final = "http://node/"
_TIMEOUT: Final = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)


class NodeUnreachable(TransientError):
    """No node answers on the socket."""


class CallRefused(NodeError):
    """The node answered with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class RpcClient:
    """Blocking calls, for commands."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)), base_url=_BASE_URL, timeout=_TIMEOUT
        )
        self._ids = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def call(self, method: Method[P, R], params: P) -> R:
        """Call a method. Raises NodeUnreachable and CallRefused."""
        return _read(method, self.call_by_name(method.name, msgspec.to_builtins(params)))

    def call_by_name(self, method: str, params: object) -> object:
        """Call any method with plain values. Raises NodeUnreachable and CallRefused."""
        if not self._socket.exists():  # httpcore would leave its own socket open
            raise _unreachable(self._socket, httpx.ConnectError("no such file"))
        try:
            response = self._http.post("", content=_write(next(self._ids), method, params))
        except httpx.TransportError as exc:
            raise _unreachable(self._socket, exc) from exc
        return _unwrap(response)


class AsyncRpcClient:
    """The same calls, awaited under trio."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket)),
            base_url=_BASE_URL,
            timeout=_TIMEOUT,
        )
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def call(self, method: Method[P, R], params: P) -> R:
        """Call a method. Raises NodeUnreachable and CallRefused."""
        content = _write(next(self._ids), method.name, msgspec.to_builtins(params))
        try:
            response = await self._http.post("", content=content)
        except httpx.TransportError as exc:
            raise _unreachable(self._socket, exc) from exc
        return _read(method, _unwrap(response))


def _write(call_id: int, method: str, params: object) -> bytes:
    call = {"jsonrpc": "2.0", "id": call_id, "method": method, "params": params}
    return json.dumps(call).encode()


def _unwrap(response: httpx.Response) -> object:
    """Return the result in an answer. Raises CallRefused."""
    if response.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
        raise CallRefused(ErrorCode.INTERNAL, "the node failed inside; its log says where")
    try:
        answer = response.json()
    except ValueError as exc:
        raise CallRefused(ErrorCode.NO_JSON, "the answer is no JSON; is it a d2m-node?") from exc
    error = answer.get("error")
    if error is not None:
        raise CallRefused(int(error["code"]), str(error["message"]))
    result: object = answer.get("result")
    return result


def _read(method: Method[P, R], plain: object) -> R:
    try:
        return msgspec.convert(plain, method.result)
    except msgspec.ValidationError as exc:
        raise CallRefused(
            ErrorCode.INTERNAL, f"{method.name}: the node is of another version: {exc}"
        ) from exc


def _unreachable(socket: Path, error: httpx.TransportError) -> NodeUnreachable:
    if isinstance(error, httpx.ConnectError):
        return NodeUnreachable(f"no node answers on {socket}; start it with d2m-node run")
    return NodeUnreachable(f"the node on {socket} stopped answering: {type(error).__name__}")
