#pragma version 0.4.3
"""
@title Slashes that wait for the appeal window
@license Apache-2.0
@notice At most one decided ballot waits at a time: the next one cannot be counted before the
        appeal window of the one before is over.
"""

from interfaces import IStakePool
from modules import limits
from modules import roster

REASON_WRONG: constant(uint256) = 1
REASON_UNOPENED: constant(uint256) = 2
MASK_64: constant(uint256) = 2**64 - 1
DUE_AT: constant(uint256) = 192
# While the whole pool is called nothing is due.
NEVER: constant(uint256) = 2**40 - 1


@internal
@pure
def _plan(wrong: uint256, unopened: uint256, voters: uint256, due: uint256) -> uint256:
    """
    @notice Who is to be slashed after the appeal window, in one word.
    @param wrong Nodes that opened another digest.
    @param unopened Nodes that committed and did not open.
    @param voters Nodes that share one half.
    @param due Last block of the appeal window.
    @return The plan; zero if there is nobody to slash.
    """
    if wrong | unopened == 0:
        return 0
    return wrong | (unopened << 64) | (voters << 128) | (due << DUE_AT)


@internal
@pure
def _postpone(plan: uint256, due: uint256) -> uint256:
    """
    @notice The same plan with another end of its window.
    @param plan Packed plan.
    @param due Last block of the window.
    @return The plan; zero if there is nobody to slash.
    """
    if plan == 0:
        return 0
    return (plan & (2**DUE_AT - 1)) | (due << DUE_AT)


@internal
@view
def _is_due(plan: uint256) -> bool:
    """
    @notice Whether a plan can be carried out.
    @param plan Packed plan.
    @return True if somebody is to be slashed and the window is over.
    """
    return plan != 0 and block.number > plan >> DUE_AT


@internal
def _execute(stake_pool: IStakePool, job: uint256, members: address, plan: uint256) -> uint256:
    """
    @notice Slash whoever a plan names.
    @param stake_pool Where the stake is.
    @param job Number of the job.
    @param members Roster of its CONE nodes.
    @param plan Packed plan that is due.
    @return Bitmap of nodes that cannot pay another slash.
    """
    voters: uint256 = (plan >> 128) & MASK_64
    unopened: uint256 = (plan >> 64) & MASK_64
    barred: uint256 = self._slash(stake_pool, job, members, plan & MASK_64, REASON_WRONG, voters)
    return barred | self._slash(stake_pool, job, members, unopened, REASON_UNOPENED, voters)


@internal
def _slash(
    stake_pool: IStakePool,
    job: uint256,
    members: address,
    bits: uint256,
    reason: uint256,
    voters: uint256,
) -> uint256:
    """
    @notice Slash some nodes for one reason.
    @param stake_pool Where the stake is.
    @param job Number of the job.
    @param members Roster of its CONE nodes.
    @param bits Bitmap of the nodes.
    @param reason See `StakePool.slash`.
    @param voters Nodes that share one half; none: all is burned.
    @return Bitmap of nodes that cannot pay another slash.
    """
    if bits == 0:
        return 0
    extcall stake_pool.slash(
        job,
        roster._cone_accounts(members, bits),
        reason,
        roster._cone_accounts(members, voters),
    )
    barred: uint256 = 0
    for index: uint256 in range(limits.MAX_CONES):
        if bits >> index == 0:
            break
        if (bits >> index) & 1 == 0:
            continue
        account: address = roster._cone_account(members, index)
        if not staticcall stake_pool.can_vote(job, account):
            barred |= 1 << index
    return barred
