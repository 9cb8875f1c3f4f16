"""The transitions of a job that its pool, its buyer and its sellers all see to, in turn.

The pool has the first turns. If no CONE node enrolled, or all are silent, whoever has money in the
job goes on: the buyer first, then the sellers in the order of their enrolment.
"""

from collections.abc import Callable
from dataclasses import replace

import structlog

from d2m_node.calls import CloseEnrolment, SettleJob
from d2m_node.errors import TransactionReverted
from d2m_node.ports import ChainPort
from d2m_node.roles.rooms import OVER
from d2m_node.roles.turns import Turn, take_turn, wait_block_or
from protocol.job import JobPhase, JobState
from protocol.shares import list_credits
from protocol.types import Address

log = structlog.get_logger(__name__)


def turn_after_pool(job: JobState, account: Address, first_block: int) -> Turn:
    """Return the turn of the buyer or of a seller of this job."""
    others = [job.buyer, *(seller.account for seller in job.sellers)]
    place = len(job.cones) + others.index(account)
    return Turn(first_block, place, len(job.cones) + len(others))


async def close_enrolment_in_turn(
    chain: ChainPort, job: Callable[[], JobState], turn_from: Callable[[int], Turn]
) -> None:
    """See a job's enrolment closed; this node closes it if it has the turn.

    ``turn_from`` gives its turn from the end of the enrolment on; it is asked then, because only
    then is it known how many enrolled.
    """

    def is_done() -> bool:
        return job().phase is not JobPhase.ENROLMENT

    async def act() -> None:
        terms = job().terms
        assert terms is not None, "a job in enrolment has terms"
        head = chain.state.block_number
        call = CloseEnrolment(job=job().job_id, terms=terms)
        await chain.submit(call, key=f"close-enrolment/{job().job_id}/{head}")

    await wait_block_or(chain, job().enrolment_end, is_done)
    await take_turn(chain, turn_from(job().enrolment_end), is_done=is_done, act=act)


async def settle_in_turn(
    chain: ChainPort, job: Callable[[], JobState], turn_from: Callable[[int], Turn]
) -> None:
    """See the job settled; this node sends the settlement if it has the turn.

    ``turn_from`` gives its turn from the first block on in which the job can be settled.
    """
    final_block = await chain.wait_for(lambda _: _final_block(job()))
    if final_block < 0:
        return
    await take_turn(
        chain,
        turn_from(final_block),
        is_done=lambda: job().phase in OVER,
        act=lambda: _settle(chain, job()),
    )


def _final_block(job: JobState) -> int | None:
    """Return when a job can be settled; -1 if it is over without; None if it still runs."""
    if job.ended is not None:
        return job.ended.final_block
    return -1 if job.phase in OVER else None


async def _settle(chain: ChainPort, job: JobState) -> None:
    """Settle by the leaves that the chain tells; without them if they do not open the root."""
    assert job.terms is not None, "a job that ran has terms"
    assert job.course is not None, "a job that ran has a course"
    head = chain.state.block_number
    key = f"settle/{job.job_id}/{head}"
    call = SettleJob(job=job.job_id, terms=job.terms, course=job.course, leaves=list_credits(job))
    try:
        await chain.submit(call, key=key)
    except TransactionReverted as refusal:
        # The contract's way out if nobody can open the credit root: no leaves, much later.
        ended = job.ended
        if ended is None or head <= ended.final_block + chain.params.max_window_blocks:
            raise
        log.warning("settling_without_leaves", job=job.job_id, reason=refusal.reason)
        await chain.submit(replace(call, leaves=()), key=f"{key}/without-leaves")
