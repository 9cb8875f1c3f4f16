"""What every `ChainPort` keeps to: the adapter over a real chain, and the simulated one."""

from dataclasses import dataclass, field, replace

import pytest
import rlp
import trio
from trio.testing import MockClock

from d2m_node.calls import (
    BindPeer,
    CloseAuction,
    CommitBid,
    ContractCall,
    DepositStake,
    OpenAuction,
    ReclaimBid,
    RegisterDataset,
    ReleaseStake,
    RequestUnbond,
    RevealBid,
    WithdrawStake,
)
from d2m_node.errors import ChainUnavailable, TransactionReverted
from d2m_node.keys import LocalSigner
from d2m_node.ports import ChainPort, SignerPort, TakenBack
from d2m_node.roles.bids import fit_terms
from d2m_node.simulation.world.virtual_time import run_in_virtual_time
from protocol.auction import AuctionMode, BidOpening, compute_bid_commitment
from protocol.events import StakeDeposited
from protocol.hashing import keccak
from protocol.job import JobPhase
from protocol.terms import JobTerms, compute_request_hash
from protocol.types import NO_ACCOUNT, BlockNumber, Digest, JobId, Wei
from tests.support.anvil import ONE_ETHER, PARAMS, cone, deployer, stake_some, wait_stake
from tests.support.chains import ChainUnderTest, Memory, open_tested_chain
from tests.support.job import TERMS

TAGS = (Digest(b"\x01" * 32),)
BODY_HASH = Digest(b"\x0b" * 32)
JOB = JobId(1)
BOND_WEI = Wei(200)
poor = LocalSigner(b"\x03" * 32)


@pytest.fixture(params=[pytest.param("anvil", marks=pytest.mark.integration), "simulated"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock(kind: str) -> MockClock | None:
    """Virtual time where the chain is in this process, else the machine's."""
    return MockClock(autojump_threshold=0) if kind == "simulated" else None


async def test_a_deposit_is_in_the_state_when_its_call_returns(kind: str, clock: None) -> None:
    async with open_tested_chain(kind) as tested, tested.open_view(cone, Memory()) as chain:
        await stake_some(chain)
        assert chain.state.stakes[cone.address].free_wei == ONE_ETHER
        peer = BindPeer(peer_id=b"peer", multiaddr=b"/ip4/127.0.0.1/tcp/4001")
        await chain.submit(peer, key="bind")
        assert chain.state.peers[cone.address].peer_id == b"peer"
        assert chain.params == PARAMS
        told = [chain.history.read(n) for n in range(chain.history.first, chain.history.end)]
        assert [type(one.event).__name__ for one in told if not isinstance(one, TakenBack)] == [
            "StakeDeposited",
            "PeerBound",
        ]


REFUSED: list[tuple[ContractCall, str, str]] = [
    (
        RequestUnbond(amount_wei=ONE_ETHER),
        "StakePool.request_unbond",
        "stake: not enough free stake",
    ),
    (WithdrawStake(), "StakePool.withdraw", "stake: nothing to withdraw"),
    (ReleaseStake(job=JOB, account=cone.address), "StakePool.release", "stake: job not closed"),
    (CloseAuction(auction=JOB), "Market.close_auction", "market: no such auction"),
]


@pytest.mark.parametrize(("call", "name", "reason"), REFUSED)
async def test_a_refused_call_names_the_contracts_reason(
    kind: str, clock: None, call: ContractCall, name: str, reason: str
) -> None:
    async with open_tested_chain(kind) as tested, tested.open_view(cone, Memory()) as chain:
        with pytest.raises(TransactionReverted) as refused:
            await chain.submit(call, key="refused")
        assert (refused.value.call, refused.value.reason) == (name, reason)


async def test_an_account_that_cannot_pay_is_told_so(kind: str, clock: None) -> None:
    async with open_tested_chain(kind) as tested, tested.open_view(poor, Memory()) as chain:
        with pytest.raises(TransactionReverted) as refused:
            await chain.submit(BindPeer(peer_id=b"peer", multiaddr=b"/ip4"), key="bind")
        assert refused.value.reason.startswith("the account holds 0 wei and may need")


async def test_a_key_is_sent_once(kind: str, clock: None) -> None:
    async with open_tested_chain(kind) as tested, tested.open_view(cone, Memory()) as chain:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(stake_some, chain)
        await stake_some(chain)
        assert chain.state.stakes[cone.address].free_wei == ONE_ETHER
        await stake_some(chain, "more stake")
        assert chain.state.stakes[cone.address].free_wei == 2 * ONE_ETHER


async def test_a_key_that_was_refused_is_free_again(kind: str, clock: None) -> None:
    unbonding = RequestUnbond(amount_wei=ONE_ETHER)
    async with open_tested_chain(kind) as tested, tested.open_view(cone, Memory()) as chain:
        with pytest.raises(TransactionReverted):
            await chain.submit(unbonding, key="unbond")
        await stake_some(chain)
        await chain.submit(unbonding, key="unbond")
        assert chain.state.stakes[cone.address].unbonding_wei == ONE_ETHER


async def test_many_calls_at_once_are_all_mined(kind: str, clock: None) -> None:
    async with open_tested_chain(kind) as tested, tested.open_view(cone, Memory()) as chain:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(stake_some, chain, f"stake {number}")
        assert chain.state.stakes[cone.address].free_wei == 10 * ONE_ETHER


async def test_a_restarted_node_rebuilds_its_state_and_sends_nothing_twice(
    kind: str, clock: None
) -> None:
    memory = Memory()
    async with open_tested_chain(kind) as tested:
        async with tested.open_view(cone, memory) as chain:
            await stake_some(chain)
        async with tested.open_view(cone, memory) as chain:
            assert chain.state.stakes[cone.address].free_wei == ONE_ETHER
            await stake_some(chain)
            await stake_some(chain, "more stake")
            assert chain.state.stakes[cone.address].free_wei == 2 * ONE_ETHER


async def test_what_a_crashed_node_sent_is_mined_and_known_to_the_next(
    kind: str, clock: None
) -> None:
    memory = Memory()
    async with open_tested_chain(kind) as tested:
        await tested.hold()
        async with tested.open_view(cone, memory) as chain, trio.open_nursery() as nursery:
            nursery.start_soon(stake_some, chain)
            await tested.wait_pool(1)
            nursery.cancel_scope.cancel()
        async with tested.open_view(cone, memory) as chain:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stake_some, chain)
                await tested.mine(1)
            assert chain.state.stakes[cone.address].free_wei == ONE_ETHER
            await tested.mine(3)
            await chain.wait_block(BlockNumber(chain.state.block_number + 3))
            assert chain.state.stakes[cone.address].free_wei == ONE_ETHER


async def test_headers_open_the_blocks_hash_and_hold_its_randomness(kind: str, clock: None) -> None:
    async with open_tested_chain(kind) as tested, tested.open_view(cone, Memory()) as chain:
        number = chain.state.block_number
        header = await chain.read_header(number)
        assert keccak(header) == await tested.read_hash(number)
        fields = rlp.decode(header)
        assert len(fields) == 21
        assert fields[13] == await chain.read_randomness(number)
        assert fields[0] == keccak(await chain.read_header(BlockNumber(number - 1)))
        with pytest.raises(ChainUnavailable, match="not been followed yet"):
            await chain.read_header(BlockNumber(number + 1000))


async def test_a_deposit_that_is_dropped_goes_from_the_state_and_comes_back_once(
    kind: str, clock: None
) -> None:
    async with open_tested_chain(kind) as tested, tested.open_view(cone, Memory()) as chain:
        await stake_some(chain)
        block = chain.state.block_number
        told = chain.history.end
        await tested.hold()
        await tested.reorganise(1)
        await wait_stake(chain, 0)
        assert chain.state.block_number == block
        assert chain.history.read(told) == TakenBack(BlockNumber(block - 1))
        await tested.wait_pool(1)
        await tested.mine(1)
        await wait_stake(chain, ONE_ETHER)
        again = chain.history.read(told + 1)
        assert not isinstance(again, TakenBack)
        assert isinstance(again.event, StakeDeposited)
        assert again.block_number == block + 1
        await stake_some(chain)
        await tested.mine(5)
        await chain.wait_block(BlockNumber(block + 6))
        assert chain.state.stakes[cone.address].free_wei == ONE_ETHER


async def test_a_key_whose_call_was_dropped_is_waited_for(kind: str, clock: None) -> None:
    async with open_tested_chain(kind) as tested, tested.open_view(cone, Memory()) as chain:
        await stake_some(chain)
        await tested.hold()
        await tested.reorganise(1)
        await wait_stake(chain, 0)
        await tested.wait_pool(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stake_some, chain)
            await tested.mine(1)
        assert chain.state.stakes[cone.address].free_wei == ONE_ETHER


@dataclass(slots=True)
class Diary:
    """What calls came to on one chain."""

    tested: ChainUnderTest
    gas: list[tuple[str, int]] = field(default_factory=list)

    async def submit(self, chain: ChainPort, call: ContractCall, key: str) -> None:
        await chain.submit(call, key=key)
        for number in range(chain.state.block_number, 0, -1):
            used = await self.tested.read_gas(number)
            if used:
                break
        (gas,) = used
        self.gas.append((f"{call.contract}.{call.function}", gas))


def seal(chain: ChainPort, bidder: SignerPort, amount_wei: Wei, terms: JobTerms) -> Digest:
    opening = BidOpening(
        auction=JOB,
        bidder=bidder.address,
        amount_wei=amount_wei,
        request_hash=compute_request_hash(terms, BODY_HASH),
        salt=bytes(32),
    )
    return compute_bid_commitment(chain.domain, opening)


async def stock(diary: Diary, chain: ChainPort) -> None:
    """Register what the terms ask for."""
    for number in range(TERMS.sellers_min):
        dataset = RegisterDataset(
            tags=TAGS,
            metadata_hash=Digest(bytes(32)),
            min_price_wei=Wei(0),
            min_price_token=Wei(0),
        )
        await diary.submit(chain, dataset, f"dataset {number}")
    await diary.submit(chain, DepositStake(value_wei=ONE_ETHER), "stake")


async def bid(diary: Diary, chain: ChainPort, rival: ChainPort) -> None:
    """Let two accounts commit to bids, and reveal them."""
    amounts = {chain: Wei(180), rival: Wei(150)}
    terms = {
        one: fit_terms(replace(TERMS, stake_wei=ONE_ETHER), amount_wei, chain.params)
        for one, amount_wei in amounts.items()
    }
    opening = OpenAuction(
        auction=JOB,
        tags=TAGS,
        mode=AuctionMode.SECOND_PRICE,
        currency=NO_ACCOUNT,
        deposit_wei=BOND_WEI,
        reserve_wei=Wei(100),
        commit_blocks=20,
        reveal_blocks=20,
        commitment=seal(chain, cone, amounts[chain], terms[chain]),
        bond_wei=BOND_WEI,
        permits=(),
        value_wei=BOND_WEI,
    )
    joining = CommitBid(
        auction=JOB,
        commitment=seal(rival, deployer, amounts[rival], terms[rival]),
        bond_wei=BOND_WEI,
        permits=(),
        value_wei=BOND_WEI,
    )
    await diary.submit(chain, opening, "open")
    await diary.submit(rival, joining, "commit")
    await diary.tested.mine(20)
    for one in (chain, rival):
        revealed = RevealBid(
            auction=JOB,
            amount_wei=amounts[one],
            terms=terms[one],
            body_hash=BODY_HASH,
            salt=bytes(32),
        )
        await diary.submit(one, revealed, "reveal")
    await diary.tested.mine(20)


async def auction_off(kind: str) -> tuple[list[tuple[str, int]], list[str]]:
    """Hold an auction up to its close; return the gas of each call, and the events told."""
    async with (
        open_tested_chain(kind) as tested,
        tested.open_view(cone, Memory()) as chain,
        tested.open_view(deployer, Memory()) as rival,
    ):
        diary = Diary(tested)
        await stock(diary, chain)
        await bid(diary, chain, rival)
        await diary.submit(rival, CloseAuction(auction=JOB), "close")
        await chain.wait_for(
            lambda state: True if state.jobs[JOB].phase is JobPhase.ENROLMENT else None
        )
        job = chain.state.jobs[JOB]
        assert (job.buyer, job.price_wei) == (cone.address, 150)
        await diary.submit(rival, ReclaimBid(auction=JOB), "reclaim")
        await chain.wait_block(rival.state.block_number)
        entries = [chain.history.read(n) for n in range(chain.history.end)]
        told = [type(one.event).__name__ for one in entries if not isinstance(one, TakenBack)]
        return diary.gas, told


async def test_an_auction_runs_to_its_close(kind: str, clock: None) -> None:
    gas, _ = await auction_off(kind)
    assert [name for name, _ in gas][-2:] == ["Market.close_auction", "Market.reclaim_bid"]


@pytest.mark.integration
def test_calls_cost_and_say_the_same_on_both_chains() -> None:
    real = trio.run(auction_off, "anvil")
    assert run_in_virtual_time(auction_off, "simulated", seed=0) == real
