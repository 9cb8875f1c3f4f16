"""Where the chain recorded what the payouts of a job are computed from."""

from dataclasses import replace

from protocol.events import (
    AuctionClosed,
    BidRevealed,
    ConeEnrolled,
    CourseChanged,
    DecisionOverturned,
    DecisionUpheld,
    FinalDecided,
    JobSettled,
    PayoutCredited,
    RecordedEvent,
    RoundDecided,
    SellerEnrolled,
    SharesOpened,
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


def keep_trail(job: JobState, recorded: RecordedEvent) -> JobState:
    """Remember where an event was recorded if a payout is computed from it.

    Of the courses only the last one counts.
    """
    event = recorded.event
    if not isinstance(event, _TRAIL):
        return job
    trail = job.trail
    if isinstance(event, CourseChanged):
        trail = tuple(one for one in trail if not isinstance(one.event, CourseChanged))
    return replace(job, trail=(*trail, recorded))
