"""A node on endpoints that fail, lie, lag and limit, with one real chain behind them."""

from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from d2m_node.chain.adapter import open_chain
from d2m_node.errors import WrongNetwork
from d2m_node.ports import ChainPort
from d2m_node.settings import EndpointSettings
from tests.support.anvil import (
    CHAIN_ID,
    ONE_ETHER,
    FaultyEndpoint,
    ask,
    cone,
    count_used_nonces,
    make_settings,
    open_endpoint,
    open_market,
    stake_some,
    wait_stake,
)
from tests.support.chain import MemoryTransactionStore
from tests.support.endpoints import FakeNode, Reply, serve_rpc

pytestmark = pytest.mark.integration

BROKEN = Reply(b"", status=502)
PROBE_SECONDS = 0.05


@asynccontextmanager
async def open_node(
    *endpoints: FaultyEndpoint,
) -> AsyncGenerator[tuple[str, ChainPort, MemoryTransactionStore], None]:
    """A node that asks some endpoints of one chain, the preferred one first."""
    store = MemoryTransactionStore()
    with ExitStack() as servers:
        async with open_market() as (url, deployment):
            for endpoint in endpoints:
                endpoint.url = url
            settings = replace(
                make_settings(url, deployment),
                rpc_urls=tuple(servers.enter_context(open_endpoint(one)) for one in endpoints),
                endpoints=EndpointSettings(probe_seconds=PROBE_SECONDS, request_seconds=5),
            )
            async with open_chain(settings, cone, store) as chain:
                yield url, chain, store


async def test_a_node_goes_on_when_its_endpoint_dies_and_returns_when_it_heals() -> None:
    first, second = FaultyEndpoint(), FaultyEndpoint()
    async with open_node(first, second) as (url, chain, store):
        await stake_some(chain, "before")
        first.failure = BROKEN
        await stake_some(chain, "after")
        assert second.count("eth_sendRawTransaction") == 1
        first.failure = None
        first.asked.clear()
        while not first.count("eth_getBlockByNumber"):
            await ask(url, "evm_mine")
            await chain.wait_block(chain.state.block_number + 1)
        await stake_some(chain, "healed")
        assert second.count("eth_sendRawTransaction") == 1
        await wait_stake(chain, 3 * ONE_ETHER)
        assert await count_used_nonces(url) == 3
    assert len(store.transactions) == 3


async def test_a_send_whose_answer_is_lost_is_not_signed_for_another_nonce() -> None:
    first, second = FaultyEndpoint(), FaultyEndpoint()
    first.after_send = lambda: BROKEN
    async with open_node(first, second) as (url, chain, store):
        await stake_some(chain)
        assert first.count("eth_sendRawTransaction") == 1
        assert second.count("eth_sendRawTransaction") == 1
        await stake_some(chain, "more")
        await wait_stake(chain, 2 * ONE_ETHER)
        assert await count_used_nonces(url) == 2
    assert [one.nonce for one in store.transactions] == [0, 1]


async def test_an_endpoint_that_lags_is_passed_over_and_confuses_nobody() -> None:
    first, second = FaultyEndpoint(), FaultyEndpoint()
    async with open_node(first, second) as (url, chain, store):
        await stake_some(chain, "before")
        first.behind_blocks = 20
        await ask(url, "anvil_mine", hex(30))
        number = int(await ask(url, "eth_blockNumber"), 16)
        await chain.wait_block(number)
        await stake_some(chain, "while it lags")
        await wait_stake(chain, 2 * ONE_ETHER)
        assert await count_used_nonces(url) == 2
    assert len(store.transactions) == 2


async def test_an_endpoint_of_another_chain_is_passed_over_though_it_comes_first() -> None:
    async with open_market() as (url, deployment):
        with serve_rpc(FakeNode(chain_id=CHAIN_ID + 1)) as liar:
            settings = replace(make_settings(url, deployment), rpc_urls=(liar, url))
            async with open_chain(settings, cone, MemoryTransactionStore()) as chain:
                await stake_some(chain)
                await wait_stake(chain, ONE_ETHER)
            only_liar = replace(settings, rpc_urls=(liar,))
            with pytest.raises(WrongNetwork, match=f"serves chain {CHAIN_ID + 1}"):
                async with open_chain(only_liar, cone, MemoryTransactionStore()):
                    pass


async def test_an_endpoint_that_limits_the_rate_is_left_alone_as_long_as_it_says() -> None:
    first, second = FaultyEndpoint(), FaultyEndpoint()
    async with open_node(first, second) as (url, chain, _store):
        first.failure = Reply(b"", status=429, headers={"Retry-After": "60"})
        await stake_some(chain, "first")
        first.asked.clear()
        first.failure = None
        await stake_some(chain, "second")
        await ask(url, "anvil_mine", hex(3))
        await chain.wait_block(chain.state.block_number + 3)
        await stake_some(chain, "third")
        assert not first.asked


async def test_many_blocks_are_read_after_a_downtime_within_the_endpoints_limit() -> None:
    endpoint = FaultyEndpoint(logs_max_blocks=60)
    store = MemoryTransactionStore()
    async with open_market() as (url, deployment):
        endpoint.url = url
        with open_endpoint(endpoint) as limited:
            settings = make_settings(limited, deployment)
            async with open_chain(settings, cone, store) as chain:
                await stake_some(chain)
            await ask(url, "anvil_mine", hex(600))
            async with open_chain(settings, cone, store) as chain:
                await stake_some(chain, "after")
                await wait_stake(chain, 2 * ONE_ETHER)
                assert chain.state.block_number > 600
            assert 9 <= endpoint.count("eth_getLogs") <= 40


async def test_a_running_node_reads_on_after_its_endpoint_was_away_for_a_long_time() -> None:
    endpoint = FaultyEndpoint()
    async with open_node(endpoint) as (url, chain, _store):
        await stake_some(chain)
        endpoint.failure = BROKEN
        await ask(url, "anvil_reorg", 1, [])
        await ask(url, "anvil_mine", hex(400))
        endpoint.failure = None
        await chain.wait_block(400)
        await wait_stake(chain, ONE_ETHER)
        assert await count_used_nonces(url) == 1
