"""Merkle trees over ordered leaves.

A node is keccak(left | right); the odd last node of a level moves up unchanged; the root of no
leaves is 32 zero bytes. Position matters: the proof is checked for one index.
"""

from collections.abc import Sequence

from protocol.hashing import keccak
from protocol.types import NO_DIGEST, Digest


def compute_root(leaves: Sequence[Digest]) -> Digest:
    """Compute the root of the tree over ``leaves``."""
    if not leaves:
        return NO_DIGEST
    level = list(leaves)
    while len(level) > 1:
        level = _compute_parents(level)
    return level[0]


def compute_proof(leaves: Sequence[Digest], index: int) -> tuple[Digest, ...]:
    """List the siblings on the way from leaf ``index`` to the root; IndexError if there is none."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"no leaf {index} among {len(leaves)}")
    level = list(leaves)
    proof = []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            proof.append(level[sibling])
        level = _compute_parents(level)
        index //= 2
    return tuple(proof)


def is_proven(leaf: Digest, index: int, count: int, proof: Sequence[Digest], root: Digest) -> bool:
    """Tell whether ``leaf`` is leaf ``index`` of the ``count`` leaves under ``root``."""
    if not 0 <= index < count:
        return False
    node, remaining = leaf, list(proof)
    while count > 1:
        if index ^ 1 < count:
            if not remaining:
                return False
            sibling = remaining.pop(0)
            node = keccak(sibling + node) if index % 2 else keccak(node + sibling)
        index //= 2
        count = (count + 1) // 2
    return not remaining and node == root


def _compute_parents(level: list[Digest]) -> list[Digest]:
    parents = [keccak(level[i] + level[i + 1]) for i in range(0, len(level) - 1, 2)]
    if len(level) % 2:
        parents.append(level[-1])
    return parents
