"""The chain adapter against a real chain in a process of its own."""

import socket
from dataclasses import replace

import pytest
import rlp
import trio

from d2m_node.calls import BindPeer, RegisterDataset, RequestUnbond, WithdrawStake
from d2m_node.chain.adapter import open_chain
from d2m_node.chain.deployment import deploy
from d2m_node.chain.json_rpc import to_hex
from d2m_node.devnet.anvil import find_anvil, open_anvil
from d2m_node.errors import ChainUnavailable, TransactionReverted, UserError, WrongNetwork
from d2m_node.keys import LocalSigner
from protocol.hashing import keccak
from protocol.params import compute_params_hash
from protocol.types import Address, Digest, Wei
from tests.support.anvil import (
    CHAIN_ID,
    ONE_ETHER,
    PARAMS,
    ask,
    cone,
    find_free_port,
    make_settings,
    open_market,
    stake_some,
)
from tests.support.chain import MemoryTransactionStore

pytestmark = pytest.mark.integration


async def test_a_deposit_is_in_the_state_when_its_call_returns() -> None:
    async with (
        open_market() as (url, deployment),
        open_chain(make_settings(url, deployment), cone, MemoryTransactionStore()) as chain,
    ):
        await stake_some(chain)
        assert chain.state.stakes[cone.address].free_wei == ONE_ETHER
        peer = BindPeer(peer_id=b"peer", multiaddr=b"/ip4/127.0.0.1/tcp/4001")
        await chain.submit(peer, key="bind")
        assert chain.state.peers[cone.address].peer_id == b"peer"
        dataset = RegisterDataset(
            tags=(Digest(b"\x01" * 32), Digest(b"\x02" * 32)),
            metadata_hash=Digest(b"\x03" * 32),
            min_price_wei=Wei(5),
            min_price_token=Wei(7),
        )
        await chain.submit(dataset, key="dataset")
        assert chain.state.datasets[1].tags == dataset.tags
        assert chain.state.datasets[1].min_price_token == 7


async def test_a_refused_call_names_the_contracts_reason() -> None:
    async with (
        open_market() as (url, deployment),
        open_chain(make_settings(url, deployment), cone, MemoryTransactionStore()) as chain,
    ):
        with pytest.raises(TransactionReverted, match="stake") as refused:
            await chain.submit(RequestUnbond(amount_wei=ONE_ETHER), key="unbond")
        assert refused.value.call == "StakePool.request_unbond"
        with pytest.raises(TransactionReverted):
            await chain.submit(WithdrawStake(), key="withdraw")
        await stake_some(chain)


async def test_a_restarted_node_rebuilds_its_state_and_sends_nothing_twice() -> None:
    store = MemoryTransactionStore()
    async with open_market() as (url, deployment):
        settings = make_settings(url, deployment)
        async with open_chain(settings, cone, store) as chain:
            await stake_some(chain)
        async with open_chain(settings, cone, store) as chain:
            assert chain.state.stakes[cone.address].free_wei == ONE_ETHER
            await stake_some(chain)
            assert chain.state.stakes[cone.address].free_wei == ONE_ETHER
            await stake_some(chain, "more stake")
            assert chain.state.stakes[cone.address].free_wei == 2 * ONE_ETHER


async def test_many_calls_at_once_are_all_mined() -> None:
    async with open_market() as (url, deployment):
        await ask(url, "evm_setAutomine", False)
        await ask(url, "evm_setIntervalMining", 1)
        async with open_chain(
            make_settings(url, deployment), cone, MemoryTransactionStore()
        ) as chain:
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(stake_some, chain, f"stake {number}")
            assert chain.state.stakes[cone.address].free_wei == 10 * ONE_ETHER


async def test_headers_open_the_blocks_hash_and_hold_its_randomness() -> None:
    async with (
        open_market() as (url, deployment),
        open_chain(make_settings(url, deployment), cone, MemoryTransactionStore()) as chain,
    ):
        number = chain.state.block_number
        header = await chain.read_header(number)
        block = await ask(url, "eth_getBlockByNumber", hex(number), False)
        assert isinstance(block, dict)
        assert to_hex(keccak(header)) == block["hash"]
        assert rlp.decode(header)[13] == await chain.read_randomness(number)


async def test_a_node_turns_to_the_endpoint_that_answers() -> None:
    async with open_market() as (url, deployment):
        settings = make_settings(url, deployment)
        nobody = "http://127.0.0.1:9"
        settings = replace(settings, rpc_urls=(nobody, url))
        async with open_chain(settings, cone, MemoryTransactionStore()) as chain:
            await stake_some(chain)
            assert chain.state.stakes[cone.address].free_wei == ONE_ETHER


async def test_a_market_that_is_not_there_is_the_wrong_network() -> None:
    async with open_market() as (url, deployment):
        settings = make_settings(url, deployment)
        nowhere = replace(settings, market=Address(b"\x77" * 20))
        with pytest.raises(WrongNetwork, match="no contract at the market's address"):
            async with open_chain(nowhere, cone, MemoryTransactionStore()):
                pass
        other = replace(settings, market=deployment.addresses["StakePool"])
        with pytest.raises(WrongNetwork, match="is no market of this version"):
            async with open_chain(other, cone, MemoryTransactionStore()):
                pass
        elsewhere = replace(settings, chain_id=1)
        with pytest.raises(WrongNetwork, match=rf"chain {CHAIN_ID}.*chain 1"):
            async with open_chain(elsewhere, cone, MemoryTransactionStore()):
                pass


async def test_the_contracts_hold_the_parameters_they_were_deployed_with() -> None:
    async with (
        open_market() as (url, deployment),
        open_chain(make_settings(url, deployment), cone, MemoryTransactionStore()) as chain,
    ):
        call = {"to": to_hex(deployment.market), "data": to_hex(keccak(b"params_hash()")[:4])}
        assert await ask(url, "eth_call", call, "latest") == to_hex(compute_params_hash(PARAMS))
        assert chain.params == PARAMS


async def test_a_poor_account_cannot_deploy() -> None:
    poor = LocalSigner(b"\x03" * 32)
    async with open_market() as (url, _deployment):
        with pytest.raises(TransactionReverted, match=r"send it some|[Ii]nsufficient"):
            await deploy(url, poor, PARAMS)


async def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} for the local chain is taken"):
            async with open_anvil(port=port, chain_id=CHAIN_ID, balances={}):
                pass


async def test_the_chain_ends_with_its_context() -> None:
    async with open_anvil(port=find_free_port(), chain_id=CHAIN_ID, balances={}) as url:
        assert await ask(url, "eth_chainId") == hex(CHAIN_ID)
    with pytest.raises(ChainUnavailable):
        await ask(url, "eth_chainId")


def test_a_missing_chain_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D2M_ANVIL", "/nowhere/anvil")
    with pytest.raises(UserError, match="D2M_ANVIL names /nowhere/anvil"):
        find_anvil()
