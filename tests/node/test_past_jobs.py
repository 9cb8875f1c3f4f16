"""What is asked about past jobs has the answers that it had while they were in the state."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio

from d2m_node.client import (
    EXPLAIN_PAYOUTS,
    GET_JOB,
    LIST_EARNINGS,
    LIST_JOBS,
    NODE_STATUS,
    AsyncRpcClient,
    CallRefused,
    EarningsParams,
    JobParams,
    NoParams,
)
from d2m_node.errors import UserError
from d2m_node.lookup import each_past_job, find_job
from d2m_node.past_jobs import Tie, find_tie
from d2m_node.ports import Ports, Purpose, Reference, SignerPort
from d2m_node.roles.bids import refuse_unknown_bids
from d2m_node.roles.library import NodeLibrary
from d2m_node.roles.records import SETTLEMENT_KIND, TICKET_KIND, record_missed_settlements
from d2m_node.simulation.nodes.memory import MemoryPastJobs
from d2m_node.storage.collector import collect
from d2m_node.storage.database import open_store
from d2m_node.watch.figures import Bookkeeper
from protocol.events import PeerBound
from protocol.job import JobPhase
from protocol.market import MarketState, advance, apply_event
from protocol.past import let_go, list_quiet
from protocol.request import encode_body
from protocol.types import Address, BlockNumber, JobId
from tests.node.test_storage_retention import KEPT, RULES, list_kept, put_all
from tests.support.job import BODY
from tests.support.market import Market, Node
from tests.support.old_jobs import (
    BUYER,
    CONES,
    LOSER,
    SELLERS,
    cancelled_life_of,
    life_of,
    record,
    stake_events,
)
from tests.support.rpc import FakeChain, FakeNode, FakeSigner, serve_fake_node

STRANGER = Address(b"\xee" * 20)
ACCOUNTS = (BUYER, LOSER, SELLERS[1], CONES[2], STRANGER)


def fold_market() -> MarketState:
    """Five jobs: one running, one cancelled, the others settled."""
    told = [*record([(0, one) for one in stake_events()], 1)]
    for number in range(1, 5):
        base = 20 * number
        life = cancelled_life_of(number, base) if number == 2 else life_of(number, base)
        told += record(life, base)
    told += record([one for one in life_of(5, 100) if one[0] < 9], 100)
    state = MarketState()
    for one in told:
        state = apply_event(state, one)
    return advance(state, BlockNumber(1000))


WHOLE = fold_market()


async def let_all_go(state: MarketState, past: MemoryPastJobs, account: Address) -> MarketState:
    quiet = list_quiet(state, state.block_number)
    await past.keep([(job, find_tie(job, account)) for job in quiet])
    return let_go(state, quiet)


@dataclass
class Asked:
    """All that an operator can ask about jobs."""

    jobs: bytes
    views: list[bytes]
    payouts: list[bytes]
    earnings: list[bytes]
    counts: dict[str, int]


def make_ports(account: Address) -> tuple[Market, Ports]:
    market = Market()
    signer = cast("SignerPort", FakeSigner(account))
    return market, replace(Node(market, "node").ports, signer=signer)


def past_of(ports: Ports) -> MemoryPastJobs:
    assert isinstance(ports.store.past, MemoryPastJobs)
    return ports.store.past


@asynccontextmanager
async def open_client(
    state: MarketState, account: Address, folder: Path, past: MemoryPastJobs | None = None
) -> AsyncIterator[AsyncRpcClient]:
    node = FakeNode(chain=FakeChain(state), account=account)
    if past is not None:
        node.store = replace(node.store, past=past)
    await trio.Path(folder).mkdir()
    async with (
        serve_fake_node(node, folder / "rpc.sock"),
        AsyncRpcClient(folder / "rpc.sock") as client,
    ):
        yield client


async def ask_everything(client: AsyncRpcClient) -> Asked:
    encode = msgspec.json.encode
    every = [JobParams(job=number) for number in range(1, 6)]
    settled = [JobParams(job=number) for number in (1, 3, 4)]
    wanted = [EarningsParams(), *(EarningsParams(job=number) for number in range(1, 6))]
    return Asked(
        jobs=encode(await client.call(LIST_JOBS, NoParams())),
        views=[encode(await client.call(GET_JOB, one)) for one in every],
        payouts=[encode(await client.call(EXPLAIN_PAYOUTS, one)) for one in settled],
        earnings=[encode(await client.call(LIST_EARNINGS, one)) for one in wanted],
        counts=(await client.call(NODE_STATUS, NoParams())).jobs,
    )


@pytest.mark.parametrize("account", ACCOUNTS, ids=["buyer", "loser", "seller", "cone", "other"])
async def test_every_answer_is_the_same_before_and_after(account: Address, tmp_path: Path) -> None:
    past = MemoryPastJobs()
    state = await let_all_go(WHOLE, past, account)
    assert list(state.jobs) == [5]
    async with open_client(WHOLE, account, tmp_path / "whole") as client:
        before = await ask_everything(client)
    async with open_client(state, account, tmp_path / "past", past) as client:
        after = await ask_everything(client)
        with pytest.raises(CallRefused, match="job 6: the market has no such job"):
            await client.call(GET_JOB, JobParams(job=6))
    assert after == before
    assert before.counts == {"settled": 3, "cancelled": 1, "training": 1}


@pytest.mark.parametrize("account", ACCOUNTS, ids=["buyer", "loser", "seller", "cone", "other"])
async def test_the_figures_of_an_account_are_the_same_before_and_after(account: Address) -> None:
    past = MemoryPastJobs()
    before = await Bookkeeper(account, MemoryPastJobs()).add_up(WHOLE)
    books = Bookkeeper(account, past)
    assert await books.add_up(WHOLE) == before
    state = await let_all_go(WHOLE, past, account)
    assert await books.add_up(state) == before
    assert await Bookkeeper(account, past).add_up(state) == before
    # A job that comes back counts once, and so it does when it has left again.
    assert await books.add_up(WHOLE) == before
    assert await books.add_up(await let_all_go(WHOLE, past, account)) == before
    await past.drop_all()
    assert await books.add_up(WHOLE) == before


async def test_a_job_is_found_wherever_it_is() -> None:
    market, ports = make_ports(BUYER)
    market.state = await let_all_go(WHOLE, past_of(ports), BUYER)
    chain, store = ports.chain, ports.store
    for number in range(1, 6):
        assert await find_job(chain, store, JobId(number)) == WHOLE.jobs[JobId(number)]
    assert await find_job(chain, store, JobId(6)) is None
    bought = [job.job_id async for job in each_past_job(chain.state, store, (Tie.BUYER,))]
    assert bought == [1, 3, 4]


async def test_members_of_a_past_job_are_served_what_is_kept_of_it() -> None:
    market, ports = make_ports(CONES[0])
    blobs, job_id = ports.store.blobs, JobId(1)
    digest = await blobs.put(b"1 model", Reference(Purpose.STATE, job_id))
    body_hash = await blobs.put(encode_body(BODY), Reference(Purpose.REQUEST, job_id))
    bought = replace(WHOLE.jobs[job_id], body_hash=body_hash)
    market.state = replace(WHOLE, jobs={**WHOLE.jobs, job_id: bought})
    for account in (BUYER, STRANGER):
        market.apply(PeerBound(account=account, peer_id=account, multiaddr=b"/ip4/127.0.0.1/tcp/1"))
    market.state = await let_all_go(market.state, past_of(ports), CONES[0])
    library = NodeLibrary(ports.store, ports.chain, {})
    assert await library.admits(BUYER, digest)
    assert not await library.admits(STRANGER, digest)


async def test_a_bid_in_a_past_job_that_the_journal_does_not_know_is_noticed() -> None:
    market, ports = make_ports(LOSER)
    market.state = await let_all_go(WHOLE, past_of(ports), LOSER)
    with pytest.raises(UserError, match="auction 1 has a bid of this account"):
        await refuse_unknown_bids(ports, ())
    await refuse_unknown_bids(ports, (1, 3, 4, 5))


async def test_a_settlement_that_was_missed_is_recorded_of_a_past_job() -> None:
    market, ports = make_ports(CONES[0])
    await ports.store.journal.remember(TICKET_KIND, "1", b"secret")
    market.state = await let_all_go(WHOLE, past_of(ports), CONES[0])
    await record_missed_settlements(ports)
    assert await ports.store.journal.recall(SETTLEMENT_KIND, "1") is not None


async def test_blobs_of_a_past_job_go_when_those_of_any_job_do(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await put_all(store, JobId(1))
        await collect(store, WHOLE, RULES)
        quiet = list_quiet(WHOLE, WHOLE.block_number)
        await store.past.keep([(job, Tie.NONE) for job in quiet])
        state = let_go(WHOLE, quiet)
        assert state.past[JobPhase.SETTLED] == 3
        later = advance(state, BlockNumber(state.block_number + KEPT - 1))
        await collect(store, later, RULES)
        assert len(await list_kept(store, JobId(1))) == len(Purpose)
        await collect(store, advance(later, BlockNumber(later.block_number + 1)), RULES)
        assert await list_kept(store, JobId(1)) == {Purpose.OWN_REQUEST, Purpose.MODEL}
