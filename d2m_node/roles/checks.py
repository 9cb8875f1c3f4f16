"""What a CONE node does about a decision: check it by chance, appeal, carry out its slashes.

Source: MECHANISM 9.4.
"""

from collections.abc import Awaitable, Callable

import structlog

from d2m_node.calls import AppealDecision, AuditDecision, ExecuteSlashes
from d2m_node.roles.allowances import allow_taking
from d2m_node.roles.seat import Seat
from d2m_node.roles.turns import Turn, take_turn, wait_block_or
from d2m_node.roles.vote import Finding, mini_number
from protocol.appeals import compute_appeal_bond, compute_audit_seed, is_audited
from protocol.ballot import Ballot, DecidedBallot
from protocol.course import decode_slashes
from protocol.market import MarketState
from protocol.types import BlockNumber, Digest

log = structlog.get_logger(__name__)


async def check_decision(seat: Seat, ballot: Ballot, finding: Finding | None) -> None:
    """Call the whole pool to a ballot that was decided, if chance or this node's result says so."""
    decided = _find_decision(seat, ballot)
    if decided is None or ballot.is_pool_called:
        return
    own = None if finding is None or finding.result is None else finding.result.digest
    if own is not None and own != decided.decision.digest:
        await _appeal(seat, decided, own)
    else:
        await _audit(seat, decided)


def _find_decision(seat: Seat, ballot: Ballot) -> DecidedBallot | None:
    """Return the decision of a ballot while it is the job's last one."""
    decided = seat.job.decided
    if decided and decided[-1].ballot.ballot_number == ballot.ballot_number:
        return decided[-1]
    return None


def _count_missing(seat: Seat, ballot: Ballot) -> int:
    return len(seat.pool) - len(ballot.opened)


def _is_settled(seat: Seat, decided: DecidedBallot) -> bool:
    """Tell whether a decision can be checked no more, or is being checked."""
    is_last = bool(seat.job.decided) and seat.job.decided[-1] == decided
    ballot = seat.job.ballot
    is_called = ballot is not None and ballot.is_pool_called
    return not is_last or is_called or seat.head >= decided.decision.appeal_end


async def _appeal(seat: Seat, decided: DecidedBallot, own: Digest) -> None:
    """Put up the bond of an appeal: this node computed ``own``, another result.

    Not if all that have not voted could not make it the majority: the bond would be lost.
    """
    missing = _count_missing(seat, decided.ballot)
    agreeing = sum(one.digest == own for one in decided.ballot.openings)
    if 2 * (agreeing + missing) <= len(seat.pool):
        log.warning("decision_differs_for_good", digest=own.hex())
        return
    chain = seat.ports.chain
    bond_wei = compute_appeal_bond(seat.job.price_wei, seat.terms, chain.params, missing)
    log.warning(
        "decision_differs",
        decided=decided.decision.digest.hex(),
        bond_wei=bond_wei,
    )
    number = decided.ballot.ballot_number

    async def act() -> None:
        value_wei = await allow_taking(
            chain, seat.job.currency, "Appeals", bond_wei, key=f"appeal/{seat.job_id}/{number}"
        )
        call = AppealDecision(
            job=seat.job_id,
            terms=seat.terms,
            course=seat.course,
            is_seller=False,
            index=seat.index,
            permits=(),
            value_wei=value_wei,
        )
        key = f"appeal/{seat.job_id}/{number}/{seat.head}"
        await chain.submit(call, key=key)

    await _take_turn_at_check(seat, decided, seat.head, act)


async def _audit(seat: Seat, decided: DecidedBallot) -> None:
    """Take this node's turn at the call of the whole pool, if chance asks for it."""
    ballot, chain = decided.ballot, seat.ports.chain
    seed_block = BlockNumber(ballot.current.open_end + ballot.seed_delay_blocks)
    if _count_missing(seat, ballot) == 0 or seed_block >= decided.decision.appeal_end:
        return
    await wait_block_or(chain, seed_block, lambda: _is_settled(seat, decided))
    if _is_settled(seat, decided):
        return
    mini = mini_number(ballot, ballot.current.mini_round_index)
    randomness = await chain.read_randomness(seed_block)
    seed = compute_audit_seed(seat.domain, seat.job_id, ballot.round_index, mini, randomness)
    if not is_audited(seed, chain.params):
        return

    async def act() -> None:
        call = AuditDecision(
            job=seat.job_id,
            terms=seat.terms,
            course=seat.course,
            header=await chain.read_header(seed_block),
        )
        await chain.submit(call, key=f"audit/{seat.job_id}/{ballot.ballot_number}/{seat.head}")

    await _take_turn_at_check(seat, decided, max(seed_block, decided.block_number), act)


async def _take_turn_at_check(
    seat: Seat, decided: DecidedBallot, first_block: int, act: Callable[[], Awaitable[None]]
) -> None:
    """Take this node's turn at calling the pool; one call is enough.

    All who would call must have had a turn before the window ends, so turns wrap around.
    """
    turns = max(1, decided.decision.appeal_end - first_block - 1)
    rank = seat.rank(decided.ballot.ballot_number) % turns
    await take_turn(
        seat.ports.chain,
        Turn(first_block, rank, len(seat.pool)),
        is_done=lambda: _is_settled(seat, decided),
        act=act,
    )


async def execute_slashes(seat: Seat) -> None:
    """Take this node's turns at slashes that are due, until cancelled.

    The next tally would carry them out as well, but a node at the end of its stake could vote
    once more until then.
    """
    chain = seat.ports.chain
    while True:
        due = await chain.wait_for(lambda state: _find_due(seat, state))
        await take_turn(
            chain,
            Turn(due, seat.rank(due), len(seat.pool)),
            is_done=lambda: _find_due(seat, chain.state) is None,
            act=lambda: chain.submit(
                ExecuteSlashes(job=seat.job_id, course=seat.course),
                key=f"slashes/{seat.job_id}/{seat.head}",
            ),
        )


def _find_due(seat: Seat, state: MarketState) -> int | None:
    """Return the last block of the window after which slashes are due; None if none are."""
    course = seat.job.course
    planned = None if course is None else decode_slashes(course)
    if planned is None or state.block_number < planned.due:
        return None
    return planned.due
