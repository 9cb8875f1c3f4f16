#pragma version 0.4.3
"""
@title One attempt to decide something, and its marks
@license Apache-2.0
@notice A job has one ballot at a time; its words are overwritten by the next one, because a
        changed word costs a quarter of a new one. History lives in events.
"""

MASK_24: constant(uint256) = 2**24 - 1
MASK_32: constant(uint256) = 2**32 - 1
MASK_40: constant(uint256) = 2**40 - 1
MASK_64: constant(uint256) = 2**64 - 1


struct Ballot:
    mini: uint256
    round_index: uint256
    number: uint256
    availability_end: uint256
    seed_block: uint256
    commit_end: uint256
    open_end: uint256


struct Marks:
    committed: uint256
    opened: uint256
    mini: uint256
    number: uint256
    batch_count: uint256
    is_seeded: bool


@internal
@pure
def _pack(ballot: Ballot) -> uint256:
    """
    @notice Put a ballot into one word.
    @param ballot The ballot; every field fits by the bounds of terms and block numbers.
    @return Fields of 40, 32, 24 and four times 40 bits, the first lowest.
    """
    return (
        ballot.mini
        | (ballot.round_index << 40)
        | (ballot.number << 72)
        | (ballot.availability_end << 96)
        | (ballot.seed_block << 136)
        | (ballot.commit_end << 176)
        | (ballot.open_end << 216)
    )


@internal
@pure
def _unpack(word: uint256) -> Ballot:
    """
    @notice The inverse of `_pack`.
    @param word Packed ballot.
    @return The ballot.
    """
    return Ballot(
        mini=word & MASK_40,
        round_index=(word >> 40) & MASK_32,
        number=(word >> 72) & MASK_24,
        availability_end=(word >> 96) & MASK_40,
        seed_block=(word >> 136) & MASK_40,
        commit_end=(word >> 176) & MASK_40,
        open_end=word >> 216,
    )


@internal
@pure
def _pack_marks(marks: Marks) -> uint256:
    """
    @notice Put the marks of a ballot into one word.
    @param marks Who committed and opened, and the batches of the current mini-round.
    @return Fields of 64, 64, 40, 24, 32 bits and a flag, the first lowest.
    """
    return (
        marks.committed
        | (marks.opened << 64)
        | (marks.mini << 128)
        | (marks.number << 168)
        | (marks.batch_count << 192)
        | (convert(marks.is_seeded, uint256) << 224)
    )


@internal
@pure
def _unpack_marks(word: uint256, ballot: Ballot) -> Marks:
    """
    @notice The marks of a ballot, read from a word that may still hold an earlier one's.
    @param word Packed marks.
    @param ballot Ballot that they are wanted for.
    @return The marks: empty for a new ballot, without batches for a new mini-round.
    """
    marks: Marks = Marks(
        committed=0,
        opened=0,
        mini=ballot.mini,
        number=ballot.number,
        batch_count=0,
        is_seeded=False,
    )
    if (word >> 168) & MASK_24 != ballot.number:
        return marks
    marks.committed = word & MASK_64
    marks.opened = (word >> 64) & MASK_64
    marks.is_seeded = (word >> 224) == 1
    if (word >> 128) & MASK_40 == ballot.mini:
        marks.batch_count = (word >> 192) & MASK_32
    return marks


@internal
@pure
def _kind(mini: uint256) -> uint256:
    """
    @notice What is voted on.
    @param mini Kind, attempt and mini-round in one number.
    @return 0 for a round, 1 for a final evaluation.
    """
    return mini >> 32


@internal
@pure
def _attempt(mini: uint256) -> uint256:
    """
    @notice Which attempt this is.
    @param mini Kind, attempt and mini-round in one number.
    @return Attempts before this one.
    """
    return (mini >> 16) & (2**16 - 1)


@internal
@pure
def _m(mini: uint256) -> uint256:
    """
    @notice Which mini-round of the attempt this is.
    @param mini Kind, attempt and mini-round in one number.
    @return Mini-rounds before this one.
    """
    return mini & (2**16 - 1)


@internal
@pure
def _first_mini(mini: uint256) -> uint256:
    """
    @notice The attempt's first mini-round, whose seed all of its tickets use.
    @param mini Kind, attempt and mini-round in one number.
    @return The same with mini-round 0.
    """
    return (mini >> 16) << 16


@internal
@pure
def _mini(kind: uint256, attempt: uint256) -> uint256:
    """
    @notice Number of the first mini-round of an attempt.
    @param kind 0 for a round, 1 for a final evaluation.
    @param attempt Attempts before this one.
    @return Kind, attempt and mini-round 0 in one number.
    """
    return (kind << 32) | (attempt << 16)
