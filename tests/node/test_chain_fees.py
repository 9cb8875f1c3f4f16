"""Fees of transactions that wait: raised on both sides, up to the market and the cap."""

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from d2m_node.chain.fees import cap_call_fee
from d2m_node.chain.signing import parse_transaction
from d2m_node.errors import ChainUnavailable
from d2m_node.settings import SendingSettings
from d2m_node.transaction_store import TransactionState
from protocol.types import Wei
from tests.support.chain import SETTINGS, MemoryTransactionStore, ScriptedChain
from tests.support.desk import DEPOSIT, open_desk


async def test_a_stuck_transaction_is_outbid_by_an_eighth_on_both_fees() -> None:
    store = MemoryTransactionStore()
    chain = ScriptedChain()
    chain.mines_transactions = False
    async with open_desk(chain, store) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine(SETTINGS.sending.stuck_blocks)
        chain.mines_transactions = True
        await desk.mine()
    first, second = (parse_transaction(raw) for raw in chain.sent)
    assert second.nonce == first.nonce
    assert second.tip_wei * 8 >= first.tip_wei * 9
    assert second.max_fee_wei * 8 >= first.max_fee_wei * 9
    assert {one.state for one in store.transactions} == {TransactionState.CONFIRMED}


async def test_a_stuck_transaction_is_outbid_up_to_what_the_market_asks_by_now() -> None:
    chain = ScriptedChain()
    chain.mines_transactions = False
    async with open_desk(chain) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine()
        chain.base_fee_wei *= 10
        await desk.mine(SETTINGS.sending.stuck_blocks)
        chain.mines_transactions = True
        await desk.mine()
    assert parse_transaction(chain.sent[-1]).max_fee_wei >= chain.base_fee_wei


async def test_fees_stop_at_the_cap_and_the_last_attempt_is_sent_again() -> None:
    cap = Wei(4 * 10**9)
    chain = ScriptedChain()
    store = MemoryTransactionStore()
    chain.mines_transactions = False
    settings = replace(SETTINGS, sending=SendingSettings(stuck_blocks=1, max_fee_wei=cap))
    async with open_desk(chain, store, settings) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine(10)
        chain.forget_pool()
        chain.mines_transactions = True
        await desk.mine(2)
    fees = [parse_transaction(one.raw).max_fee_wei for one in store.transactions]
    assert fees == sorted(set(fees))
    assert len(fees) > 1
    call_cap = cap_call_fee(cap)
    assert max(fees) <= call_cap < cap
    assert max(fees) * 9 > call_cap * 8
    assert store.transactions[0].state is TransactionState.CONFIRMED


async def test_gas_dearer_than_the_cap_is_not_paid(autojump_clock: MockClock) -> None:
    chain = ScriptedChain()
    settings = replace(SETTINGS, sending=SendingSettings(max_fee_wei=Wei(10**9)))
    async with open_desk(chain, None, settings) as desk:
        with pytest.raises(ChainUnavailable, match=r"chain\.sending\.max_fee_wei"):
            await desk.sender.submit(DEPOSIT, "stake")
    assert not chain.sent


async def test_an_attempt_that_an_endpoint_finds_underpriced_is_outbid_at_once() -> None:
    chain = ScriptedChain()
    chain.refuse("eth_sendRawTransaction", -32000, "replacement transaction underpriced")
    async with open_desk(chain) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await wait_all_tasks_blocked()
        chain.refusals.clear()
        await desk.mine(2)
    (sent,) = chain.sent
    assert parse_transaction(sent).tip_wei > 10**9


async def test_an_attempt_that_was_outbid_may_be_mined_in_the_end() -> None:
    chain = ScriptedChain()
    store = MemoryTransactionStore()
    chain.mines_transactions = False
    async with open_desk(chain, store) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine(SETTINGS.sending.stuck_blocks)
        assert len(store.transactions) == 2
        chain.pool[0] = store.transactions[0].raw
        chain.mines_transactions = True
        await desk.mine()
    assert chain.mined == [store.transactions[0].raw]
