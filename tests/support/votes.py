"""Events folded into a job, and what the contracts log of its votes, for tests of the fold."""

from collections.abc import Sequence
from functools import reduce

from protocol.ballot import Ballot, RecordedOpening
from protocol.bitmap import encode_bitmap
from protocol.events import CommitsRecorded, Event, OpeningsRecorded, RecordedEvent
from protocol.hashing import keccak
from protocol.job import JobState, apply_job_event
from protocol.sortition import BallotKind, encode_mini
from protocol.types import BlockNumber, ConeIndex
from tests.support.job import JOB, Cast

DIGEST, OTHER = keccak(b"digest"), keccak(b"other digest")
TRACE, OTHER_TRACE = keccak(b"trace"), keccak(b"other trace")


def first_round() -> JobState:
    """A job in its first round."""
    cast = Cast()
    cast.start()
    return cast.market.state.jobs[JOB]


def fold(job: JobState, *events: Event, block: int = 5, log_index: int = 0) -> JobState:
    """Let one block hold these events."""
    recorded = [
        RecordedEvent(
            block_number=BlockNumber(block),
            log_index=log_index + number,
            transaction_hash=b"",
            event=event,
        )
        for number, event in enumerate(events)
    ]
    return reduce(apply_job_event, recorded, job)


def ballot_of(job: JobState) -> Ballot:
    assert job.ballot is not None
    return job.ballot


def commit(members: Sequence[int], batch_index: int, mini_round_index: int = 0) -> CommitsRecorded:
    return CommitsRecorded(
        job=JOB,
        ballot_number=1,
        mini=encode_mini(BallotKind.ROUND, 0, mini_round_index),
        batch_index=batch_index,
        members=encode_bitmap(members),
        commitments=tuple(keccak(bytes([index])) for index in sorted(members)),
    )


def open_votes(mini_round_index: int, *groups: tuple[bytes, bytes, int]) -> OpeningsRecorded:
    mini = encode_mini(BallotKind.ROUND, 0, mini_round_index)
    return OpeningsRecorded(job=JOB, ballot_number=1, mini=mini, groups=groups)


def vote(index: int, mini_round_index: int = 0) -> RecordedOpening:
    return RecordedOpening(
        mini_round_index=mini_round_index,
        cone_index=ConeIndex(index),
        digest=DIGEST,
        trace=TRACE,
    )
