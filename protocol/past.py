"""Jobs that are over leave the state of the market, and come back if the chain speaks of them.

A market runs for years, and every node folds all of it. What of a job matters once it is over is
its record, which somebody may ask for; the state keeps only how many there were. Whoever lets a
job go keeps its `JobState`. With it `bring_back` makes the state what it would have been, so an
event that comes late (a loser that reclaims its bid after months) folds as if nothing had happened.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from protocol.events import BitmapsLogged, RecordedEvent
from protocol.job import OVER, JobState, job_of_event
from protocol.market import MarketState
from protocol.types import BlockNumber, JobId


def list_quiet(state: MarketState, last_block: BlockNumber) -> list[JobState]:
    """List the jobs that are over and have not changed after a block, oldest first."""
    return [
        job for job in state.jobs.values() if job.phase in OVER and job.changed_block <= last_block
    ]


def let_go(state: MarketState, jobs: Sequence[JobState]) -> MarketState:
    """Take jobs that are over out of the state, but for their number."""
    if not jobs:
        return state
    gone, past = {job.job_id for job in jobs}, dict(state.past)
    for job in jobs:
        assert job.phase in OVER, "only a job that is over is let go of"
        past[job.phase] = past.get(job.phase, 0) + 1
    kept = {job_id: job for job_id, job in state.jobs.items() if job_id not in gone}
    return replace(state, jobs=kept, past=past)


def bring_back(state: MarketState, job: JobState) -> MarketState:
    """Put a job back that was let go of; jobs stay in the order of their numbers."""
    jobs = {**state.jobs, job.job_id: job}
    past = {**state.past, job.phase: state.past[job.phase] - 1}
    return replace(state, jobs=dict(sorted(jobs.items())), past=past)


def list_late(state: MarketState, events: Iterable[RecordedEvent]) -> list[JobId]:
    """List the jobs that were let go of and that events speak of all the same, each once."""
    spoken_of = (
        job_of_event(one.event) for one in events if not isinstance(one.event, BitmapsLogged)
    )
    return sorted({one for one in spoken_of if one is not None and state.is_past(one)})
