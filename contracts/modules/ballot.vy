#pragma version 0.4.3
"""
@title One attempt to decide something, and its marks
@license Apache-2.0
@notice A job has one ballot at a time; its words are overwritten by the next one, because a
        changed word costs a quarter of a new one. History lives in events.
"""

MASK_8: constant(uint256) = 2**8 - 1
MASK_16: constant(uint256) = 2**16 - 1
MASK_40: constant(uint256) = 2**40 - 1
MASK_64: constant(uint256) = 2**64 - 1
# Two refunds of 6 and 32 bits.
REFUNDS_MASK: constant(uint256) = 2**76 - 1


struct Ballot:
    kind: uint256  # 0 for a round, 1 for a final evaluation
    attempt: uint256  # attempts before this one
    m: uint256  # mini-rounds before this one
    is_pool_called: bool  # it was decided, and the rest of the pool is asked
    round_index: uint256
    number: uint256  # from 1; 0 before training
    cones: uint256  # nodes in the pool
    size_before: uint256  # execution set of the mini-round before, in expected nodes
    size: uint256  # execution set of this mini-round
    availability_end: uint256  # before training: the end of validation
    seed_block: uint256
    commit_end: uint256
    open_end: uint256


struct Marks:
    committed: uint256
    opened: uint256
    number: uint256
    m: uint256
    batch_count: uint256  # batches of commitments in this mini-round
    group_count: uint256  # groups of equal votes in this attempt
    refunds: uint256  # see `refunds.vy`


@internal
@pure
def _pack(ballot: Ballot) -> uint256:
    """
    @notice Put a ballot into one word.
    @param ballot The ballot; every field fits by the bounds of terms and block numbers.
    @return Eight fields of 8 bits, or 16 for the third and fourth, and four of 40 bits.
    """
    flags: uint256 = ballot.kind | (convert(ballot.is_pool_called, uint256) << 1)
    return (
        flags
        | (ballot.attempt << 8)
        | (ballot.m << 16)
        | (ballot.round_index << 24)
        | (ballot.number << 40)
        | (ballot.cones << 56)
        | (ballot.size_before << 64)
        | (ballot.size << 72)
        | (ballot.availability_end << 80)
        | (ballot.seed_block << 120)
        | (ballot.commit_end << 160)
        | (ballot.open_end << 200)
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
        kind=word & 1,
        attempt=(word >> 8) & MASK_8,
        m=(word >> 16) & MASK_8,
        is_pool_called=(word >> 1) & 1 == 1,
        round_index=(word >> 24) & MASK_16,
        number=(word >> 40) & MASK_16,
        cones=(word >> 56) & MASK_8,
        size_before=(word >> 64) & MASK_8,
        size=(word >> 72) & MASK_8,
        availability_end=(word >> 80) & MASK_40,
        seed_block=(word >> 120) & MASK_40,
        commit_end=(word >> 160) & MASK_40,
        open_end=word >> 200,
    )


@internal
@pure
def _pack_marks(marks: Marks) -> uint256:
    """
    @notice Put the marks of a ballot into one word.
    @param marks Who committed and opened, and what was counted.
    @return Fields of 64, 64, 16, 8, 8, 8 and 76 bits, the first lowest.
    """
    return (
        marks.committed
        | (marks.opened << 64)
        | (marks.number << 128)
        | (marks.m << 144)
        | (marks.batch_count << 152)
        | (marks.group_count << 160)
        | (marks.refunds << 168)
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
    marks: Marks = empty(Marks)
    marks.number = ballot.number
    marks.m = ballot.m
    if (word >> 128) & MASK_16 != ballot.number:
        return marks
    marks.committed = word & MASK_64
    marks.opened = (word >> 64) & MASK_64
    marks.group_count = (word >> 160) & MASK_8
    marks.refunds = (word >> 168) & REFUNDS_MASK
    if (word >> 144) & MASK_8 == ballot.m:
        marks.batch_count = (word >> 152) & MASK_8
    return marks


@internal
@pure
def _mini(ballot: Ballot) -> uint256:
    """
    @notice Kind, attempt and mini-round in one number, as in everything that is hashed or signed.
    @param ballot The ballot.
    @return kind * 2**32 + attempt * 2**16 + m.
    """
    return self._first_mini(ballot) | ballot.m


@internal
@pure
def _first_mini(ballot: Ballot) -> uint256:
    """
    @notice The attempt's first mini-round, whose seed all of its tickets use.
    @param ballot The ballot.
    @return The number of mini-round 0.
    """
    return (ballot.kind << 32) | (ballot.attempt << 16)
