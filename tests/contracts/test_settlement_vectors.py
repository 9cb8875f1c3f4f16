"""Settlement against the shared vectors, credited and claimed."""

from typing import Any

import pytest

from tests.contracts import settlement_vectors
from tests.contracts.conftest import Deployers
from tests.contracts.stage import BUYER, Ended, Play
from tests.contracts.support import load_vector, unhex

VECTORS = load_vector("settlement.json")
CONE, SELLER, BUYER_ROLE, BATCHER = 1, 2, 3, 4
LISTS = {
    CONE: "cone_payouts_wei",
    SELLER: "seller_payouts_wei",
    BATCHER: "batch_refunds_wei",
}
PARAMS = ("cone_bps", "floor_bps", "refund_cap_bps")
INPUTS = (
    "price_wei", "outcome", "rounds_max", "rounds_done", "sellers_per_round", "target",
    "initial_utility", "last_utility", "participation", "weights", "spent_wei",
)  # fmt: skip


def test_the_vectors_are_those_of_the_reference() -> None:
    assert settlement_vectors.build() == VECTORS


def expect(case: dict[str, Any]) -> dict[tuple[int, int], int]:
    """Amounts by (role, index), zeros left out."""
    expected = case["expected"]
    amounts = {
        (role, index): amount
        for role, name in LISTS.items()
        for index, amount in enumerate(expected[name])
    }
    amounts[BUYER_ROLE, 0] = expected["refund_wei"]
    return {place: amount for place, amount in amounts.items() if amount}


@pytest.mark.parametrize("case", VECTORS["settlements"], ids=lambda case: case["name"])
def test_a_settlement_pays_what_the_rules_say(
    deployers: Deployers, clean_chain: None, case: dict[str, Any]
) -> None:
    play = Play(deployers, **{name: case[name] for name in PARAMS})
    currency = play.currency(case["currency"])
    ended = Ended(currency=currency, **{name: case[name] for name in INPUTS})
    job = play.settle(ended)
    (settled,) = play.logs("JobSettled")
    assert settled.price_wei == case["price_wei"]
    for name in ("cone_pool_wei", "seller_pool_wei", "refund_wei"):
        assert getattr(settled, name) == case["expected"][name]

    paid = {(log.role, log.index): log for log in play.logs("PayoutCredited")}
    expected = expect(case)
    is_claimed = len(ended.cones) + len(ended.sellers) > 20
    for role, index in expected.keys() - paid.keys():
        assert is_claimed
        assert role in (CONE, SELLER)
        if role == CONE:
            play.settlement.claim_cone_share(job, index)
        else:
            v = ended.weights[index]
            play.settlement.claim_seller_share(job, index, v, ended.proof(index))
        (log,) = play.logs("PayoutCredited")
        paid[log.role, log.index] = log

    assert {place: log.amount_wei for place, log in paid.items()} == expected
    members = {CONE: ended.cones, SELLER: ended.sellers, BATCHER: ended.cones, BUYER_ROLE: [BUYER]}
    assert all(log.payee == members[role][index] for (role, index), log in paid.items())
    assert play.settlement.shares_left(job) == 0
    owed = sum(play.claimable(one, currency) for one in {*ended.cones, *ended.sellers, BUYER})
    assert play.balance(play.settlement.address, currency) == owed


@pytest.mark.parametrize("case", VECTORS["proofs"], ids=lambda case: str(len(case["leaves"])))
def test_a_proof_holds_for_its_leaf_and_its_place_alone(rules: Any, case: dict[str, Any]) -> None:
    leaves = [unhex(leaf) for leaf in case["leaves"]]
    index, count, root = case["index"], len(leaves), unhex(case["root"])
    proof = [unhex(one) for one in case["proof"]]
    assert rules.merkle_root(leaves) == root
    assert rules.is_proven(leaves[index], index, count, proof, root)
    assert not rules.is_proven(leaves[index - 1], index, count, proof, root) or count == 1
    assert not rules.is_proven(leaves[index], count, count, proof, root)
    assert not rules.is_proven(leaves[index], index, count, proof, bytes(32))
    if proof:
        assert not rules.is_proven(leaves[index], index, count, proof[:-1], root)
        assert not rules.is_proven(leaves[index], index ^ 1, count, proof, root)
    if len(proof) < 8:
        assert not rules.is_proven(leaves[index], index, count, [*proof, root], root)
