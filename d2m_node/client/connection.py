"""Connections to a node. The CLI and the devnet use nothing else."""

import itertools
import json
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
import msgspec

from d2m_node.client.method import ErrorCode, Method, P, R
from d2m_node.client.places import TIMEOUT, Place, TcpPlace
from d2m_node.errors import NodeError

_HEADERS: Final = {"content-type": "application/json"}


class CallRefused(NodeError):
    """The node answered with an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class RpcClient:
    """Blocking calls, for commands."""

    def __init__(self, place: Path | TcpPlace) -> None:
        """Connect to a unix socket, or over TCP."""
        self._place = Place(place)
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=self._place.socket),
            base_url=self._place.base_url,
            auth=self._place.auth,
            headers=_HEADERS,
            timeout=TIMEOUT,
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
        self._place.check()
        try:
            response = self._http.post("", content=_write(next(self._ids), method, params))
        except httpx.TransportError as exc:
            raise self._place.explain(exc) from exc
        return _unwrap(response)


class AsyncRpcClient:
    """The same calls, awaited under trio."""

    def __init__(self, place: Path | TcpPlace) -> None:
        """Connect to a unix socket, or over TCP."""
        self._place = Place(place)
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=self._place.socket),
            base_url=self._place.base_url,
            auth=self._place.auth,
            headers=_HEADERS,
            timeout=TIMEOUT,
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
        return _read(method, await self.call_by_name(method.name, msgspec.to_builtins(params)))

    async def call_by_name(self, method: str, params: object) -> object:
        """Call any method with plain values. Raises NodeUnreachable and CallRefused."""
        self._place.check()
        try:
            response = await self._http.post("", content=_write(next(self._ids), method, params))
        except httpx.TransportError as exc:
            raise self._place.explain(exc) from exc
        return _unwrap(response)


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
