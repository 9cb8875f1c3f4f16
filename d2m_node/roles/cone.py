"""The CONE role: stake, be drawn, evaluate and aggregate, vote, settle.

A CONE node applies to every job it can serve, holds the job's validation data, takes part in each
ballot it is drawn for, and takes its turn at the transitions that anyone may send. It never signs
two votes for one attempt, and it always opens what it committed if it can.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from d2m_node.calls import EnrolCone
from d2m_node.ports import Ports
from d2m_node.retry import retry_transient
from d2m_node.roles.ballots import work_through_ballots
from d2m_node.roles.boundary import run_to_failure
from d2m_node.roles.evidence import report_equivocations
from d2m_node.roles.executor import Executor
from d2m_node.roles.jobs import check_place, job_in, terms_of
from d2m_node.roles.old_copy import check_tickets
from d2m_node.roles.policies import ConePolicy, is_enrolling
from d2m_node.roles.post import Post
from d2m_node.roles.records import (
    TICKET_KIND,
    record_missed_settlements,
    record_settlement,
)
from d2m_node.roles.refusals import Objection
from d2m_node.roles.room_need import estimate_cone_bytes, set_room_aside
from d2m_node.roles.rooms import OVER
from d2m_node.roles.seat import Seat
from d2m_node.roles.service import serve_jobs
from d2m_node.roles.sources import load_body
from d2m_node.roles.staking import replace_stake, top_up_stake
from d2m_node.roles.transitions import (
    close_enrolment_in_turn,
    settle_in_turn,
    start_training_in_turn,
    turn_of_applicant,
)
from d2m_node.roles.turns import Turn
from d2m_node.roles.unbonding import unbond
from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.params import ProtocolParams
from protocol.sortition import TicketChain, compute_ticket_chain
from protocol.types import Address, JobId

log = structlog.get_logger(__name__)

MAX_BALLOTS_PER_ROUND = 6
FINAL_BALLOTS = 64
"""A ticket chain has an element for every attempt a job can have; keccak is cheap."""
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interest:
    """Jobs that this node applied for, and jobs that it can apply for."""

    account: Address
    policy: ConePolicy
    params: ProtocolParams

    def is_bound(self, state: MarketState, job: JobState) -> bool:  # noqa: ARG002
        """Tell whether this node applied, and the job runs with it or may yet."""
        if job.phase in OVER:  # most jobs of a market that is old
            return False
        return job.has_cone_applied(self.account) and not job.is_cone_left_out(self.account)

    def is_offered(self, state: MarketState, job: JobState) -> bool:
        """Tell whether anyone can apply."""
        return is_enrolling(state, job)

    def find_objection(
        self, state: MarketState, job: JobState, at_work: Collection[JobId]
    ) -> Objection | None:
        """Ask the policy."""
        return self.policy.find_objection(state, job, self.account, self.params, at_work)


async def run_cone(
    post: Post,
    policy: ConePolicy,
    executor: Executor,
    *,
    payment_key: str | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve every job that this node can serve, until cancelled or drained.

    Each start deposits what is missing of the policy's stake; under a ``payment_key`` once at most.
    """
    chain = post.ports.chain
    interest = _Interest(account=post.ports.signer.address, policy=policy, params=chain.params)
    cone = _Cone(post=post, policy=policy, executor=executor)
    if payment_key is None and interest.account in chain.state.stakes:
        await replace_stake(post, policy.stake_wei)  # jobs may need it whatever comes of this
    else:
        await top_up_stake(post, policy.stake_wei, payment_key)
    await record_missed_settlements(post.ports)
    task_status.started()
    while True:
        await serve_jobs(post, interest, partial(_serve_job, cone))
        if await unbond(post):
            return
        await replace_stake(post, policy.stake_wei)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cone:
    """What this node brings to every job."""

    post: Post
    policy: ConePolicy
    executor: Executor


async def _serve_job(cone: _Cone, job_id: JobId) -> None:
    async def work() -> None:
        seat = await _take_seat(cone, job_id)
        if seat is not None:
            await _run_job(seat)

    await run_to_failure(cone.post, job_id, work)


async def _take_seat(cone: _Cone, job_id: JobId) -> Seat | None:
    """Read the request, apply for the job's pool, and wait for a place in it.

    Returns None if the request is not one for this node, if the job is cancelled, or if the draw
    leaves this node out: its stake can be released then, and it has nothing more to do with the
    job.
    """
    post, ports = cone.post, cone.post.ports
    chain, me = ports.chain, ports.signer.address
    job = job_in(chain.state, job_id)
    body = await retry_transient(lambda: load_body(ports, job), patience_seconds=PATIENCE_SECONDS)
    tickets = await _load_tickets(ports, job)
    if not job.has_cone_applied(me):
        need = estimate_cone_bytes(body, terms_of(job))
        objection = cone.policy.weigh_request(body) or await set_room_aside(ports, job_id, need)
        if objection is not None:
            await post.refusals.note(job_id, objection, chain.state.block_number)
            return None
        if not post.shift.takes_jobs:
            return None
        call = EnrolCone(job=job_id, terms=terms_of(job), ticket_root=tickets.root)
        await chain.submit(call, key=f"enrol-cone/{job_id}")
    await chain.wait_for(lambda state: job_in(state, job_id).has_cone_applied(me) or None)
    log.info("cone_applied")
    room = await post.rooms.enter(job_id)
    await close_enrolment_in_turn(
        chain,
        lambda: job_in(chain.state, job_id),
        lambda block: turn_of_applicant(job_in(chain.state, job_id), me, block),
    )
    job = job_in(chain.state, job_id)
    index = job.cone_index(me)
    if index is None:
        check_place(job, is_held=job.phase is JobPhase.CANCELLED or job.is_cone_left_out(me))
        log.info("cone_not_in_pool", phase=job.phase.value)
        return None
    log.info("cone_enrolled", index=index)
    return Seat(
        ports=ports,
        room=room,
        job_id=job_id,
        body=body,
        index=index,
        tickets=tickets,
        executor=cone.executor,
        shift=post.shift,
        lag_blocks=cone.policy.limits.lag_blocks,
    )


async def _load_tickets(ports: Ports, job: JobState) -> TicketChain:
    """Return the job's ticket chain; its secret is journaled before its root is registered.

    Raises JobFailed if the root on the chain is not that of the journal's secret.
    """
    me, journal = ports.signer.address, ports.store.journal
    secret = await journal.recall(TICKET_KIND, str(job.job_id))
    if secret is None:
        check_tickets(job, me, None)
        fresh = ports.entropy.token_bytes(32)
        secret = await journal.remember(TICKET_KIND, str(job.job_id), fresh)
    length = terms_of(job).rounds_max * MAX_BALLOTS_PER_ROUND + FINAL_BALLOTS
    tickets = compute_ticket_chain(secret, length)
    check_tickets(job, me, tickets)
    return tickets


async def _run_job(seat: Seat) -> None:
    """Do all that a seat asks for, until its job is settled or cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(report_equivocations, seat)
        await _follow_job(seat)
        nursery.cancel_scope.cancel()


async def _follow_job(seat: Seat) -> None:
    """Follow one job from the end of its enrolment to its settlement."""
    chain = seat.ports.chain
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            start_training_in_turn,
            chain,
            lambda: seat.job,
            lambda block: Turn(block, seat.rank(1), len(seat.pool)),
        )
        nursery.start_soon(work_through_ballots, seat, nursery.cancel_scope)
    await settle_in_turn(
        chain, lambda: seat.job, lambda block: Turn(block, seat.rank(2), len(seat.pool))
    )
    await record_settlement(seat.ports, seat.job_id)
