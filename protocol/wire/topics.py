"""Gossip topic names and stream protocol ids. Each carries a version.

A job has a topic for each group of speakers. Their audience is the same, the job's CONE nodes: who
only speaks on a topic does not subscribe, and gets nothing of it.
"""

from enum import Enum
from typing import Final

from protocol.hashing import Domain
from protocol.types import JobId
from protocol.wire import messages as wire
from protocol.wire.messages import GossipMessage

BLOB_PROTOCOL: Final = "/d2m/blob/1"
CHUNKS_PROTOCOL: Final = "/d2m/chunks/2"
DIAL_BACK_PROTOCOL: Final = "/d2m/dial-back/1"
MESSAGES_PROTOCOL: Final = "/d2m/messages/1"

_MAX_DIGITS: Final = 19
"""Of a job's number, as in messages."""


class Topic(Enum):
    """What a job's gossip is about."""

    UPDATES = "updates"
    """Sellers announce their updates."""
    VALIDATION = "validation"
    """The buyer offers its validation set, and CONE nodes say that they hold it."""
    VOTES = "votes"
    """CONE nodes tell each other what they hold, and vote."""


def find_topic(message: GossipMessage) -> Topic:
    """Return what a message is about; it travels there and nowhere else."""
    match message:
        case wire.UpdateCommit() | wire.UpdateOpening():
            return Topic.UPDATES
        case wire.ValidationOffer() | wire.ValidationReceipt():
            return Topic.VALIDATION
        case wire.AvailabilityBitmap() | wire.VoteCommit() | wire.VoteOpening():
            return Topic.VOTES


def name_topic(domain: Domain, job_id: JobId, topic: Topic) -> str:
    """Return the name under which peers know a job's topic."""
    return f"{_prefix(domain)}{job_id}/{topic.value}"


def parse_topic(domain: Domain, name: str) -> tuple[JobId, Topic] | None:
    """Return the job and topic behind a name; None if it is no topic of this market's jobs."""
    job, _, what = name.removeprefix(_prefix(domain)).partition("/")
    if not (job.isascii() and job.isdecimal() and len(job) <= _MAX_DIGITS):
        return None
    if what not in {topic.value for topic in Topic}:
        return None
    found = JobId(int(job)), Topic(what)
    return found if name_topic(domain, *found) == name else None


def _prefix(domain: Domain) -> str:
    return f"d2m/2/{domain.chain_id}/{domain.market.hex()}/"
