"""One ballot at a CONE node: commit and open. Source: MECHANISM 7.2, 9.2.

A node signs at most one vote per attempt, across crashes too: the vote is in the journal before
its commitment leaves the node, and what the journal holds is what is signed.
"""

from dataclasses import dataclass

import msgspec
import structlog

from d2m_node.calls import SubmitCommits, SubmitOpenings
from d2m_node.offload import offload
from d2m_node.roles.old_copy import may_vote
from d2m_node.roles.seat import Seat
from d2m_node.roles.statements import UNSIGNED, compute_opened_commitment, vote_step
from d2m_node.roles.turns import Statement, Window, land
from protocol.ballot import Ballot, CommitBatch, MiniRound
from protocol.bitmap import encode_bitmap
from protocol.commitment import (
    NO_TRACE,
    VoteOpening,
    VotePosition,
    compute_nodata_digest,
    compute_vote_commitment,
)
from protocol.round import BallotResult
from protocol.signatures import compact
from protocol.sortition import (
    compute_es_seed,
    compute_first_mini_round,
    compute_ticket,
    encode_mini,
)
from protocol.types import Digest, JobId
from protocol.wire import messages as wire

log = structlog.get_logger(__name__)

MIN_BLOCKS_TO_COMMIT = 2
"""With fewer blocks left in the window a node does not commit: it might not be able to land."""


class SealedVote(msgspec.Struct, frozen=True, array_like=True):
    """A vote as the journal holds it."""

    digest: bytes
    trace: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """What a node has to vote for: a result, or the lack of an input in ``available``."""

    result: BallotResult | None
    available: int


@dataclass(slots=True)
class BallotDesk:
    """What this node has found so far, for those of its tasks that tally."""

    finding: Finding | None = None


def mini_number(ballot: Ballot, mini_round_index: int) -> int:
    """Return the ``mini`` of MECHANISM 0.3."""
    return encode_mini(ballot.kind, ballot.attempt, mini_round_index)


async def cast_vote(seat: Seat, ballot: Ballot, finding: Finding) -> None:
    """Vote in the first mini-round this node is drawn for; return when that is over."""
    chain = seat.ports.chain
    drawn_for = await _find_mini_round(seat, ballot)
    await chain.wait_for(
        lambda _: True if len(seat.ballot(ballot).mini_rounds) > drawn_for else None
    )
    mini_round = seat.ballot(ballot).mini_rounds[drawn_for]
    await chain.wait_block(mini_round.seed_block)
    if seat.head > seat.call_end(mini_round.commit_end) - MIN_BLOCKS_TO_COMMIT:
        log.info("vote_too_late")
        return
    if seat.shift.is_stopping:
        log.info("vote_left_out")
        return
    vote = await _seal_vote(seat, ballot, mini_round, finding)
    if vote is not None:
        await finish_vote(seat, ballot, mini_round, vote)


async def _find_mini_round(seat: Seat, ballot: Ballot) -> int:
    """Return the position of the mini-round in which this node votes."""
    if ballot.is_pool_called:
        return len(ballot.mini_rounds) - 1
    await seat.ports.chain.wait_block(ballot.mini_rounds[0].seed_block)
    es_seed = await _compute_seed(seat, ballot, ballot.mini_rounds[0])
    ticket = compute_ticket(
        seat.ports.signer.address, seat.tickets.element(ballot.ballot_number), es_seed
    )
    return compute_first_mini_round(ticket, seat.set_sizes, len(seat.pool))


async def recall_vote(seat: Seat, ballot: Ballot) -> tuple[MiniRound, SealedVote] | None:
    """Return the vote of this attempt that an earlier run of the node sealed."""
    for mini_round in seat.ballot(ballot).mini_rounds:
        key = vote_key(seat.job_id, ballot, mini_round)
        stored = await seat.ports.store.journal.recall("vote", key)
        if stored is not None:
            return mini_round, msgspec.msgpack.decode(stored, type=SealedVote)
    return None


def vote_key(job_id: JobId, ballot: Ballot, mini_round: MiniRound) -> str:
    """Return the journal key of a vote."""
    mini = mini_number(ballot, mini_round.mini_round_index)
    return f"{job_id}/{ballot.round_index}/{mini}"


async def finish_vote(seat: Seat, ballot: Ballot, mini_round: MiniRound, vote: SealedVote) -> None:
    """Commit and open a sealed vote; after a restart this needs the journal, not the work.

    A node that stops waits for this: whoever commits and does not open loses stake.
    """
    with seat.shift.finishing():
        if seat.head <= seat.call_end(mini_round.commit_end) - MIN_BLOCKS_TO_COMMIT:
            await _commit(seat, ballot, mini_round, vote)
        await seat.ports.chain.wait_block(mini_round.commit_end)
        await _open(seat, ballot, mini_round, vote)


async def _compute_seed(seat: Seat, ballot: Ballot, mini_round: MiniRound) -> Digest:
    randomness = await seat.ports.chain.read_randomness(mini_round.seed_block)
    mini = mini_number(ballot, mini_round.mini_round_index)
    return compute_es_seed(seat.domain, seat.job_id, ballot.round_index, mini, randomness)


async def _seal_vote(
    seat: Seat, ballot: Ballot, mini_round: MiniRound, finding: Finding
) -> SealedVote | None:
    """Fix the vote in the journal; a vote that is there already stays.

    Returns None if nothing may be signed, and raises JobFailed if something else was.
    """
    mini = mini_number(ballot, mini_round.mini_round_index)
    if finding.result is None:
        digest = compute_nodata_digest(seat.job_id, ballot.round_index, mini, finding.available)
        trace = NO_TRACE
    else:
        digest = finding.result.digest
        seed = await _compute_seed(seat, ballot, mini_round)
        trace = await offload(finding.result.compute_trace, seed)
    fresh = SealedVote(digest, trace)
    step = vote_step(ballot.round_index, mini)
    if not await may_vote(seat, ballot, step, _commitment_of(seat, ballot, mini_round, fresh)):
        return None
    stored = await seat.ports.store.journal.remember(
        "vote",
        vote_key(seat.job_id, ballot, mini_round),
        msgspec.msgpack.encode(fresh),
    )
    return msgspec.msgpack.decode(stored, type=SealedVote)


def _commitment_of(seat: Seat, ballot: Ballot, mini_round: MiniRound, vote: SealedVote) -> Digest:
    position = VotePosition(
        job=seat.job_id,
        round_index=ballot.round_index,
        mini=mini_number(ballot, mini_round.mini_round_index),
        node=seat.ports.signer.address,
    )
    opening = VoteOpening(
        Digest(vote.digest), Digest(vote.trace), seat.tickets.element(ballot.ballot_number)
    )
    return compute_vote_commitment(seat.domain, position, opening)


async def _commit(seat: Seat, ballot: Ballot, mini_round: MiniRound, vote: SealedVote) -> None:
    mini = mini_number(ballot, mini_round.mini_round_index)
    step = vote_step(ballot.round_index, mini)
    await seat.room.sign_and_publish(
        wire.VoteCommit(
            job_id=seat.job_id,
            round_index=ballot.round_index,
            mini=mini,
            cone_index=seat.index,
            commitment=_commitment_of(seat, ballot, mini_round, vote),
            signature=UNSIGNED,
        )
    )

    def unrecorded() -> dict[int, wire.VoteCommit]:
        recorded = seat.ballot(ballot).committed
        heard = seat.room.heard(wire.VoteCommit, step)
        return {index: one for index, one in heard.items() if index not in recorded}

    async def send() -> None:
        heard = unrecorded()
        call = SubmitCommits(
            job=seat.job_id,
            sender_index=seat.index,
            members=encode_bitmap(heard),
            entries=tuple(
                (Digest(one.commitment), *compact(one.signature))
                for _, one in sorted(heard.items())
            ),
        )
        key = f"commits/{seat.job_id}/{ballot.ballot_number}/{mini}/{seat.head}"
        await seat.ports.chain.submit(call, key=key)

    await land(
        seat.ports.chain,
        Window(mini_round.seed_block + 1, seat.call_end(mini_round.commit_end)),
        Statement(
            is_recorded=lambda: seat.index in seat.ballot(ballot).committed,
            gather=lambda: seat.room.gather_unknown(wire.VoteCommit, step, seat.others()),
            rank=lambda: _rank_by_commitment(unrecorded(), seat.index),
            send=send,
        ),
    )


def _rank_by_commitment(heard: dict[int, wire.VoteCommit], index: int) -> int:
    """The voter with the smallest commitment sends first."""
    return sorted(heard, key=lambda one: heard[one].commitment).index(index)


async def _open(seat: Seat, ballot: Ballot, mini_round: MiniRound, vote: SealedVote) -> None:
    """Gossip the opening and see it recorded, if the commitment was."""
    batch = _own_batch(seat, ballot, mini_round)
    if batch is None:
        log.warning("vote_not_recorded")
        return
    mini = mini_number(ballot, mini_round.mini_round_index)
    step = vote_step(ballot.round_index, mini)
    own = wire.VoteOpening(
        job_id=seat.job_id,
        round_index=ballot.round_index,
        mini=mini,
        cone_index=seat.index,
        digest=vote.digest,
        trace=vote.trace,
        chain_element=seat.tickets.element(ballot.ballot_number),
    )
    if not _opens(seat, batch, own):
        log.error("vote_recorded_otherwise")
        return
    await seat.room.publish(own)

    def unopened() -> dict[int, wire.VoteOpening]:
        """Return by node what opens the batch: one opening that does not spoils the whole call."""
        opened = seat.ballot(ballot).opened
        heard = seat.room.heard(wire.VoteOpening, step)
        return {
            index: one
            for index, one in heard.items()
            if index not in opened and _opens(seat, batch, one)
        }

    async def send() -> None:
        await _submit_openings(seat, ballot, batch, unopened())

    async def gather() -> None:
        members = {index for index, _ in batch.entries}
        silent = members - unopened().keys() - seat.ballot(ballot).opened
        absent = set(range(len(seat.pool))) - silent
        await seat.room.gather(wire.VoteOpening, step, seat.others(absent))

    order = [index for index, _ in sorted(batch.entries, key=lambda entry: entry[1])]
    await land(
        seat.ports.chain,
        # What is not opened in time costs stake.
        Window(mini_round.commit_end + 1, seat.call_end(mini_round.open_end), seat.lag_blocks),
        Statement(
            is_recorded=lambda: seat.index in seat.ballot(ballot).opened,
            gather=gather,
            rank=lambda: [index for index in order if index in unopened()].index(seat.index),
            send=send,
        ),
    )


def _own_batch(seat: Seat, ballot: Ballot, mini_round: MiniRound) -> CommitBatch | None:
    for batch in seat.ballot(ballot).batches:
        if batch.mini_round_index == mini_round.mini_round_index and any(
            index == seat.index for index, _ in batch.entries
        ):
            return batch
    return None


def _opens(seat: Seat, batch: CommitBatch, opening: wire.VoteOpening) -> bool:
    """Tell whether an opening opens the commitment on record; its node may have signed others."""
    recorded = dict(batch.entries).get(opening.cone_index)
    node = seat.pool[opening.cone_index]
    return recorded == compute_opened_commitment(seat.domain, opening, node)


async def _submit_openings(
    seat: Seat, ballot: Ballot, batch: CommitBatch, openings: dict[int, wire.VoteOpening]
) -> None:
    votes = sorted({(Digest(one.digest), Digest(one.trace)) for one in openings.values()})

    def entry(index: int, commitment: Digest) -> tuple[int, bytes]:
        one = openings.get(index)
        if one is None:
            return len(votes), commitment
        return votes.index((Digest(one.digest), Digest(one.trace))), one.chain_element

    call = SubmitOpenings(
        job=seat.job_id,
        sender_index=seat.index,
        batch_index=batch.batch_index,
        members=batch.members,
        batch=tuple(entry(index, commitment) for index, commitment in batch.entries),
        opened=tuple(votes),
        header=await seat.ports.chain.read_header(ballot.mini_rounds[0].seed_block),
    )
    key = (
        f"openings/{seat.job_id}/{ballot.ballot_number}/"
        f"{batch.mini_round_index}/{batch.batch_index}/{seat.head}"
    )
    await seat.ports.chain.submit(call, key=key)
