"""The events that Rounds logs when a decision is checked, for the market in memory.

Nobody counts here: a tally is noted by the market and changes nothing until the test says so.
"""

from collections.abc import Sequence
from dataclasses import replace

from d2m_node.calls import (
    AppealDecision,
    AuditDecision,
    ContractCall,
    ExecuteSlashes,
    ExpireBallot,
    Tally,
    TallyPool,
)
from d2m_node.errors import TransactionReverted
from protocol.appeals import compute_appeal_bond
from protocol.course import decode_slashes
from protocol.events import AppealOpened, CourseChanged, Event, PoolCalled
from protocol.job import JobState
from protocol.market import MarketState
from protocol.sortition import encode_mini
from protocol.types import NO_DIGEST, Address, BlockNumber
from tests.support.params import PARAMS

CheckCall = AppealDecision | AuditDecision | ExecuteSlashes | Tally | TallyPool | ExpireBallot

NEVER = (1 << 40) - 1
"""When slashes are due while the whole pool is called."""


def refuse_checked(state: MarketState, call: ContractCall) -> None:
    """Refuse what Rounds would refuse in the next block."""
    if isinstance(call, AppealDecision | AuditDecision | ExecuteSlashes):
        reason = _find_refusal(state.jobs[call.job], call, state.block_number + 1)
        if reason is not None:
            raise TransactionReverted(f"{call.contract}.{call.function}", reason)


def events_of_check(state: MarketState, sender: Address, call: CheckCall) -> Sequence[Event]:
    """Return what is logged; nothing if the call would revert, or only counts."""
    job = state.jobs[call.job]
    if isinstance(call, Tally | TallyPool | ExpireBallot):
        return ()
    if _find_refusal(job, call, state.block_number) is not None:
        return ()
    match call:
        case AppealDecision():
            missing = len(job.cones) - len(job.decided[-1].ballot.opened)
            bond_wei = compute_appeal_bond(job.price_wei, call.terms, PARAMS, missing)
            opened = AppealOpened(job=call.job, appellant=sender, bond_wei=bond_wei)
            return (*events_of_call(job, is_audit=False), opened)
        case AuditDecision():
            return events_of_call(job, is_audit=True)
        case ExecuteSlashes():
            course = replace(call.course, slashes=0, parent=NO_DIGEST)
            return (CourseChanged(job=call.job, course=course),)


def _find_refusal(
    job: JobState, call: AppealDecision | AuditDecision | ExecuteSlashes, block: int
) -> str | None:
    """Return why Rounds refuses a call that is mined in ``block``; None if it does not."""
    if call.course != job.course:
        return "rounds: wrong course"
    if isinstance(call, ExecuteSlashes):
        planned = decode_slashes(call.course)
        return "rounds: nobody to slash" if planned is None or block <= planned.due else None
    if job.ballot is not None and job.ballot.is_pool_called:
        return "rounds: checked already"
    if block > job.decided[-1].decision.appeal_end:
        return "rounds: appeal window closed"
    return None


def events_of_call(job: JobState, *, is_audit: bool) -> tuple[Event, Event]:
    """Return the events that call the whole pool to the last decision of a job."""
    decided = job.decided[-1]
    ballot, terms, course = decided.ballot, job.terms, job.course
    assert terms is not None
    assert course is not None
    seed_block = decided.decision.appeal_end + PARAMS.seed_delay_blocks
    commit_end = seed_block + terms.vote_commit_blocks
    nobody = course.slashes == 0
    slashes = 0 if nobody else course.slashes & ((1 << 192) - 1) | NEVER << 192
    called = PoolCalled(
        job=job.job_id,
        ballot_number=ballot.ballot_number,
        mini=encode_mini(ballot.kind, ballot.attempt, len(ballot.mini_rounds)),
        is_audit=is_audit,
        seed_block=BlockNumber(seed_block),
        commit_end=BlockNumber(commit_end),
        open_end=BlockNumber(commit_end + terms.vote_open_blocks),
    )
    return CourseChanged(job=job.job_id, course=replace(course, slashes=slashes)), called
