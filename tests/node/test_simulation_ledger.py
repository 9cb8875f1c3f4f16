"""The simulated chain: calls, blocks, reorganisations and outages in virtual time."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from d2m_node.calls import DepositStake, RequestUnbond
from d2m_node.chain.deployment import load_params
from d2m_node.errors import TransactionReverted
from d2m_node.simulation.ledger import LedgerOptions, open_ledger
from d2m_node.simulation.pool import SentCalls
from protocol.hashing import keccak
from protocol.types import Address, Wei

ONE_ETHER = Wei(10**18)
PARAMS = load_params(Path(__file__).parents[2] / "configs" / "params" / "dev.toml")
alice = Address(b"\x0a" * 20)
BALANCES = {alice: Wei(100 * ONE_ETHER)}


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


async def test_a_deposit_is_in_the_state_when_its_call_returns(clock: MockClock) -> None:
    async with (
        open_ledger(PARAMS, BALANCES, LedgerOptions(seed=1)) as ledger,
        ledger.open_view(alice, SentCalls()) as chain,
    ):
        await chain.submit(DepositStake(value_wei=ONE_ETHER), key="stake")
        assert chain.state.stakes[alice].free_wei == ONE_ETHER
        (call,) = ledger.blocks[-1].calls
        assert (call.sender, call.name) == (alice, "StakePool.deposit")
        header = await chain.read_header(chain.state.block_number)
        assert keccak(header) == ledger.blocks[-1].block_hash
        with pytest.raises(TransactionReverted, match="stake: not enough free stake"):
            await chain.submit(RequestUnbond(amount_wei=Wei(2 * ONE_ETHER)), key="unbond")


async def test_blocks_come_in_virtual_time(clock: MockClock) -> None:
    options = LedgerOptions(seed=1, block_seconds=12)
    async with open_ledger(PARAMS, BALANCES, options) as ledger:
        start, number = trio.current_time(), ledger.blocks[-1].number
        await ledger.wait_mined(number + 5)
        assert trio.current_time() - start == 60
        first, *_, last = ledger.blocks[-5:]
        assert last.timestamp - first.timestamp == 48
