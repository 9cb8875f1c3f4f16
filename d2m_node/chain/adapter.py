"""The chain as roles see it."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import trio

from d2m_node.calls import ContractCall
from d2m_node.chain.archivist import Archivist
from d2m_node.chain.artifacts import CONTRACTS, OTHERS, TOKEN, Artifact, load_artifact
from d2m_node.chain.bindings import Bindings, decode_view, encode_view
from d2m_node.chain.blocks import parse_block, parse_header
from d2m_node.chain.client import RpcClient, open_client
from d2m_node.chain.counts import add_fees
from d2m_node.chain.follower import Follower
from d2m_node.chain.json_rpc import (
    Json,
    Request,
    RequestRefused,
    parse_bytes,
    parse_quantity,
    to_hex,
)
from d2m_node.chain.nonces import Account
from d2m_node.chain.reverts import explain_refusal
from d2m_node.chain.transactions import TransactionSender
from d2m_node.errors import ChainUnavailable, TransactionReverted, WrongNetwork
from d2m_node.measures import ChainReading, FeeTotal, MeasuredChain
from d2m_node.past_jobs import PastJobs
from d2m_node.ports import HistoryPort, SignerPort
from d2m_node.retry import retry_transient
from d2m_node.settings import ChainSettings
from d2m_node.transaction_store import TransactionStore
from protocol.hashing import Domain
from protocol.market import MarketState
from protocol.params import ProtocolParams
from protocol.types import NO_ACCOUNT, Address, BlockNumber, Wei

Found = TypeVar("Found")

_VIEWS = ("contracts", "params")


@asynccontextmanager
async def open_chain(
    settings: ChainSettings,
    signer: SignerPort,
    store: TransactionStore,
    past: PastJobs | None = None,
) -> AsyncGenerator[MeasuredChain, None]:
    """Follow a market and send for one account, as long as the context is open.

    Yields once the state is that of the chain's newest block. Jobs that are long over leave the
    state for ``past``; without it none does.

    Raises
    ------
    WrongNetwork
        If the endpoint serves another chain, or the market is not there.
    ChainUnavailable
        If no endpoint answers within ``sending.patience_seconds``.
    FatalError
        If ``past`` cannot be written.
    """
    patience = settings.sending.patience_seconds
    async with open_client(
        settings.rpc_urls, chain_id=settings.chain_id, settings=settings.endpoints
    ) as client:
        market = await retry_transient(
            lambda: find_market(client, settings.market), patience_seconds=patience
        )
        archivist = None if past is None else Archivist(past, signer.address)
        if archivist is not None:
            await archivist.drop_all()
        follower = Follower(client, market.bindings, settings, archivist)
        while await retry_transient(follower.follow, patience_seconds=patience):
            pass
        account = Account(signer, store)
        sender = TransactionSender(client, follower, market.bindings, account, settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.watch)
            await nursery.start(sender.run)
            nursery.start_soon(follower.run)
            domain = Domain(settings.chain_id, settings.market)
            parts = _Parts(client, follower, sender, market.bindings, store)
            yield _Chain(domain, market.params, parts, signer.address, settings.confirmations)
            nursery.cancel_scope.cancel()


@dataclass(frozen=True, slots=True)
class _Parts:
    client: RpcClient
    follower: Follower
    sender: TransactionSender
    bindings: Bindings
    store: TransactionStore


class _Chain:
    """The adapter behind `MeasuredChain`."""

    def __init__(
        self,
        domain: Domain,
        params: ProtocolParams,
        parts: _Parts,
        account: Address,
        confirmations: int,
    ) -> None:
        self._domain = domain
        self._params = params
        self._client = parts.client
        self._follower = parts.follower
        self._sender = parts.sender
        self._bindings = parts.bindings
        self._store = parts.store
        self._account = account
        self._confirmations = confirmations

    @property
    def domain(self) -> Domain:
        return self._domain

    @property
    def params(self) -> ProtocolParams:
        return self._params

    @property
    def state(self) -> MarketState:
        return self._follower.state

    @property
    def history(self) -> HistoryPort:
        return self._follower.history

    async def wait_block(self, number: BlockNumber) -> None:
        await self._follower.wait_block(number)

    async def wait_for(self, find: Callable[[MarketState], Found | None]) -> Found:
        return await self._follower.wait_for(find)

    async def read_randomness(self, number: BlockNumber) -> bytes:
        return (await self._follower.read_header(number)).randomness

    async def read_header(self, number: BlockNumber) -> bytes:
        return (await self._follower.read_header(number)).rlp

    async def submit(self, call: ContractCall, *, key: str) -> None:
        await self._sender.submit(call, key)

    async def read_fees(self) -> Sequence[FeeTotal]:
        return add_fees(await self._store.load_fees(), self._bindings)

    def measure(self) -> ChainReading:
        open_transactions, open_blocks = self._sender.measure_open()
        return ChainReading(
            head_number=self._follower.head_number,
            confirmations=self._confirmations,
            silent_seconds=self._client.silent_seconds,
            reorganisations=self._follower.reorganisations,
            open_transactions=open_transactions,
            open_blocks=open_blocks,
            calls=self._sender.counts.read(self._bindings),
        )

    async def read_balance(self) -> Wei:
        answer = await self._client.call("eth_getBalance", to_hex(self._account), "latest")
        return Wei(parse_quantity(answer))


@dataclass(frozen=True, slots=True)
class Market:
    """What a market says of its deployment."""

    bindings: Bindings
    params: ProtocolParams


async def find_market(client: RpcClient, market: Address) -> Market:
    """Ask a market for its other contracts, and check that the chain can carry it.

    Raises WrongNetwork and ChainUnavailable.
    """
    artifacts = {name: load_artifact(name) for name in CONTRACTS}
    code, head, *answers = await client.batch(
        [
            Request("eth_getCode", (to_hex(market), "latest")),
            Request("eth_getBlockByNumber", ("latest", False)),
            *(_request_view(artifacts["Market"], market, view) for view in _VIEWS),
        ]
    )
    if not parse_bytes(code):
        raise WrongNetwork(
            f"no contract at the market's address {to_hex(market)}; "
            "set the address that the deployment printed"
        )
    contracts, params = (
        _read_view(artifacts["Market"], market, view, answer)
        for view, answer in zip(_VIEWS, answers, strict=True)
    )
    await _check_randomness(client, head)
    names = (field.name for field in fields(ProtocolParams))
    protocol_params = ProtocolParams(**dict(zip(names, params, strict=True)))
    addresses = {**dict(zip(OTHERS, contracts, strict=True)), "Market": market}
    if protocol_params.token != NO_ACCOUNT:
        artifacts["Token"] = TOKEN
        addresses["Token"] = protocol_params.token
    return Market(Bindings(artifacts, addresses), protocol_params)


def _request_view(artifact: Artifact, market: Address, view: str) -> Request:
    call = {"to": to_hex(market), "data": to_hex(encode_view(artifact, view))}
    return Request("eth_call", (call, "latest"))


def _read_view(artifact: Artifact, market: Address, view: str, answer: Json) -> Any:
    failure = f"the contract at {to_hex(market)} is no market of this version: {view}() fails"
    if isinstance(answer, RequestRefused):
        refusal = explain_refusal(view, answer)
        raise WrongNetwork(failure) if isinstance(refusal, TransactionReverted) else refusal
    try:
        return decode_view(artifact, view, parse_bytes(answer))
    except ChainUnavailable as exc:
        raise WrongNetwork(failure) from exc


async def _check_randomness(client: RpcClient, head: Json) -> None:
    """Refuse a chain whose blocks carry no fresh randomness: seeds would be known in advance."""
    newest = parse_header(head)
    number = parse_block(head).number
    before = parse_header(await client.call("eth_getBlockByNumber", hex(number - 1), False))
    if newest.randomness == before.randomness:
        raise WrongNetwork(
            f"blocks {number - 1} and {number} carry the same randomness; "
            "this chain cannot seed a market, use one with prevrandao"
        )
