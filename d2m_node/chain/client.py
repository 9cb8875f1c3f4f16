"""JSON-RPC in worker threads, over several endpoints.

Requests go through web3's HTTP provider as raw JSON-RPC: its contract objects cost milliseconds
a call, and its async client needs asyncio. web3 is imported with the first client, because the
import takes a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import requests
import structlog
import trio

from d2m_node.errors import ChainUnavailable, WrongNetwork

if TYPE_CHECKING:
    from web3.providers.rpc import HTTPProvider
    from web3.types import RPCEndpoint

REQUEST_TIMEOUT_SECONDS = 10.0
WORKER_THREADS = 4

Json = Any
"""What a JSON parser returns; whoever asked checks what it takes from it."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """One JSON-RPC call."""

    method: str
    params: tuple[Json, ...] = ()


class RequestRefused(ChainUnavailable):
    """An endpoint answered a request with a JSON-RPC error.

    Whoever can tell what the error means catches it; to all others the chain is unavailable.
    """

    def __init__(self, method: str, code: int, message: str, data: Json) -> None:
        super().__init__(f"{method} refused: {message} (code {code})")
        self.code = code
        self.message = message
        self.data = data


class RpcClient:
    """Asks one endpoint at a time; turns to the next when it fails."""

    def __init__(self, urls: Sequence[str], chain_id: int | None = None) -> None:
        """Prepare the endpoints; nothing is sent yet.

        ``chain_id`` is asked of each endpoint before its first answer is believed.
        """
        limiter = trio.CapacityLimiter(WORKER_THREADS)
        self._endpoints = [_Endpoint(url, chain_id, limiter) for url in urls]
        self._current = 0
        self._answered_at = trio.current_time()

    @property
    def silent_seconds(self) -> float:
        """Time since an endpoint last answered."""
        return trio.current_time() - self._answered_at

    def close(self) -> None:
        """Drop the connections."""
        for endpoint in self._endpoints:
            endpoint.close()

    def distrust_endpoint(self) -> None:
        """Turn to the next endpoint, because the answers of this one make no sense."""
        self._turn_from(self._current)

    async def call(self, method: str, *params: Json) -> Json:
        """Make one request.

        Raises
        ------
        RequestRefused
            If the endpoint answers with an error.
        ChainUnavailable
            If no endpoint answers.
        WrongNetwork
            If an endpoint serves another chain.
        """
        (answer,) = await self.batch([Request(method, params)])
        if isinstance(answer, RequestRefused):
            raise answer
        return answer

    async def batch(self, batch: Sequence[Request]) -> list[Json]:
        """Make several requests in one round trip; a refused one yields its RequestRefused.

        The endpoint may work on them in any order. Raises ChainUnavailable and WrongNetwork.
        """
        failures = []
        for _ in self._endpoints:
            position = self._current
            endpoint = self._endpoints[position]
            try:
                answers = await endpoint.ask(batch)
            except ChainUnavailable as exc:
                failures.append(str(exc))
                self._turn_from(position)
            else:
                self._answered_at = trio.current_time()
                return answers
        raise ChainUnavailable("; ".join(failures))

    def _turn_from(self, position: int) -> None:
        if position == self._current and len(self._endpoints) > 1:
            self._current = (position + 1) % len(self._endpoints)
            log.warning("chain_endpoint_changed", url=self._endpoints[self._current].url)


class _Endpoint:
    """One URL and its connections."""

    def __init__(self, url: str, chain_id: int | None, limiter: trio.CapacityLimiter) -> None:
        self.url = url
        self._chain_id = chain_id
        self._chain_checked = chain_id is None
        self._limiter = limiter
        self._session = requests.Session()
        self._provider: HTTPProvider | None = None

    def close(self) -> None:
        self._session.close()

    async def ask(self, batch: Sequence[Request]) -> list[Json]:
        if self._chain_checked:
            return await self._ask(batch)
        answers = await self._ask([Request("eth_chainId"), *batch])
        self._check_chain(answers[0])
        return answers[1:]

    def _check_chain(self, answer: Json) -> None:
        chain_id = parse_quantity(answer)
        if chain_id != self._chain_id:
            raise WrongNetwork(
                f"{self.url} serves chain {chain_id}, but the settings name chain "
                f"{self._chain_id}; set the right rpc url or chain id"
            )
        self._chain_checked = True

    async def _ask(self, batch: Sequence[Request]) -> list[Json]:
        # A thread that sends a transaction is waited for, so that its outcome is known.
        is_sending = any(request.method == "eth_sendRawTransaction" for request in batch)
        raw = await trio.to_thread.run_sync(
            partial(self._post, batch), abandon_on_cancel=not is_sending, limiter=self._limiter
        )
        if not isinstance(raw, list) or len(raw) != len(batch):
            raise ChainUnavailable(f"{self.url}: the answer to a batch is not a batch")
        return [
            self._read_answer(request, answer) for request, answer in zip(batch, raw, strict=True)
        ]

    def _post(self, batch: Sequence[Request]) -> Json:
        try:
            return self._open_provider().make_batch_request(
                [(cast("RPCEndpoint", request.method), list(request.params)) for request in batch]
            )
        except requests.RequestException as exc:
            raise ChainUnavailable(f"{self.url}: {_shorten(exc)}") from exc
        except (ValueError, TypeError, AttributeError) as exc:  # what no JSON-RPC server says
            raise ChainUnavailable(f"{self.url}: the answer is not JSON-RPC") from exc

    def _open_provider(self) -> HTTPProvider:
        if self._provider is None:
            from web3.providers.rpc import HTTPProvider

            self._provider = HTTPProvider(
                self.url,
                request_kwargs={"timeout": REQUEST_TIMEOUT_SECONDS},
                session=self._session,
                exception_retry_configuration=None,
            )
        return self._provider

    def _read_answer(self, request: Request, answer: Json) -> Json:
        match answer:
            case {"error": {"code": int(code), "message": str(message)} as error}:
                return RequestRefused(request.method, code, message, error.get("data"))
            case {"result": result}:
                return result
            case _:
                raise ChainUnavailable(f"{self.url}: {request.method} has neither result nor error")


def parse_quantity(value: Json) -> int:
    """Read a JSON-RPC quantity. Raises ChainUnavailable if it is none."""
    try:
        return int(value, 16)
    except (TypeError, ValueError) as exc:
        raise ChainUnavailable(f"{_shorten(value)} is not a quantity") from exc


def parse_bytes(value: Json, length: int | None = None) -> bytes:
    """Read JSON-RPC data, of ``length`` bytes if given. Raises ChainUnavailable otherwise."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            data = bytes.fromhex(value[2:])
        except ValueError:
            data = None
        if data is not None and length in (None, len(data)):
            return data
    raise ChainUnavailable(f"{_shorten(value)} is not data of the expected length")


def to_hex(data: bytes) -> str:
    """Write JSON-RPC data."""
    return "0x" + data.hex()


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "..."
