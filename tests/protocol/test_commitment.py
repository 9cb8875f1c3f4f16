from dataclasses import replace

import pytest

from protocol.commitment import (
    VoteOpening,
    VotePosition,
    compute_nodata_digest,
    compute_vote_commitment,
    validate_opening,
)
from protocol.errors import RuleViolation
from protocol.hashing import Domain, keccak, word
from protocol.types import Address, JobId, RoundIndex

DOMAIN = Domain(1337, Address(b"\x11" * 20))
POSITION = VotePosition(
    job=JobId(7), round_index=RoundIndex(3), mini=65537, node=Address(b"\x01" * 20)
)
OPENING = VoteOpening(keccak(b"digest"), keccak(b"trace"), keccak(b"element"))


def test_commitment_hashes_every_field_after_its_domain() -> None:
    expected = keccak(
        b"D2M/v1/vote\x00"
        + DOMAIN.prefix
        + word(7)
        + word(3)
        + word(65537)
        + bytes(12)
        + POSITION.node
        + OPENING.digest
        + OPENING.trace
        + OPENING.element
    )
    assert compute_vote_commitment(DOMAIN, POSITION, OPENING) == expected


def test_the_right_opening_fits() -> None:
    commitment = compute_vote_commitment(DOMAIN, POSITION, OPENING)
    validate_opening(DOMAIN, POSITION, OPENING, commitment)


@pytest.mark.parametrize("field", ["digest", "trace", "element"])
def test_another_opening_does_not_fit(field: str) -> None:
    commitment = compute_vote_commitment(DOMAIN, POSITION, OPENING)
    with pytest.raises(RuleViolation):
        validate_opening(
            DOMAIN, POSITION, replace(OPENING, **{field: keccak(b"other")}), commitment
        )


def test_a_copied_commitment_does_not_fit_another_node() -> None:
    commitment = compute_vote_commitment(DOMAIN, POSITION, OPENING)
    copier = replace(POSITION, node=Address(b"\x02" * 20))
    with pytest.raises(RuleViolation):
        validate_opening(DOMAIN, copier, OPENING, commitment)


def test_nodata_digest_names_the_input_set() -> None:
    expected = keccak(b"D2M/v1/nodata\x00" + word(7) + word(3) + word(65537) + word(0b101))
    assert compute_nodata_digest(JobId(7), RoundIndex(3), 65537, 0b101) == expected
