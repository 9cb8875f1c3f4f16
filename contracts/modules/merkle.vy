#pragma version 0.4.3
"""
@title Merkle root of a short list
@license Apache-2.0
@notice Positional: a node is the hash of its left and right child, an odd last node moves up
        unchanged, the root of nothing is zero.
"""

from modules import limits

LEVELS: constant(uint256) = 5  # 2**5 >= MAX_SELLERS


@internal
@pure
def _root(leaves: DynArray[bytes32, limits.MAX_SELLERS]) -> bytes32:
    """
    @notice Root over leaves in order.
    @param leaves Leaves; the caller's copy is not changed.
    @return The root; zero without leaves.
    """
    if len(leaves) == 0:
        return empty(bytes32)
    nodes: DynArray[bytes32, limits.MAX_SELLERS] = leaves
    count: uint256 = len(leaves)
    for _: uint256 in range(LEVELS):
        if count == 1:
            break
        for pair: uint256 in range(count // 2, bound=limits.MAX_SELLERS):
            nodes[pair] = keccak256(concat(nodes[2 * pair], nodes[2 * pair + 1]))
        if count % 2 == 1:
            nodes[count // 2] = nodes[count - 1]
        count = (count + 1) // 2
    return nodes[0]
