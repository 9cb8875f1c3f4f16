"""Appeals and audits against the shared vectors."""

from typing import Any

import pytest

from tests.contracts import appeal_vectors
from tests.contracts.conftest import Deployers
from tests.contracts.support import CASES, MARKET, load_vector, unhex
from tests.contracts.world import Job, World

VECTORS = load_vector("appeals.json")


def test_the_vectors_are_those_of_the_reference() -> None:
    assert appeal_vectors.build() == VECTORS
    assert (VECTORS["chain"], VECTORS["market"]) == (CASES["chain"], MARKET)


@pytest.mark.parametrize("case", VECTORS["audit_seeds"], ids=str)
def test_the_audit_seed_is_that_of_the_vectors(rules_of_vectors: Any, case: Any) -> None:
    got = rules_of_vectors.audit_seed(
        MARKET, case["job"], case["round"], case["mini"], unhex(case["randomness"])
    )
    assert got == int(case["seed"], 16)


@pytest.mark.parametrize("case", VECTORS["bonds"], ids=str)
def test_the_bond_of_an_appeal_is_that_of_the_vectors(
    deployers: Deployers, clean_chain: None, case: dict[str, int]
) -> None:
    world = World(deployers, cone_bps=case["cone_bps"])
    sellers_wei = case["price_wei"] - case["price_wei"] * case["cone_bps"] // 10_000
    fitting = {"seller_deposit_wei": max(sellers_wei * 3 // 20, 1)}
    job = Job(world, price_wei=case["price_wei"], changes=fitting)
    job.prepare().open_auction().close_auction()
    names = ("rounds_max", "first_set_size", "cones_max")
    terms = tuple({**job.terms, **{name: case[name] for name in names}}.values())
    assert world.appeals.bond_of(job.number, terms, case["missing"]) == case["bond_wei"]
