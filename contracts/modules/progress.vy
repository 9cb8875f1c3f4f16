#pragma version 0.4.3
"""
@title How far a job has come
@license Apache-2.0
@notice The small numbers of a job's course, in one word.
"""

PHASE_VALIDATION: constant(uint256) = 1
PHASE_TRAINING: constant(uint256) = 2
PHASE_ENDED: constant(uint256) = 3

OUTCOME_TARGET: constant(uint256) = 1
OUTCOME_ENDED: constant(uint256) = 2
OUTCOME_ABORTED: constant(uint256) = 3
OUTCOME_UNSERVED: constant(uint256) = 4

MASK_8: constant(uint256) = 2**8 - 1
MASK_16: constant(uint256) = 2**16 - 1
MASK_32: constant(uint256) = 2**32 - 1
MASK_40: constant(uint256) = 2**40 - 1

CALL_NONE: constant(uint256) = 0
CALL_AUDIT: constant(uint256) = 1
CALL_APPEAL: constant(uint256) = 2


struct Progress:
    deadline: uint256  # end of validation; then of the last decision's appeal window
    credit_sum: uint256
    cones: uint256
    rounds_done: uint256
    last_round: uint256  # last decided round plus one; 0: none
    final_round: uint256  # last round with a final evaluation, plus one; 0: none
    phase: uint256
    outcome: uint256
    reached: uint256  # decided rounds in a row that reached the target
    finals_used: uint256
    voids: uint256  # void rounds in a row
    is_final_decided: bool  # the last final evaluation was decided
    call: uint256  # why the whole pool was called to the last decision; 0: it was not


@internal
@pure
def _pack(progress: Progress) -> uint256:
    """
    @notice Put a job's progress into one word.
    @param progress The progress; every field fits by the bounds of terms and headers.
    @return Fields of 40, 32, four times 16 and seven times 8 bits, the first lowest.
    """
    return (
        progress.deadline
        | (progress.credit_sum << 40)
        | (progress.cones << 72)
        | (progress.rounds_done << 88)
        | (progress.last_round << 104)
        | (progress.final_round << 120)
        | (progress.phase << 136)
        | (progress.outcome << 144)
        | (progress.reached << 152)
        | (progress.finals_used << 160)
        | (progress.voids << 168)
        | (convert(progress.is_final_decided, uint256) << 176)
        | (progress.call << 184)
    )


@internal
@pure
def _unpack(word: uint256) -> Progress:
    """
    @notice The inverse of `_pack`.
    @param word Packed progress.
    @return The progress.
    """
    return Progress(
        deadline=word & MASK_40,
        credit_sum=(word >> 40) & MASK_32,
        cones=(word >> 72) & MASK_16,
        rounds_done=(word >> 88) & MASK_16,
        last_round=(word >> 104) & MASK_16,
        final_round=(word >> 120) & MASK_16,
        phase=(word >> 136) & MASK_8,
        outcome=(word >> 144) & MASK_8,
        reached=(word >> 152) & MASK_8,
        finals_used=(word >> 160) & MASK_8,
        voids=(word >> 168) & MASK_8,
        is_final_decided=(word >> 176) & MASK_8 == 1,
        call=word >> 184,
    )
