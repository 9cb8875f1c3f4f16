"""One attempt to decide something, as the chain tells it: a fold of events."""

from dataclasses import dataclass, replace

from protocol.bitmap import BitmapStatement, decode_bitmap, list_statements
from protocol.events import (
    AttemptOpened,
    BallotEvent,
    BitmapsLogged,
    CommitsRecorded,
    DecisionUpheld,
    FinalDecided,
    MiniRoundOpened,
    OpeningsRecorded,
    PoolCalled,
    RoundDecided,
)
from protocol.sortition import BallotKind
from protocol.types import BlockNumber, ConeIndex, Digest, RoundIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniRound:
    """One execution set's window to commit and to open."""

    mini_round_index: int
    seed_block: BlockNumber
    commit_end: BlockNumber
    open_end: BlockNumber


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedOpening:
    """A vote that the contract accepted."""

    mini_round_index: int
    cone_index: ConeIndex
    digest: Digest
    trace: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitBatch:
    """Commitments that the contract recorded together; openings refer to the batch."""

    mini_round_index: int
    batch_index: int
    members: int
    """Bitmap of the nodes."""
    entries: tuple[tuple[int, Digest], ...]
    """(CONE index, commitment), by index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """One attempt at one decision, with all that was recorded for it so far."""

    ballot_number: int
    round_index: RoundIndex
    kind: BallotKind
    attempt: int
    seller_seed_block: BlockNumber
    update_commit_end: BlockNumber
    update_open_end: BlockNumber
    availability_end: BlockNumber
    mini_rounds: tuple[MiniRound, ...]
    opened_at: tuple[BlockNumber, int]
    """(block, log index) of the event that opened it, or that called the whole pool to it: a name
    that no other ballot has, and that grows."""
    is_pool_called: bool = False
    """It was decided, and whoever has not voted yet is asked."""
    is_audited: bool = False
    """The pool was called by chance, and not by an appeal."""
    bitmaps: tuple[BitmapStatement, ...] = ()
    """As logged, in time and in order; signatures are unchecked."""
    batches: tuple[CommitBatch, ...] = ()
    openings: tuple[RecordedOpening, ...] = ()

    @property
    def seed_delay_blocks(self) -> int:
        """From a deadline to the block whose randomness is the seed; the deployment's."""
        return self.mini_rounds[0].seed_block - self.availability_end

    @property
    def current(self) -> MiniRound:
        """The mini-round that is open now, or was last."""
        return self.mini_rounds[-1]

    @property
    def committed(self) -> frozenset[int]:
        """CONE indices whose commitment is recorded for this attempt."""
        return frozenset(index for batch in self.batches for index, _ in batch.entries)

    @property
    def opened(self) -> frozenset[int]:
        """CONE indices whose vote is recorded for this attempt."""
        return frozenset(opening.cone_index for opening in self.openings)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedBallot:
    """What the execution sets agreed on, with the ballot that led to it."""

    ballot: Ballot
    decision: RoundDecided | FinalDecided
    block_number: BlockNumber
    is_upheld: bool = False
    """The whole pool was called, and the decision stood."""


def open_ballot(
    event: AttemptOpened, former: Ballot | None, opened_at: tuple[BlockNumber, int]
) -> Ballot:
    """Start a ballot. A retry keeps the sellers' deadlines of its round's first attempt."""
    first_attempt = former if event.attempt > 0 else None
    first = MiniRound(
        mini_round_index=0,
        seed_block=event.seed_block,
        commit_end=event.commit_end,
        open_end=event.open_end,
    )
    return Ballot(
        ballot_number=event.ballot_number,
        round_index=RoundIndex(event.round_index),
        kind=BallotKind(event.kind),
        attempt=event.attempt,
        seller_seed_block=(first_attempt or event).seller_seed_block,
        update_commit_end=(first_attempt or event).update_commit_end,
        update_open_end=(first_attempt or event).update_open_end,
        availability_end=event.availability_end,
        mini_rounds=(first,),
        opened_at=opened_at,
    )


def log_bitmaps(ballot: Ballot, event: BitmapsLogged, block_number: BlockNumber) -> Ballot:
    """Keep statements of this ballot that came in time; anybody may log anything."""
    is_of_ballot = ballot.ballot_number == event.ballot_number
    if not is_of_ballot or block_number > ballot.availability_end:
        return ballot
    logged = list_statements(event.groups, event.signatures)
    return replace(ballot, bitmaps=ballot.bitmaps + logged)


def apply_ballot_event(ballot: Ballot | None, event: BallotEvent) -> Ballot:
    """Fold what was recorded for the open ballot into it."""
    assert not isinstance(event, BitmapsLogged), "anybody may log those at any time"
    assert ballot is not None, "the contract speaks only of a ballot it opened"
    assert ballot.ballot_number == event.ballot_number, "one ballot at a time"
    match event:
        case CommitsRecorded():
            batch = CommitBatch(
                mini_round_index=event.mini & 0xFFFF,
                batch_index=event.batch_index,
                members=event.members,
                entries=tuple(zip(decode_bitmap(event.members), event.commitments, strict=True)),
            )
            return replace(ballot, batches=(*ballot.batches, batch))
        case OpeningsRecorded():
            openings = tuple(
                RecordedOpening(
                    mini_round_index=event.mini & 0xFFFF,
                    cone_index=ConeIndex(index),
                    digest=digest,
                    trace=trace,
                )
                for digest, trace, voters in event.groups
                for index in decode_bitmap(voters)
            )
            return replace(ballot, openings=ballot.openings + openings)
        case MiniRoundOpened():
            return replace(ballot, mini_rounds=(*ballot.mini_rounds, _mini_round(event)))


def call_whole_pool(
    decided: Ballot, event: PoolCalled, opened_at: tuple[BlockNumber, int]
) -> Ballot:
    """Open a decided ballot again for whoever has not voted."""
    return replace(
        decided,
        mini_rounds=(*decided.mini_rounds, _mini_round(event)),
        opened_at=opened_at,
        is_pool_called=True,
        is_audited=event.is_audit,
    )


def uphold(decided: DecidedBallot, ballot: Ballot, event: DecisionUpheld) -> DecidedBallot:
    """Count the whole pool's votes for a decision that stands."""
    if event.votes == 0:  # nobody counted in time: it stands as it was
        return decided
    decision = replace(
        decided.decision,
        votes=event.votes,
        voters=event.voters,
        wrong=event.wrong,
        unopened=event.unopened,
    )
    return replace(decided, ballot=ballot, decision=decision, is_upheld=True)


def _mini_round(event: MiniRoundOpened | PoolCalled) -> MiniRound:
    return MiniRound(
        mini_round_index=event.mini & 0xFFFF,
        seed_block=event.seed_block,
        commit_end=event.commit_end,
        open_end=event.open_end,
    )
