"""Auctions in a token on a real chain: what the node encodes is what the contracts read."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import vyper
from eth_abi.abi import encode

from d2m_node.calls import (
    ApproveToken,
    CloseAuction,
    CommitBid,
    DepositStake,
    OpenAuction,
    OpenClearAuction,
    PlaceBid,
    ReclaimBid,
    RegisterDataset,
    RevealBid,
)
from d2m_node.chain.adapter import open_chain
from d2m_node.chain.bindings import EncodedCall
from d2m_node.chain.client import open_client
from d2m_node.chain.deployment import Deployment, deploy, predict_address
from d2m_node.chain.fees import quote_call
from d2m_node.chain.json_rpc import to_hex
from d2m_node.chain.signing import sign_transaction
from d2m_node.chain.slots import build_transaction
from d2m_node.devnet.anvil import open_anvil
from d2m_node.errors import TransactionReverted
from d2m_node.ports import ChainPort
from d2m_node.roles.bids import fit_terms
from protocol.auction import AuctionMode, BidOpening, compute_bid_commitment
from protocol.hashing import Domain, keccak
from protocol.job import JobPhase
from protocol.terms import JobTerms, compute_request_hash
from protocol.types import Address, BlockNumber, Digest, JobId, Wei
from tests.support.anvil import (
    CHAIN_ID,
    ONE_ETHER,
    PARAMS,
    ask,
    cone,
    deployer,
    find_free_port,
    make_settings,
)
from tests.support.chain import MemoryTransactionStore
from tests.support.job import TERMS

pytestmark = pytest.mark.integration

MOCK = Path(__file__).parents[2] / "contracts" / "mocks" / "TokenPlain.vy"
TAGS = (Digest(b"\x01" * 32),)
BODY_HASH = Digest(b"\x0b" * 32)
JOB = JobId(1)
TOKENS = 10_000


async def send(url: str, nonce: int, to: Address | None, data: bytes) -> None:
    """Send a transaction of the deployer, which anvil mines at once."""
    call = EncodedCall(label="token", to=to, data=data, value_wei=Wei(0))
    async with open_client([url]) as client:
        quote = await quote_call(client, deployer.address, call, max_fee_wei=Wei(10**13))
        raw = sign_transaction(build_transaction(CHAIN_ID, nonce, call, quote), deployer)
        await client.call("eth_sendRawTransaction", to_hex(raw))


@asynccontextmanager
async def open_token_market() -> AsyncGenerator[tuple[str, Deployment, Address], None]:
    """A chain with a token, which two bidders have, and the contracts, which take it."""
    balances = {signer.address: Wei(1000 * ONE_ETHER) for signer in (deployer, cone)}
    bytecode = vyper.compile_code(MOCK.read_text(), output_formats=["bytecode"])["bytecode"]
    mint = keccak(b"mint(address,uint256)")[:4]
    with trio.fail_after(120):
        async with open_anvil(
            port=find_free_port(), chain_id=CHAIN_ID, balances=balances, block_seconds=None
        ) as url:
            token = predict_address(deployer.address, 0)
            await send(url, 0, None, bytes.fromhex(bytecode.removeprefix("0x")))
            for nonce, signer in enumerate((deployer, cone), start=1):
                minted = encode(["address", "uint256"], [signer.address, TOKENS])
                await send(url, nonce, token, mint + minted)
            yield url, await deploy(url, deployer, replace(PARAMS, token=token)), token


async def stock(chain: ChainPort) -> None:
    """Register what the terms ask for."""
    for number in range(TERMS.sellers_min):
        dataset = RegisterDataset(
            tags=TAGS,
            metadata_hash=Digest(bytes(32)),
            min_price_wei=Wei(0),
            min_price_token=Wei(0),
        )
        await chain.submit(dataset, key=f"dataset {number}")
    await chain.submit(DepositStake(value_wei=ONE_ETHER), key="stake")


async def read_balance(url: str, token: Address, account: Address) -> int:
    data = keccak(b"balanceOf(address)")[:4] + account.rjust(32, b"\x00")
    answer = await ask(url, "eth_call", {"to": to_hex(token), "data": to_hex(data)}, "latest")
    return int(answer, 16)


async def test_an_open_auction_in_the_token() -> None:
    terms = replace(TERMS, stake_wei=ONE_ETHER)
    async with (
        open_token_market() as (url, deployment, token),
        open_chain(make_settings(url, deployment), cone, MemoryTransactionStore()) as chain,
        open_chain(make_settings(url, deployment), deployer, MemoryTransactionStore()) as rival,
    ):
        await stock(chain)
        amount_wei, raised_wei = Wei(100), Wei(150)
        opening = OpenClearAuction(
            auction=JOB,
            tags=TAGS,
            currency=token,
            reserve_wei=Wei(100),
            bid_blocks=20,
            amount_wei=amount_wei,
            terms=fit_terms(terms, amount_wei, chain.params),
            body_hash=BODY_HASH,
            permits=(),
            value_wei=Wei(0),
        )
        with pytest.raises(TransactionReverted):
            await chain.submit(opening, key="open without an allowance")
        await chain.submit(ApproveToken(spender="Market", amount_wei=amount_wei), key="approve")
        await chain.submit(opening, key="open")
        job = chain.state.jobs[JOB]
        assert (job.mode, job.currency) == (AuctionMode.OPEN, token)
        assert (job.datasets, job.stakers) == (TERMS.sellers_min, 1)

        await rival.submit(ApproveToken(spender="Market", amount_wei=raised_wei), key="approve")
        raised = PlaceBid(
            auction=JOB,
            amount_wei=raised_wei,
            terms=fit_terms(terms, raised_wei, chain.params),
            body_hash=BODY_HASH,
            permits=(),
            value_wei=Wei(0),
        )
        await rival.submit(raised, key="raise")
        await chain.wait_for(lambda state: True if len(state.jobs[JOB].bids) == 2 else None)
        await chain.submit(ReclaimBid(auction=JOB), key="reclaim")
        assert await read_balance(url, token, cone.address) == TOKENS
        await ask(url, "anvil_mine", "0x20")
        await chain.wait_block(BlockNumber(chain.state.jobs[JOB].commit_end + 1))
        await chain.submit(CloseAuction(auction=JOB), key="close")
        job = chain.state.jobs[JOB]
        assert (job.phase, job.buyer) == (JobPhase.ENROLMENT, deployer.address)
        assert job.price_wei == raised_wei
        assert await read_balance(url, token, deployment.market) == raised_wei


def seal(domain: Domain, bidder: Address, amount_wei: Wei, terms: JobTerms) -> Digest:
    opening = BidOpening(
        auction=JOB,
        bidder=bidder,
        amount_wei=amount_wei,
        request_hash=compute_request_hash(terms, BODY_HASH),
        salt=bytes(32),
    )
    return compute_bid_commitment(domain, opening)


async def test_a_sealed_second_price_auction_in_the_token() -> None:
    bond_wei, reserve_wei = Wei(200), Wei(100)
    async with (
        open_token_market() as (url, deployment, token),
        open_chain(make_settings(url, deployment), cone, MemoryTransactionStore()) as chain,
        open_chain(make_settings(url, deployment), deployer, MemoryTransactionStore()) as rival,
    ):
        await stock(chain)
        bidders = {chain: (cone, Wei(180)), rival: (deployer, Wei(150))}
        terms = {
            one: fit_terms(replace(TERMS, stake_wei=ONE_ETHER), amount_wei, chain.params)
            for one, (_, amount_wei) in bidders.items()
        }
        sealed = {
            one: seal(chain.domain, signer.address, amount_wei, terms[one])
            for one, (signer, amount_wei) in bidders.items()
        }
        for one in (chain, rival):
            await one.submit(ApproveToken(spender="Market", amount_wei=bond_wei), key="approve")
        opening = OpenAuction(
            auction=JOB,
            tags=TAGS,
            mode=AuctionMode.SECOND_PRICE,
            currency=token,
            deposit_wei=bond_wei,
            reserve_wei=reserve_wei,
            commit_blocks=20,
            reveal_blocks=20,
            commitment=sealed[chain],
            bond_wei=bond_wei,
            permits=(),
            value_wei=Wei(0),
        )
        await chain.submit(opening, key="open")
        joining = CommitBid(
            auction=JOB,
            commitment=sealed[rival],
            bond_wei=bond_wei,
            permits=(),
            value_wei=Wei(0),
        )
        await rival.submit(joining, key="commit")
        await ask(url, "anvil_mine", "0x14")
        for one, (_, amount_wei) in bidders.items():
            revealed = RevealBid(
                auction=JOB,
                amount_wei=amount_wei,
                terms=terms[one],
                body_hash=BODY_HASH,
                salt=bytes(32),
            )
            await one.submit(revealed, key="reveal")
        await ask(url, "anvil_mine", "0x14")
        await chain.submit(CloseAuction(auction=JOB), key="close")
        job = chain.state.jobs[JOB]
        assert (job.buyer, job.price_wei) == (cone.address, 150)
        await chain.submit(ReclaimBid(auction=JOB), key="reclaim")
        assert await read_balance(url, token, cone.address) == TOKENS - 150
