"""What is hashed and signed, against the shared vectors."""

from typing import Any

import pytest
from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from tests.contracts import reference, vectors
from tests.contracts.support import CASES, MARKET, MECHANISM, pure_calls, unhex


def test_the_vector_file_is_what_its_construction_gives() -> None:
    assert vectors.build() == CASES


@pytest.mark.parametrize("name", ["terms_hash", "terms_hash_negative_target"])
def test_terms_hash_as_in_the_vectors(rules: Any, name: str) -> None:
    case = CASES[name]
    assert rules.terms_hash(tuple(case["terms"].values())) == unhex(case["hash"])


def test_request_hash_as_in_the_vectors(rules: Any) -> None:
    case = CASES["request_hash"]
    terms = tuple(case["terms"].values())
    assert rules.request_hash(terms, unhex(case["body_hash"])) == unhex(case["hash"])


def test_bid_commitment_as_in_the_vectors(rules_of_vectors: Any) -> None:
    case = CASES["bid"]
    got = rules_of_vectors.bid_commitment(
        MARKET,
        case["auction"],
        to_checksum_address(case["bidder"]),
        case["amount_wei"],
        unhex(case["request_hash"]),
        unhex(case["salt"]),
    )
    assert got == unhex(case["commitment"])


def test_vote_commitment_as_in_the_vectors(rules_of_vectors: Any) -> None:
    case = CASES["vote"]
    hashes = (unhex(case[name]) for name in ("digest", "trace", "element"))
    place = (case["job"], case["round"], case["mini"], to_checksum_address(case["node"]))
    assert rules_of_vectors.vote_commitment(MARKET, *place, *hashes) == unhex(case["commitment"])


def test_es_seed_as_in_the_vectors(rules_of_vectors: Any) -> None:
    for case in (CASES["es_seed"], MECHANISM["es_seed"]):
        got = rules_of_vectors.es_seed(
            MARKET, case["job"], case["round"], case["mini"], unhex(case["randomness"])
        )
        assert got == unhex(case["seed"])


def test_audit_seed_as_in_the_vectors(rules_of_vectors: Any) -> None:
    case = CASES["audit_seed"]
    place = (case["job"], case["round"], case["mini"])
    got = rules_of_vectors.audit_seed(MARKET, *place, unhex(case["randomness"]))
    assert got == int(case["seed"], 16)


def test_course_as_in_the_vectors(packing: Any) -> None:
    case = CASES["course"]
    names = list(case)[: list(case).index("hash")]
    course = tuple(
        unhex(case[name]) if isinstance(case[name], str) else case[name] for name in names
    )
    assert packing.hash_course(course) == unhex(case["hash"])
    assert packing.list_participation(case["participation"], 20) == case["counts"]
    assert packing.list_refunds(case["refunds"], 20) == case["spent_wei"]


def test_ticket_as_in_the_vectors(rules: Any) -> None:
    case = CASES["ticket"]
    node = to_checksum_address(case["node"])
    got = rules.ticket(node, unhex(case["element"]), unhex(case["es_seed"]))
    assert got == int(case["ticket"], 16)


def test_credit_leaf_and_roots_as_in_the_vectors(rules: Any) -> None:
    case = CASES["credit_leaf"]
    assert rules.credit_leaf(case["index"], case["payee"], case["v"]) == unhex(case["leaf"])
    for tree in CASES["credit_roots"]:
        leaves = [
            rules.credit_leaf(index, leaf["payee"], leaf["v"])
            for index, leaf in enumerate(tree["leaves"])
        ]
        assert rules.merkle_root(leaves) == unhex(tree["root"])


@pure_calls
@given(st.lists(st.binary(min_size=32, max_size=32), max_size=20))
def test_merkle_root_of_any_list(rules: Any, leaves: list[bytes]) -> None:
    assert rules.merkle_root(leaves) == reference.merkle_root(leaves)


def test_typed_messages_as_in_the_vectors(rules_of_vectors: Any) -> None:
    vote, receipt = CASES["eip712_vote"], CASES["eip712_receipt"]
    place = (vote["job"], vote["round"], vote["mini"])
    got = rules_of_vectors.vote_message(MARKET, *place, unhex(vote["commitment"]))
    assert got == unhex(vote["digest"])
    got = rules_of_vectors.receipt_message(MARKET, receipt["job"], receipt["part"])
    assert got == unhex(receipt["digest"])
    for case in (vote, receipt):
        signer = rules_of_vectors.signer(unhex(case["digest"]), unhex(case["signature"]))
        assert signer == to_checksum_address(case["signer"])


@pytest.mark.parametrize("v", [0, 1, 26, 29])
def test_a_signature_with_a_wrong_recovery_value_has_no_signer(rules: Any, v: int) -> None:
    case = CASES["eip712_vote"]
    signature = unhex(case["signature"])[:64] + bytes([v])
    assert int(str(rules.signer(unhex(case["digest"]), signature)), 16) == 0


@pytest.mark.parametrize("length", [0, 64])
def test_a_signature_of_wrong_length_has_no_signer(rules: Any, length: int) -> None:
    case = CASES["eip712_vote"]
    signature = unhex(case["signature"])[:length]
    assert int(str(rules.signer(unhex(case["digest"]), signature)), 16) == 0
