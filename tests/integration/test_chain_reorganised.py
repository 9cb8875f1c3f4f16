"""Reorganisations of a real chain: what was folded is undone, what was sent is sent again."""

from dataclasses import replace

import pytest
import trio

from d2m_node.chain.adapter import open_chain
from tests.support.anvil import (
    ONE_ETHER,
    ask,
    cone,
    count_used_nonces,
    make_settings,
    open_market,
    stake_some,
    wait_pool,
    wait_stake,
    wait_used_nonces,
)
from tests.support.chain import MemoryTransactionStore

pytestmark = pytest.mark.integration


async def test_a_deposit_that_is_dropped_goes_from_the_state_and_is_sent_again_once() -> None:
    store = MemoryTransactionStore()
    async with (
        open_market() as (url, deployment),
        open_chain(make_settings(url, deployment), cone, store) as chain,
    ):
        await stake_some(chain)
        await ask(url, "evm_setAutomine", False)
        await ask(url, "anvil_reorg", 1, [])
        await wait_stake(chain, 0)
        await wait_pool(url, 1)
        await ask(url, "evm_mine")
        await wait_stake(chain, ONE_ETHER)
        await ask(url, "anvil_mine", hex(5))
        await chain.wait_block(chain.state.block_number + 5)
        await wait_stake(chain, ONE_ETHER)
        assert await count_used_nonces(url) == 1
    assert len(store.transactions) == 1


async def test_a_reorganisation_deeper_than_the_confirmations_is_undone() -> None:
    store = MemoryTransactionStore()
    async with open_market() as (url, deployment):
        settings = replace(make_settings(url, deployment), confirmations=2)
        async with open_chain(settings, cone, store) as chain:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stake_some, chain)
                await wait_used_nonces(url, 1)
                await ask(url, "anvil_mine", hex(4))
            await wait_stake(chain, ONE_ETHER)
            await ask(url, "evm_setAutomine", False)
            await ask(url, "anvil_reorg", 5, [])
            await ask(url, "anvil_mine", hex(1))
            await wait_stake(chain, 0)
            await wait_pool(url, 1)
            await ask(url, "anvil_mine", hex(3))
            await wait_stake(chain, ONE_ETHER)
            assert await count_used_nonces(url) == 1
    assert len(store.transactions) == 1


async def test_a_reorganisation_above_the_confirmed_blocks_is_not_seen() -> None:
    async with open_market() as (url, deployment):
        settings = replace(make_settings(url, deployment), confirmations=3)
        async with open_chain(settings, cone, MemoryTransactionStore()) as chain:
            await ask(url, "anvil_mine", hex(5))
            await chain.wait_block(chain.state.block_number + 5)
            before = chain.state
            await ask(url, "anvil_reorg", 3, [])
            await ask(url, "anvil_mine", hex(1))
            await chain.wait_block(before.block_number + 1)
            header = await chain.read_header(before.block_number)
            assert header  # the same block as before: the follower would refuse another one


async def test_a_state_that_was_set_back_and_continued_otherwise_is_followed() -> None:
    store = MemoryTransactionStore()
    async with (
        open_market() as (url, deployment),
        open_chain(make_settings(url, deployment), cone, store) as chain,
    ):
        snapshot = await ask(url, "evm_snapshot")
        await stake_some(chain, "first")
        await stake_some(chain, "second")
        await ask(url, "evm_revert", snapshot)
        await ask(url, "evm_setAutomine", False)
        await ask(url, "anvil_mine", hex(3))
        await wait_stake(chain, 0)
        await wait_pool(url, 2)
        await ask(url, "evm_mine")
        await wait_stake(chain, 2 * ONE_ETHER)
        assert await count_used_nonces(url) == 2
    assert len(store.transactions) == 2


async def test_a_deposit_dropped_while_the_node_was_down_is_sent_again_once() -> None:
    store = MemoryTransactionStore()
    async with open_market() as (url, deployment):
        settings = make_settings(url, deployment)
        async with open_chain(settings, cone, store) as chain:
            await stake_some(chain)
        await ask(url, "anvil_reorg", 1, [])
        await ask(url, "anvil_mine", hex(300))
        async with open_chain(settings, cone, store) as chain:
            await wait_stake(chain, ONE_ETHER)
            assert await count_used_nonces(url) == 1
    assert len(store.transactions) == 1
