"""What the adapters count: transactions and their cost, traffic, queues."""

import trio

from d2m_node.chain.counts import TransactionCounts
from d2m_node.chain.receipts import Receipt
from d2m_node.chain.signing import Transaction
from d2m_node.chain.slots import make_filler
from d2m_node.transaction_store import BlockId
from protocol.types import BlockNumber, Wei
from tests.support.chain import SIGNER, ScriptedChain, make_bindings
from tests.support.desk import DEPOSIT, open_desk


async def test_a_mined_transaction_is_counted_with_its_gas_and_fee() -> None:
    chain = ScriptedChain()
    chain.gas_price_wei = 3
    async with open_desk(chain) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "k")
        await desk.mine(3)
        totals = desk.sender.counts.read(make_bindings())
        assert desk.sender.measure_open() == (0, 0)
    (name,) = totals
    assert name == "StakePool.deposit"
    assert (totals[name].confirmed, totals[name].reverted) == (1, 0)
    assert (totals[name].gas, totals[name].fees_wei) == (50_000, 150_000)


async def test_a_transaction_that_is_dropped_and_mined_again_is_counted_once() -> None:
    chain = ScriptedChain()
    async with open_desk(chain) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "k")
        await desk.mine(2)
        chain.drop(2)
        await desk.mine(4)
        (total,) = desk.sender.counts.read(make_bindings()).values()
    assert total.confirmed == 1


async def test_a_transaction_that_waits_shows_how_long() -> None:
    chain = ScriptedChain()
    chain.mines_transactions = False
    async with open_desk(chain) as desk, trio.open_nursery() as nursery:
        nursery.start_soon(desk.sender.submit, DEPOSIT, "k")
        await desk.mine(3)
        count, blocks = desk.sender.measure_open()
        assert count == 1
        assert blocks >= 2
        nursery.cancel_scope.cancel()


def test_what_calls_no_contract_of_ours_is_one_entry() -> None:
    counts = TransactionCounts()
    raw = Transaction(
        chain_id=1,
        nonce=0,
        tip_wei=1,
        max_fee_wei=1,
        gas=1,
        to=None,
        value_wei=Wei(0),
        data=b"xyz1",
    )
    filler = make_filler(raw, SIGNER.address)
    for transaction in (raw, filler):
        counts.add(
            transaction,
            Receipt(
                hash=b"",
                block=BlockId(BlockNumber(1), b""),
                has_succeeded=False,
                gas_used=5,
                fee_wei=Wei(7),
            ),
        )
    totals = counts.read(make_bindings())
    assert list(totals) == ["other"]
    assert (totals["other"].reverted, totals["other"].fees_wei) == (2, 14)
