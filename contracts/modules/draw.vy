#pragma version 0.4.3
"""
@title Draws by the chain's randomness
@license Apache-2.0
@notice The stream of pseudo-random words that a seed defines, and drawing k of n from it
        (MECHANISM 4). A set of applications is one word: bit i stands for the i-th of them.
"""

from modules import limits

DOMAIN: constant(Bytes[7]) = b"D2M/v1/"
# One purpose each, so that one seed serves both draws.
SELLERS: constant(Bytes[13]) = b"enrol-sellers"
CONES: constant(Bytes[13]) = b"enrol-cones"

WORDS_PER_BLOCK: constant(uint256) = 4
WORD_BITS: constant(uint256) = 64
WORD_RANGE: constant(uint256) = 2**64
# A word is refused with a chance below 2**-55: nobody will see four in a row.
MAX_TRIES: constant(uint256) = 4


@internal
@pure
def _draw(seed: bytes32, label: Bytes[13], count: uint256, size: uint256) -> uint256:
    """
    @notice Draw without replacement.
    @dev The shuffle of Fisher and Yates on a sparse list: an entry that was not written stands
         for its own position.
    @param seed Seed that may serve other purposes too.
    @param label Purpose of this draw.
    @param count How many to draw, at most `size`.
    @param size How many there are, at most MAX_APPLICANTS.
    @return Set of the positions drawn.
    """
    stream_seed: bytes32 = keccak256(concat(DOMAIN, label, b"\x00", seed))
    moved: uint256[limits.MAX_APPLICANTS] = empty(uint256[limits.MAX_APPLICANTS])
    drawn: uint256 = 0
    word_index: uint256 = 0
    for i: uint256 in range(count, bound=limits.MAX_APPLICANTS):
        offset: uint256 = 0
        offset, word_index = self._below(stream_seed, word_index, size - i)
        j: uint256 = i + offset
        drawn |= 1 << self._entry(moved[j], j)
        moved[j] = self._entry(moved[i], i) + 1
    return drawn


@internal
@pure
def _everyone(size: uint256) -> uint256:
    """
    @notice The set that nobody has to be left out of.
    @param size How many there are, from 1 to MAX_APPLICANTS.
    @return Set of all positions.
    """
    return max_value(uint256) >> (limits.MAX_APPLICANTS - size)


@internal
@pure
def _positions(members: uint256) -> DynArray[uint256, limits.MAX_APPLICANTS]:
    """
    @notice List a set.
    @param members Set of positions.
    @return The positions, ascending.
    """
    positions: DynArray[uint256, limits.MAX_APPLICANTS] = []
    for position: uint256 in range(limits.MAX_APPLICANTS):
        if (members >> position) & 1 == 1:
            positions.append(position)
    return positions


@internal
@pure
def _below(stream_seed: bytes32, word_index: uint256, bound: uint256) -> (uint256, uint256):
    """
    @notice Draw uniformly from 0..bound-1, refusing the words that would bias the result.
    @param stream_seed Seed of the stream, its label hashed in.
    @param word_index First word of the stream that was not used yet.
    @param bound How many numbers there are to draw from, at least 1.
    @return The number drawn, and the next word that was not used.
    """
    first_refused: uint256 = WORD_RANGE - WORD_RANGE % bound
    for tries: uint256 in range(MAX_TRIES):
        word: uint256 = self._word(stream_seed, word_index + tries)
        if word < first_refused:
            return word % bound, word_index + tries + 1
    raise "draw: no fair word"


@internal
@pure
def _word(stream_seed: bytes32, word_index: uint256) -> uint256:
    """
    @notice One word of a stream. Block j is keccak(seed | uint64(j)), four words of 64 bits.
    @param stream_seed Seed of the stream, its label hashed in.
    @param word_index Position of the word.
    @return The word.
    """
    block_index: uint64 = convert(word_index // WORDS_PER_BLOCK, uint64)
    words: uint256 = convert(
        keccak256(concat(stream_seed, convert(block_index, bytes8))), uint256
    )
    place: uint256 = WORDS_PER_BLOCK - 1 - word_index % WORDS_PER_BLOCK
    return (words >> (place * WORD_BITS)) % WORD_RANGE


@internal
@pure
def _entry(moved: uint256, position: uint256) -> uint256:
    """
    @notice Read a sparse list.
    @param moved One more than what stands here; zero if nothing was written.
    @param position The position itself.
    @return What stands here.
    """
    if moved == 0:
        return position
    return moved - 1
