#pragma version 0.4.3
"""
@title How far a job has come
@license Apache-2.0
@notice Everything about a job in training that fits into one word.
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


struct Progress:
    barred: uint256  # nodes whose stake cannot pay another slash
    deadline: uint256  # end of validation, then the block after which settlement may run
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


@internal
@pure
def _pack(progress: Progress) -> uint256:
    """
    @notice Put a job's progress into one word.
    @param progress The progress; every field fits by the bounds of terms and headers.
    @return Fields of 64, 40, 32, four times 16 and five times 8 bits and a flag, the first lowest.
    """
    return (
        progress.barred
        | (progress.deadline << 64)
        | (progress.credit_sum << 104)
        | (progress.cones << 136)
        | (progress.rounds_done << 152)
        | (progress.last_round << 168)
        | (progress.final_round << 184)
        | (progress.phase << 200)
        | (progress.outcome << 208)
        | (progress.reached << 216)
        | (progress.finals_used << 224)
        | (progress.voids << 232)
        | (convert(progress.is_final_decided, uint256) << 240)
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
        barred=word & (2**64 - 1),
        deadline=(word >> 64) & MASK_40,
        credit_sum=(word >> 104) & MASK_32,
        cones=(word >> 136) & MASK_16,
        rounds_done=(word >> 152) & MASK_16,
        last_round=(word >> 168) & MASK_16,
        final_round=(word >> 184) & MASK_16,
        phase=(word >> 200) & MASK_8,
        outcome=(word >> 208) & MASK_8,
        reached=(word >> 216) & MASK_8,
        finals_used=(word >> 224) & MASK_8,
        voids=(word >> 232) & MASK_8,
        is_final_decided=(word >> 240) == 1,
    )
