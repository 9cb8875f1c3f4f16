"""The bytes that Python and contracts must both produce: ``tests/vectors/commitments.json``."""

from typing import Any

import pytest

from protocol.auction import BidOpening, compute_bid_commitment
from protocol.commitment import VoteOpening, VotePosition, compute_vote_commitment
from protocol.digest import FinalResult, RoundHeader, compute_credit_leaf, compute_credit_root
from protocol.hashing import Domain
from protocol.signatures import TypedMessage, ValidationReceipt, Vote, recover_signer
from protocol.sortition import compute_es_seed, compute_ticket
from protocol.terms import JobTerms, Metric, compute_request_hash, compute_terms_hash
from tests.protocol.vectors import load_vectors


def parse(value: Any) -> Any:
    """Turn hex strings into bytes, in depth."""
    match value:
        case dict():
            return {name: parse(inner) for name, inner in value.items()}
        case list():
            return [parse(inner) for inner in value]
        case str():
            return bytes.fromhex(value.removeprefix("0x"))
        case _:
            return value


VECTORS = parse(load_vectors("commitments"))
DOMAIN = Domain(VECTORS["chain"], VECTORS["market"])


def build_terms(fields: dict[str, int]) -> JobTerms:
    return JobTerms(**fields | {"metric": Metric(fields["metric"])})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["terms_hash", "terms_hash_negative_target"])
def test_terms_hash(name: str) -> None:
    vector = VECTORS[name]
    assert compute_terms_hash(build_terms(vector["terms"])) == vector["hash"]


def test_request_hash() -> None:
    vector = VECTORS["request_hash"]
    terms = build_terms(vector["terms"])
    assert compute_request_hash(terms, vector["body_hash"]) == vector["hash"]


def test_bid_commitment() -> None:
    fields = dict(VECTORS["bid"])
    expected = fields.pop("commitment")
    assert compute_bid_commitment(DOMAIN, BidOpening(**fields)) == expected


def test_vote_commitment() -> None:
    vector = VECTORS["vote"]
    position = VotePosition(
        job=vector["job"], round_index=vector["round"], mini=vector["mini"], node=vector["node"]
    )
    opening = VoteOpening(vector["digest"], vector["trace"], vector["element"])
    assert compute_vote_commitment(DOMAIN, position, opening) == vector["commitment"]


def test_es_seed_and_ticket() -> None:
    vector = VECTORS["es_seed"]
    seed = compute_es_seed(
        DOMAIN, vector["job"], vector["round"], vector["mini"], vector["randomness"]
    )
    assert seed == vector["seed"]
    vector = VECTORS["ticket"]
    ticket = compute_ticket(vector["node"], vector["element"], vector["es_seed"])
    assert ticket.to_bytes(32, "big") == vector["ticket"]


@pytest.mark.parametrize("name", ["eip712_vote", "eip712_receipt"])
def test_signed_messages(name: str) -> None:
    vector = VECTORS[name]
    message: TypedMessage
    if name == "eip712_vote":
        message = Vote(
            job=vector["job"],
            round_index=vector["round"],
            mini=vector["mini"],
            commitment=vector["commitment"],
        )
    else:
        message = ValidationReceipt(vector["job"], vector["part"])
    assert message.digest(DOMAIN) == vector["digest"]
    assert recover_signer(vector["digest"], vector["signature"]) == vector["signer"]


def test_credit_leaf() -> None:
    vector = VECTORS["credit_leaf"]
    assert compute_credit_leaf(vector["index"], vector["payee"], vector["v"]) == vector["leaf"]


@pytest.mark.parametrize("vector", VECTORS["credit_roots"])
def test_credit_root(vector: dict[str, Any]) -> None:
    payees = [leaf["payee"] for leaf in vector["leaves"]]
    contribution_weights = [leaf["v"] for leaf in vector["leaves"]]
    assert compute_credit_root(payees, contribution_weights) == vector["root"]


def test_round_header() -> None:
    fields = dict(VECTORS["header"])
    data, digest = fields.pop("bytes"), fields.pop("digest")
    header = RoundHeader(**fields | {"utilities": tuple(fields["utilities"]), "domain": DOMAIN})
    assert header.encode() == data
    assert header.digest == digest
    assert RoundHeader.decode(data) == header


@pytest.mark.parametrize("name", ["final", "final_negative"])
def test_final_result(name: str) -> None:
    fields = dict(VECTORS[name])
    data, digest = fields.pop("bytes"), fields.pop("digest")
    result = FinalResult(**fields | {"domain": DOMAIN})
    assert result.encode() == data
    assert result.digest == digest
    assert FinalResult.decode(data) == result
