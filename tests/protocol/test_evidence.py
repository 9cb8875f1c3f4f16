"""Two commitments of one seller for one round, against the vectors that the contract reads too."""

from typing import Any

import pytest
from eth_keys.datatypes import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidSignature, RuleViolation
from protocol.evidence import EquivocationEvidence, SignedCommitment, verify_equivocation
from protocol.hashing import Domain, keccak
from protocol.signatures import UpdateCommitment
from protocol.types import Address, Digest, JobId, RoundIndex
from tests.protocol.vectors import load_vectors

VECTORS = load_vectors("deposits")
ERRORS = {"equal commitments": RuleViolation, "not signed by the seller": InvalidSignature}
SELLER = PrivateKey(keccak(b"seller"))


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


DOMAIN = Domain(VECTORS["chain"], Address(unhex(VECTORS["market"])))


def read_side(side: dict[str, str]) -> SignedCommitment:
    return SignedCommitment(Digest(unhex(side["commitment"])), unhex(side["signature"]))


def sign(message: UpdateCommitment, domain: Domain = DOMAIN) -> SignedCommitment:
    signature = SELLER.sign_msg_hash(message.digest(domain)).to_bytes()
    return SignedCommitment(message.commitment, signature[:64] + bytes([27 + signature[64]]))


def test_the_seller_signs_the_digest_of_the_vectors() -> None:
    case = VECTORS["update_commitment"]
    said = UpdateCommitment(case["job"], case["round"], Digest(unhex(case["commitment"])))
    assert said.digest(DOMAIN) == unhex(case["digest"])


@pytest.mark.parametrize("case", VECTORS["equivocation"], ids=lambda case: case["name"])
def test_equivocation_as_in_the_vectors(case: dict[str, Any]) -> None:
    evidence = EquivocationEvidence(
        job=JobId(case["job"]),
        round_index=RoundIndex(case["round"]),
        seller=Address(unhex(case["seller"])),
        first=read_side(case["first"]),
        second=read_side(case["second"]),
    )
    if case["verdict"] == "proved":
        verify_equivocation(DOMAIN, evidence)
        return
    with pytest.raises(ERRORS[case["verdict"]]):
        verify_equivocation(DOMAIN, evidence)


@given(
    st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))] * 2),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_evidence_is_two_commitments_for_the_round_it_names(
    said: tuple[tuple[int, int, int], tuple[int, int, int]], place: tuple[int, int]
) -> None:
    """Whatever a seller signs, it is guilty of just this: both here, and different."""
    messages = [
        UpdateCommitment(JobId(job), RoundIndex(round_index), keccak(bytes([commitment])))
        for job, round_index, commitment in said
    ]
    first, second = map(sign, messages)
    evidence = EquivocationEvidence(
        job=JobId(place[0]),
        round_index=RoundIndex(place[1]),
        seller=Address(SELLER.public_key.to_canonical_address()),
        first=first,
        second=second,
    )
    is_guilty = said[0][:2] == said[1][:2] == place and said[0][2] != said[1][2]
    if is_guilty:
        verify_equivocation(DOMAIN, evidence)
        return
    with pytest.raises((RuleViolation, InvalidSignature)):
        verify_equivocation(DOMAIN, evidence)
