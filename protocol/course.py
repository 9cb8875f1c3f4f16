"""What the contracts keep of a job in training between two ballots, as one hash.

`contracts/Rounds.vy` stores the hash and announces each course in an event. Whoever calls a
transition brings the course along, so that a round changes two words of storage instead of ten.
"""

from dataclasses import dataclass, fields

from protocol.hashing import fixed_bytes, keccak, word
from protocol.types import Digest, Wei

REFUND_UNIT_WEI = 10**10
"""What batches cost is counted in units of 10 gwei."""

_COUNTS_PER_WORD, _COUNT_BITS = 16, 16
_REFUNDS_PER_WORD, _REFUND_BITS = 8, 32

_NODES = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The fields of the contract's struct, in its order; packed words stay packed."""

    terms_hash: Digest
    parent: Digest
    """Hash of the course before the last decision, for as long as that may be appealed."""
    decision: Digest
    """What was decided last, for a round or a final evaluation."""
    digest: Digest
    """What was decided for the last decided round."""
    model_digest: Digest
    credit_root: Digest
    utilities: int
    progress: int
    decided_ballot: int
    resumed_ballot: int
    slashes: int
    participation: tuple[int, ...]
    """Four words of sixteen counters: ballots decided with each node's vote."""
    refunds: tuple[int, ...]
    """Eight words of eight numbers: what each node spent on batches, in units of 10 gwei."""


def encode_course(course: Course) -> bytes:
    """ABI-encode the static struct: 32-byte words in order, arrays in place."""
    return b"".join(_encode_field(getattr(course, field.name)) for field in fields(course))


def compute_course_hash(course: Course) -> Digest:
    """Hash the encoded course, as the chain keeps it."""
    return keccak(encode_course(course))


def list_participation(course: Course, cone_count: int) -> tuple[int, ...]:
    """Return per CONE node how many ballots were decided with its vote."""
    return _unpack(course.participation, _COUNTS_PER_WORD, _COUNT_BITS, cone_count)


def list_spending(course: Course, cone_count: int) -> tuple[Wei, ...]:
    """Return per CONE node what it spent on sending batches for all."""
    units = _unpack(course.refunds, _REFUNDS_PER_WORD, _REFUND_BITS, cone_count)
    return tuple(Wei(unit * REFUND_UNIT_WEI) for unit in units)


def _unpack(words: tuple[int, ...], per_word: int, bits: int, count: int) -> tuple[int, ...]:
    """Read ``count`` numbers of ``bits`` bits, the first in the lowest bits of the first word."""
    mask = (1 << bits) - 1
    return tuple(
        words[index // per_word] >> (bits * (index % per_word)) & mask for index in range(count)
    )


def _encode_field(value: Digest | int | tuple[int, ...]) -> bytes:
    if isinstance(value, tuple):
        return b"".join(map(word, value))
    return word(value) if isinstance(value, int) else fixed_bytes(value)


@dataclass(frozen=True, slots=True)
class PlannedSlashes:
    """Who is slashed once a decision is final."""

    wrong: int
    """Bitmap of the nodes that opened another digest."""
    unopened: int
    """Bitmap of the nodes that committed and did not open."""
    due: int
    """Last block of the window in which the decision may be appealed."""


def decode_slashes(course: Course) -> PlannedSlashes | None:
    """Read who is to be slashed out of a course; None if nobody is."""
    if course.slashes == 0:
        return None
    return PlannedSlashes(
        wrong=course.slashes & _NODES,
        unopened=course.slashes >> 64 & _NODES,
        due=course.slashes >> 192,
    )
