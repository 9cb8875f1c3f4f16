#pragma version 0.4.3
"""
@title Participation of CONE nodes
@license Apache-2.0
@notice How often each node of a pool voted with the majority: sixteen counters in a word.
"""

from modules import limits

COUNTER_BITS: constant(uint256) = 16
COUNTERS_PER_WORD: constant(uint256) = 16
COUNTER_WORDS: constant(uint256) = 4  # MAX_CONES / COUNTERS_PER_WORD


@internal
@pure
def _count(participation: uint256[4], voters: uint256) -> uint256[4]:
    """
    @notice Add one to the participation of some nodes.
    @param participation Four words of sixteen counters.
    @param voters Bitmap of nodes that voted with the majority.
    @return The new counters.
    """
    counted: uint256[4] = participation
    for position: uint256 in range(COUNTER_WORDS):
        bits: uint256 = (voters >> (position * COUNTERS_PER_WORD)) & (2**COUNTERS_PER_WORD - 1)
        if bits == 0:
            continue
        ones: uint256 = 0
        for counter: uint256 in range(COUNTERS_PER_WORD):
            ones |= ((bits >> counter) & 1) << (counter * COUNTER_BITS)
        counted[position] += ones
    return counted


@internal
@pure
def _list(
    participation: uint256[4], cones: uint256
) -> DynArray[uint256, limits.MAX_CONES]:
    """
    @notice How often each node voted with the majority in a decided ballot.
    @param participation Four words of sixteen counters.
    @param cones Nodes in the pool.
    @return Counts, by index.
    """
    counts: DynArray[uint256, limits.MAX_CONES] = []
    for index: uint256 in range(cones, bound=limits.MAX_CONES):
        word: uint256 = participation[index // COUNTERS_PER_WORD]
        offset: uint256 = (index % COUNTERS_PER_WORD) * COUNTER_BITS
        counts.append((word >> offset) & (2**COUNTER_BITS - 1))
    return counts
