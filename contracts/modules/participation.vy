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
LOW_BYTE: constant(uint256) = 255
# The lower half of each run of 8, 4 and 2 bits, once the runs are 128, 64 and 32 bits apart.
LOW_NIBBLES: constant(uint256) = 15 * (2**128 + 1)
LOW_PAIRS: constant(uint256) = 3 * (2**128 + 1) * (2**64 + 1)
LOW_BITS: constant(uint256) = (2**128 + 1) * (2**64 + 1) * (2**32 + 1)


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
        # Sixteen bits in a row become sixteen counters: each step halves the runs.
        ones: uint256 = (bits & LOW_BYTE) | ((bits >> 8) << 128)
        ones = (ones & LOW_NIBBLES) | ((ones & (LOW_NIBBLES << 4)) << 60)
        ones = (ones & LOW_PAIRS) | ((ones & (LOW_PAIRS << 2)) << 30)
        ones = (ones & LOW_BITS) | ((ones & (LOW_BITS << 1)) << 15)
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
