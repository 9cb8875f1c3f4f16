"""A first round that was decided, for tests of what nodes do about it."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import count

from protocol.appeals import compute_audit_seed, is_audited
from protocol.bitmap import encode_bitmap
from protocol.course import Course, compute_course_hash
from protocol.events import AttemptOpened, CourseChanged, OpeningsRecorded, RoundDecided
from protocol.hashing import keccak
from protocol.sortition import BallotKind
from protocol.types import BlockNumber, Digest, RoundIndex
from tests.support.job import JOB, Cast
from tests.support.market import DOMAIN
from tests.support.params import PARAMS
from tests.support.settled_job import make_course

BEFORE = make_course(())
"""The course before the decision."""
DIGEST, TRACE = keccak(b"what was decided"), keccak(b"trace")


def plan_slashes(wrong: Iterable[int], unopened: Iterable[int], due: int) -> int:
    """Pack who is slashed, as `contracts/modules/slashes.vy` does."""
    return encode_bitmap(wrong) | encode_bitmap(unopened) << 64 | due << 192


def course_after(digest: Digest, slashes: int = 0) -> Course:
    """The course with the first decision in it."""
    return replace(BEFORE, parent=compute_course_hash(BEFORE), decision=digest, slashes=slashes)


def record_votes(cast: Cast, voters: Iterable[int], digest: Digest = DIGEST) -> None:
    """Let nodes have voted for a digest in the open ballot."""
    groups = ((digest, TRACE, encode_bitmap(voters)),)
    cast.market.apply(OpeningsRecorded(job=JOB, ballot_number=1, mini=0, groups=groups))


def decide_first_round(
    cast: Cast, digest: Digest, *, appeal_end: int, slashes: int = 0, header: bytes = b""
) -> None:
    """Let the first round be decided, and the second one be open after the appeal window."""
    cast.market.apply(
        CourseChanged(job=JOB, course=BEFORE),
        RoundDecided(
            job=JOB, round_index=0, ballot_number=1, digest=digest, votes=0, voters=0, wrong=0,
            unopened=0, appeal_end=BlockNumber(appeal_end), header=header,
        ),
        CourseChanged(job=JOB, course=course_after(digest, slashes)),
        open_second_round(appeal_end),
    )  # fmt: skip


def open_second_round(base: int) -> AttemptOpened:
    """The second round, whose sellers' seed is of the block after ``base``."""
    ends = [BlockNumber(base + blocks) for blocks in (1, 5, 9, 13, 14, 18, 22)]
    return AttemptOpened(
        job=JOB,
        ballot_number=2,
        round_index=1,
        kind=BallotKind.ROUND,
        attempt=0,
        seller_seed_block=ends[0],
        update_commit_end=ends[1],
        update_open_end=ends[2],
        availability_end=ends[3],
        seed_block=ends[4],
        commit_end=ends[5],
        open_end=ends[6],
    )


def find_randomness(is_wanted: bool) -> bytes:
    """Find what makes chance call the pool to the first round, or not."""
    for number in count():
        randomness = keccak(number.to_bytes(4, "big"))
        seed = compute_audit_seed(DOMAIN, JOB, RoundIndex(0), 0, randomness)
        if is_audited(seed, PARAMS) is is_wanted:
            return randomness
    raise AssertionError
