"""Starts a chain, contracts and nodes, and sees one job through from bid to payout."""

import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from d2m_node.chain.adapter import open_chain
from d2m_node.chain.deployment import deploy, load_params
from d2m_node.client import (
    JOB_MODEL,
    SUBMIT_REQUEST,
    AsyncRpcClient,
    JobParams,
    SubmitRequestParams,
)
from d2m_node.devnet.anvil import open_anvil
from d2m_node.devnet.layout import (
    ChainPlace,
    NodePlan,
    plan_nodes,
    write_settings,
)
from d2m_node.devnet.narrator import Narrator
from d2m_node.devnet.options import DevnetOptions
from d2m_node.devnet.processes import CommandOf, Processes, node_command, open_processes
from d2m_node.devnet.request import write_request
from d2m_node.errors import NodeError, UserError
from d2m_node.keys import create_account, open_signer
from d2m_node.model_file import read_parameters
from d2m_node.ports import ChainPort
from d2m_node.settings import ChainSettings
from d2m_node.storage.database import open_store
from protocol.claims import claim_of
from protocol.deposits import DepositStatus, SellerDeposit
from protocol.hashing import Domain
from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.params import ProtocolParams
from protocol.shares import find_cone_share, find_seller_share
from protocol.types import Address, JobId, Wei
from protocol.update import TensorKind, compute_tensor_digest

CHAIN_ID = 31337
BALANCE_WEI = Wei(1000 * 10**18)
BID_WEI = 10 * 10**18
BID_STEP_WEI = 10**18
"""Each further buyer bids this much more."""
JOIN_SECONDS = 180.0
JOB_SECONDS = 900.0
PARAMS_FILE = Path(__file__).parents[2] / "configs" / "params" / "dev.toml"

Show = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Devnet:
    """A running market."""

    chain: ChainPort
    plans: list[NodePlan]
    processes: Processes
    narrator: Narrator


def _everybody_at(_: NodePlan, place: ChainPlace) -> ChainPlace:
    return place


async def _load_dev_params(_: str) -> ProtocolParams:
    return load_params(PARAMS_FILE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """How the nodes of a market are put up; a devnet's are ordinary nodes."""

    command_of: CommandOf = node_command
    place_of: Callable[[NodePlan, ChainPlace], ChainPlace] = _everybody_at
    """Where a node finds the chain, and where it listens."""
    params_of: Callable[[str], Awaitable[ProtocolParams]] = _load_dev_params
    """Gives the parameters to deploy with, by the url of the chain."""
    on_started: Callable[[Devnet], None] = lambda _: None
    """Called once all processes run, before they have joined the market."""


ORDINARY = Staging()


async def run_devnet(options: DevnetOptions, show: Show) -> None:
    """Run one market job from nothing to its last payout.

    Raises
    ------
    UserError
        If a tool is missing, a port is taken or the folder is not empty.
    NodeError
        If a node dies or the job does not come to its end in time.
    KeyboardInterrupt
        At a SIGTERM too: chain and nodes are ended as at a Ctrl-C.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(interrupt_at_sigterm)
        await _run_market(options, show)
        nursery.cancel_scope.cancel()


async def interrupt_at_sigterm() -> None:
    """Raise KeyboardInterrupt at a SIGTERM, so that what is open is closed as at a Ctrl-C."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _ in signals:
            raise KeyboardInterrupt


async def _run_market(options: DevnetOptions, show: Show) -> None:
    async with open_devnet(options, show) as devnet:
        with trio.move_on_after(JOB_SECONDS) as limit:
            job_id = await _place_bids(devnet, options)
            job = await _tell_job(devnet, job_id, show)
            if job.phase is not JobPhase.SETTLED:
                raise NodeError(f"job {job_id} ended as {job.phase.value}")
            await _wait_claims(devnet, job, show)
            await _wait_deposits(devnet, job_id, show)
            await _save_model(devnet, job, options, show)
            if options.stay_up:
                show({"event": "staying_up"})
            show(devnet.narrator.tell_settlement(job))
        if limit.cancelled_caught:
            raise NodeError(f"the job did not end within {JOB_SECONDS:.0f} seconds")
        if options.stay_up:
            await _wait_interrupt()


async def _wait_interrupt() -> None:
    """Return at the first Ctrl-C or SIGTERM; a market that was asked to stay up ended well."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            return


@asynccontextmanager
async def open_devnet(
    options: DevnetOptions, show: Show, staging: Staging = ORDINARY
) -> AsyncGenerator[Devnet, None]:
    """Run chain and nodes while the context is open; yield once all have joined the market."""
    if options.folder.exists() and any(options.folder.iterdir()):
        raise UserError(f"--dir: {options.folder} is not empty; give a new folder")
    options.folder.mkdir(parents=True, exist_ok=True)
    plans = await trio.to_thread.run_sync(plan_nodes, options)
    operator = options.folder / "operator"
    operator_account = await trio.to_thread.run_sync(_create_operator, operator)
    balances = {plan.account: BALANCE_WEI for plan in plans} | {operator_account: BALANCE_WEI}
    signer = open_signer(operator / "account.json", operator / "password")
    async with open_anvil(
        port=options.chain_port,
        chain_id=CHAIN_ID,
        balances=balances,
        block_seconds=options.block_seconds,
    ) as url:
        deployment = await deploy(url, signer, await staging.params_of(url))
        place = ChainPlace(
            url=url,
            domain=Domain(CHAIN_ID, deployment.market),
            deployment_block=deployment.deployment_block,
        )
        market = "0x" + deployment.market.hex()
        show({"event": "chain_started", "chain_id": CHAIN_ID, "url": url, "market": market})
        for plan in plans:
            write_settings(plan, staging.place_of(plan, place), options)
        settings = ChainSettings(
            rpc_urls=(url,),
            chain_id=CHAIN_ID,
            market=deployment.market,
            confirmations=0,
            poll_seconds=options.block_seconds / 2,
            deployment_block=deployment.deployment_block,
        )
        async with (
            open_processes(plans, staging.command_of) as processes,
            open_store(operator) as store,
            open_chain(settings, signer, store.transactions) as chain,
        ):
            show(
                {
                    "event": "nodes_started",
                    "count": len(plans),
                    "buyers": options.buyers,
                    "sellers": options.sellers,
                    "cones": options.cones,
                    "folder": str(options.folder),
                }
            )
            names = {plan.account: plan.name for plan in plans}
            devnet = Devnet(chain=chain, plans=plans, processes=processes, narrator=Narrator(names))
            staging.on_started(devnet)
            await _wait_joined(chain, options, show)
            yield devnet


def _create_operator(folder: Path) -> Address:
    folder.mkdir(mode=0o700)
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text("devnet\n")
    return create_account(folder / "account.json", "devnet", light=True)


async def _wait_joined(chain: ChainPort, options: DevnetOptions, show: Show) -> None:
    """Wait until every node is bound, every dataset registered, every stake deposited."""
    count = options.buyers + options.sellers + options.cones

    def joined(state: MarketState) -> MarketState | None:
        is_complete = (
            len(state.peers) >= count
            and len(state.datasets) >= options.sellers
            and len(state.stakes) >= options.cones
        )
        return state if is_complete else None

    with trio.move_on_after(JOIN_SECONDS):
        state = await chain.wait_for(joined)
        # Stake counts from the block before an auction; gossip needs a heartbeat for its mesh.
        await chain.wait_for(
            lambda now: True if now.block_number > state.block_number + 1 else None
        )
        show(
            {
                "event": "market_ready",
                "peers": len(state.peers),
                "datasets": len(state.datasets),
                "stakes": len(state.stakes),
            }
        )
        return
    state = chain.state
    raise NodeError(
        f"after {JOIN_SECONDS:.0f} seconds only {len(state.peers)} of {count} nodes, "
        f"{len(state.datasets)} of {options.sellers} datasets and {len(state.stakes)} of "
        f"{options.cones} stakes are registered"
    )


async def _place_bids(devnet: Devnet, options: DevnetOptions) -> JobId:
    """Let every buyer ask for the same data; the last one bids most."""
    job_id = JobId(0)
    buyers = [plan for plan in devnet.plans if plan.role == "buyer"]
    for number, plan in enumerate(buyers):
        bid_wei = Wei(BID_WEI + number * BID_STEP_WEI)
        request = write_request(plan.folder, options, bid_wei, devnet.chain.params)
        params = SubmitRequestParams(path=str(request), idempotency_key=f"devnet-{number}")
        async with AsyncRpcClient(plan.folder / "rpc.sock") as client:
            job_id = JobId((await client.call(SUBMIT_REQUEST, params)).job)
        # The next buyer joins this auction, it does not open its own.
        await devnet.chain.wait_for(partial(_has_bid, job_id, plan.account))
    return job_id


def _has_bid(job_id: JobId, bidder: Address, state: MarketState) -> bool | None:
    return True if job_id in state.jobs and bidder in state.jobs[job_id].bids else None


async def _tell_job(devnet: Devnet, job_id: JobId, show: Show) -> JobState:
    """Show a job as it goes; return it when it is over."""
    told: JobState | None = None
    while told is None or told.phase not in (JobPhase.SETTLED, JobPhase.CANCELLED):
        job = await devnet.chain.wait_for(partial(_find_news, job_id, told))
        for event in devnet.narrator.tell(told, job):
            show(event)
        told = job
    return told


def _find_news(job_id: JobId, told: JobState | None, state: MarketState) -> JobState | None:
    return state.jobs[job_id] if state.jobs[job_id] is not told else None


async def _wait_claims(devnet: Devnet, job: JobState, show: Show) -> None:
    """Wait until every payee has pulled what is its own, by credit or by share."""

    def find_claims(state: MarketState) -> Mapping[Address, int] | None:
        settled = state.jobs[job.job_id]
        accounts = {one.account for one in settled.cones}
        accounts |= {one.account for one in settled.sellers}
        if any(
            find_cone_share(settled, one) or find_seller_share(settled, one) for one in accounts
        ):
            return None
        if any(
            claim_of(state.payouts, job.currency, one.payee).owed_wei for one in settled.payouts
        ):
            return None
        paid: dict[Address, int] = {}
        for payout in settled.payouts:
            paid[payout.payee] = paid.get(payout.payee, 0) + payout.amount_wei
        return paid

    paid = await devnet.chain.wait_for(find_claims)
    show({"event": "claimed", "payees": len(paid), "amount_wei": sum(paid.values())})


async def _wait_deposits(devnet: Devnet, job_id: JobId, show: Show) -> None:
    """Wait until every seller has pulled what was left of its deposit."""

    def find_settled(state: MarketState) -> list[SellerDeposit] | None:
        deposits = list(state.jobs[job_id].deposits.values())
        is_any_held = any(one.status is DepositStatus.HELD for one in deposits)
        return None if is_any_held else deposits

    deposits = await devnet.chain.wait_for(find_settled)
    returned = [one.amount_wei for one in deposits if one.status is DepositStatus.RETURNED]
    show({"event": "deposits_returned", "sellers": len(returned), "amount_wei": sum(returned)})


async def _save_model(devnet: Devnet, job: JobState, options: DevnetOptions, show: Show) -> None:
    """Save the winner's model and compare it with the digest on the chain."""
    assert job.settled is not None
    winner = next(plan for plan in devnet.plans if plan.account == job.buyer)
    path = options.folder / "model.safetensors"
    async with AsyncRpcClient(winner.folder / "rpc.sock") as client:
        data = (await client.call(JOB_MODEL, JobParams(job=job.job_id))).safetensors
    parameters = read_parameters(data)
    digest = compute_tensor_digest(TensorKind.PARAMETERS, parameters)
    if digest != job.settled.model_digest:
        raise NodeError("the delivered model is not the one that was settled")
    await trio.Path(path).write_bytes(data)
    show({"event": "model_saved", "path": str(path), "digest": "0x" + digest.hex()})
