"""The transitions of a ballot at a CONE node: counted, decided, given up. Source: MECHANISM 8.4."""

from d2m_node.calls import ExpireBallot, Tally, TallyPool
from d2m_node.roles.seat import Seat
from d2m_node.roles.turns import Turn, take_turn
from d2m_node.roles.vote import BallotDesk, Finding, mini_number
from protocol.ballot import Ballot, MiniRound
from protocol.consensus import Decided, OpenedVote, decide, find_majority, tally
from protocol.types import Digest


async def tally_until_over(seat: Seat, ballot: Ballot, desk: BallotDesk) -> None:
    """Take this node's turns at the transitions of a ballot, until the ballot is over."""
    while seat.is_current(ballot):
        mini_round = seat.ballot(ballot).current
        await seat.ports.chain.wait_block(mini_round.open_end)
        if not seat.is_current(ballot) or seat.ballot(ballot).current != mini_round:
            continue
        await _tally_mini_round(seat, ballot, mini_round, desk.finding)


async def _tally_mini_round(
    seat: Seat, ballot: Ballot, mini_round: MiniRound, finding: Finding | None
) -> None:
    votes = _recorded_votes(seat.ballot(ballot))
    accepted = _find_accepted(seat, ballot, mini_round, votes)
    header, knowers = b"", list(range(len(seat.pool)))
    if accepted is not None:
        knowers = sorted({v.node_index for v in votes if v.digest == accepted})
        if finding is not None and finding.result is not None:
            header = finding.result.opening if finding.result.digest == accepted else b""
    deadline = mini_round.open_end + seat.terms.header_blocks
    is_expected_to_expire = accepted is not None and not header

    async def act() -> None:
        call: Tally | TallyPool | ExpireBallot
        if seat.head >= deadline:
            call = ExpireBallot(job=seat.job_id, terms=seat.terms, course=seat.course)
        else:
            call = _tally_call(seat, ballot, votes, header)
        mini = mini_number(ballot, mini_round.mini_round_index)
        key = f"{type(call).__name__}/{seat.job_id}/{ballot.ballot_number}/{mini}/{seat.head}"
        await seat.ports.chain.submit(call, key=key)

    await take_turn(
        seat.ports.chain,
        Turn(
            deadline if is_expected_to_expire else mini_round.open_end,
            _rank_among(knowers, seat, ballot),
            len(seat.pool),
        ),
        is_done=lambda: not seat.is_current(ballot) or seat.ballot(ballot).current != mini_round,
        act=act,
    )


def _recorded_votes(ballot: Ballot) -> list[OpenedVote]:
    return [
        OpenedVote(
            node_index=one.cone_index,
            mini_round_index=one.mini_round_index,
            digest=one.digest,
            trace=one.trace,
        )
        for one in ballot.openings
    ]


def _find_accepted(
    seat: Seat, ballot: Ballot, mini_round: MiniRound, votes: list[OpenedVote]
) -> Digest | None:
    """Return the digest whose bytes the tally needs; None if it needs none."""
    counts = tally(votes)
    if ballot.is_pool_called:
        overturning = find_majority(counts, len(seat.pool))
        return None if overturning == seat.course.decision else overturning
    decision = decide(
        counts,
        lead=seat.terms.lead,
        pool_size=len(seat.pool),
        set_size=seat.set_sizes[mini_round.mini_round_index],
    )
    return decision.digest if isinstance(decision, Decided) else None


def _tally_call(
    seat: Seat, ballot: Ballot, votes: list[OpenedVote], header: bytes
) -> Tally | TallyPool:
    groups = tuple(sorted({(v.mini_round_index, v.digest, v.trace) for v in votes}))
    if not ballot.is_pool_called:
        return Tally(
            job=seat.job_id,
            terms=seat.terms,
            course=seat.course,
            groups=groups,
            header=header,
        )
    parent = seat.job.parent_course
    assert parent is not None, "a decision that is checked has a course before it"
    return TallyPool(
        job=seat.job_id,
        terms=seat.terms,
        course=seat.course,
        parent=parent,
        groups=groups,
        header=header,
    )


def _rank_among(first: list[int], seat: Seat, ballot: Ballot) -> int:
    """Those who can act come first, in an order that turns with the ballot; then all others."""
    order = sorted(
        range(len(seat.pool)),
        key=lambda index: (index not in first, seat.rank_of(index, ballot.ballot_number)),
    )
    return order.index(seat.index)
