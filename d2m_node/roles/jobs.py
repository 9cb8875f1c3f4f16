"""A role's jobs, looked up on a chain that may turn.

A reorganisation may take back an auction, a bid or an enrolment that a role already works on.
Whoever looks it up then stops by an error that ends the work in one job, never the node.
"""

from d2m_node.errors import JobFailed, TransientError
from protocol.job import Bid, JobPhase, JobState
from protocol.market import MarketState
from protocol.terms import JobTerms
from protocol.types import Address, JobId


def job_in(state: MarketState, job_id: JobId) -> JobState:
    """Return a job that a role works on. Raises JobFailed if it is gone."""
    job = state.jobs.get(job_id)
    if state.is_past(job_id):
        raise JobFailed(job_id, "it is long over")
    if job is None:
        raise JobFailed(job_id, "a reorganisation took its auction back")
    return job


def terms_of(job: JobState) -> JobTerms:
    """Return the terms of a job whose auction was closed. Raises TransientError."""
    if job.terms is None:
        raise TransientError(f"job {job.job_id}: a reorganisation opened its auction again")
    return job.terms


def buyer_of(job: JobState) -> Address:
    """Return the winner of an auction that was closed. Raises TransientError."""
    if job.buyer is None:
        raise TransientError(f"job {job.job_id}: a reorganisation opened its auction again")
    return job.buyer


def bid_in(job: JobState, bidder: Address) -> Bid:
    """Return a bid that was on the chain. Raises TransientError if it is gone.

    The chain port sends again what a reorganisation took back: to start anew may help.
    """
    bid = job.bids.get(bidder)
    if bid is None:
        raise TransientError(f"job {job.job_id}: a reorganisation took the bid back")
    return bid


def check_closed(job: JobState) -> JobState:
    """Return a job whose enrolment was closed. Raises TransientError, as `bid_in` does."""
    if job.phase is JobPhase.ENROLMENT:
        raise TransientError(f"job {job.job_id}: a reorganisation opened its enrolment again")
    return job


def check_place(job: JobState, *, is_held: bool) -> JobState:
    """Return a job in which a role has a place. Raises TransientError, as `bid_in` does."""
    if not is_held:
        raise TransientError(f"job {job.job_id}: a reorganisation took this node's place back")
    return job
