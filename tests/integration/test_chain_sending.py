"""Sending on a real chain: killed processes, strangers with the same key, fees, reverts."""

import sys
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from d2m_node.chain.adapter import open_chain
from d2m_node.chain.json_rpc import to_hex
from d2m_node.chain.signing import Transaction, parse_transaction, sign_transaction
from d2m_node.errors import TransactionReverted
from d2m_node.transaction_store import TransactionState
from protocol.types import Wei
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
    wait_pool,
    wait_stake,
)
from tests.support.chain import MemoryTransactionStore
from tests.support.endpoints import Reply

pytestmark = pytest.mark.integration

GWEI = 10**9
ENDLESS_LOOP = "0x5b600056"
REVERT_WITH_REASON = (
    # Copies the 100 bytes behind it, Error("stake: gone"), and reverts with them.
    "0x6064600c60003960646000fd"
    + "08c379a0"
    + f"{32:064x}{11:064x}"
    + b"stake: gone".ljust(32, b"\0").hex()
)


def sign_strangers(nonce: int, max_fee_wei: int) -> str:
    """Sign what another program with the node's key might."""
    transaction = Transaction(
        chain_id=CHAIN_ID,
        nonce=nonce,
        tip_wei=Wei(max_fee_wei),
        max_fee_wei=Wei(max_fee_wei),
        gas=21_000,
        to=cone.address,
        value_wei=Wei(1),
        data=b"",
    )
    return to_hex(sign_transaction(transaction, cone))


@pytest.mark.parametrize("has_sent", [False, True])
async def test_a_process_killed_around_its_send_deposits_exactly_once(
    tmp_path: Path, has_sent: bool
) -> None:
    endpoint = FaultyEndpoint()
    async with open_market() as (url, deployment):
        endpoint.url = url
        with open_endpoint(endpoint) as between:
            arguments = [between, deployment.market.hex(), str(deployment.deployment_block)]
            command = [sys.executable, "-m", "tests.support.depositor", *arguments, str(tmp_path)]
            doomed = await trio.lowlevel.open_process(command)

            def kill() -> Reply:
                doomed.kill()
                return Reply(b"", status=502)

            if has_sent:
                endpoint.after_send = kill
            else:
                endpoint.before_send = kill
            assert await doomed.wait() == -9
            assert await count_used_nonces(url) == has_sent
            endpoint.before_send = endpoint.after_send = lambda: None
            await trio.run_process(command)
            pool = to_hex(deployment.addresses["StakePool"])
            assert await ask(url, "eth_getBalance", pool, "latest") == hex(ONE_ETHER)
            assert await count_used_nonces(url) == 1


async def test_a_nonce_that_another_program_takes_is_proved_and_replaced() -> None:
    store = MemoryTransactionStore()
    async with (
        open_market() as (url, deployment),
        open_chain(make_settings(url, deployment), cone, store) as chain,
    ):
        await ask(url, "evm_setAutomine", False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stake_some, chain)
            await wait_pool(url, 1)
            await ask(url, "eth_sendRawTransaction", sign_strangers(0, 100 * GWEI))
            await ask(url, "evm_mine")
            await wait_pool(url, 1)
            await ask(url, "evm_mine")
        await wait_stake(chain, ONE_ETHER)
        assert await count_used_nonces(url) == 2
    assert [one.state for one in store.transactions] == [
        TransactionState.REPLACED,
        TransactionState.CONFIRMED,
    ]


async def test_a_transaction_that_the_base_fee_leaves_behind_is_outbid_and_happens_once() -> None:
    store = MemoryTransactionStore()
    async with (
        open_market() as (url, deployment),
        open_chain(make_settings(url, deployment), cone, store) as chain,
    ):
        await ask(url, "evm_setAutomine", False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stake_some, chain)
            await wait_pool(url, 1)
            await ask(url, "anvil_setNextBlockBaseFeePerGas", hex(20 * GWEI))
            while await count_used_nonces(url) == 0:
                await ask(url, "evm_mine")
                await chain.wait_block(int(await ask(url, "eth_blockNumber"), 16))
        await wait_stake(chain, ONE_ETHER)
        assert await count_used_nonces(url) == 1
    first, *_, last = [parse_transaction(one.raw) for one in store.transactions]
    assert first.nonce == last.nonce
    assert last.max_fee_wei * 8 >= first.max_fee_wei * 9
    assert last.tip_wei * 8 >= first.tip_wei * 9


@pytest.mark.parametrize(
    ("code", "reason"), [(REVERT_WITH_REASON, "stake: gone"), (ENDLESS_LOOP, "out of gas")]
)
async def test_what_fails_when_it_is_mined_says_why_and_is_logged(code: str, reason: str) -> None:
    async with (
        open_market() as (url, deployment),
        open_chain(make_settings(url, deployment), cone, MemoryTransactionStore()) as chain,
    ):
        await ask(url, "evm_setAutomine", False)

        async def submit_in_vain() -> None:
            with pytest.raises(TransactionReverted, match=reason):
                await stake_some(chain)

        with capture_logs() as logs:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(submit_in_vain)
                await wait_pool(url, 1)
                await ask(url, "anvil_setCode", to_hex(deployment.addresses["StakePool"]), code)
                await ask(url, "evm_mine")
        (entry,) = [one for one in logs if one["event"] == "transaction_reverted"]
        assert entry["call"] == "StakePool.deposit"
        assert reason in entry["reason"]
