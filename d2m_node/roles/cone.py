"""The CONE role: stake, be drawn, evaluate and aggregate, vote, settle.

A CONE node applies to every job it can serve, holds the job's validation data, takes part in each
ballot it is drawn for, and takes its turn at the transitions that anyone may send. It never signs
two votes for one attempt, and it always opens what it committed if it can.
"""

import secrets
from dataclasses import dataclass, replace
from functools import partial

import structlog
import trio

from d2m_node.calls import DepositStake, EnrolCone, StartTraining
from d2m_node.ports import Access, Audience, Ports
from d2m_node.retry import retry_transient
from d2m_node.roles.boundary import run_to_failure
from d2m_node.roles.checks import check_decision, execute_slashes
from d2m_node.roles.evidence import report_equivocations
from d2m_node.roles.executor import Executor
from d2m_node.roles.inputs import agree_inputs, collect_updates
from d2m_node.roles.jobs import check_place, job_in, serve_jobs
from d2m_node.roles.records import (
    RoundSources,
    record_final,
    record_round,
    record_settlement,
    write_decision,
)
from d2m_node.roles.rooms import OVER, Rooms
from d2m_node.roles.seat import Seat
from d2m_node.roles.sources import load_body, load_model_state
from d2m_node.roles.transitions import (
    close_enrolment_in_turn,
    settle_in_turn,
    turn_of_applicant,
)
from d2m_node.roles.turns import Turn, take_turn
from d2m_node.roles.validation import (
    FINAL_PART,
    SELECTION_PART,
    HeldPart,
    give_receipt,
    load_split,
    obtain_part,
)
from d2m_node.roles.vote import (
    BallotDesk,
    Finding,
    cast_vote,
    finish_vote,
    recall_vote,
    tally_until_over,
)
from protocol.ballot import Ballot
from protocol.bitmap import decode_bitmap
from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.model import initial_parameters
from protocol.osmd import sample_sellers
from protocol.round import BallotResult, FinalWork, ModelState, RoundWork
from protocol.sortition import (
    BallotKind,
    TicketChain,
    compute_seller_seed,
    compute_subset_seed,
    compute_ticket_chain,
)
from protocol.stakes import Stake
from protocol.types import BlockNumber, Digest, JobId, Wei
from protocol.validation_set import ValidationPart, select_round_subset, select_samples

log = structlog.get_logger(__name__)

MAX_BALLOTS_PER_ROUND = 6
FINAL_BALLOTS = 64
"""A ticket chain has an element for every attempt a job can have; keccak is cheap."""
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ConePolicy:
    """What this node puts up."""

    stake_wei: Wei


async def run_cone(
    ports: Ports,
    rooms: Rooms,
    policy: ConePolicy,
    executor: Executor,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve every job that this node can serve, until cancelled."""
    me = ports.signer.address
    await _top_up_stake(ports, policy)
    task_status.started()

    def concerns(state: MarketState, job: JobState) -> bool:
        if job.has_cone_applied(me):
            return job.phase not in OVER and not job.is_cone_left_out(me)
        stake = state.stakes.get(me)
        return (
            job.phase is JobPhase.ENROLMENT
            and job.terms is not None
            and stake is not None
            and stake.free_wei >= job.terms.stake_wei
            and stake.since_block < job.opened_block
            and state.block_number < job.enrolment_end
        )

    await serve_jobs(ports.chain, concerns, partial(_serve_job, ports, rooms, executor))


async def _top_up_stake(ports: Ports, policy: ConePolicy) -> None:
    """Deposit what this account's stake, free and locked, lacks of the policy's."""
    stake = ports.chain.state.stakes.get(ports.signer.address, Stake())
    total_wei = stake.free_wei + sum(stake.locked_wei.values())
    if total_wei < policy.stake_wei:
        call = DepositStake(value_wei=Wei(policy.stake_wei - total_wei))
        key = f"stake/{ports.chain.state.block_number}/{policy.stake_wei}"
        await ports.chain.submit(call, key=key)


async def _serve_job(ports: Ports, rooms: Rooms, executor: Executor, job_id: JobId) -> None:
    async def work() -> None:
        seat = await _take_seat(ports, rooms, executor, job_id)
        if seat is not None:
            await _run_job(seat)

    await run_to_failure("cone", job_id, work)


async def _take_seat(ports: Ports, rooms: Rooms, executor: Executor, job_id: JobId) -> Seat | None:
    """Read the request, apply for the job's pool, and wait for a place in it.

    Returns None if the job is cancelled, or the draw leaves this node out: its stake can be
    released then, and it has nothing more to do with the job.
    """
    chain, me = ports.chain, ports.signer.address
    job = job_in(chain.state, job_id)
    body = await retry_transient(lambda: load_body(ports, job), patience_seconds=PATIENCE_SECONDS)
    tickets = await _load_tickets(ports, job)
    if not job.has_cone_applied(me):
        assert job.terms is not None
        call = EnrolCone(job=job_id, terms=job.terms, ticket_root=tickets.root)
        await chain.submit(call, key=f"enrol-cone/{job_id}")
    await chain.wait_for(lambda state: job_in(state, job_id).has_cone_applied(me) or None)
    log.info("cone_applied", job=job_id)
    room = await rooms.enter(job_id)
    await close_enrolment_in_turn(
        chain,
        lambda: job_in(chain.state, job_id),
        lambda block: turn_of_applicant(job_in(chain.state, job_id), me, block),
    )
    job = job_in(chain.state, job_id)
    index = job.cone_index(me)
    if index is None:
        check_place(job, is_held=job.phase is JobPhase.CANCELLED or job.is_cone_left_out(me))
        log.info("cone_not_in_pool", job=job_id, phase=job.phase.value)
        return None
    log.info("cone_enrolled", job=job_id, index=index)
    return Seat(
        ports=ports,
        room=room,
        job_id=job_id,
        body=body,
        index=index,
        tickets=tickets,
        executor=executor,
    )


async def _load_tickets(ports: Ports, job: JobState) -> TicketChain:
    """Return the job's ticket chain; its secret is journaled before its root is registered."""
    assert job.terms is not None
    secret = await ports.store.journal.remember(
        "ticket-secret", str(job.job_id), secrets.token_bytes(32)
    )
    length = job.terms.rounds_max * MAX_BALLOTS_PER_ROUND + FINAL_BALLOTS
    return compute_ticket_chain(secret, length)


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
        nursery.start_soon(_start_training_in_turn, seat)
        nursery.start_soon(_work, seat, nursery.cancel_scope)
    await settle_in_turn(
        chain, lambda: seat.job, lambda block: Turn(block, seat.rank(2), len(seat.pool))
    )
    await record_settlement(seat)


async def _start_training_in_turn(seat: Seat) -> None:
    await take_turn(
        seat.ports.chain,
        Turn(seat.job.validation_end, seat.rank(1), len(seat.pool)),
        is_done=lambda: seat.job.phase is not JobPhase.VALIDATION,
        act=lambda: seat.ports.chain.submit(
            StartTraining(job=seat.job_id, terms=seat.terms, course=seat.course),
            key=f"start-training/{seat.job_id}/{seat.head}",
        ),
    )


async def _work(seat: Seat, work_scope: trio.CancelScope) -> None:
    """Hold the validation data, then work through the ballots until training has ended."""
    chain = seat.ports.chain
    parts = _Parts(seat)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.obtain, SELECTION_PART, seat.job.validation_end)
        nursery.start_soon(execute_slashes, seat)
        findings: dict[int, Finding] = {}
        last = (BlockNumber(0), 0)
        while True:
            ballot: Ballot | JobPhase = await chain.wait_for(partial(_next_ballot, seat, last))
            if isinstance(ballot, JobPhase):
                break
            last = ballot.opened_at
            if ballot.kind is BallotKind.FINAL:
                nursery.start_soon(parts.obtain, FINAL_PART, ballot.availability_end)
            await _run_ballot(seat, ballot, parts, findings)
            nursery.start_soon(check_decision, seat, ballot, findings.get(ballot.ballot_number))
        nursery.cancel_scope.cancel()
    work_scope.cancel()


def _next_ballot(
    seat: Seat, after: tuple[BlockNumber, int], state: MarketState
) -> Ballot | JobPhase | None:
    """Return the next ballot, or the phase once there can be none.

    A job in settlement comes back to training if its last decision is checked, so it is over only
    when the window for that is.
    """
    job = job_in(state, seat.job_id)
    if job.phase in OVER:
        return job.phase
    if job.phase is JobPhase.TRAINING and job.ballot is not None and job.ballot.opened_at > after:
        return job.ballot
    return job.phase if job.is_training_over(state.block_number) else None


class _Parts:
    """The parts of the validation set, obtained in the background, waited for by the ballots."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._held: dict[int, HeldPart] = {}
        self._arrived = {SELECTION_PART: trio.Event(), FINAL_PART: trio.Event()}
        self._asked: set[int] = set()

    async def obtain(self, part: int, deadline: BlockNumber) -> None:
        """Fetch a part once, and give the receipt for it by ``deadline``."""
        if part in self._asked:
            return
        self._asked.add(part)
        seat = self._seat
        split = await load_split(seat.ports.chain, seat.job, seat.body)
        self._held[part] = await obtain_part(seat, split, part)
        self._arrived[part].set()
        await give_receipt(seat, part, deadline)

    async def wait(self, part: int) -> HeldPart:
        """Return a part when it is here."""
        await self._arrived[part].wait()
        return self._held[part]


async def _run_ballot(
    seat: Seat, ballot: Ballot, parts: _Parts, findings: dict[int, Finding]
) -> None:
    """Work on one ballot for as long as it is the open one; keep what was found, by number."""
    log.info(
        "ballot_opened",
        job=seat.job_id,
        round=ballot.round_index,
        kind=ballot.kind.name.lower(),
        attempt=ballot.attempt,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_take_part, seat, ballot, parts, findings)
        await seat.ports.chain.wait_for(lambda _: None if seat.is_current(ballot) else True)
        nursery.cancel_scope.cancel()
    await _note_decision(seat, ballot)


async def _note_decision(seat: Seat, ballot: Ballot) -> None:
    for decided in seat.job.decided:
        if decided.ballot.ballot_number == ballot.ballot_number:
            await write_decision(
                seat.ports.store.journal,
                seat.job_id,
                ballot.ballot_number,
                decided.decision.digest,
            )


async def _take_part(
    seat: Seat, ballot: Ballot, parts: _Parts, findings: dict[int, Finding]
) -> None:
    """Find what to vote for and vote; take turns at the tally whether or not anything is found."""
    # A ballot that is opened again may start from another state; one that is called does not.
    desk = BallotDesk(findings.get(ballot.ballot_number) if ballot.is_pool_called else None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tally_until_over, seat, ballot, desk)
        sealed = await recall_vote(seat, ballot)
        if sealed is not None:
            nursery.start_soon(finish_vote, seat, ballot, *sealed)
        if desk.finding is None:
            find = _find_round if ballot.kind is BallotKind.ROUND else _find_final
            desk.finding = await find(seat, ballot, parts)
        _keep_finding(findings, ballot.ballot_number, desk.finding)
        if desk.finding.result is not None:
            access = Access(Audience.PARTICIPANTS, seat.job_id)
            for blob in desk.finding.result.blobs:
                await seat.ports.store.blobs.put(blob, access)
        if sealed is None:
            await cast_vote(seat, ballot, desk.finding)


def _keep_finding(findings: dict[int, Finding], ballot_number: int, finding: Finding) -> None:
    """Keep a finding, and that of the ballot before, to which the whole pool may be called."""
    for number in [one for one in findings if one < ballot_number - 1]:
        del findings[number]
    findings[ballot_number] = finding


async def _load_state(seat: Seat, ballot: Ballot) -> ModelState:
    """Load the state that a ballot starts from: of one that is checked, without its decision."""

    def job() -> JobState:
        if ballot.is_pool_called:
            return replace(seat.job, decided=seat.job.decided[:-1])
        return seat.job

    return await retry_transient(
        lambda: load_model_state(seat.ports, job(), seat.body),
        patience_seconds=PATIENCE_SECONDS,
    )


async def _find_round(seat: Seat, ballot: Ballot, parts: _Parts) -> Finding:
    """Gather a round's inputs and compute its result."""
    chain = seat.ports.chain
    before = await _load_state(seat, ballot)
    await chain.wait_block(ballot.seller_seed_block)
    randomness = await chain.read_randomness(ballot.seller_seed_block)
    seed = compute_seller_seed(seat.domain, seat.job_id, ballot.round_index, randomness)
    sampled = sample_sellers(before.sampler, seed)
    holdings = await collect_updates(seat, ballot, sampled)
    inputs = await agree_inputs(seat, ballot, sampled, holdings)
    if not inputs.is_complete:
        log.warning("inputs_incomplete", job=seat.job_id, round=ballot.round_index)
        return Finding(None, inputs.available)
    held = await parts.wait(SELECTION_PART)
    subset = await _draw_subset(seat, ballot, held.part)
    samples, labels = select_samples(held.part, subset, seat.body.model)
    work = RoundWork(
        domain=seat.domain,
        job_id=seat.job_id,
        round_index=ballot.round_index,
        rules=seat.rules,
        payees=tuple(seller.account for seller in seat.job.sellers),
        before=before,
        sampled=sampled,
        updates={i: holdings.updates[i] for i in decode_bitmap(inputs.available)},
        samples=samples,
        labels=labels,
    )
    sources = RoundSources(update_digests=holdings.digests, part_digest=held.digest, subset=subset)
    await record_round(seat, ballot, work, sources)
    result = await trio.to_thread.run_sync(seat.executor.compute_round, work)
    _log_result(seat, ballot, result)
    return Finding(result, inputs.available)


async def _draw_subset(seat: Seat, ballot: Ballot, part: ValidationPart) -> tuple[int, ...]:
    """Draw V_t. Its seed is of a block after the sellers' commitments, and kept by retries."""
    block = BlockNumber(ballot.update_commit_end + ballot.seed_delay_blocks)
    randomness = await seat.ports.chain.read_randomness(block)
    seed = compute_subset_seed(seat.domain, seat.job_id, ballot.round_index, randomness)
    return select_round_subset(seed, part.indices, seat.body.validation.subset_count)


async def _find_final(seat: Seat, ballot: Ballot, parts: _Parts) -> Finding:
    """Evaluate the first and the last parameters on V_fin."""
    state = await _load_state(seat, ballot)
    held = await parts.wait(FINAL_PART)
    samples, labels = select_samples(held.part, held.part.indices, seat.body.model)
    initial = await trio.to_thread.run_sync(
        initial_parameters, seat.body.model, Digest(seat.body.initial_seed)
    )
    work = FinalWork(
        domain=seat.domain,
        job_id=seat.job_id,
        round_index=ballot.round_index,
        rules=seat.rules,
        initial=initial,
        parameters=state.parameters,
        samples=samples,
        labels=labels,
    )
    await record_final(seat, ballot, state, held.digest)
    result = await trio.to_thread.run_sync(seat.executor.compute_final, work)
    _log_result(seat, ballot, result)
    return Finding(result, 0)


def _log_result(seat: Seat, ballot: Ballot, result: BallotResult) -> None:
    log.info(
        "ballot_computed",
        job=seat.job_id,
        round=ballot.round_index,
        kind=ballot.kind.name.lower(),
        digest=result.digest.hex(),
    )
