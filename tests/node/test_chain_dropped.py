"""What a reorganisation drops: sent again once, or its nonce used up, and crashes in between."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

import pytest
import trio

from d2m_node.chain.json_rpc import Json, Request
from d2m_node.chain.signing import parse_transaction
from d2m_node.errors import TransactionReverted
from d2m_node.settings import SendingSettings
from d2m_node.storage.schema import MIGRATIONS
from d2m_node.storage.transactions import Transactions
from d2m_node.transaction_store import TransactionState
from protocol.types import Wei
from tests.support.chain import SETTINGS, SIGNER, MemoryTransactionStore, ScriptedChain
from tests.support.desk import DEPOSIT, Desk, open_desk

T = TypeVar("T")


async def confirm(desk: Desk, key: str) -> None:
    """Submit a deposit and mine it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, key)
        await desk.mine()


async def test_a_confirmed_transaction_that_is_dropped_is_sent_again_once() -> None:
    chain, store = ScriptedChain(), MemoryTransactionStore()
    async with open_desk(chain, store) as desk:
        await confirm(desk, "stake")
        chain.drop(1)
        await desk.mine(3)
        assert store.transactions[0].state is TransactionState.CONFIRMED
        await desk.sender.submit(DEPOSIT, "stake")
    assert chain.mined == [store.transactions[0].raw]
    assert chain.sent == 2 * chain.mined


async def test_a_transaction_that_both_branches_hold_is_not_sent_again() -> None:
    chain, store = ScriptedChain(), MemoryTransactionStore()
    async with open_desk(chain, store) as desk:
        await confirm(desk, "stake")
        chain.drop(1)
        chain.pool[0] = chain.sent[0]
        await desk.mine(2)
    assert len(chain.sent) == len(chain.mined) == 1


async def test_a_drop_is_noticed_though_the_chain_is_no_longer() -> None:
    chain = ScriptedChain()
    async with open_desk(chain) as desk:
        await confirm(desk, "stake")
        chain.drop(1)
        chain.mine()
        await desk.follow()
        assert list(chain.pool.values()) == [chain.sent[0]]


async def test_who_submits_a_dropped_key_waits_until_it_is_confirmed_again() -> None:
    chain = ScriptedChain()
    async with open_desk(chain) as desk:
        await confirm(desk, "stake")
        chain.drop(1)
        chain.mines_transactions = False
        await desk.mine(2)
        is_back = trio.Event()

        async def submit_again() -> None:
            await desk.sender.submit(DEPOSIT, "stake")
            is_back.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit_again)
            await desk.mine()
            assert not is_back.is_set()
            chain.mines_transactions = True
            await desk.mine()
    assert len(chain.mined) == 1


async def test_several_dropped_transactions_come_back_in_order() -> None:
    chain = ScriptedChain()
    async with open_desk(chain) as desk:
        for number in range(3):
            await confirm(desk, f"stake {number}")
        chain.drop(2)
        await desk.mine(4)
    assert [parse_transaction(raw).nonce for raw in chain.mined] == [0, 1, 2]
    assert len(set(chain.sent)) == 3


async def test_a_transaction_dropped_while_the_node_was_down_is_sent_again() -> None:
    chain, store = ScriptedChain(), MemoryTransactionStore()
    async with open_desk(chain, store) as first:
        await confirm(first, "stake")
    chain.drop(1)
    chain.mine_many(SETTINGS.reorg_blocks * 3)
    async with open_desk(chain, store) as second:
        await second.mine(2)
    assert chain.mined == [store.transactions[0].raw]


async def test_a_transaction_mined_long_before_a_restart_is_let_go() -> None:
    chain, store = ScriptedChain(), MemoryTransactionStore()
    async with open_desk(chain, store) as first:
        await confirm(first, "stake")
    chain.mine_many(SETTINGS.reorg_blocks * 3)
    async with open_desk(chain, store) as second:
        await second.mine()
    assert not await store.load_watched()
    assert await store.is_confirmed("stake")
    assert len(chain.sent) == 1


async def test_a_transaction_is_let_go_when_no_reorganisation_can_reach_it() -> None:
    chain, store = ScriptedChain(), MemoryTransactionStore()
    async with open_desk(chain, store) as desk:
        await confirm(desk, "stake")
        await desk.mine(SETTINGS.reorg_blocks - 1)
        assert await store.load_watched()
        await desk.mine()
        assert not await store.load_watched()


async def test_a_dropped_call_whose_nonce_a_stranger_took_is_signed_anew() -> None:
    chain, store = ScriptedChain(), MemoryTransactionStore()
    async with open_desk(chain, store) as desk:
        await confirm(desk, "stake")
        chain.drop(1)
        chain.mine()
        chain.use_nonce_elsewhere()
        await desk.mine(3)
    assert [parse_transaction(raw).nonce for raw in chain.mined] == [1]
    assert await store.is_confirmed("stake")


async def test_a_refused_call_that_is_dropped_does_not_happen_later() -> None:
    chain, store = ScriptedChain(), MemoryTransactionStore()
    chain.next_status = 0
    async with open_desk(chain, store) as desk:

        async def submit_in_vain() -> None:
            with pytest.raises(TransactionReverted):
                await desk.sender.submit(DEPOSIT, "stake")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit_in_vain)
            await desk.mine()
        chain.next_status = 1
        await confirm(desk, "stake")
        chain.drop(2)
        await desk.mine(4)
        await desk.mine(SETTINGS.reorg_blocks)
    emptied, again = (parse_transaction(raw) for raw in chain.mined)
    assert (emptied.nonce, emptied.to, emptied.data) == (0, SIGNER.address, b"")
    assert (again.nonce, again.value_wei) == (1, 5)
    states = [one.state for one in store.transactions if one.nonce == 0]
    assert set(states) == {TransactionState.REVERTED}


async def fail(desk: Desk) -> None:
    """Submit a deposit that fails when it is mined."""
    desk.chain.next_status = 0

    async def submit_in_vain() -> None:
        with pytest.raises(TransactionReverted):
            await desk.sender.submit(DEPOSIT, "stake")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(submit_in_vain)
        await desk.mine()
    desk.chain.next_status = 1


async def test_a_refused_call_signed_near_the_cap_can_still_be_emptied() -> None:
    cap = Wei(100 * 10**9)
    chain, store = ScriptedChain(), MemoryTransactionStore()
    chain.base_fee_wei = 60 * 10**9
    chain.mine()
    settings = replace(SETTINGS, sending=SendingSettings(max_fee_wei=cap))
    async with open_desk(chain, store, settings) as desk:
        await fail(desk)
        chain.drop(1)
        await desk.mine(4)
    refused, emptied = (parse_transaction(one.raw) for one in store.transactions)
    assert [parse_transaction(raw) for raw in chain.mined] == [emptied]
    assert (emptied.to, emptied.data) == (SIGNER.address, b"")
    assert refused.max_fee_wei < emptied.max_fee_wei <= cap


async def test_a_refused_call_that_cannot_be_outbid_is_not_sent_again() -> None:
    chain, store = ScriptedChain(), MemoryTransactionStore()
    async with open_desk(chain, store) as desk:
        await fail(desk)
    chain.drop(1)
    chain.mine_many(2)
    signed = parse_transaction(store.transactions[0].raw)
    settings = replace(SETTINGS, sending=SendingSettings(max_fee_wei=signed.max_fee_wei))
    async with open_desk(chain, store, settings) as lowered:
        await lowered.mine(3)
        assert not chain.mined
    async with open_desk(chain, store) as raised:
        await raised.mine(3)
    (emptied,) = (parse_transaction(raw) for raw in chain.mined)
    assert (emptied.nonce, emptied.to, emptied.data) == (0, SIGNER.address, b"")


class TurningChain(ScriptedChain):
    """A chain that turns between the follower's look at it and the sender's."""

    turning_blocks = 0

    async def batch(self, batch: Sequence[Request]) -> list[Json]:
        if any(one.method == "eth_getTransactionReceipt" for one in batch) and self.turning_blocks:
            self.drop(self.turning_blocks)
            self.forget_pool()
            self.mine_many(self.turning_blocks)
            self.turning_blocks = 0
        return await super().batch(batch)


async def test_a_call_that_only_the_followed_branch_holds_is_no_gap_to_fill() -> None:
    chain, store = TurningChain(), MemoryTransactionStore()
    chain.mine()
    async with open_desk(chain, store) as desk:
        await confirm(desk, "first")
        chain.mines_transactions = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.sender.submit, DEPOSIT, "second")
            await desk.mine(SETTINGS.sending.stuck_blocks - 1)
            chain.turning_blocks = SETTINGS.sending.stuck_blocks + 1
            await desk.mine()
            assert not chain.turning_blocks
            chain.mines_transactions = True
            await desk.mine(3)
    mined = [parse_transaction(raw) for raw in chain.mined]
    assert [(one.nonce, one.value_wei) for one in mined] == [(0, 5), (1, 5)]
    assert {one.key for one in store.transactions} == {"first", "second"}


class Killed(BaseException):
    """The process ends here."""


class KillSwitch:
    """Kills a node before or after one of the things that it does to the world."""

    def __init__(self) -> None:
        self.moment: int | None = None
        """How many moments it lives through."""
        self._count = 0

    def pass_by(self) -> None:
        """Come to the next moment."""
        self._count += 1
        if self.moment is not None and self._count > self.moment:
            raise Killed


class MortalChain(ScriptedChain):
    """A chain whose user may be killed around each request."""

    def __init__(self, switch: KillSwitch) -> None:
        self._switch = switch
        super().__init__()

    async def batch(self, batch: Sequence[Request]) -> list[Json]:
        self._switch.pass_by()
        answers = await super().batch(batch)
        self._switch.pass_by()
        return answers


def make_mortal_store(connection: sqlite3.Connection, switch: KillSwitch) -> Transactions:
    """Open the store on a connection, with a kill possible around each transaction.

    Without worker threads, so that the test can tell when everybody waits.
    """

    async def run(work: Callable[[sqlite3.Connection], T]) -> T:
        switch.pass_by()
        with connection:
            result = work(connection)
        switch.pass_by()
        await trio.lowlevel.checkpoint()
        return result

    return Transactions(run)


async def run_until_killed(chain: ScriptedChain, store: Transactions) -> bool:
    """Run a node that deposits once; tell whether it lived on."""
    was_killed = False
    try:
        async with open_desk(chain, store) as desk:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
                await desk.mine(2)
            await desk.mine()
    except* Killed:
        was_killed = True
    return not was_killed


async def test_a_node_killed_at_any_moment_deposits_exactly_once() -> None:
    moment, is_over = 0, False
    while not is_over:
        switch = KillSwitch()
        with closing(sqlite3.connect(":memory:")) as connection:
            for script in MIGRATIONS:
                connection.executescript(script)
            chain, store = MortalChain(switch), make_mortal_store(connection, switch)
            switch.moment = moment
            is_over = await run_until_killed(chain, store)
            switch.moment = None
            assert await run_until_killed(chain, store)
            assert len(chain.mined) == 1, f"killed at moment {moment}"
            assert len(set(chain.sent)) == 1, f"killed at moment {moment}"
            assert await store.is_confirmed("stake")
        moment += 1
    assert moment > 20
