#pragma version 0.4.3
"""
@title Sets of CONE nodes as bits of a word
@license Apache-2.0
@notice Bit i stands for the node with index i in the job's pool; pools have at most 64 nodes.
"""

# 64 ones divided by 2**n + 1: fields of n zeros and n ones.
EVEN_BITS: constant(uint256) = (2**64 - 1) // 3
EVEN_PAIRS: constant(uint256) = (2**64 - 1) // 5
EVEN_NIBBLES: constant(uint256) = (2**64 - 1) // 17
BYTE_ONES: constant(uint256) = (2**64 - 1) // 255


@internal
@pure
def _count(bits: uint256) -> uint256:
    """
    @notice Number of members of a set.
    @dev Adds neighbouring fields in parallel; the product collects all bytes in the eighth.
    @param bits Set to count, of at most 64 nodes.
    @return Number of bits that are set.
    """
    pairs: uint256 = bits - ((bits >> 1) & EVEN_BITS)
    nibbles: uint256 = (pairs & EVEN_PAIRS) + ((pairs >> 2) & EVEN_PAIRS)
    sums: uint256 = (nibbles + (nibbles >> 4)) & EVEN_NIBBLES
    return (unsafe_mul(sums, BYTE_ONES) >> 56) & 255
