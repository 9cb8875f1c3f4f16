"""A job of the market, wherever the node has it: in the state, or among those that are past."""

from collections.abc import AsyncIterator, Collection

from d2m_node.past_jobs import OWN, Tie
from d2m_node.ports import ChainPort, StorePort
from protocol.job import JobState
from protocol.market import MarketState
from protocol.types import JobId


async def find_job(chain: ChainPort, store: StorePort, job_id: JobId) -> JobState | None:
    """Return a job that was opened, or None. What the state has of it is newer. Raises FatalError.

    Asked twice: while the file is read, a late event may bring the job back.
    """
    found = chain.state.jobs.get(job_id)
    if found is None:
        found = await store.past.find(job_id)
    return chain.state.jobs.get(job_id, found)


async def each_past_job(
    state: MarketState, store: StorePort, ties: Collection[Tie] = OWN
) -> AsyncIterator[JobState]:
    """Yield the jobs of some ties that a state does not have any more, one at a time, by number.

    Raises FatalError.
    """
    kept = await store.past.list_kept(ties=ties)
    for job_id in sorted(one.job_id for one in kept if state.is_past(one.job_id)):
        job = await store.past.find(job_id)
        if job is not None:
            yield job
