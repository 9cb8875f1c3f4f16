#pragma version 0.4.3
"""
@title When the phases of an attempt end
@license Apache-2.0
@notice Deadlines follow from deadlines, so that who calls cannot choose a seed's block.
"""

from modules import execution_set
from modules import limits
from modules import terms as job_terms


struct Training:
    seller_seed_block: uint256
    update_commit_end: uint256
    update_open_end: uint256
    availability_end: uint256


@internal
@view
def _training(
    terms: job_terms.JobTerms, base: uint256, appeal_blocks: uint256, seed_delay_blocks: uint256
) -> Training:
    """
    @notice Windows of the sellers in the first attempt of a round.
    @param terms Terms of the job.
    @param base Deadline of the phase before.
    @param appeal_blocks Wait for appeals against the round before; 0 for the first round.
    @param seed_delay_blocks Distance of a seed block from the deadline before it.
    @return Block of the sellers' seed and the three deadlines.
    """
    open_block: uint256 = max(block.number, base) + appeal_blocks
    seller_seed_block: uint256 = base + appeal_blocks + seed_delay_blocks
    update_commit_end: uint256 = (
        max(open_block, seller_seed_block) + terms.update_commit_blocks
    )
    update_open_end: uint256 = update_commit_end + terms.update_open_blocks
    return Training(
        seller_seed_block=seller_seed_block,
        update_commit_end=update_commit_end,
        update_open_end=update_open_end,
        availability_end=update_open_end + terms.availability_blocks,
    )


@internal
@pure
def _voting(terms: job_terms.JobTerms, seed_delay_blocks: uint256) -> uint256:
    """
    @notice How long the votes of one attempt may last: all of its mini-rounds, each counted as late
            as it may be, and the call of the whole pool.
    @param terms Terms of the job.
    @param seed_delay_blocks Distance of a seed block from the deadline before it.
    @return Most blocks from the seed that draws the attempt's voters to the last opening.
    """
    windows: uint256 = 2  # the first execution set, and the whole pool
    size: uint256 = execution_set._size(terms, terms.cones_max, 0)
    for _: uint256 in range(limits.MAX_CONES):
        if size == terms.cones_max:
            break
        size = execution_set._grow(terms, terms.cones_max, size)
        windows += 1
    window_blocks: uint256 = (
        seed_delay_blocks + terms.vote_commit_blocks + terms.vote_open_blocks + terms.header_blocks
    )
    return windows * window_blocks + terms.appeal_blocks
