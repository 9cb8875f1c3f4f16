"""A CONE node that is switched off in the middle of a vote loses nothing by it."""

from pathlib import Path
from typing import Any

import pytest
import trio

from d2m_node.client import (
    DISABLE_ROLE,
    LIST_ROLES,
    SUBMIT_REQUEST,
    AsyncRpcClient,
    DisableRoleParams,
    NoParams,
    SubmitRequestParams,
)
from d2m_node.devnet.launcher import Devnet, open_devnet
from d2m_node.devnet.layout import NodePlan
from d2m_node.devnet.options import DevnetOptions
from protocol.job import OVER, JobState
from protocol.market import MarketState
from protocol.types import JobId, Wei
from tests.support.anvil import find_free_port
from tests.support.small_request import SmallJob, write_small_request

pytestmark = [pytest.mark.integration, pytest.mark.slow]

JOB = JobId(1)
SELLERS, CONES = 4, 4
JOB_SECONDS = 420.0


def make_options(folder: Path) -> DevnetOptions:
    return DevnetOptions(
        buyers=1,
        sellers=SELLERS,
        cones=CONES,
        byzantine_cones=0,
        attack="collude",
        malicious_sellers=0,
        seed=1,
        chain_port=find_free_port(),
        block_seconds=0.5,
        folder=folder,
        stay_up=False,
    )


def show_nothing(_: dict[str, Any]) -> None:
    pass


async def submit(devnet: Devnet) -> None:
    buyer = next(one for one in devnet.plans if one.role == "buyer")
    wish = SmallJob(
        bid_wei=Wei(10**19), sellers=SELLERS, sellers_min=SELLERS, cones=CONES, rounds=1
    )
    params = SubmitRequestParams(
        path=str(write_small_request(buyer.folder, wish)), idempotency_key="off"
    )
    async with AsyncRpcClient(buyer.folder / "rpc.sock") as client:
        await client.call(SUBMIT_REQUEST, params)


def find_committed(state: MarketState) -> JobState | None:
    """Find the job when votes of its first round are recorded, and none is opened."""
    job = state.jobs.get(JOB)
    if job is None or job.ballot is None:
        return None
    return job if job.ballot.committed and not job.ballot.opened else None


def find_over(state: MarketState) -> JobState | None:
    job = state.jobs.get(JOB)
    return job if job is not None and job.phase in OVER else None


async def state_of(plan: NodePlan) -> str:
    async with AsyncRpcClient(plan.folder / "rpc.sock") as client:
        roles = await client.call(LIST_ROLES, NoParams())
    return next(one.state for one in roles if one.role == "cone")


async def test_a_voter_that_is_switched_off_opens_its_vote_first(tmp_path: Path) -> None:
    with trio.fail_after(JOB_SECONDS):
        async with open_devnet(make_options(tmp_path / "market"), show_nothing) as devnet:
            await submit(devnet)
            job = await devnet.chain.wait_for(find_committed)
            assert job.ballot is not None
            index = min(job.ballot.committed)
            account = job.cones[index].account
            plan = next(one for one in devnet.plans if one.account == account)
            async with AsyncRpcClient(plan.folder / "rpc.sock") as client:
                roles = await client.call(DISABLE_ROLE, DisableRoleParams(role="cone"))
            assert next(one.state for one in roles if one.role == "cone") in ("closing", "off")
            over = await devnet.chain.wait_for(find_over)
            assert await state_of(plan) == "off"
    opened = [one for one in over.decided[0].ballot.openings if one.cone_index == index]
    assert opened, "the vote was opened"
    assert over.decided[0].decision.unopened == 0
    assert over.slashes == ()
