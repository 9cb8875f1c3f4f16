"""The terms of a job that the contracts check, and the hash that fixes them.

Contracts store the hash only; whoever calls one brings the terms along. Source: MECHANISM 3.1.
"""

from dataclasses import dataclass, fields
from enum import IntEnum

from protocol.errors import InvalidParams
from protocol.hashing import fixed_bytes, keccak, signed_word, word
from protocol.types import Digest, Wei

MAX_ROUNDS = 1000
MIN_SELLERS_PER_ROUND = 3
MAX_GROWTH_TERM = 1000
MAX_SELLERS = 256
MAX_CONES = 64
MAX_UTILITY = 1 << 62
"""Utilities are signed 64-bit in a header; no target beyond this could be compared."""


class Metric(IntEnum):
    """What a utility measures (MECHANISM 12.1); the number stands in the terms."""

    ACC = 0
    NEG_CE = 1
    MACRO_F1 = 2
    NEG_MSE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTerms:
    """What a winning bid fixes for its job. The order of the fields is the ABI's."""

    rounds_max: int
    target: int
    """tau, a Q20 utility; the only signed field."""
    metric: Metric
    sellers_per_round: int
    lead: int
    first_set_size: int
    growth_numerator: int
    growth_denominator: int
    sellers_min: int
    sellers_max: int
    cones_min: int
    cones_max: int
    stake_wei: Wei
    seller_deposit_wei: Wei
    """What each seller puts up at its enrolment; `protocol.deposits` ties it to the price."""
    enrolment_blocks: int
    validation_blocks: int
    update_commit_blocks: int
    update_open_blocks: int
    availability_blocks: int
    vote_commit_blocks: int
    vote_open_blocks: int
    decision_blocks: int
    appeal_blocks: int
    header_blocks: int


@dataclass(frozen=True, slots=True)
class TermLimits:
    """What the deployment allows: its own parameters, equal for all jobs."""

    min_stake_wei: Wei
    max_window_blocks: int
    seed_delay_blocks: int


WINDOW_FIELDS = tuple(field.name for field in fields(JobTerms) if field.name.endswith("_blocks"))


def encode_terms(terms: JobTerms) -> bytes:
    """ABI-encode the static struct: one 32-byte word per field, in order."""
    return b"".join(
        signed_word(getattr(terms, field.name))
        if field.name == "target"
        else word(getattr(terms, field.name))
        for field in fields(terms)
    )


def compute_terms_hash(terms: JobTerms) -> Digest:
    """Hash the encoded terms."""
    return keccak(encode_terms(terms))


def compute_request_hash(terms: JobTerms, body_hash: Digest) -> Digest:
    """Hash the terms together with the hash of the request's body."""
    return keccak(encode_terms(terms) + fixed_bytes(body_hash))


def validate_terms(terms: JobTerms, limits: TermLimits) -> None:
    """Check the bounds that the contract checks at the reveal.

    Raises
    ------
    InvalidParams
        Naming the first field out of range and what would be in range.
    """
    for name, low, high in _list_ranges(terms, limits):
        value = getattr(terms, name)
        if value < low:
            raise InvalidParams(name, f"is {value}; raise it to at least {low}")
        if value > high:
            raise InvalidParams(name, f"is {value}; lower it to at most {high}")


def _list_ranges(terms: JobTerms, limits: TermLimits) -> list[tuple[str, int, int]]:
    """List (field, smallest, largest), in an order in which later bounds may use earlier fields."""
    ranges: list[tuple[str, int, int]] = [
        ("rounds_max", 1, MAX_ROUNDS),
        ("target", -MAX_UTILITY, MAX_UTILITY),
        ("metric", min(Metric), max(Metric)),
        ("sellers_max", 1, MAX_SELLERS),
        ("sellers_min", 1, terms.sellers_max),
        ("sellers_per_round", MIN_SELLERS_PER_ROUND, terms.sellers_min),
        ("cones_max", 1, MAX_CONES),
        ("cones_min", 1, terms.cones_max),
        ("lead", 1, terms.cones_max),
        ("first_set_size", 1, (1 << 256) - 1),
        ("growth_denominator", 1, MAX_GROWTH_TERM),
        ("growth_numerator", terms.growth_denominator + 1, MAX_GROWTH_TERM),
        ("stake_wei", limits.min_stake_wei, (1 << 256) - 1),
        # A deposit of nothing could not be told from none.
        ("seller_deposit_wei", 1, (1 << 256) - 1),
    ]
    # The block that decides about an audit must be mined within the appeal window.
    least_blocks = {"appeal_blocks": limits.seed_delay_blocks + 1}
    return ranges + [
        (name, least_blocks.get(name, 1), limits.max_window_blocks) for name in WINDOW_FIELDS
    ]
