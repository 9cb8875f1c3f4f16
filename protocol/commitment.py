"""Votes: how they are committed, and when an opening fits. Source: MECHANISM 8.4, 9.2."""

from dataclasses import dataclass

from protocol.errors import RuleViolation
from protocol.hashing import Domain, address_word, fixed_bytes, hash_domain, word
from protocol.types import Address, Digest, JobId, RoundIndex

NO_TRACE = Digest(bytes(32))
"""The trace of a "no data" vote; no honest trace is zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VotePosition:
    """Where a vote is cast, and by whom."""

    job: JobId
    round_index: RoundIndex
    mini: int
    """From ``sortition.encode_mini``."""
    node: Address


@dataclass(frozen=True, slots=True)
class VoteOpening:
    """What a commitment hides."""

    digest: Digest
    trace: Digest
    element: bytes
    """The voter's chain element for the attempt. It is the salt: nobody else knows it yet."""


def compute_vote_commitment(domain: Domain, position: VotePosition, opening: VoteOpening) -> Digest:
    """Hash a vote so that it stays secret until all have committed, and only its node opens it."""
    return hash_domain(
        "vote",
        domain.prefix,
        word(position.job),
        word(position.round_index),
        word(position.mini),
        address_word(position.node),
        fixed_bytes(opening.digest),
        fixed_bytes(opening.trace),
        fixed_bytes(opening.element),
    )


def compute_nodata_digest(job: JobId, round_index: RoundIndex, mini: int, available: int) -> Digest:
    """Compute the digest of a node that lacks an update of the input set ``available``."""
    return hash_domain("nodata", word(job), word(round_index), word(mini), word(available))


def validate_opening(
    domain: Domain, position: VotePosition, opening: VoteOpening, commitment: Digest
) -> None:
    """Check an opening against its commitment; RuleViolation if it opens another one."""
    if compute_vote_commitment(domain, position, opening) != commitment:
        raise RuleViolation(f"the opening of {position.node.hex()} does not fit its commitment")
