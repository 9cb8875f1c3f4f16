"""Connections to a node. The CLI and the devnet use nothing else."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
import msgspec

from d2m_node.client.method import ErrorCode, Method, P, R
from d2m_node.client.places import TIMEOUT, CallRefused, Place, TcpPlace, read_answer
from d2m_node.client.streams import AsyncEventStream, EventQuery, EventStream

_HEADERS: Final = {"content-type": "application/json"}


class RpcClient:
    """Blocking calls, for commands."""

    def __init__(self, place: Path | TcpPlace) -> None:
        """Connect to a unix socket, or over TCP."""
        self._place = Place(place)
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(
                uds=self._place.socket, verify=self._place.checks_certificates
            ),
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
        return read_answer(response)

    def events(
        self, kinds: Iterable[str] = (), *, job: int | None = None, after: str | None = None
    ) -> EventStream:
        """Return the events of these kinds, or groups of kinds, and of this job.

        From a cursor on, from START, or from now; see `d2m_node.client.streams`.
        """
        query = EventQuery(kinds=tuple(kinds), job=job, after=after)
        return EventStream(self._http, self._place, query)


class AsyncRpcClient:
    """The same calls, awaited under trio."""

    def __init__(self, place: Path | TcpPlace) -> None:
        """Connect to a unix socket, or over TCP."""
        self._place = Place(place)
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                uds=self._place.socket, verify=self._place.checks_certificates
            ),
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
        return read_answer(response)

    def events(
        self, kinds: Iterable[str] = (), *, job: int | None = None, after: str | None = None
    ) -> AsyncEventStream:
        """Return the events of these kinds, or groups of kinds, and of this job.

        From a cursor on, from START, or from now; see `d2m_node.client.streams`.
        """
        query = EventQuery(kinds=tuple(kinds), job=job, after=after)
        return AsyncEventStream(self._http, self._place, query)


def _write(call_id: int, method: str, params: object) -> bytes:
    call = {"jsonrpc": "2.0", "id": call_id, "method": method, "params": params}
    return json.dumps(call).encode()


def _read(method: Method[P, R], plain: object) -> R:
    try:
        return msgspec.convert(plain, method.result)
    except msgspec.ValidationError as exc:
        raise CallRefused(
            ErrorCode.INTERNAL, f"{method.name}: the node is of another version: {exc}"
        ) from exc
