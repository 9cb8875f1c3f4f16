#pragma version 0.4.3
"""
@title When the phases of an attempt end
@license Apache-2.0
@notice Deadlines follow from deadlines, so that who calls cannot choose a seed's block.
"""

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
