#pragma version 0.4.3
"""
@title A job's utilities
@license Apache-2.0
@notice Four signed numbers of 64 bits in one word.
"""

MASK: constant(uint256) = 2**64 - 1


struct Utilities:
    first_before: int256  # U_before of the first decided round
    last_after: int256  # U_after of the last decided round
    final_initial: int256  # U_0 of the last final evaluation
    final_last: int256  # U of the last final evaluation


@internal
@pure
def _pack(utilities: Utilities) -> uint256:
    """
    @notice Put the utilities into one word.
    @param utilities Numbers of the range of int64.
    @return Four fields of 64 bits in two's complement, the first lowest.
    """
    return (
        self._bits(utilities.first_before)
        | (self._bits(utilities.last_after) << 64)
        | (self._bits(utilities.final_initial) << 128)
        | (self._bits(utilities.final_last) << 192)
    )


@internal
@pure
def _unpack(word: uint256) -> Utilities:
    """
    @notice The inverse of `_pack`.
    @param word Packed utilities.
    @return The utilities.
    """
    return Utilities(
        first_before=self._number(word),
        last_after=self._number(word >> 64),
        final_initial=self._number(word >> 128),
        final_last=self._number(word >> 192),
    )


@internal
@pure
def _number(word: uint256) -> int256:
    """
    @notice The signed number in the lowest 64 bits of a word.
    @param word Any word.
    @return The number.
    """
    low: int256 = convert(word & MASK, int256)
    if low >= 2**63:
        return low - 2**64
    return low


@internal
@pure
def _bits(number: int256) -> uint256:
    """
    @notice A signed number in 64 bits.
    @param number Number of the range of int64.
    @return Its two's complement.
    """
    if number < 0:
        return convert(number + 2**64, uint256)
    return convert(number, uint256)
