"""Appeals and audits: seeds, chances and bonds."""

from dataclasses import replace

import pytest

from protocol.appeals import compute_appeal_bond, compute_audit_seed, is_audited
from protocol.types import Wei
from tests.protocol.test_shared_vectors import DOMAIN, VECTORS, build_terms
from tests.support.params import PARAMS

TERMS = build_terms(VECTORS["terms_hash"]["terms"])


def test_audit_seed_as_in_the_vectors() -> None:
    vector = VECTORS["audit_seed"]
    place = (vector["job"], vector["round"], vector["mini"])
    seed = compute_audit_seed(DOMAIN, *place, vector["randomness"])
    assert seed == int.from_bytes(vector["seed"])


@pytest.mark.parametrize(
    ("audit_bps", "seed", "expected"),
    [
        (0, 0, False),
        (1, 0, True),
        (1, 1, False),
        (1000, 999, True),
        (1000, 1000, False),
        (1000, 20_999, True),
        (10_000, 9_999, True),
    ],
)
def test_an_audit_is_drawn_by_the_rest_of_its_seed(
    audit_bps: int, seed: int, expected: bool
) -> None:
    assert is_audited(seed, replace(PARAMS, audit_bps=audit_bps)) is expected


def test_a_bond_pays_the_votes_that_it_calls_for() -> None:
    terms = replace(TERMS, rounds_max=6, first_set_size=4, cones_max=64)
    params = replace(PARAMS, cone_bps=3000)
    vote_wei = 10**19 * 3 // 10 // 24
    assert compute_appeal_bond(Wei(10**19), terms, params, 1) == vote_wei
    assert compute_appeal_bond(Wei(10**19), terms, params, 5) == 5 * vote_wei
    assert compute_appeal_bond(Wei(10**19), terms, params, 0) == 0


def test_a_bond_is_divided_among_no_more_votes_than_there_can_be() -> None:
    terms = replace(TERMS, rounds_max=10, first_set_size=50, cones_max=5)
    params = replace(PARAMS, cone_bps=10_000)
    assert compute_appeal_bond(Wei(500), terms, params, 2) == 2 * 10


def test_a_bond_is_at_least_the_smallest_unit_per_vote() -> None:
    assert compute_appeal_bond(Wei(1), TERMS, PARAMS, 3) == 3
