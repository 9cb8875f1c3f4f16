"""Sending on a scripted chain: once per key, stored before sent, watched until settled."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import trio
from eth_abi.abi import encode
from trio.testing import MockClock, wait_all_tasks_blocked

from d2m_node.calls import BindPeer
from d2m_node.chain.json_rpc import Json, RequestRefused, to_hex
from d2m_node.chain.signing import parse_transaction
from d2m_node.chain.slots import sign_attempt
from d2m_node.chain.submissions import Submissions
from d2m_node.errors import ChainUnavailable, TransactionReverted
from d2m_node.transaction_store import StoredTransaction, TransactionState
from tests.support.chain import (
    SETTINGS,
    SIGNER,
    MemoryTransactionStore,
    ScriptedChain,
    make_bindings,
)
from tests.support.desk import DEPOSIT, open_desk


async def test_a_call_returns_once_it_is_mined() -> None:
    store = MemoryTransactionStore()
    async with open_desk(ScriptedChain(), store) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine()
    assert len(desk.chain.sent) == 1
    assert parse_transaction(desk.chain.sent[0]).value_wei == 5
    assert store.transactions[0].state is TransactionState.CONFIRMED
    sent = parse_transaction(desk.chain.sent[0])
    fee = store.fees[0]
    assert (fee.callee, fee.call_head) == (sent.to, sent.data[:36])


async def test_a_transaction_is_stored_before_it_is_sent() -> None:
    chain = ScriptedChain()

    class StrictStore(MemoryTransactionStore):
        async def add(self, transaction: StoredTransaction) -> None:
            assert transaction.raw not in chain.sent
            await super().add(transaction)

    store = StrictStore()
    async with open_desk(chain, store) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine()
    assert [one.raw for one in store.transactions] == chain.sent


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
    store = MemoryTransactionStore()
    chain = ScriptedChain()
    reason = bytes.fromhex("08c379a0") + encode(["string"], ["stake: amount is zero"])
    chain.refuse("eth_estimateGas", 3, "execution reverted", to_hex(reason))
    async with open_desk(chain, store) as desk:
        with pytest.raises(TransactionReverted) as refused:
            await desk.sender.submit(DEPOSIT, "stake")
        assert refused.value.reason == "stake: amount is zero"
        assert refused.value.call == "StakePool.deposit"
        assert not store.transactions
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


async def test_a_nonce_used_elsewhere_is_replaced_by_a_new_one() -> None:
    store = MemoryTransactionStore()
    chain = ScriptedChain()
    chain.mines_transactions = False
    async with open_desk(chain, store) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine()
        chain.use_nonce_elsewhere()
        chain.mines_transactions = True
        await desk.mine(2)
    assert [parse_transaction(raw).nonce for raw in chain.sent] == [0, 1]
    assert [one.state for one in store.transactions] == [
        TransactionState.REPLACED,
        TransactionState.CONFIRMED,
    ]


@pytest.mark.parametrize("status", [1, 0])
async def test_a_call_that_was_sent_with_other_fees_before_an_old_copy_is_not_sent_again(
    status: int,
) -> None:
    store, chain = MemoryTransactionStore(), ScriptedChain()
    chain.mines_transactions = False
    async with open_desk(chain, store) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine()
        nursery.cancel_scope.cancel()
    # What the old copy does not know: the fees were raised, and that was mined.
    known = parse_transaction(store.transactions[0].raw)
    raised = replace(known, max_fee_wei=known.max_fee_wei * 2, tip_wei=known.tip_wei * 2)
    chain.pool[0] = sign_attempt("stake", raised, SIGNER).raw
    chain.next_status = status
    chain.mines_transactions = True
    chain.mine()
    async with open_desk(chain, store) as old_copy, trio.open_nursery() as nursery:

        async def submit() -> None:
            with nullcontext() if status else pytest.raises(TransactionReverted, match="before"):
                await old_copy.sender.submit(DEPOSIT, "stake")

        nursery.start_soon(submit)
        await old_copy.mine(3)
    assert [parse_transaction(raw) for raw in chain.mined] == [raised]
    expected = TransactionState.CONFIRMED if status else TransactionState.REVERTED
    assert [one.state for one in store.transactions] == [expected]


class LateReceipts(ScriptedChain):
    """A chain on an endpoint that has no receipts, until told otherwise."""

    knows_receipts = False

    def _eth_getTransactionReceipt(self, transaction_hash: str) -> Json:
        found = super()._eth_getTransactionReceipt(transaction_hash)
        return found if self.knows_receipts else None


async def test_a_call_whose_nonce_was_used_long_ago_is_not_signed_for_another() -> None:
    chain, store = LateReceipts(), MemoryTransactionStore()
    async with open_desk(chain, store) as first, trio.open_nursery() as nursery:
        nursery.start_soon(first.sender.submit, DEPOSIT, "stake")
        await first.mine()
        nursery.cancel_scope.cancel()
    chain.mine_many(SETTINGS.reorg_blocks + 2)
    async with open_desk(chain, store) as second:

        async def submit_in_vain() -> None:
            with pytest.raises(TransactionReverted, match="used long ago"):
                await second.sender.submit(DEPOSIT, "stake")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit_in_vain)
            await second.mine(3)
    assert [parse_transaction(raw).nonce for raw in chain.mined] == [0]
    assert {one.state for one in store.transactions} == {TransactionState.REPLACED}
    assert not await store.load_watched()


async def test_a_call_nobody_asks_for_stays_open_though_its_nonce_is_used() -> None:
    chain, store = LateReceipts(), MemoryTransactionStore()
    async with open_desk(chain, store) as first, trio.open_nursery() as nursery:
        nursery.start_soon(first.sender.submit, DEPOSIT, "stake")
        await first.mine()
        nursery.cancel_scope.cancel()
    chain.mine_many(SETTINGS.reorg_blocks + 2)
    async with open_desk(chain, store) as second:
        await second.mine(2)
        assert store.transactions[0].state is TransactionState.OPEN
        chain.pool[1] = b"a stranger's, signed elsewhere with the same key"
        chain.mines_transactions = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.sender.submit, DEPOSIT, "more stake")
            await second.mine()
            del chain.pool[1]
            chain.mines_transactions = True
            await second.mine(SETTINGS.sending.stuck_blocks + 1)
            chain.knows_receipts = True
            await second.mine()
        await second.sender.submit(DEPOSIT, "stake")
    assert [parse_transaction(raw).nonce for raw in chain.mined] == [0, 1, 2]


async def test_what_was_confirmed_stays_so_when_no_endpoint_knows_its_receipt() -> None:
    chain, store = LateReceipts(), MemoryTransactionStore()
    chain.knows_receipts = True
    async with open_desk(chain, store) as desk:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
            await desk.mine()
        chain.knows_receipts = False
        chain.mine_many(SETTINGS.reorg_blocks * 4)
        await desk.mine(3)
        await desk.sender.submit(DEPOSIT, "stake")
    assert [parse_transaction(raw).nonce for raw in chain.mined] == [0]
    assert {one.state for one in store.transactions} == {TransactionState.CONFIRMED}
    assert not await store.load_watched()


async def test_a_receipt_that_comes_late_is_no_lost_nonce() -> None:
    store = MemoryTransactionStore()
    chain = LateReceipts()
    async with open_desk(chain, store) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine(10)
        assert store.transactions[0].state is TransactionState.OPEN
        chain.knows_receipts = True
        await desk.mine()
    assert len(chain.sent) == 1


async def test_receipts_that_cannot_be_asked_for_are_not_missing() -> None:
    chain = ScriptedChain()
    async with open_desk(chain) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await wait_all_tasks_blocked()
        chain.refuse("eth_getTransactionReceipt", -32000, "still indexing")
        await desk.mine(10)
        chain.refusals.clear()
        await desk.mine()
    assert len(chain.sent) == 1


async def test_what_was_signed_outlives_an_endpoint_that_goes_down() -> None:
    store = MemoryTransactionStore()
    chain = ScriptedChain()
    chain.refuse("eth_sendRawTransaction", -32000, "try later")
    async with open_desk(chain, store) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine()
        assert not chain.sent
        chain.refusals.clear()
        await desk.mine(SETTINGS.sending.stuck_blocks + 1)
    assert store.transactions[0].state is TransactionState.CONFIRMED


async def test_a_call_nobody_waits_for_is_not_signed(autojump_clock: MockClock) -> None:
    store = MemoryTransactionStore()
    chain = ScriptedChain()
    async with open_desk(chain, store) as desk:
        chain.available = False
        with trio.move_on_after(0.01):
            await desk.sender.submit(DEPOSIT, "stake")
        chain.available = True
        async with trio.open_nursery() as nursery:
            call = BindPeer(peer_id=b"peer", multiaddr=b"/ip4/127.0.0.1/tcp/1")
            nursery.start_soon(desk.sender.submit, call, "bind")
            await desk.mine()
        await trio.sleep(0.2)
    assert {one.key for one in store.transactions} == {"bind"}


async def test_a_nonce_that_a_stranger_took_and_the_pool_lost_is_filled() -> None:
    chain = ScriptedChain()
    chain.pool[0] = b"a stranger's, signed elsewhere with the same key"
    chain.mines_transactions = False
    async with open_desk(chain) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine()
        del chain.pool[0]
        chain.mines_transactions = True
        await desk.mine(SETTINGS.sending.stuck_blocks + 1)
    mined = [parse_transaction(raw) for raw in chain.mined]
    assert [(one.nonce, one.value_wei, bool(one.data)) for one in mined] == [
        (0, 0, False),
        (1, 5, True),
    ]


async def test_a_strangers_transaction_that_waits_in_the_pool_is_no_gap() -> None:
    chain = ScriptedChain()
    chain.pool[0] = b"a stranger's, signed elsewhere with the same key"
    chain.mines_transactions = False
    async with open_desk(chain) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await desk.mine(SETTINGS.sending.stuck_blocks + 1)
        nursery.cancel_scope.cancel()
    assert {parse_transaction(raw).nonce for raw in chain.sent} == {1}


async def test_a_mined_call_without_gas_left_says_so() -> None:
    chain = ScriptedChain()
    chain.next_status = 0
    chain.gas_used = 150_000
    async with open_desk(chain) as desk:

        async def submit_in_vain() -> None:
            with pytest.raises(TransactionReverted, match="out of gas: all 150000"):
                await desk.sender.submit(DEPOSIT, "stake")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit_in_vain)
            await desk.mine()


async def test_a_reason_that_no_endpoint_can_find_keeps_nobody_waiting() -> None:
    chain = ScriptedChain()
    chain.next_status = 0
    chain.refuse("eth_call", -32000, "missing trie node")
    async with open_desk(chain) as desk:

        async def submit_in_vain() -> None:
            with pytest.raises(TransactionReverted, match=r"not known: .*missing trie node"):
                await desk.sender.submit(DEPOSIT, "stake")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit_in_vain)
            await desk.mine()


async def test_a_call_returns_only_when_enough_blocks_are_on_top() -> None:
    chain, store = ScriptedChain(), MemoryTransactionStore()
    chain.mine_many(5)
    async with open_desk(chain, store, replace(SETTINGS, confirmations=2)) as desk:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
            await desk.mine(2)
            assert len(chain.mined) == 1
            assert not await store.is_confirmed("stake")
            await desk.mine()
        assert await store.is_confirmed("stake")


async def test_nonces_are_persisted_so_that_an_endpoint_behind_cannot_give_one_twice() -> None:
    class ForgetfulChain(ScriptedChain):
        knows_pool = True

        def _eth_getTransactionCount(self, account: str, block: str) -> Json:
            if block == "pending" and not self.knows_pool:
                return "0x0"
            return super()._eth_getTransactionCount(account, block)

    chain, store = ForgetfulChain(), MemoryTransactionStore()
    async with open_desk(chain, store) as first, trio.open_nursery() as nursery:
        nursery.start_soon(first.sender.submit, DEPOSIT, "stake")
        await first.mine()
    chain.knows_pool = False
    async with open_desk(chain, store) as second, trio.open_nursery() as nursery:
        nursery.start_soon(second.sender.submit, DEPOSIT, "more stake")
        await second.mine()
    assert [parse_transaction(raw).nonce for raw in chain.mined] == [0, 1]


async def test_a_nonce_whose_user_cannot_be_found_holds_up_no_other() -> None:
    class PrunedChain(ScriptedChain):
        def _eth_getTransactionCount(self, account: str, block: str) -> Json:
            if block in ("latest", "pending") or int(block, 16) == self.height:
                return super()._eth_getTransactionCount(account, block)
            return RequestRefused("eth_getTransactionCount", -32000, "missing trie node", None)

    chain, store = PrunedChain(), MemoryTransactionStore()
    chain.mines_transactions = False
    async with open_desk(chain, store) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "first")
        nursery.start_soon(desk.sender.submit, DEPOSIT, "second")
        await desk.mine()
        chain.use_nonce_elsewhere()
        chain.mines_transactions = True
        await desk.mine(3)
        confirmed = [one.nonce for one in store.transactions if one.mined is not None]
        assert confirmed == [1]
        nursery.cancel_scope.cancel()
    assert len(chain.sent) == 2


@pytest.mark.parametrize(
    "counts",
    [
        {"latest": 2**70, "pending": 2**70},
        {"latest": 10**9, "pending": 10**9},
        {"latest": 0, "pending": 1_001},
    ],
)
async def test_a_next_nonce_that_cannot_be_is_never_signed(
    counts: dict[str, int], autojump_clock: MockClock
) -> None:
    class LyingChain(ScriptedChain):
        def _eth_getTransactionCount(self, account: str, block: str) -> Json:
            return hex(counts.get(block, 0))

    store = MemoryTransactionStore()
    async with open_desk(LyingChain(), store) as desk:
        with pytest.raises(ChainUnavailable, match="next nonce"):
            await desk.sender.submit(DEPOSIT, "stake")
    assert not store.transactions


async def test_a_next_nonce_far_up_that_can_be_is_signed() -> None:
    class BusyChain(ScriptedChain):
        def _eth_getTransactionCount(self, account: str, block: str) -> Json:
            return hex({"latest": 10**8, "pending": 10**8 + 1_000}.get(block, 0))

    store = MemoryTransactionStore()
    async with open_desk(BusyChain(), store) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "stake")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [one.nonce for one in store.transactions] == [10**8 + 1_000]


def test_a_submission_that_is_done_is_not_confused_with_its_successor() -> None:
    submissions = Submissions()
    call = make_bindings().encode_call(DEPOSIT)
    first = submissions.add("stake", call)
    submissions.finish(first)
    second = submissions.add("stake", call)
    submissions.finish(first)
    assert submissions.find("stake") is second
    submissions.finish(second)
    assert submissions.find("stake") is None
