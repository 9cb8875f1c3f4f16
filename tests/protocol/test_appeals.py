<<<<<<< HEAD
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
=======
"""When a decision is checked by the whole pool, and what an appeal costs."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.appeals import compute_appeal_bond, compute_audit_seed, is_audited
from protocol.hashing import Domain, keccak, word
from protocol.types import Address, JobId, RoundIndex, Wei
from tests.protocol.test_terms import TERMS
from tests.protocol.vectors import load_vectors
from tests.support.params import PARAMS

VECTORS = load_vectors("appeals")
DOMAIN = Domain(VECTORS["chain"], Address(bytes.fromhex(VECTORS["market"][2:])))
RANDOMNESS = bytes(range(32))


def seed_of(job: int = 1, round_index: int = 2, mini: int = 3, **changes: Any) -> int:
    domain = changes.get("domain", DOMAIN)
    randomness = changes.get("randomness", RANDOMNESS)
    return compute_audit_seed(domain, JobId(job), RoundIndex(round_index), mini, randomness)


def test_the_audit_seed_hashes_its_name_and_one_word_for_each_part() -> None:
    parts = (word(1337), bytes(12) + DOMAIN.market, word(1), word(2), word(3), RANDOMNESS)
    assert seed_of().to_bytes(32, "big") == keccak(b"D2M/v1/audit\x00" + b"".join(parts))


@pytest.mark.parametrize("case", VECTORS["audit_seeds"], ids=str)
def test_the_audit_seed_is_that_of_the_vectors(case: dict[str, Any]) -> None:
    randomness = bytes.fromhex(case["randomness"][2:])
    seed = seed_of(case["job"], case["round"], case["mini"], randomness=randomness)
    assert seed == int(case["seed"], 16)


def test_every_part_changes_the_audit_seed() -> None:
    seeds = [
        seed_of(),
        seed_of(job=2),
        seed_of(round_index=3),
        seed_of(mini=4),
        seed_of(randomness=bytes(32)),
        seed_of(domain=Domain(1, DOMAIN.market)),
        seed_of(domain=Domain(1337, Address(bytes(20)))),
    ]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("case", VECTORS["audits"], ids=str)
def test_chance_calls_the_pool_as_in_the_vectors(case: dict[str, Any]) -> None:
    params = replace(PARAMS, audit_bps=case["audit_bps"])
    assert is_audited(int(case["seed"], 16), params) is case["is_audited"]


@given(st.integers(0, 2**256 - 1))
def test_all_decisions_or_none_are_audited_at_the_ends(seed: int) -> None:
    assert is_audited(seed, replace(PARAMS, audit_bps=10_000))
    assert not is_audited(seed, replace(PARAMS, audit_bps=0))


def test_one_tenth_of_the_seeds_is_audited_at_a_thousand_basis_points() -> None:
    audited = sum(is_audited(seed, PARAMS) for seed in range(7, 10_007))
    assert audited == PARAMS.audit_bps == 1000


@pytest.mark.parametrize("case", VECTORS["bonds"], ids=str)
def test_the_bond_of_an_appeal_is_that_of_the_vectors(case: dict[str, int]) -> None:
    names = ("rounds_max", "first_set_size", "cones_max")
    terms = replace(TERMS, **{name: case[name] for name in names})
    params = replace(PARAMS, cone_bps=case["cone_bps"])
    bond_wei = compute_appeal_bond(Wei(case["price_wei"]), terms, params, case["missing"])
    assert bond_wei == case["bond_wei"]


@pytest.mark.parametrize(
    ("price_wei", "missing", "bond_wei"),
    [
        (8000, 1, 100),  # 30 % are 2400, for 6 rounds of 4 votes
        (8000, 3, 300),
        (8000, 0, 0),
        (8079, 3, 300),  # 2423 are 100 for each, rounded down before they are added
        (8080, 3, 303),
        (79, 3, 3),  # less than one for each vote: one
        (0, 5, 5),
    ],
)
def test_a_bond_pays_each_missing_vote_like_one_of_the_first_set(
    price_wei: int, missing: int, bond_wei: int
) -> None:
    assert compute_appeal_bond(Wei(price_wei), TERMS, PARAMS, missing) == bond_wei


def test_a_first_set_larger_than_the_pool_counts_as_the_pool() -> None:
    whole = replace(TERMS, first_set_size=TERMS.cones_max)
    larger = replace(TERMS, first_set_size=TERMS.cones_max + 5)
    bonds = {compute_appeal_bond(Wei(10**6), terms, PARAMS, 1) for terms in (whole, larger)}
    assert bonds == {300_000 // (6 * 7)}
>>>>>>> money-h
