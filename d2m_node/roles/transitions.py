"""The transitions of a job that its pool, its buyer and its sellers all see to, in turn.

The pool has the first turns. If no CONE node enrolled, or all are silent, whoever has money in the
job goes on: the buyer first, then the sellers in the order of their enrolment. Until the enrolment
closes, all that applied have these places.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog

from d2m_node.calls import CloseEnrolment, ExpireBallot, SettleJob, StartTraining
from d2m_node.errors import TransactionReverted
from d2m_node.ports import ChainPort
from d2m_node.roles.jobs import check_place, terms_of
from d2m_node.roles.rooms import OVER
from d2m_node.roles.turns import Turn, take_turn, wait_block_or
from protocol.ballot import MiniRound
from protocol.course import Course
from protocol.enrolment import compute_draw_block, may_give_up_draw
from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.shares import list_credits
from protocol.types import Address, BlockNumber

log = structlog.get_logger(__name__)


def turn_after_pool(job: JobState, account: Address, first_block: int) -> Turn:
    """Return the turn of the buyer or of a seller of this job.

    Raises TransientError if a reorganisation took its place back.
    """
    pool = job.cones or job.cone_applications
    sellers = job.sellers or job.seller_applications
    others = [job.buyer, *(seller.account for seller in sellers)]
    check_place(job, is_held=account in others)
    return Turn(first_block, len(pool) + others.index(account), len(pool) + len(others))


def turn_of_applicant(job: JobState, account: Address, first_block: int) -> Turn:
    """Return the turn of a CONE node that applied for this job; the first place moves by job.

    Raises TransientError if a reorganisation took its application back.
    """
    applicants = [cone.account for cone in job.cone_applications]
    check_place(job, is_held=account in applicants)
    rank = (applicants.index(account) - job.job_id) % len(applicants)
    return Turn(first_block, rank, len(applicants))


async def close_enrolment_in_turn(
    chain: ChainPort, job: Callable[[], JobState], turn_from: Callable[[int], Turn]
) -> None:
    """See a job's enrolment closed; this node closes it if it has the turn.

    ``turn_from`` gives its turn from the first block on in which the enrolment can be closed; it is
    asked then, because only then is it known how many applied.
    """

    def is_done() -> bool:
        return job().phase is not JobPhase.ENROLMENT

    async def act() -> None:
        await _close_enrolment(chain, job())

    await wait_block_or(chain, job().enrolment_end, is_done)
    first_block = job().enrolment_end
    if is_drawn(job()):
        first_block = BlockNumber(first_block + chain.params.seed_delay_blocks)
        await wait_block_or(chain, first_block, is_done)
    if not is_done():
        await take_turn(chain, turn_from(first_block), is_done=is_done, act=act)


def is_drawn(job: JobState) -> bool:
    """Tell whether a job will start, and somebody that applied has to be left out of it."""
    terms = terms_of(job)
    sellers, cones = len(job.seller_applications), len(job.cone_applications)
    is_started = sellers >= terms.sellers_min and cones >= terms.cones_min
    return is_started and (sellers > terms.sellers_max or cones > terms.cones_max)


async def _close_enrolment(chain: ChainPort, job: JobState) -> None:
    """Close an enrolment; cancel the job if its draw was refused for very long."""
    head = chain.state.block_number
    key = f"close-enrolment/{job.job_id}/{head}"
    call = await _compose_closing(chain, job)
    try:
        await chain.submit(call, key=key)
    except TransactionReverted as refusal:
        seed_delay_blocks = chain.params.seed_delay_blocks
        if not call.header or not may_give_up_draw(job.enrolment_end, seed_delay_blocks, head):
            raise
        log.warning("giving_up_draw", reason=refusal.reason)
        await chain.submit(replace(call, header=b""), key=f"{key}/without-header")


async def _compose_closing(chain: ChainPort, job: JobState) -> CloseEnrolment:
    """Bring the applications, and the header of the draw's block if there is a draw."""
    header = b""
    if is_drawn(job):
        # The call is mined in the next block, or a few later: if the seed moves on just then, the
        # call is refused and the next turn brings the next header.
        next_block = BlockNumber(chain.state.block_number + 1)
        seed_delay_blocks = chain.params.seed_delay_blocks
        block = compute_draw_block(job.enrolment_end, seed_delay_blocks, next_block)
        header = await chain.read_header(block)
    return CloseEnrolment(
        job=job.job_id,
        terms=terms_of(job),
        sellers=tuple(seller.account for seller in job.seller_applications),
        cones=tuple((cone.account, cone.ticket_root) for cone in job.cone_applications),
        header=header,
    )


async def start_training_in_turn(
    chain: ChainPort, job: Callable[[], JobState], turn_from: Callable[[int], Turn]
) -> None:
    """See training started, or the job ended for want of receipts; in turn, as above."""

    def is_done() -> bool:
        return job().phase is not JobPhase.VALIDATION

    async def act() -> None:
        key = f"start-training/{job().job_id}/{chain.state.block_number}"
        call = StartTraining(job=job().job_id, terms=terms_of(job()), course=_course_of(job()))
        await chain.submit(call, key=key)

    first_block = job().validation_end
    await wait_block_or(chain, first_block, is_done)
    if not is_done():
        await take_turn(chain, turn_from(first_block), is_done=is_done, act=act)


async def stand_in_for_pool(
    chain: ChainPort, job: Callable[[], JobState], turn_from: Callable[[int], Turn]
) -> None:
    """Start training, and give up ballots, if no CONE node does; until training has ended.

    Nobody but the pool can decide a ballot. To give it up needs no knowledge, and frees what is
    locked in the job.
    """
    await start_training_in_turn(chain, job, turn_from)
    while True:
        found: MiniRound | JobPhase = await chain.wait_for(partial(_find_overdue, job))
        if isinstance(found, JobPhase):
            return
        await _expire_in_turn(chain, job, found, turn_from)


async def _expire_in_turn(
    chain: ChainPort,
    job: Callable[[], JobState],
    overdue: MiniRound,
    turn_from: Callable[[int], Turn],
) -> None:
    async def act() -> None:
        call = ExpireBallot(job=job().job_id, terms=terms_of(job()), course=_course_of(job()))
        key = f"stand-in/{job().job_id}/{overdue.open_end}/{chain.state.block_number}"
        await chain.submit(call, key=key)

    await take_turn(
        chain,
        turn_from(_deadline_of(job(), overdue)),
        is_done=lambda: _find_overdue(job, chain.state) != overdue,
        act=act,
    )


def _find_overdue(job: Callable[[], JobState], state: MarketState) -> MiniRound | JobPhase | None:
    """Return a mini-round that nobody counted in time, or the phase once there can be none."""
    found = job()
    if found.phase in OVER or found.is_training_over(state.block_number):
        return found.phase
    if found.phase is not JobPhase.TRAINING or found.ballot is None:
        return None
    current = found.ballot.current
    return current if state.block_number >= _deadline_of(found, current) else None


def _deadline_of(job: JobState, mini_round: MiniRound) -> int:
    return mini_round.open_end + terms_of(job).header_blocks


def _course_of(job: JobState) -> Course:
    assert job.course is not None, "a job with a pool has a course"
    return job.course


async def settle_in_turn(
    chain: ChainPort, job: Callable[[], JobState], turn_from: Callable[[int], Turn]
) -> None:
    """See the job settled; this node sends the settlement if it has the turn.

    ``turn_from`` gives its turn from the first block on in which the job can be settled.
    """
    final_block = await chain.wait_for(lambda state: _final_block(job(), state))
    if final_block < 0:
        return
    await take_turn(
        chain,
        turn_from(final_block),
        is_done=lambda: job().phase in OVER,
        act=lambda: _settle(chain, job()),
    )


def _final_block(job: JobState, state: MarketState) -> int | None:
    """Return when a job can be settled; -1 if it is over without; None if it still runs.

    Training that has ended goes on if its last decision is checked, so this waits for the end of
    that window.
    """
    if job.phase in OVER:
        return -1
    if job.ended is None or not job.is_training_over(state.block_number):
        return None
    return job.ended.final_block  # the same for all nodes, whenever they look


async def _settle(chain: ChainPort, job: JobState) -> None:
    """Settle by the leaves that the chain tells; without them if they do not open the root."""
    head = chain.state.block_number
    key = f"settle/{job.job_id}/{head}"
    call = SettleJob(
        job=job.job_id, terms=terms_of(job), course=_course_of(job), leaves=list_credits(job)
    )
    try:
        await chain.submit(call, key=key)
    except TransactionReverted as refusal:
        # The contract's way out if nobody can open the credit root: no leaves, much later.
        ended = job.ended
        if ended is None or head <= ended.final_block + chain.params.max_window_blocks:
            raise
        log.warning("settling_without_leaves", reason=refusal.reason)
        await chain.submit(replace(call, leaves=()), key=f"{key}/without-leaves")
