#pragma version 0.4.3
"""
@title Sizes and thresholds of execution sets
@license Apache-2.0
@notice MECHANISM 7.1 and 7.2: sets grow until they hold the whole pool.
"""

from modules import limits
from modules import terms as job_terms


@internal
@pure
def _size(terms: job_terms.JobTerms, cones: uint256, m: uint256) -> uint256:
    """
    @notice Expected number of nodes in the execution set of a mini-round.
    @param terms Terms of the job: first size and growth.
    @param cones Nodes in the job's pool.
    @param m Mini-round.
    @return n_m, at most the pool.
    """
    size: uint256 = min(cones, terms.first_set_size)
    for _: uint256 in range(m, bound=limits.MAX_CONES):
        grown: uint256 = size * terms.growth_numerator + terms.growth_denominator - 1
        size = min(cones, grown // terms.growth_denominator)
    return size


@internal
@pure
def _last_ticket(size: uint256, cones: uint256) -> uint256:
    """
    @notice The largest ticket that belongs to a set.
    @dev T = floor(size * 2**256 / cones) does not fit a word for the whole pool; T - 1 does.
    @param size Expected number of nodes in the set, at least 1.
    @param cones Nodes in the job's pool.
    @return T - 1.
    """
    if size >= cones:
        return max_value(uint256)
    # 2**256 = quotient * cones + remainder, without leaving the word.
    quotient: uint256 = max_value(uint256) // cones
    remainder: uint256 = max_value(uint256) % cones + 1
    return size * quotient + (size * remainder) // cones - 1
