"""Sending on a scripted chain: once per key, stored before sent, watched until settled."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from eth_abi.abi import encode
from trio.testing import MockClock, wait_all_tasks_blocked

from d2m_node.calls import BindPeer, DepositStake
from d2m_node.chain.client import to_hex
from d2m_node.chain.follower import Follower
from d2m_node.chain.signing import parse_transaction
from d2m_node.chain.transactions import (
    MISSING_REVIEWS,
    STUCK_BLOCKS,
    Account,
    TransactionSender,
)
from d2m_node.errors import ChainUnavailable, TransactionReverted
from d2m_node.keys import LocalSigner
from d2m_node.transaction_store import StoredTransaction, TransactionState
from protocol.types import Wei
from tests.support.chain import CHAIN_ID, MemoryTransactionStore, ScriptedChain, make_bindings

DEPOSIT = DepositStake(value_wei=Wei(5))


class Desk:
    """A sender at work, with its chain and store."""

    def __init__(self, chain: ScriptedChain, store: MemoryTransactionStore) -> None:
        bindings = make_bindings()
        self.chain = chain
        self.store = store
        self.follower = Follower(
            chain,  # type: ignore[arg-type]
            bindings,
            confirmations=0,
            poll_seconds=0.5,
            deployment_block=0,
        )
        account = Account(LocalSigner(b"\x01" * 32), store, CHAIN_ID)
        self.sender = TransactionSender(
            chain,  # type: ignore[arg-type]
            self.follower,
            bindings,
            account,
        )

    async def mine(self, count: int = 1) -> None:
        """Mine block by block, letting the sender look at each."""
        for _ in range(count):
            await wait_all_tasks_blocked()
            self.chain.mine()
            while await self.follower.follow():
                pass
        await wait_all_tasks_blocked()


@asynccontextmanager
async def open_desk(
    chain: ScriptedChain, store: MemoryTransactionStore | None = None
) -> AsyncGenerator[Desk, None]:
    desk = Desk(chain, store or MemoryTransactionStore())
    async with trio.open_nursery() as nursery:
        await nursery.start(desk.sender.run)
        yield desk
        nursery.cancel_scope.cancel()


async def test_a_call_returns_once_it_is_mined() -> None:
    async with open_desk(ScriptedChain()) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine()
    assert len(desk.chain.sent) == 1
    assert parse_transaction(desk.chain.sent[0]).value_wei == 5
    assert desk.store.transactions[0].state is TransactionState.CONFIRMED


async def test_a_transaction_is_stored_before_it_is_sent() -> None:
    chain = ScriptedChain()

    class StrictStore(MemoryTransactionStore):
        async def add(self, transaction: StoredTransaction) -> None:
            assert transaction.raw not in chain.sent
            await super().add(transaction)

    async with open_desk(chain, StrictStore()) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine()
    assert [one.raw for one in desk.store.transactions] == chain.sent


async def test_the_same_key_is_sent_once_however_often_it_is_submitted() -> None:
    async with open_desk(ScriptedChain()) as desk:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
            nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
            await desk.mine()
        await desk.sender.submit(DEPOSIT, "stake")
    assert len(desk.chain.sent) == 1


async def test_calls_of_different_keys_do_not_wait_for_each_other() -> None:
    async with open_desk(ScriptedChain()) as desk, trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(desk.sender.submit, DEPOSIT, f"stake {number}")
        await desk.mine()
    assert [parse_transaction(raw).nonce for raw in desk.chain.sent] == [0, 1, 2]


async def test_a_restart_sends_the_same_bytes_again_and_signs_nothing_new() -> None:
    chain = ScriptedChain()
    store = MemoryTransactionStore()
    chain.mines_transactions = False
    async with open_desk(chain, store) as first, trio.open_nursery() as nursery:
        nursery.start_soon(first.sender.submit, DEPOSIT, "stake")
        await first.mine()
        nursery.cancel_scope.cancel()
    chain.forget_pool()
    chain.mines_transactions = True
    async with open_desk(chain, store) as second, trio.open_nursery() as nursery:
        nursery.start_soon(second.sender.submit, DEPOSIT, "stake")
        await second.mine(2)
    assert len(set(chain.sent)) == 1
    assert len(chain.sent) == 2
    assert store.transactions[0].state is TransactionState.CONFIRMED


async def test_a_confirmed_key_returns_at_once_after_a_restart() -> None:
    chain = ScriptedChain()
    store = MemoryTransactionStore()
    async with open_desk(chain, store) as first, trio.open_nursery() as nursery:
        nursery.start_soon(first.sender.submit, DEPOSIT, "stake")
        await first.mine()
    async with open_desk(chain, store) as second:
        await second.sender.submit(DEPOSIT, "stake")
    assert len(chain.sent) == 1


async def test_a_refused_call_burns_no_nonce_and_gives_the_contracts_reason() -> None:
    chain = ScriptedChain()
    reason = bytes.fromhex("08c379a0") + encode(["string"], ["stake: amount is zero"])
    chain.refuse("eth_estimateGas", 3, "execution reverted", to_hex(reason))
    async with open_desk(chain) as desk:
        with pytest.raises(TransactionReverted) as refused:
            await desk.sender.submit(DEPOSIT, "stake")
        assert refused.value.reason == "stake: amount is zero"
        assert refused.value.call == "StakePool.deposit"
        assert not desk.store.transactions
        chain.refusals.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
            await desk.mine()
    assert parse_transaction(chain.sent[0]).nonce == 0


async def test_an_endpoints_trouble_is_no_revert(autojump_clock: MockClock) -> None:
    chain = ScriptedChain()
    chain.refuse("eth_estimateGas", -32005, "rate limited")
    async with open_desk(chain) as desk:
        with pytest.raises(ChainUnavailable, match="rate limited"):
            await desk.sender.submit(DEPOSIT, "stake")


async def test_a_call_that_fails_when_mined_frees_its_key() -> None:
    chain = ScriptedChain()
    chain.next_status = 0
    chain.refuse("eth_call", 3, "execution reverted: stake: too late")
    async with open_desk(chain) as desk:

        async def submit_in_vain() -> None:
            with pytest.raises(TransactionReverted, match="stake: too late"):
                await desk.sender.submit(DEPOSIT, "stake")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit_in_vain)
            await desk.mine()
        chain.next_status = 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
            await desk.mine()
    assert [parse_transaction(raw).nonce for raw in chain.sent] == [0, 1]


async def test_a_stuck_transaction_is_outbid_by_an_eighth_on_both_fees() -> None:
    chain = ScriptedChain()
    chain.mines_transactions = False
    async with open_desk(chain) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine(STUCK_BLOCKS)
        chain.mines_transactions = True
        await desk.mine()
    first, second = (parse_transaction(raw) for raw in chain.sent)
    assert second.nonce == first.nonce
    assert second.tip_wei * 8 >= first.tip_wei * 9
    assert second.max_fee_wei * 8 >= first.max_fee_wei * 9
    assert {one.state for one in desk.store.transactions} == {TransactionState.CONFIRMED}


async def test_a_nonce_used_elsewhere_is_replaced_by_a_new_one() -> None:
    chain = ScriptedChain()
    chain.mines_transactions = False
    async with open_desk(chain) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine()
        chain.use_nonce_elsewhere()
        await desk.mine(MISSING_REVIEWS)
        chain.mines_transactions = True
        await desk.mine()
    assert [parse_transaction(raw).nonce for raw in chain.sent] == [0, 1]
    states = [one.state for one in desk.store.transactions]
    assert states == [TransactionState.REPLACED, TransactionState.CONFIRMED]


async def test_receipts_that_cannot_be_asked_for_are_not_missing() -> None:
    chain = ScriptedChain()
    chain.mines_transactions = False
    async with open_desk(chain) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine()
        chain.account_nonce = 1
        chain.refuse("eth_getTransactionReceipt", -32005, "rate limited")
        await desk.mine(2 * MISSING_REVIEWS)
        nursery.cancel_scope.cancel()
    assert len(chain.sent) == 1


async def test_what_was_signed_outlives_an_endpoint_that_goes_down() -> None:
    chain = ScriptedChain()
    chain.refuse("eth_sendRawTransaction", -32000, "try later")
    async with open_desk(chain) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine()
        assert not chain.sent
        chain.refusals.clear()
        await desk.mine(STUCK_BLOCKS + 1)
    assert desk.store.transactions[0].state is TransactionState.CONFIRMED


async def test_a_call_nobody_waits_for_is_not_signed(autojump_clock: MockClock) -> None:
    chain = ScriptedChain()
    async with open_desk(chain) as desk:
        chain.available = False
        with trio.move_on_after(0.01):
            await desk.sender.submit(DEPOSIT, "stake")
        chain.available = True
        async with trio.open_nursery() as nursery:
            call = BindPeer(peer_id=b"peer", multiaddr=b"/ip4/127.0.0.1/tcp/1")
            nursery.start_soon(desk.sender.submit, call, "bind")
            await desk.mine()
        await trio.sleep(0.2)
    assert {one.key for one in desk.store.transactions} == {"bind"}
