"""Where the chain recorded a job's money, and what its payouts are computed from."""

from dataclasses import replace

from protocol.events import (
    AppealOpened,
    AppealResolved,
    AuctionClosed,
    BidCommitted,
    BidReclaimed,
    BidRevealed,
    ConeEnrolled,
    ConesDrawn,
    CourseChanged,
    DecisionOverturned,
    DecisionUpheld,
    DepositForfeited,
    DepositReturned,
    EquivocationProved,
    EscrowReclaimed,
    FinalDecided,
    JobCancelled,
    JobSettled,
    PayoutCredited,
    RecordedEvent,
    RoundDecided,
    SellerDeposited,
    SellerEnrolled,
    SellersDrawn,
    SharesOpened,
    SlashShared,
    StakeLocked,
    StakeReleased,
    StakeSlashed,
    TrainingEnded,
)
from protocol.job import JobState

_TRAIL = (
    BidRevealed
    | AuctionClosed
    | SellerEnrolled
    | ConeEnrolled
    | RoundDecided
    | FinalDecided
    | DecisionUpheld
    | DecisionOverturned
    | CourseChanged
    | TrainingEnded
    | JobSettled
    | SharesOpened
    | PayoutCredited
)
_FATES = SellersDrawn | ConesDrawn | JobCancelled
_MONEY = (
    BidCommitted
    | BidReclaimed
    | EscrowReclaimed
    | SellerDeposited
    | DepositReturned
    | DepositForfeited
    | EquivocationProved
    | StakeLocked
    | StakeReleased
    | StakeSlashed
    | SlashShared
    | AppealOpened
    | AppealResolved
)


def keep_trail(job: JobState, recorded: RecordedEvent) -> JobState:
    """Remember where an event was recorded if it moves money, or somebody's pay follows from it.

    Of the courses only the last one counts.
    """
    event = recorded.event
    if not isinstance(event, _TRAIL | _MONEY | _FATES):
        return job
    trail = job.trail
    if isinstance(event, CourseChanged):
        trail = tuple(one for one in trail if not isinstance(one.event, CourseChanged))
    return replace(job, trail=(*trail, recorded))
