"""The ballots of one job at a CONE node: what it does in each, until training has ended."""

from functools import partial

import structlog
import trio

from d2m_node.logs import log_scope
from d2m_node.ports import Purpose, Reference
from d2m_node.roles.checks import check_decision, execute_slashes
from d2m_node.roles.counting import tally_until_over
from d2m_node.roles.findings import find_result
from d2m_node.roles.jobs import job_in
from d2m_node.roles.records import write_decision
from d2m_node.roles.rooms import OVER
from d2m_node.roles.seat import Seat
from d2m_node.roles.validation import FINAL_PART, SELECTION_PART, Parts
from d2m_node.roles.vote import (
    BallotDesk,
    Finding,
    cast_vote,
    finish_vote,
    recall_vote,
)
from protocol.ballot import Ballot
from protocol.job import JobPhase
from protocol.leaving import is_vote_needed
from protocol.market import MarketState
from protocol.sortition import BallotKind
from protocol.types import BlockNumber

log = structlog.get_logger(__name__)


async def work_through_ballots(seat: Seat, work_scope: trio.CancelScope) -> None:
    """Hold the validation data, then work through the ballots until training has ended."""
    chain = seat.ports.chain
    parts = Parts(seat)
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
            with log_scope(round_index=ballot.round_index):
                if ballot.kind is BallotKind.FINAL:
                    nursery.start_soon(parts.obtain, FINAL_PART, ballot.availability_end)
                await _run_ballot(seat, ballot, parts, findings)
                finding = findings.get(ballot.ballot_number)
                nursery.start_soon(check_decision, seat, ballot, finding)
        nursery.cancel_scope.cancel()
    work_scope.cancel()


def _next_ballot(
    seat: Seat, last: tuple[BlockNumber, int], state: MarketState
) -> Ballot | JobPhase | None:
    """Return the next ballot after the last one, or the phase once there can be none.

    After a reorganisation it may be one that was opened earlier: a ballot of the new branch.
    A job in settlement comes back to training if its last decision is checked, so it is over only
    when the window for that is.
    """
    job = job_in(state, seat.job_id)
    if job.phase in OVER:
        return job.phase
    ballot = job.ballot
    if job.phase is JobPhase.TRAINING and ballot is not None and ballot.opened_at != last:
        return ballot
    return job.phase if job.is_training_over(state.block_number) else None


async def _run_ballot(
    seat: Seat, ballot: Ballot, parts: Parts, findings: dict[int, Finding]
) -> None:
    """Work on one ballot for as long as it is the open one; keep what was found, by number."""
    log.info(
        "ballot_opened",
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
    seat: Seat, ballot: Ballot, parts: Parts, findings: dict[int, Finding]
) -> None:
    """Find what to vote for and vote; take turns at the tally whether or not anything is found."""
    # A ballot that is opened again may start from another state; one that is called does not.
    desk = BallotDesk(findings.get(ballot.ballot_number) if ballot.is_pool_called else None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tally_until_over, seat, ballot, desk)
        sealed = await recall_vote(seat, ballot)
        if sealed is not None:
            nursery.start_soon(finish_vote, seat, ballot, *sealed)
        elif not _is_own(seat, ballot):
            log.info("ballot_left_to_others")
            return
        if desk.finding is None:
            desk.finding = await find_result(seat, ballot, parts)
        _keep_finding(findings, ballot.ballot_number, desk.finding)
        if desk.finding.result is not None:
            reference = Reference(Purpose.STATE, seat.job_id)
            for blob in desk.finding.result.blobs:
                await seat.ports.store.blobs.put(blob, reference)
        if sealed is None:
            await cast_vote(seat, ballot, desk.finding)


def _is_own(seat: Seat, ballot: Ballot) -> bool:
    """Tell whether this node votes in a ballot that begins.

    One that drains does so only where it is missed, and where the whole pool is called: a decision
    in doubt is not left to whoever is there.
    """
    if not seat.shift.is_draining or ballot.is_pool_called:
        return True
    return is_vote_needed(seat.job, seat.ports.signer.address)


def _keep_finding(findings: dict[int, Finding], ballot_number: int, finding: Finding) -> None:
    """Keep a finding, and that of the ballot before, to which the whole pool may be called."""
    for number in [one for one in findings if one < ballot_number - 1]:
        del findings[number]
    findings[ballot_number] = finding
