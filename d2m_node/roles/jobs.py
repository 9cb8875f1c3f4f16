"""A role's jobs on a chain that may turn: found, served once each, and looked up.

A reorganisation may take back an auction, a bid or an enrolment that a role already works on.
Whoever looks it up then stops by an error that ends the work in one job, never the node.
"""

from collections.abc import Awaitable, Callable
from typing import NoReturn

import trio

from d2m_node.errors import JobFailed, TransientError
from d2m_node.ports import ChainPort
from protocol.job import Bid, JobState
from protocol.market import MarketState
from protocol.types import Address, JobId


def job_in(state: MarketState, job_id: JobId) -> JobState:
    """Return a job that a role works on. Raises JobFailed if it is gone."""
    job = state.jobs.get(job_id)
    if job is None:
        raise JobFailed(job_id, "a reorganisation took its auction back")
    return job


def bid_in(job: JobState, bidder: Address) -> Bid:
    """Return a bid that was on the chain. Raises TransientError if it is gone.

    The chain port sends again what a reorganisation took back: to start anew may help.
    """
    bid = job.bids.get(bidder)
    if bid is None:
        raise TransientError(f"job {job.job_id}: a reorganisation took the bid back")
    return bid


def check_place(job: JobState, *, is_held: bool) -> JobState:
    """Return a job in which a role has a place. Raises TransientError, as `bid_in` does."""
    if not is_held:
        raise TransientError(f"job {job.job_id}: a reorganisation took this node's place back")
    return job


async def serve_jobs(
    chain: ChainPort,
    concerns: Callable[[MarketState, JobState], bool],
    serve: Callable[[JobId], Awaitable[None]],
) -> NoReturn:
    """Serve every job that ``concerns`` a role, each once, until cancelled.

    A job that is gone when its service ends is served again if it comes back.
    """
    taken: set[JobId] = set()

    def find_job(state: MarketState) -> JobId | None:
        for job in state.jobs.values():
            if job.job_id not in taken and concerns(state, job):
                return job.job_id
        return None

    async def serve_one(job_id: JobId) -> None:
        await serve(job_id)
        if job_id not in chain.state.jobs:
            taken.discard(job_id)

    async with trio.open_nursery() as jobs:
        while True:
            job_id = await chain.wait_for(find_job)
            taken.add(job_id)
            jobs.start_soon(serve_one, job_id, name=f"job {job_id}")
