#pragma version 0.4.3
"""
@title Slashes that wait for the appeal window
@license Apache-2.0
@notice At most one decided ballot waits at a time: the next one cannot be counted before the
        appeal window of the one before is over.
"""

from interfaces import IStakePool
from modules import limits
from modules import pool

uses: pool

REASON_WRONG: constant(uint256) = 1
REASON_UNOPENED: constant(uint256) = 2
MASK_64: constant(uint256) = 2**64 - 1

pending: HashMap[uint256, uint256]


@internal
def _plan(job: uint256, wrong: uint256, unopened: uint256, voters: uint256, due: uint256):
    """
    @notice Remember who is to be slashed after the appeal window.
    @param job Number of the job.
    @param wrong Nodes that opened another digest.
    @param unopened Nodes that committed and did not open.
    @param voters Nodes that share one half.
    @param due Last block of the appeal window.
    """
    if wrong | unopened != 0:
        self.pending[job] = wrong | (unopened << 64) | (voters << 128) | (due << 192)


@internal
def _execute(stake_pool: IStakePool, job: uint256) -> uint256:
    """
    @notice Slash whoever was planned, if the appeal window is over.
    @param stake_pool Where the stake is.
    @param job Number of the job.
    @return Bitmap of nodes that cannot pay another slash.
    """
    word: uint256 = self.pending[job]
    if word == 0 or block.number <= word >> 192:
        return 0
    self.pending[job] = 0
    voters: uint256 = (word >> 128) & MASK_64
    unopened: uint256 = (word >> 64) & MASK_64
    barred: uint256 = self._slash(stake_pool, job, word & MASK_64, REASON_WRONG, voters)
    return barred | self._slash(stake_pool, job, unopened, REASON_UNOPENED, voters)


@internal
def _slash(
    stake_pool: IStakePool, job: uint256, members: uint256, reason: uint256, voters: uint256
) -> uint256:
    """
    @notice Slash some nodes for one reason.
    @param stake_pool Where the stake is.
    @param job Number of the job.
    @param members Bitmap of the nodes.
    @param reason See `StakePool.slash`.
    @param voters Nodes that share one half; none: all is burned.
    @return Bitmap of nodes that cannot pay another slash.
    """
    if members == 0:
        return 0
    extcall stake_pool.slash(
        job, pool._accounts(job, members), reason, pool._accounts(job, voters)
    )
    barred: uint256 = 0
    for index: uint256 in range(pool.count[job], bound=limits.MAX_CONES):
        if (members >> index) & 1 == 0:
            continue
        account: address = pool.cones[job][index].account
        if not staticcall stake_pool.can_vote(job, account):
            barred |= 1 << index
    return barred
