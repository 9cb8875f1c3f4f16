"""One JSON-RPC endpoint over HTTP: every wait and every answer is bounded."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from math import inf

import httpx
import trio

from d2m_node.chain.blocks import parse_block
from d2m_node.chain.json_rpc import (
    Json,
    Request,
    RequestRefused,
    decode_answers,
    encode_batch,
    parse_quantity,
    shorten,
)
from d2m_node.errors import ChainUnavailable, UserError, WrongNetwork
from d2m_node.settings import EndpointSettings

RATE_LIMIT_SECONDS = 1.0
"""How long an endpoint that limits us rests when it does not say how long."""
LONGEST_REST_SECONDS = 300.0
_LIMIT_EXCEEDED = -32005  # EIP-1474; for eth_getLogs it means that the range is too long


class AnswerTooLarge(ChainUnavailable):
    """An answer exceeds the bound; whoever can, asks for less."""


class _RateLimited(ChainUnavailable):
    """An endpoint wants to be left alone."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = min(seconds, LONGEST_REST_SECONDS)


class _Body(httpx.AsyncByteStream):
    """What is posted. No generator, of which trio would complain when a request is cancelled."""

    def __init__(self, content: bytes) -> None:
        self._parts = iter([content])

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for part in self._parts:
            return part
        raise StopAsyncIteration


class Endpoint:
    """One URL, and what is known of how well it serves."""

    def __init__(
        self, url: str, http: httpx.AsyncClient, settings: EndpointSettings, chain_id: int | None
    ) -> None:
        """Prepare to ask; nothing is sent yet.

        ``chain_id`` is asked of the endpoint before its first answer, and before the first one
        after each failure, is believed; None asks nothing. Raises UserError.
        """
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as exc:
            raise UserError(f"chain.rpc_urls: {url!r} is no URL: {exc}") from exc
        self._url = url
        # The rest of a URL often holds the operator's secret.
        self.name = f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"
        """Scheme, host and port, for people."""
        self._http = http
        self._settings = settings
        self._chain_id = chain_id
        self._is_checked = chain_id is None
        self._rest_until = -inf
        self._distrusted_until = -inf
        self._is_failing = False
        self.is_lagging = False
        """Behind another endpoint; whoever compares them says so."""

    @property
    def is_fit(self) -> bool:
        """Whether the endpoint is worth asking before others."""
        is_trusted = trio.current_time() >= self._distrusted_until
        return is_trusted and not (self._is_failing or self.is_lagging)

    @property
    def is_resting(self) -> bool:
        """Whether the endpoint asked not to be asked for now."""
        return trio.current_time() < self._rest_until

    def distrust(self) -> None:
        """Ask others first for a while: its answers made no sense together."""
        self._distrusted_until = trio.current_time() + self._settings.distrust_seconds

    async def ask(self, batch: Sequence[Request]) -> list[Json]:
        """Make several requests; a refused one yields its RequestRefused.

        Raises
        ------
        AnswerTooLarge
            If the answer exceeds the bound.
        ChainUnavailable
            If there is none in time, it is no JSON-RPC, or the endpoint limits our rate.
        WrongNetwork
            If the endpoint serves another chain.
        """
        try:
            answers = await self._ask_checked(batch)
        except AnswerTooLarge:
            raise
        except (ChainUnavailable, WrongNetwork) as exc:
            self._is_failing = True
            self._is_checked = self._chain_id is None
            if isinstance(exc, _RateLimited):
                self._rest_until = trio.current_time() + exc.seconds
            raise
        self._is_failing = False
        return answers

    async def read_head(self) -> int:
        """Read the number of the newest block; check the chain again. Raises as `ask`."""
        self._is_checked = self._chain_id is None
        (head,) = await self.ask([Request("eth_getBlockByNumber", ("latest", False))])
        return parse_block(head).number

    async def _ask_checked(self, batch: Sequence[Request]) -> list[Json]:
        if self._is_checked:
            return await self._ask_in_parts(batch)
        answers = await self._ask_in_parts([Request("eth_chainId"), *batch])
        chain_id = parse_quantity(answers[0])
        if chain_id != self._chain_id:
            raise WrongNetwork(
                f"{self.name} serves chain {chain_id}, but the settings name chain "
                f"{self._chain_id}; set the right rpc url or chain id"
            )
        self._is_checked = True
        return answers[1:]

    async def _ask_in_parts(self, batch: Sequence[Request]) -> list[Json]:
        """Split what providers would not take in one piece."""
        size = self._settings.batch_requests
        answers: list[Json] = []
        for start in range(0, len(batch), size):
            answers += await self._ask_part(batch[start : start + size])
        return answers

    async def _ask_part(self, batch: Sequence[Request]) -> list[Json]:
        try:
            with trio.fail_after(self._settings.request_seconds):
                body = await self._post(encode_batch(batch))
            answers = decode_answers(batch, body)
        except (trio.TooSlowError, httpx.TimeoutException) as exc:
            seconds = self._settings.request_seconds
            raise ChainUnavailable(f"{self.name}: no answer within {seconds:g} seconds") from exc
        except httpx.HTTPError as exc:
            reason = shorten(exc) or type(exc).__name__
            raise ChainUnavailable(f"{self.name}: {reason}") from exc
        except (AnswerTooLarge, _RateLimited):
            raise
        except ChainUnavailable as exc:
            raise ChainUnavailable(f"{self.name}: {exc}") from exc
        for answer in answers:
            if isinstance(answer, RequestRefused) and _is_rate_limit(answer):
                raise _RateLimited(f"{self.name}: {answer}", RATE_LIMIT_SECONDS)
        return answers

    async def _post(self, content: bytes) -> bytes:
        """Send, and read the answer as far as the bound allows."""
        headers = {
            "content-type": "application/json",
            "content-length": str(len(content)),
            "accept-encoding": "identity",
        }
        request = self._http.build_request("POST", self._url, headers=headers)
        request.stream = _Body(content)
        async with aclosing(await self._http.send(request, stream=True)) as response:
            if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
                raise _RateLimited(f"{self.name}: limits our rate", _read_retry_after(response))
            if response.status_code != httpx.codes.OK:
                raise ChainUnavailable(f"HTTP status {response.status_code}")
            body = bytearray()
            # Cancelled from within, because trio wants every generator of httpx to be exhausted.
            with trio.CancelScope() as reading:
                # Raw: what is compressed all the same grows past any bound when it is unpacked.
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > self._settings.answer_bytes:
                        reading.cancel()
            if len(body) > self._settings.answer_bytes:
                raise AnswerTooLarge(
                    f"{self.name}: an answer above {self._settings.answer_bytes} bytes"
                )
            return bytes(body)


def _is_rate_limit(refused: RequestRefused) -> bool:
    if refused.code == httpx.codes.TOO_MANY_REQUESTS:
        return True
    return refused.code == _LIMIT_EXCEEDED and refused.method != "eth_getLogs"


def _read_retry_after(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else RATE_LIMIT_SECONDS
