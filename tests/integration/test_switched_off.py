"""A CONE node that is switched off in the middle of a vote loses nothing by it."""

from pathlib import Path

import pytest
import trio

from d2m_node.client import (
    DISABLE_ROLE,
    LIST_ROLES,
    AsyncRpcClient,
    DisableRoleParams,
    NoParams,
)
from d2m_node.devnet.launcher import open_devnet
from d2m_node.devnet.layout import NodePlan
from protocol.job import OVER, JobState
from protocol.market import MarketState
from protocol.types import JobId, Wei
from tests.support.devnets import make_honest_options, show_nothing, submit_small_job
from tests.support.small_request import SmallJob

pytestmark = [pytest.mark.integration, pytest.mark.slow]

JOB = JobId(1)
SELLERS, CONES = 4, 4
JOB_SECONDS = 420.0
WISH = SmallJob(bid_wei=Wei(10**19), sellers=SELLERS, sellers_min=SELLERS, cones=CONES, rounds=1)


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
    options = make_honest_options(tmp_path / "market", sellers=SELLERS, cones=CONES)
    with trio.fail_after(JOB_SECONDS):
        async with open_devnet(options, show_nothing) as devnet:
            await submit_small_job(devnet, WISH)
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
