"""The simulated chain: what a real one could not be told to do, and that a seed tells all."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from d2m_node.calls import (
    ApproveToken,
    BindPeer,
    DepositStake,
    RegisterDataset,
    RequestUnbond,
    WithdrawStake,
)
from d2m_node.errors import ChainUnavailable, TransactionReverted
from d2m_node.ports import ChainPort, TakenBack
from d2m_node.simulation.chain.ledger import Ledger, LedgerOptions, open_ledger
from d2m_node.simulation.chain.pool import SentCalls
from d2m_node.simulation.world.virtual_time import run_in_virtual_time
from protocol.types import Address, BlockNumber, Digest, Wei
from tests.support.anvil import PARAMS

ONE_ETHER = Wei(10**18)
alice = Address(b"\x0a" * 20)
bob = Address(b"\x0b" * 20)
BALANCES = {alice: Wei(100 * ONE_ETHER), bob: Wei(100 * ONE_ETHER)}
OPTIONS = LedgerOptions(seed=1)
STAKE = DepositStake(value_wei=ONE_ETHER)


@pytest.fixture
def clock() -> MockClock:
    return MockClock(autojump_threshold=0)


def find_stake(chain: ChainPort, account: Address) -> int:
    stake = chain.state.stakes.get(account)
    return stake.free_wei if stake else 0


def register_many_tags(number: int) -> RegisterDataset:
    """A dear call: each tag is counted."""
    tags = tuple(Digest(bytes([number, tag]) * 16) for tag in range(16))
    return RegisterDataset(
        tags=tags, metadata_hash=Digest(bytes(32)), min_price_wei=Wei(0), min_price_token=Wei(0)
    )


async def test_blocks_come_in_virtual_time(clock: MockClock) -> None:
    async with open_ledger(PARAMS, BALANCES, replace(OPTIONS, block_seconds=12)) as ledger:
        start, number = trio.current_time(), ledger.blocks[-1].number
        await ledger.wait_mined(number + 5)
        assert trio.current_time() - start == 60
        times = [block.timestamp for block in ledger.blocks[-6:]]
        assert [after - before for before, after in itertools.pairwise(times)] == [12] * 5
        assert [block.number for block in ledger.blocks] == list(range(len(ledger.blocks)))


async def test_a_late_block_delays_all_after_it(clock: MockClock) -> None:
    async with open_ledger(PARAMS, BALANCES, replace(OPTIONS, block_seconds=2)) as ledger:
        start, number = trio.current_time(), ledger.blocks[-1].number
        await trio.sleep(1)
        ledger.delay_next_block(10)
        await ledger.wait_mined(number + 1)
        assert trio.current_time() - start == 12
        assert ledger.blocks[-1].timestamp - ledger.blocks[-2].timestamp == 12
        await ledger.wait_mined(number + 2)
        assert trio.current_time() - start == 14


async def test_a_call_sent_before_its_block_is_late_is_in_it(clock: MockClock) -> None:
    async with (
        open_ledger(PARAMS, BALANCES, OPTIONS) as ledger,
        ledger.open_view(alice, SentCalls()) as chain,
        trio.open_nursery() as nursery,
    ):
        number = ledger.blocks[-1].number
        nursery.start_soon(submit, chain, STAKE, "stake")
        await wait_all_tasks_blocked()
        ledger.delay_next_block(5)
        await ledger.wait_mined(number + 1)
        assert [call.name for call in ledger.blocks[-1].calls] == ["StakePool.deposit"]


async def submit(chain: ChainPort, call: Any, key: str) -> None:
    await chain.submit(call, key=key)


async def test_views_show_blocks_after_their_own_delay(clock: MockClock) -> None:
    async with (
        open_ledger(PARAMS, BALANCES, OPTIONS) as ledger,
        ledger.open_view(alice, SentCalls()) as early,
        ledger.open_view(bob, SentCalls(), delay_seconds=2.5) as late,
    ):
        await early.submit(STAKE, key="stake")
        mined, number = trio.current_time(), early.state.block_number
        assert find_stake(late, alice) == 0
        await late.wait_for(lambda state: True if alice in state.stakes else None)
        assert trio.current_time() - mined == 2.5
        assert late.state.block_number == number
        assert ledger.state.block_number == number + 2
        assert late.history.end == early.history.end
        with pytest.raises(ChainUnavailable, match="not been followed yet"):
            await late.read_header(BlockNumber(number + 1))


async def test_a_call_takes_as_long_to_arrive_as_blocks_to_show(clock: MockClock) -> None:
    async with (
        open_ledger(PARAMS, BALANCES, OPTIONS) as ledger,
        ledger.open_view(alice, SentCalls(), delay_seconds=1.5) as chain,
    ):
        start, number = trio.current_time(), ledger.blocks[-1].number
        await chain.submit(STAKE, key="stake")
        assert trio.current_time() - start == 3.5
        assert ledger.blocks[number + 2].calls


async def test_an_account_that_is_cut_off_sees_nothing_new_and_its_calls_fail(
    clock: MockClock,
) -> None:
    options = replace(OPTIONS, patience_seconds=30)
    async with (
        open_ledger(PARAMS, BALANCES, options) as ledger,
        ledger.open_view(alice, SentCalls()) as chain,
        ledger.open_view(bob, SentCalls()) as other,
    ):
        number = chain.state.block_number
        ledger.set_reachable(alice, is_reachable=False)
        await other.submit(STAKE, key="stake")
        assert chain.state.block_number == number
        start = trio.current_time()
        with pytest.raises(ChainUnavailable, match=r"StakePool\.deposit was not sent"):
            await chain.submit(STAKE, key="stake")
        assert trio.current_time() - start == 30
        with pytest.raises(ChainUnavailable):
            await chain.read_randomness(number)
        with pytest.raises(ChainUnavailable):
            async with ledger.open_view(alice, SentCalls()):
                pass
        ledger.set_reachable(alice, is_reachable=True)
        assert chain.state is ledger.state
        await chain.submit(STAKE, key="stake")
        assert find_stake(chain, alice) == ONE_ETHER


async def test_a_call_that_was_sent_before_its_account_was_cut_off_is_mined(
    clock: MockClock,
) -> None:
    memory = SentCalls()
    async with (
        open_ledger(PARAMS, BALANCES, OPTIONS) as ledger,
        ledger.open_view(alice, memory) as chain,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_silence, chain)
            await wait_all_tasks_blocked()
            ledger.set_reachable(alice, is_reachable=False)
        assert ledger.state.stakes[alice].free_wei == ONE_ETHER
        ledger.set_reachable(alice, is_reachable=True)
        await chain.submit(STAKE, key="stake")
        assert find_stake(chain, alice) == ONE_ETHER


async def expect_silence(chain: ChainPort) -> None:
    with pytest.raises(ChainUnavailable, match=r"StakePool\.deposit is still open"):
        await chain.submit(STAKE, key="stake")


async def test_waiting_goes_on_after_an_outage(clock: MockClock) -> None:
    async with (
        open_ledger(PARAMS, BALANCES, OPTIONS) as ledger,
        ledger.open_view(alice, SentCalls()) as chain,
    ):
        number = chain.state.block_number
        ledger.set_reachable(alice, is_reachable=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chain.wait_block, BlockNumber(number + 2))
            await ledger.wait_mined(number + 10)
            assert chain.state.block_number == number
            ledger.set_reachable(alice, is_reachable=True)
        assert ledger.blocks[-1].number == number + 10


async def test_a_reorganisation_puts_calls_back_in_their_order(clock: MockClock) -> None:
    async with (
        open_ledger(PARAMS, BALANCES, OPTIONS) as ledger,
        ledger.open_view(alice, SentCalls()) as chain,
    ):
        total_wei = ledger.total_wei()
        for number in range(5):
            await chain.submit(STAKE, key=f"stake {number}")
        before = list(ledger.blocks)
        balance = ledger.balance(alice)
        ledger.reorganise(3)
        fork = before[-4]
        assert ledger.blocks[fork.number] is fork
        assert ledger.blocks[-1].number == before[-1].number
        assert all(
            (old.block_hash, old.prevrandao) != (new.block_hash, new.prevrandao)
            for old, new in zip(before[-3:], ledger.blocks[-3:], strict=True)
        )
        assert find_stake(chain, alice) == 2 * ONE_ETHER
        assert chain.history.read(chain.history.end - 1) == TakenBack(fork.number)
        assert ledger.total_wei() == total_wei
        assert ledger.balance(alice) > balance + 3 * ONE_ETHER
        await chain.wait_block(BlockNumber(before[-1].number + 1))
        assert [call.key for call in ledger.blocks[-1].calls] == ["stake 2", "stake 3", "stake 4"]
        assert find_stake(chain, alice) == 5 * ONE_ETHER
        assert ledger.balance(alice) < balance + ONE_ETHER
        assert ledger.total_wei() == total_wei


async def test_a_branch_that_was_left_is_not_read_any_more(clock: MockClock) -> None:
    async with (
        open_ledger(PARAMS, BALANCES, OPTIONS) as ledger,
        ledger.open_view(alice, SentCalls(), delay_seconds=0.5) as late,
    ):
        await late.wait_block(BlockNumber(ledger.blocks[-1].number + 3))
        newest = late.state.block_number
        ledger.reorganise(2)
        assert late.state.block_number == newest
        assert await late.read_header(BlockNumber(newest - 2))
        with pytest.raises(ChainUnavailable, match="no longer the one that was followed"):
            await late.read_header(newest)
        await trio.sleep(0.5)
        assert await late.read_header(newest) == ledger.blocks[newest].header


async def test_a_call_that_fails_in_another_branch_is_mined_as_reverted(clock: MockClock) -> None:
    """In one block with the request, it comes before the end of the unbonding."""
    async with (
        open_ledger(PARAMS, BALANCES, OPTIONS) as ledger,
        ledger.open_view(alice, SentCalls()) as chain,
    ):
        await chain.submit(STAKE, key="stake")
        await chain.submit(RequestUnbond(amount_wei=ONE_ETHER), key="unbond")
        requested = chain.state.block_number
        await chain.wait_block(chain.state.stakes[alice].release_block)
        await chain.submit(WithdrawStake(), key="withdraw")
        total_wei, withdrawn = ledger.total_wei(), chain.state.block_number
        with capture_logs() as logs:
            ledger.reorganise(withdrawn - requested + 1)
            await chain.wait_block(BlockNumber(withdrawn + 1))
        unbond, withdraw = ledger.blocks[-1].calls
        assert (unbond.is_reverted, withdraw.is_reverted) == (False, True)
        assert (withdraw.name, withdraw.fee_wei > 0) == ("StakePool.withdraw", True)
        assert [one["key"] for one in logs] == ["withdraw"]
        assert ledger.total_wei() == total_wei
        with pytest.raises(TransactionReverted, match="stake: nothing to withdraw"):
            await chain.submit(WithdrawStake(), key="withdraw")
        await chain.wait_block(chain.state.stakes[alice].release_block)
        await chain.submit(WithdrawStake(), key="withdraw")
        assert chain.state.stakes[alice].unbonding_wei == 0
        ledger.reorganise(1)
        assert ledger.pool_size == 1


async def test_who_waits_for_a_call_that_fails_in_another_branch_is_told(
    clock: MockClock,
) -> None:
    async with (
        open_ledger(PARAMS, BALANCES, OPTIONS) as ledger,
        ledger.open_view(alice, SentCalls()) as chain,
    ):
        await chain.submit(STAKE, key="stake")
        await chain.submit(RequestUnbond(amount_wei=ONE_ETHER), key="unbond")
        requested = chain.state.block_number
        await chain.wait_block(chain.state.stakes[alice].release_block)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_nothing_to_withdraw, chain)
            await wait_all_tasks_blocked()
            ledger.reorganise(chain.state.block_number - requested + 1)
        ledger.reorganise(1)
        assert ledger.pool_size == 1, "what failed, and was told so, is not sent again"


async def expect_nothing_to_withdraw(chain: ChainPort) -> None:
    with pytest.raises(TransactionReverted, match="stake: nothing to withdraw"):
        await chain.submit(WithdrawStake(), key="withdraw")


async def test_a_reorganisation_goes_no_deeper_than_the_deployment(clock: MockClock) -> None:
    async with open_ledger(PARAMS, BALANCES, OPTIONS) as ledger:
        with pytest.raises(ValueError, match="0 blocks deep here, not 1"):
            ledger.reorganise(1)
        await ledger.wait_mined(ledger.blocks[-1].number + 100)
        for depth in (0, 65):
            with pytest.raises(ValueError, match=f"1 to 64 blocks deep here, not {depth}"):
                ledger.reorganise(depth)
        ledger.reorganise(64)
        with pytest.raises(ValueError, match="65"):
            ledger.reorganise(65)


async def test_what_does_not_fit_into_a_block_waits_for_the_next(clock: MockClock) -> None:
    async with (
        open_ledger(PARAMS, BALANCES, OPTIONS) as ledger,
        ledger.open_view(alice, SentCalls()) as chain,
    ):
        number = ledger.blocks[-1].number
        async with trio.open_nursery() as nursery:
            for count in range(60):
                nursery.start_soon(submit, chain, register_many_tags(count), f"dataset {count}")
        blocks = ledger.blocks[number + 1 :]
        assert len(blocks) > 1
        assert sum(len(block.calls) for block in blocks) == 60
        for block in blocks:
            assert sum(call.gas_used for call in block.calls) <= 30_000_000
        assert list(chain.state.datasets) == list(range(1, 61))


async def test_a_token_of_which_accounts_have_some(clock: MockClock) -> None:
    options = replace(OPTIONS, tokens={alice: 500, bob: 300})
    async with (
        open_ledger(PARAMS, BALANCES, options) as ledger,
        ledger.open_view(alice, SentCalls()) as chain,
    ):
        assert chain.params.token == ledger.bindings.address_of("Token")
        assert (ledger.token_balance(alice), ledger.token_balance(bob)) == (500, 300)
        assert ledger.total_tokens() == 800
        await chain.submit(ApproveToken(spender="Market", amount_wei=Wei(5)), key="approve")
        assert ledger.blocks[-1].calls[0].name == "Token.approve"
        assert ledger.blocks[-1].events == ()


async def live(ledger: Ledger) -> list[tuple[bytes, Any]]:
    """Some life on the chain: calls at once, a reorganisation, a late block, an outage."""
    async with (
        ledger.open_view(alice, SentCalls()) as chain,
        ledger.open_view(bob, SentCalls(), delay_seconds=0.3) as other,
    ):
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(submit, chain, STAKE, f"stake {number}")
                nursery.start_soon(submit, other, register_many_tags(number), f"data {number}")
        ledger.reorganise(1)
        ledger.delay_next_block(3)
        peer = BindPeer(peer_id=b"peer", multiaddr=b"/ip4")
        await chain.submit(peer, key="bind")
        ledger.set_reachable(bob, is_reachable=False)
        with pytest.raises(ChainUnavailable):
            await other.submit(STAKE, key="stake")
        with pytest.raises(TransactionReverted):
            await chain.submit(RequestUnbond(amount_wei=Wei(100 * ONE_ETHER)), key="unbond")
        return [(block.block_hash, block.events) for block in ledger.blocks]


@pytest.fixture
def run_life() -> Callable[[int], list[tuple[bytes, Any]]]:
    async def main(seed: int) -> list[tuple[bytes, Any]]:
        async with open_ledger(PARAMS, BALANCES, replace(OPTIONS, seed=seed)) as ledger:
            return await live(ledger)

    return lambda seed: run_in_virtual_time(main, seed, seed=seed)


def test_a_seed_tells_every_block_and_event(
    run_life: Callable[[int], list[tuple[bytes, Any]]],
) -> None:
    first = run_life(7)
    assert run_life(7) == first
    other = run_life(8)
    assert not {block for block, _ in other} & {block for block, _ in first}
