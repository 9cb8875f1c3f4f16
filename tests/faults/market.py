"""A small market of watched nodes behind the switchboard, and one job after the other in it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import trio

from d2m_node.chain.deployment import load_params
from d2m_node.client import (
    DRAIN_ROLE,
    ENABLE_ROLE,
    SUBMIT_REQUEST,
    AsyncRpcClient,
    CallRefused,
    EnableRoleParams,
    Method,
    NodeUnreachable,
    RoleParams,
    SubmitRequestParams,
)
from d2m_node.devnet.launcher import PARAMS_FILE, Devnet, Staging, open_devnet
from d2m_node.devnet.layout import ChainPlace, NodePlan
from d2m_node.devnet.options import DevnetOptions
from d2m_node.errors import NodeError
from protocol.job import JobPhase
from protocol.market import MarketState
from protocol.params import ProtocolParams
from protocol.types import NO_ACCOUNT, Address, BlockNumber, JobId, Wei
from tests.faults.director import Director
from tests.faults.setups import Setup
from tests.faults.switchboard import Switchboard, Wire
from tests.faults.table import Cell
from tests.faults.token import deploy_token, mint
from tests.support.anvil import find_free_port
from tests.support.devnets import make_honest_options, show_nothing
from tests.support.small_request import SmallJob, write_small_request

BUYERS = 2
BID_WEI = 10 * 10**18
BID_BLOCKS = 12
"""Long enough for a buyer to be started again and still bid in the other one's auction."""
REVEAL_BLOCKS = 10
"""The same of its reveal."""
JOB_BLOCKS = 500
MOST_REFUSALS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultyMarket:
    """A running market."""

    devnet: Devnet
    director: Director
    url: str
    block_seconds: float
    setup: Setup
    token: Address
    """Zero without one."""

    def plan(self, name: str) -> NodePlan:
        """Find a node."""
        return next(one for one in self.devnet.plans if one.name == name)


@asynccontextmanager
async def open_faulty_market(
    folder: Path, setup: Setup, *, block_seconds: float, joining: list[Cell]
) -> AsyncGenerator[FaultyMarket, None]:
    """Run a market whose nodes report; faults at joining fall while it comes up."""
    options = _make_options(folder, setup, block_seconds)
    async with trio.open_nursery() as nursery:
        director = Director(nursery)
        director.arm(joining, Setup())
        socket_path = folder.parent / f"{folder.name}.sock"
        listener = await _listen(socket_path)
        nursery.start_soon(partial(trio.serve_listeners, director.serve, [listener]))
        board = Switchboard(nursery, director.find_pid, director.see_sent)
        director.switchboard = board
        places = await _open_ports(board, options)

        def place_of(plan: NodePlan, place: ChainPlace) -> ChainPlace:
            own = places[plan.name]
            further = setup.seller_settings if plan.role == "seller" else ()
            return replace(
                place,
                url=own.url,
                listen=own.listen,
                announce=own.announce,
                further_settings=further,
            )

        def command_of(plan: NodePlan) -> list[str]:
            command = ["-m", "d2m_node.simulation.faulty", str(plan.folder), str(socket_path)]
            attack = setup.attacks.get(plan.name)
            return command if attack is None else [*command, attack]

        async def params_of(url: str) -> ProtocolParams:
            token = await deploy_token(url) if setup.in_token else NO_ACCOUNT
            return replace(load_params(PARAMS_FILE), audit_bps=setup.audit_bps, token=token)

        staging = Staging(
            command_of=command_of,
            place_of=place_of,
            params_of=params_of,
            on_started=director.open,
        )
        async with open_devnet(options, show_nothing, staging) as devnet:
            url = f"http://127.0.0.1:{options.chain_port}"
            token = devnet.chain.params.token
            if setup.in_token:
                await mint(url, token, [plan.account for plan in devnet.plans])
            yield FaultyMarket(
                devnet=devnet,
                director=director,
                url=url,
                block_seconds=block_seconds,
                setup=setup,
                token=token,
            )
        nursery.cancel_scope.cancel()


def _make_options(folder: Path, setup: Setup, block_seconds: float) -> DevnetOptions:
    return make_honest_options(
        folder,
        buyers=BUYERS,
        sellers=setup.sellers,
        cones=setup.cones,
        block_seconds=block_seconds,
    )


@dataclass(frozen=True, slots=True)
class _Place:
    url: str
    listen: str
    announce: str


async def _open_ports(board: Switchboard, options: DevnetOptions) -> dict[str, _Place]:
    places = {}
    counts = {"buyer": options.buyers, "seller": options.sellers, "cone": options.cones}
    for role, count in counts.items():
        for number in range(count):
            name = f"{role}-{number + 1}"
            own = find_free_port()
            chain = await board.open_port(name, Wire.CHAIN, options.chain_port)
            peers = await board.open_port(name, Wire.PEERS, own)
            places[name] = _Place(
                f"http://127.0.0.1:{chain}",
                f"/ip4/127.0.0.1/tcp/{own}",
                f"/ip4/127.0.0.1/tcp/{peers}",
            )
    return places


async def _listen(path: Path) -> trio.SocketListener:
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen(64)
    return trio.SocketListener(listening)


async def run_jobs(market: FaultyMarket, number: int, cells: list[Cell]) -> list[JobId] | None:
    """Let the buyers bid, and see their jobs to the end while the faults fall.

    It is one job, unless a fault made a bid too late for the auction: that opens another one.
    Returns the jobs, or None if one did not come to its end.
    """
    market.director.arm(cells, market.setup)
    chain = market.devnet.chain
    first = len(chain.state.jobs) + 1
    with trio.move_on_after(JOB_BLOCKS * market.block_seconds):
        for place in range(BUYERS):
            await _bid(market, f"buyer-{place + 1}", f"job-{number}", place, first)
        await chain.wait_for(partial(_are_over, first))
        return [JobId(one) for one in range(first, len(chain.state.jobs) + 1)]
    return None


async def drain(market: FaultyMarket, name: str) -> None:
    """Let a CONE node take its stake out; it may have done so already when it dies of the call."""
    with suppress(CallRefused):
        await _insist(market, name, DRAIN_ROLE, RoleParams(role="cone"))


async def enable(market: FaultyMarket, name: str, *, key: str) -> None:
    """Let it stake again, in time for the next auction."""
    account, chain = market.plan(name).account, market.devnet.chain
    params = EnableRoleParams(role="cone", idempotency_key=key)
    await _insist(market, name, ENABLE_ROLE, params)
    await chain.wait_for(lambda state: state.stakes[account].free_wei > 0 or None)
    await chain.wait_block(BlockNumber(chain.state.block_number + 2))


async def _insist(market: FaultyMarket, name: str, method: Method[Any, Any], params: Any) -> None:
    """Call a node until it answers: it may die of the call, and is started again."""
    while True:
        try:
            async with AsyncRpcClient(market.plan(name).folder / "rpc.sock") as client:
                await client.call(method, params)
                return
        except NodeUnreachable:
            await trio.sleep(0.2)


async def _bid(market: FaultyMarket, name: str, key: str, place: int, first: int) -> None:
    """Ask for a model, again and again under one key while the node is away."""
    plan = market.plan(name)
    path = _write_request(plan.folder, market.setup, Wei(BID_WEI + place * 10**18))
    params = SubmitRequestParams(path=str(path), idempotency_key=key)
    refusals = 0
    while not _has_bid(first, plan.account, market.devnet.chain.state):
        with trio.move_on_after(20):
            try:
                async with AsyncRpcClient(plan.folder / "rpc.sock") as client:
                    await client.call(SUBMIT_REQUEST, params)
                break
            except CallRefused:
                refusals += 1
                if refusals > MOST_REFUSALS:  # it is no bid that came too late
                    raise
                await trio.sleep(0.5)
            except NodeError:  # the node died, or is away
                await trio.sleep(0.2)
    await market.devnet.chain.wait_for(partial(_has_bid, first, plan.account))


def _has_bid(first: int, bidder: Address, state: MarketState) -> bool | None:
    return any(bidder in job.bids for job in state.jobs.values() if job.job_id >= first) or None


def _are_over(first: int, state: MarketState) -> bool | None:
    jobs = [job for job in state.jobs.values() if job.job_id >= first]
    over = (JobPhase.SETTLED, JobPhase.CANCELLED)
    return (bool(jobs) and all(job.phase in over for job in jobs)) or None


def _write_request(folder: Path, setup: Setup, bid_wei: Wei) -> Path:
    wish = SmallJob(
        bid_wei=bid_wei,
        sellers=setup.sellers,
        sellers_min=setup.sellers - setup.spare_sellers,
        cones=setup.cones,
        mode=setup.mode,
        is_in_token=setup.in_token,
        model_access=setup.model_access,
        first_set_size=setup.first_set_size,
        bid_blocks=BID_BLOCKS,
        reveal_blocks=REVEAL_BLOCKS,
    )
    return write_small_request(folder, wish)
