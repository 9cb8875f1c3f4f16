"""The chain's endpoints as one: asked in order of preference, passed over while they fail."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn

import httpx
import structlog
import trio

from d2m_node.chain.endpoint import AnswerTooLarge, Endpoint
from d2m_node.chain.json_rpc import Json, Request, RequestRefused
from d2m_node.errors import ChainUnavailable, NodeError, WrongNetwork
from d2m_node.settings import EndpointSettings

MAX_CONNECTIONS = 16
_DEFAULTS = EndpointSettings()

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_client(
    urls: Sequence[str],
    *,
    chain_id: int | None = None,
    settings: EndpointSettings = _DEFAULTS,
) -> AsyncGenerator["RpcClient", None]:
    """Hold connections to endpoints while the context is open.

    An endpoint that does not serve ``chain_id``, if given, is not believed. Raises UserError if
    one is no URL.
    """
    limits = httpx.Limits(max_connections=MAX_CONNECTIONS)
    async with httpx.AsyncClient(timeout=settings.request_seconds, limits=limits) as http:
        yield RpcClient([Endpoint(url, http, settings, chain_id) for url in urls], settings)


class RpcClient:
    """Asks the first endpoint that is fit; the next when it fails, and the first when it heals."""

    def __init__(self, endpoints: Sequence[Endpoint], settings: EndpointSettings) -> None:
        """Ask ``endpoints``, the preferred one first."""
        self._endpoints = endpoints
        self._settings = settings
        self._latest = endpoints[0]
        self._answered_at = trio.current_time()

    @property
    def silent_seconds(self) -> float:
        """Time since an endpoint last answered."""
        return trio.current_time() - self._answered_at

    def distrust_endpoint(self) -> None:
        """Ask others first for a while, because the answers of this one make no sense."""
        self._latest.distrust()

    async def call(self, method: str, *params: Json) -> Json:
        """Make one request.

        Raises
        ------
        RequestRefused
            If the endpoint answers with an error.
        ChainUnavailable
            If no endpoint answers.
        WrongNetwork
            If every endpoint serves another chain.
        """
        (answer,) = await self.batch([Request(method, params)])
        if isinstance(answer, RequestRefused):
            raise answer
        return answer

    async def batch(self, batch: Sequence[Request]) -> list[Json]:
        """Make several requests of one endpoint; a refused one yields its RequestRefused.

        The endpoint may work on them in any order. Raises AnswerTooLarge, ChainUnavailable and
        WrongNetwork.
        """
        failures: list[ChainUnavailable | WrongNetwork] = []
        for endpoint in self._list_candidates():
            try:
                answers = await endpoint.ask(batch)
            except AnswerTooLarge:
                # It would be too large from anyone.
                self._note_answer(endpoint, failures)
                raise
            except (ChainUnavailable, WrongNetwork) as exc:
                failures.append(exc)
            else:
                self._note_answer(endpoint, failures)
                return answers
        strangers = [one for one in failures if isinstance(one, WrongNetwork)]
        if len(strangers) == len(self._endpoints):
            raise strangers[0]
        reasons = [str(one) for one in failures] or ["every endpoint limits our rate"]
        raise ChainUnavailable("; ".join(reasons))

    async def watch(self) -> NoReturn:
        """Compare the endpoints now and then, until cancelled; with one, there is nothing to."""
        if len(self._endpoints) == 1:
            await trio.sleep_forever()
        while True:
            await trio.sleep(self._settings.probe_seconds)
            await self.probe()

    async def probe(self) -> None:
        """Find out which endpoints answer again, and which ones lag behind the others."""
        heads: dict[Endpoint, int] = {}

        async def read_head(endpoint: Endpoint) -> None:
            try:
                heads[endpoint] = await endpoint.read_head()
            except (ChainUnavailable, WrongNetwork) as exc:
                log.warning("chain_endpoint_unfit", endpoint=endpoint.name, reason=str(exc))

        async with trio.open_nursery() as nursery:
            for endpoint in self._endpoints:
                if not endpoint.is_resting:
                    nursery.start_soon(read_head, endpoint)
        newest = max(heads.values(), default=0)
        for endpoint, head in heads.items():
            endpoint.is_lagging = newest - head > self._settings.lag_blocks

    def _list_candidates(self) -> list[Endpoint]:
        """Those that may be asked now: fit ones first, each kind in order of preference."""
        awake = [endpoint for endpoint in self._endpoints if not endpoint.is_resting]
        return sorted(awake, key=lambda endpoint: not endpoint.is_fit)

    def _note_answer(self, endpoint: Endpoint, failures: Sequence[NodeError]) -> None:
        self._answered_at = trio.current_time()
        if endpoint is not self._latest:
            reason = "; ".join(map(str, failures)) or "it is preferred, and fit again"
            log.warning("chain_endpoint_changed", endpoint=endpoint.name, reason=reason)
            self._latest = endpoint
