from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.hashing import keccak, word
from protocol.merkle import compute_proof, compute_root, is_proven
from protocol.types import NO_DIGEST, Digest
from tests.protocol.vectors import load_vectors


def make_leaves(count: int) -> list[Digest]:
    return [keccak(word(index)) for index in range(count)]


def test_root_of_no_leaves_is_zero() -> None:
    assert compute_root([]) == NO_DIGEST


def test_root_of_one_leaf_is_the_leaf() -> None:
    (leaf,) = make_leaves(1)
    assert compute_root([leaf]) == leaf


def test_an_odd_last_node_moves_up_unchanged() -> None:
    a, b, c = make_leaves(3)
    assert compute_root([a, b, c]) == keccak(keccak(a + b) + c)


@given(st.integers(1, 40), st.data())
def test_every_leaf_is_proven_at_its_index_and_at_no_other(count: int, data: st.DataObject) -> None:
    leaves = make_leaves(count)
    root = compute_root(leaves)
    index = data.draw(st.integers(0, count - 1))
    other = data.draw(st.integers(-1, count))
    proof = compute_proof(leaves, index)
    assert is_proven(leaves[index], index, count, proof, root)
    assert is_proven(leaves[index], other, count, proof, root) == (other == index)


def test_a_proof_with_a_foreign_leaf_or_a_changed_length_fails() -> None:
    leaves = make_leaves(5)
    root, proof = compute_root(leaves), compute_proof(leaves, 2)
    assert not is_proven(leaves[3], 2, 5, proof, root)
    assert not is_proven(leaves[2], 2, 5, proof[:-1], root)
    assert not is_proven(leaves[2], 2, 5, (*proof, leaves[0]), root)


def test_there_is_no_proof_beyond_the_leaves() -> None:
    with pytest.raises(IndexError):
        compute_proof(make_leaves(3), 3)


@pytest.mark.parametrize(
    "case", load_vectors("settlement")["proofs"], ids=lambda case: str(len(case["leaves"]))
)
def test_the_contract_takes_the_same_proofs(case: dict[str, Any]) -> None:
    def unhex(text: str) -> Digest:
        return Digest(bytes.fromhex(text.removeprefix("0x")))

    leaves = [unhex(leaf) for leaf in case["leaves"]]
    proof = tuple(map(unhex, case["proof"]))
    assert compute_root(leaves) == unhex(case["root"])
    assert compute_proof(leaves, case["index"]) == proof
    assert is_proven(leaves[case["index"]], case["index"], len(leaves), proof, unhex(case["root"]))
