from dataclasses import fields, replace

import pytest

from protocol.errors import InvalidParams
from protocol.hashing import keccak, word
from protocol.terms import (
    WINDOW_FIELDS,
    JobTerms,
    Metric,
    TermLimits,
    compute_request_hash,
    compute_terms_hash,
    encode_terms,
    validate_terms,
)
from protocol.types import Digest, Wei

LIMITS = TermLimits(min_stake_wei=Wei(100), max_window_blocks=50, seed_delay_blocks=1)
TERMS = JobTerms(
    rounds_max=6,
    target=900_000,
    metric=Metric.ACC,
    sellers_per_round=5,
    lead=3,
    first_set_size=4,
    growth_numerator=3,
    growth_denominator=2,
    sellers_min=6,
    sellers_max=10,
    cones_min=5,
    cones_max=7,
    stake_wei=Wei(100),
    seller_deposit_wei=Wei(7),
    **dict.fromkeys(WINDOW_FIELDS, 4),
)


def test_terms_are_one_word_per_field_in_order() -> None:
    encoded = encode_terms(TERMS)
    assert len(encoded) == 32 * len(fields(JobTerms)) == 32 * 24
    assert encoded[:64] == word(6) + word(900_000)
    assert encoded[-32:] == word(TERMS.header_blocks)
    assert compute_terms_hash(TERMS) == keccak(encoded)


def test_a_negative_target_is_encoded_in_twos_complement() -> None:
    assert encode_terms(replace(TERMS, target=-1))[32:64] == b"\xff" * 32


def test_request_hash_binds_terms_and_body() -> None:
    body = Digest(keccak(b"body"))
    assert compute_request_hash(TERMS, body) == keccak(encode_terms(TERMS) + body)
    assert compute_request_hash(TERMS, body) != compute_request_hash(TERMS, keccak(b"other"))


def test_sensible_terms_are_valid() -> None:
    validate_terms(TERMS, LIMITS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rounds_max", 0),
        ("rounds_max", 1001),
        ("target", (1 << 62) + 1),
        ("target", -(1 << 62) - 1),
        ("metric", 4),
        ("sellers_per_round", 2),
        ("sellers_per_round", 7),  # more than sellers_min
        ("lead", 0),
        ("lead", 8),  # more than cones_max
        ("first_set_size", 0),
        ("growth_numerator", 2),  # no growth
        ("growth_numerator", 1001),
        ("growth_denominator", 0),
        ("sellers_min", 11),
        ("sellers_max", 257),
        ("cones_min", 0),
        ("cones_min", 8),
        ("cones_max", 65),
        ("stake_wei", 99),
        ("seller_deposit_wei", 0),
        *((name, 0) for name in WINDOW_FIELDS),
        *((name, 51) for name in WINDOW_FIELDS),
    ],
)
def test_a_field_out_of_range_is_named(field: str, value: int) -> None:
    with pytest.raises(InvalidParams) as caught:
        validate_terms(replace(TERMS, **{field: value}), LIMITS)
    assert caught.value.field == field


def test_an_appeal_window_holds_the_seed_of_an_audit() -> None:
    limits = replace(LIMITS, seed_delay_blocks=4)
    validate_terms(replace(TERMS, appeal_blocks=5), limits)
    with pytest.raises(InvalidParams) as caught:
        validate_terms(replace(TERMS, appeal_blocks=4), limits)
    assert caught.value.field == "appeal_blocks"
