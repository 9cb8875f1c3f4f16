"""Markets of bare jobs, for what asks only how jobs stand."""

from collections.abc import Collection

from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.types import BlockNumber, JobId, Wei


def make_job(job_id: int, phase: JobPhase) -> JobState:
    return JobState(
        job_id=JobId(job_id),
        phase=phase,
        opened_block=BlockNumber(1),
        tags=(),
        deposit_wei=Wei(0),
        reserve_wei=Wei(0),
        commit_end=BlockNumber(2),
        reveal_end=BlockNumber(3),
    )


def make_state(block: int, over: Collection[int] = (), **phases: JobPhase) -> MarketState:
    """Return a market at a block: jobs that are over, and jobs `j1`, `j2`, … as told."""
    told = {int(name[1:]): phase for name, phase in phases.items()}
    jobs = dict.fromkeys(over, JobPhase.SETTLED) | told
    return MarketState(
        block_number=BlockNumber(block),
        jobs={JobId(job_id): make_job(job_id, phase) for job_id, phase in jobs.items()},
    )
