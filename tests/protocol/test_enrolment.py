"""Applications, and the draw of members: the bytes that Python and the contracts must agree on."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.block_header import compute_anchor_block
from protocol.enrolment import (
    HEADER_REACH_BLOCKS,
    MAX_APPLICANTS,
    DrawnRole,
    compute_draw_block,
    compute_enrol_seed,
    draw_members,
    hash_cones,
    hash_sellers,
    may_give_up_draw,
)
from protocol.errors import RuleViolation
from protocol.hashing import Domain, keccak
from protocol.types import Address, BlockNumber, Digest, JobId
from tests.protocol.test_shared_vectors import parse
from tests.protocol.vectors import load_vectors

TEXT = load_vectors("enrolment")
VECTORS = parse({name: case for name, case in TEXT.items() if name != "draws"})
DOMAIN = Domain(VECTORS["chain"], VECTORS["market"])

seeds = st.binary(min_size=32, max_size=32).map(Digest)


def test_the_seed_is_as_in_the_vectors() -> None:
    case = VECTORS["seed"]
    assert compute_enrol_seed(DOMAIN, JobId(case["job"]), case["randomness"]) == case["seed"]


def test_the_seed_depends_on_all_that_it_is_of() -> None:
    case = VECTORS["seed"]
    others = [
        compute_enrol_seed(Domain(1, DOMAIN.market), JobId(case["job"]), case["randomness"]),
        compute_enrol_seed(
            Domain(DOMAIN.chain_id, Address(bytes(20))), JobId(case["job"]), case["randomness"]
        ),
        compute_enrol_seed(DOMAIN, JobId(case["job"] + 1), case["randomness"]),
        compute_enrol_seed(DOMAIN, JobId(case["job"]), bytes(32)),
    ]
    assert len({*others, case["seed"]}) == 5


@pytest.mark.parametrize(
    "case", TEXT["draws"], ids=lambda case: f"{case['label']}-{case['places']}-{case['applied']}"
)
def test_draws_are_as_in_the_vectors(case: dict[str, Any]) -> None:
    seed = Digest(parse(case["seed"]))
    drawn = draw_members(seed, DrawnRole(case["label"]), case["applied"], case["places"])
    assert list(drawn) == case["indices"]


@given(seeds, st.sampled_from(DrawnRole), st.integers(1, MAX_APPLICANTS), st.data())
def test_members_are_different_applications_in_their_order(
    seed: Digest, role: DrawnRole, applied: int, data: st.DataObject
) -> None:
    places = data.draw(st.integers(1, MAX_APPLICANTS))
    members = draw_members(seed, role, applied, places)
    assert len(members) == min(applied, places)
    assert list(members) == sorted(set(members))
    assert set(members) <= set(range(applied))


def test_nobody_is_drawn_if_all_have_a_place() -> None:
    assert draw_members(Digest(b""), DrawnRole.SELLERS, 3, 3) == (0, 1, 2)


def test_sellers_and_nodes_are_drawn_apart() -> None:
    seed = keccak(b"seed")
    sellers = draw_members(seed, DrawnRole.SELLERS, 100, 50)
    assert sellers != draw_members(seed, DrawnRole.CONES, 100, 50)


def test_every_application_is_drawn_about_equally_often() -> None:
    counts = [0] * 10
    for number in range(1000):
        for index in draw_members(keccak(number.to_bytes(4, "big")), DrawnRole.CONES, 10, 3):
            counts[index] += 1
    assert all(250 < count < 350 for count in counts)


@pytest.mark.parametrize("case", VECTORS["sellers"], ids=lambda case: str(len(case["accounts"])))
def test_lists_of_sellers_are_hashed_as_in_the_vectors(case: dict[str, Any]) -> None:
    applications = hash_sellers(case["accounts"])
    assert applications.to_bytes(32, "big") == case["applications"]


@pytest.mark.parametrize("case", VECTORS["cones"], ids=lambda case: str(len(case["cones"])))
def test_lists_of_nodes_are_hashed_as_in_the_vectors(case: dict[str, Any]) -> None:
    applications = hash_cones((account, root) for account, root in case["cones"])
    assert applications.to_bytes(32, "big") == case["applications"]


@given(st.lists(st.binary(min_size=20, max_size=20).map(Address), min_size=1, max_size=8))
def test_another_list_has_another_word(accounts: list[Address]) -> None:
    listed = hash_sellers(accounts)
    assert hash_sellers(accounts[:-1]) != listed
    assert hash_sellers([*accounts, accounts[0]]) != listed
    assert hash_sellers(accounts[::-1]) != listed or accounts == accounts[::-1]


@pytest.mark.parametrize("case", VECTORS["anchors"], ids=lambda case: str(case["block"]))
def test_a_seed_out_of_reach_moves_on_as_in_the_vectors(case: dict[str, int]) -> None:
    seed_block, block = BlockNumber(case["seed_block"]), BlockNumber(case["block"])
    assert compute_anchor_block(seed_block, block, HEADER_REACH_BLOCKS) == case["anchor"]
    assert compute_draw_block(BlockNumber(seed_block - 4), 4, block) == case["anchor"]


def test_a_draw_waits_for_the_block_of_its_seed() -> None:
    with pytest.raises(RuleViolation, match="seed block 104 is not mined in block 104"):
        compute_draw_block(BlockNumber(100), 4, BlockNumber(104))
    assert compute_draw_block(BlockNumber(100), 4, BlockNumber(105)) == 104


def test_a_draw_is_given_up_only_when_two_seeds_are_out_of_reach() -> None:
    last_block = 100 + 4 + 2 * HEADER_REACH_BLOCKS
    assert not may_give_up_draw(BlockNumber(100), 4, BlockNumber(last_block))
    assert may_give_up_draw(BlockNumber(100), 4, BlockNumber(last_block + 1))
    anchor = compute_draw_block(BlockNumber(100), 4, BlockNumber(last_block + 1))
    assert anchor == 104 + 2 * HEADER_REACH_BLOCKS
