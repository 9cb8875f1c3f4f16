#pragma version 0.4.3
"""
@title Merkle trees over short lists
@license Apache-2.0
@notice Positional: a node is the hash of its left and right child, an odd last node moves up
        unchanged, the root of nothing is zero.
"""

from modules import limits

LEVELS: constant(uint256) = 8  # 2**8 >= MAX_SELLERS


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


@internal
@pure
def _is_proven(
    leaf: bytes32, index: uint256, count: uint256, proof: DynArray[bytes32, LEVELS], root: bytes32
) -> bool:
    """
    @notice Whether a leaf stands at a position of a list.
    @param leaf Leaf to prove.
    @param index Its position.
    @param count Leaves of the list.
    @param proof Siblings on the way to the root; a node without one is moved up.
    @param root Root over the list.
    @return True if the proof leads to the root and is no longer than it must be.
    """
    if index >= count:
        return False
    node: bytes32 = leaf
    position: uint256 = index
    width: uint256 = count
    used: uint256 = 0
    for _: uint256 in range(LEVELS):
        if width == 1:
            break
        if position ^ 1 < width:
            if used == len(proof):
                return False
            if position % 2 == 1:
                node = keccak256(concat(proof[used], node))
            else:
                node = keccak256(concat(node, proof[used]))
            used += 1
        position //= 2
        width = (width + 1) // 2
    return used == len(proof) and node == root
