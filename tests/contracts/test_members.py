"""Applications, draws and rosters: the rules that Python and the contracts share."""

from typing import Any

import boa
import pytest
from eth_utils.crypto import keccak

from tests.contracts import enrolment_vectors
from tests.contracts.rosters import CONE_SIZE, SELLER_SIZE, list_pool, list_roster
from tests.contracts.support import load_vector, unhex
from tests.contracts.world import make_actor

VECTORS = load_vector("enrolment.json")


@pytest.fixture(autouse=True)
def chain_of_vectors(clean_chain: None) -> None:
    boa.env.evm.patch.chain_id = VECTORS["chain"]


def test_the_vectors_are_those_of_the_reference() -> None:
    assert enrolment_vectors.build() == VECTORS


def test_the_seed_is_as_in_the_vectors(members: Any) -> None:
    case = VECTORS["seed"]
    seed = members.enrol_seed(VECTORS["market"], case["job"], unhex(case["randomness"]))
    assert seed == unhex(case["seed"])


@pytest.mark.parametrize(
    "case", VECTORS["draws"], ids=lambda case: f"{case['label']}-{case['places']}-{case['applied']}"
)
def test_draws_are_as_in_the_vectors(members: Any, case: dict[str, Any]) -> None:
    drawn = members.draw_cones if case["label"] == "enrol-cones" else members.draw_sellers
    assert drawn(unhex(case["seed"]), case["places"], case["applied"]) == case["indices"]


@pytest.mark.parametrize("size", [1, 2, 255, 256])
def test_without_a_draw_everyone_is_a_member(members: Any, size: int) -> None:
    assert members.everyone(size) == list(range(size))


@pytest.mark.parametrize("case", VECTORS["sellers"], ids=lambda case: str(len(case["accounts"])))
def test_lists_of_sellers_are_hashed_as_in_the_vectors(members: Any, case: dict[str, Any]) -> None:
    applications = int.from_bytes(unhex(case["applications"]), "big")
    assert members.hash_sellers(case["accounts"]) == applications


@pytest.mark.parametrize("case", VECTORS["cones"], ids=lambda case: str(len(case["cones"])))
def test_lists_of_nodes_are_hashed_as_in_the_vectors(members: Any, case: dict[str, Any]) -> None:
    cones = [(account, unhex(root)) for account, root in case["cones"]]
    applications = int.from_bytes(unhex(case["applications"]), "big")
    assert members.hash_cones(cones) == applications


@pytest.mark.parametrize("case", VECTORS["anchors"], ids=lambda case: str(case["block"]))
def test_a_seed_out_of_reach_moves_on_as_in_the_vectors(members: Any, case: dict[str, int]) -> None:
    boa.env.evm.patch.block_number = case["block"]
    assert members.anchor_block(case["seed_block"]) == case["anchor"]


def test_a_seed_block_that_is_not_mined_has_no_anchor(members: Any) -> None:
    boa.env.evm.patch.block_number = 100
    with boa.reverts("header: block not mined"):
        members.anchor_block(100)


@pytest.mark.parametrize("case", VECTORS["signatures"], ids=range(6))
def test_signatures_of_two_words_are_as_in_the_vectors(members: Any, case: dict[str, str]) -> None:
    digest, r, vs = (unhex(case[name]) for name in ("digest", "r", "vs"))
    assert members.signer_compact(digest, r, vs) == make_address(case["signer"])
    flipped = (int.from_bytes(vs, "big") ^ 1 << 255).to_bytes(32, "big")
    assert members.signer_compact(digest, r, flipped) != make_address(case["signer"])
    assert members.signer_compact(digest, bytes(32), bytes(32)) == make_address("0x" + 40 * "0")


def make_address(text: str) -> Any:
    return boa.util.abi.Address(text)


@pytest.mark.parametrize("chosen", [[0], [1, 2], [0, 7, 8], list(range(256)), [255]])
def test_a_roster_lists_the_members_in_order(members: Any, chosen: list[int]) -> None:
    accounts = [make_actor(f"seller {i}").address for i in range(256)]
    bitmap = sum(1 << index for index in chosen)
    roster = members.freeze_sellers(accounts, bitmap)
    assert list_roster(members, roster, SELLER_SIZE) == [accounts[i] for i in chosen]
    assert members.is_member(roster, SELLER_SIZE, accounts[chosen[-1]])
    assert not members.is_member(roster, SELLER_SIZE, members.address)
    with boa.reverts():
        members.seller_at(roster, len(chosen))


@pytest.mark.parametrize("chosen", [[0], [1, 2], [0, 7, 8], list(range(0, 256, 4)), [255]])
def test_a_roster_of_nodes_has_their_ticket_roots(members: Any, chosen: list[int]) -> None:
    cones = [(make_actor(f"cone {i}").address, keccak(bytes([i]))) for i in range(256)]
    bitmap = sum(1 << index for index in chosen)
    roster = members.freeze_cones(cones, bitmap)
    assert members.count_members(roster, CONE_SIZE) == len(chosen)
    assert list_pool(members, roster) == [cones[i] for i in chosen]
    assert members.cone_account_at(roster, len(chosen) - 1) == cones[chosen[-1]][0]
    assert members.is_member(roster, CONE_SIZE, cones[chosen[-1]][0])
    assert not members.is_member(roster, CONE_SIZE, members.address)
    with boa.reverts():
        members.cone_account_at(roster, len(chosen))


def test_the_largest_enrolment_closes_in_one_transaction(members: Any) -> None:
    """256 sellers and 256 nodes, of which 255 and 64 are drawn: the parts of one call."""
    seed = keccak(b"seed")
    accounts = [make_actor(f"applicant {i}").address for i in range(256)]
    cones = [(account, keccak(account.encode())) for account in accounts]
    gas = 0
    for call in (
        lambda: members.hash_sellers(accounts),
        lambda: members.hash_cones(cones),
        lambda: members.draw_sellers(seed, 255, 256),
        lambda: members.draw_cones(seed, 64, 256),
        lambda: members.freeze_sellers(accounts, 2**256 - 1),
        lambda: members.freeze_cones(cones, 2**64 - 1),
    ):
        call()
        gas += members._computation.get_gas_used()
    assert gas < 5_000_000
