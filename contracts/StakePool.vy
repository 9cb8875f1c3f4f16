#pragma version 0.4.3
#pragma nonreentrancy on
"""
@title Stake pool
@license Apache-2.0
@notice Holds what CONE nodes stand to lose. Stake is locked per job, never shared between jobs.
@dev balance = free + unbonding + rewards of all accounts + all that is locked.
"""

from interfaces import IEnrolment
from interfaces import IMarket
from interfaces import IStakePool
from modules import limits
from modules import money
from modules import params as deployment

implements: IStakePool

REASON_WRONG: constant(uint256) = 1

MARKET: immutable(IMarket)
ENROLMENT: immutable(IEnrolment)
ROUNDS: immutable(address)
PARAMS: immutable(deployment.Params)


struct Holding:
    free_wei: uint256
    since_block: uint256
    unbonding_wei: uint256
    release_block: uint256
    reward_wei: uint256


struct Lock:
    original_wei: uint256
    remaining_wei: uint256


holdings: HashMap[address, Holding]
locks: HashMap[uint256, HashMap[address, Lock]]
stakers: uint256


@deploy
def __init__(params: deployment.Params, market: address, enrolment: address, rounds: address):
    """
    @notice Fix the parameters and the other contracts.
    @param params Parameters of the deployment.
    @param market Market, which knows what jobs are closed.
    @param enrolment Enrolment, which locks stake for jobs.
    @param rounds Rounds, which slashes.
    """
    MARKET = IMarket(market)
    ENROLMENT = IEnrolment(enrolment)
    ROUNDS = rounds
    PARAMS = params


@external
@payable
def deposit():
    """
    @notice Add free stake to the caller's account.
    @dev The latest deposit counts for `staked_since`: else a dusting of old accounts would let
         money in that came after an auction was seen.
    """
    assert msg.value > 0, "stake: nothing to deposit"

    if self.holdings[msg.sender].since_block == 0:
        self.stakers += 1
    free_wei: uint256 = self.holdings[msg.sender].free_wei + msg.value
    self.holdings[msg.sender].free_wei = free_wei
    self.holdings[msg.sender].since_block = block.number
    log IStakePool.StakeDeposited(
        account=msg.sender, amount_wei=msg.value, free_wei=free_wei, since_block=block.number
    )


@external
def request_unbond(amount_wei: uint256):
    """
    @notice Start to take free stake out. A second request restarts the wait for all of it.
    @param amount_wei Amount of free stake that stops counting at once.
    """
    holding: Holding = self.holdings[msg.sender]
    assert amount_wei > 0, "stake: nothing to unbond"
    assert amount_wei <= holding.free_wei, "stake: not enough free stake"

    release_block: uint256 = block.number + PARAMS.unbonding_blocks
    self.holdings[msg.sender].free_wei = holding.free_wei - amount_wei
    self.holdings[msg.sender].unbonding_wei = holding.unbonding_wei + amount_wei
    self.holdings[msg.sender].release_block = release_block
    log IStakePool.UnbondingStarted(
        account=msg.sender, amount_wei=amount_wei, release_block=release_block
    )


@external
def withdraw():
    """
    @notice Pay the caller its rewards, and its unbonding stake once the wait is over.
    """
    holding: Holding = self.holdings[msg.sender]
    amount_wei: uint256 = holding.reward_wei
    if block.number > holding.release_block:
        amount_wei += holding.unbonding_wei
        self.holdings[msg.sender].unbonding_wei = 0
    assert amount_wei > 0, "stake: nothing to withdraw"

    self.holdings[msg.sender].reward_wei = 0
    log IStakePool.StakeWithdrawn(account=msg.sender, amount_wei=amount_wei)
    money._pay(empty(address), msg.sender, amount_wei)


@external
def lock(job: uint256, account: address, amount_wei: uint256):
    """
    @notice Bind free stake of an account to a job.
    @param job Job that the account enrols in.
    @param account CONE node.
    @param amount_wei Stake that the job's terms ask for.
    """
    assert msg.sender == ENROLMENT.address, "stake: only the enrolment locks"
    assert self.locks[job][account].original_wei == 0, "stake: already locked"
    free_wei: uint256 = self.holdings[account].free_wei
    assert amount_wei <= free_wei, "stake: not enough free stake"

    self.holdings[account].free_wei = free_wei - amount_wei
    self.locks[job][account] = Lock(original_wei=amount_wei, remaining_wei=amount_wei)
    log IStakePool.StakeLocked(job=job, account=account, amount_wei=amount_wei)


@external
def slash(
    job: uint256,
    accounts: DynArray[address, limits.MAX_CONES],
    reason: uint256,
    beneficiaries: DynArray[address, limits.MAX_CONES],
):
    """
    @notice Take part of the stake of some accounts; half is burned, half shared.
    @dev No profit in framing: a framer gets at most half of what the framed loses, and needs a
         wrong majority first. What cannot be divided is burned too.
    @param job Job that the stake is locked for.
    @param accounts Accounts that lose stake.
    @param reason 1 for a wrong digest, 2 for a commitment that was not opened.
    @param beneficiaries Accounts that share one half; nobody: all is burned.
    """
    assert msg.sender == ROUNDS, "stake: only rounds slash"
    bps: uint256 = PARAMS.slash_noreveal_bps
    if reason == REASON_WRONG:
        bps = PARAMS.slash_wrong_bps
    taken_wei: uint256 = 0
    for account: address in accounts:
        taken_wei += self._take(job, account, bps, reason)

    reward_each_wei: uint256 = 0
    if len(beneficiaries) > 0:
        reward_each_wei = (taken_wei // 2) // len(beneficiaries)
    for beneficiary: address in beneficiaries:
        self.holdings[beneficiary].reward_wei += reward_each_wei
    burned_wei: uint256 = taken_wei - reward_each_wei * len(beneficiaries)
    log IStakePool.SlashShared(
        job=job,
        burned_wei=burned_wei,
        reward_each_wei=reward_each_wei,
        beneficiaries=beneficiaries,
    )
    money._burn(empty(address), burned_wei)


@external
def release(job: uint256, account: address):
    """
    @notice Make what is left of a lock free again, once the job is closed or runs without the
            account. Anyone may call.
    @param job Job that the stake is locked for.
    @param account Account whose stake was locked.
    """
    assert staticcall MARKET.is_closed(job) or staticcall ENROLMENT.is_cone_left_out(
        job, account
    ), "stake: job not closed"
    amount_wei: uint256 = self.locks[job][account].remaining_wei
    assert amount_wei > 0, "stake: nothing locked"

    self.locks[job][account].remaining_wei = 0
    self.holdings[account].free_wei += amount_wei
    log IStakePool.StakeReleased(job=job, account=account, amount_wei=amount_wei)


@external
@view
def can_vote(job: uint256, account: address) -> bool:
    """
    @notice Whether an account could still pay for one more slash.
    @param job Job that the stake is locked for.
    @param account CONE node.
    @return True if what is left covers the larger of the two slashes.
    """
    locked: Lock = self.locks[job][account]
    most_bps: uint256 = max(PARAMS.slash_wrong_bps, PARAMS.slash_noreveal_bps)
    return (
        locked.remaining_wei > 0
        and locked.remaining_wei >= locked.original_wei * most_bps // limits.BPS
    )


@external
@view
def staked_since(account: address) -> uint256:
    """
    @notice Block since which the account has held all of its stake.
    @param account CONE node.
    @return Block of its latest deposit; 0 if it never deposited.
    """
    return self.holdings[account].since_block


@external
@view
def staker_count() -> uint256:
    """
    @notice How many CONE nodes there can be.
    @return Number of accounts that ever deposited.
    """
    return self.stakers


@external
@view
def holding_of(account: address) -> Holding:
    """
    @notice What an account holds outside of jobs.
    @param account CONE node.
    @return Free and unbonding stake, rewards, and their blocks.
    """
    return self.holdings[account]


@external
@view
def lock_of(job: uint256, account: address) -> Lock:
    """
    @notice What an account has locked for a job.
    @param job Job.
    @param account CONE node.
    @return Stake locked at enrolment, and what is left of it.
    """
    return self.locks[job][account]


@internal
def _take(job: uint256, account: address, bps: uint256, reason: uint256) -> uint256:
    """
    @notice Remove part of one lock.
    @param job Job that the stake is locked for.
    @param account Account that loses stake.
    @param bps Part of the stake originally locked, in 1/10000; capped at what is left.
    @param reason Why; see `slash`.
    @return Amount taken, in wei.
    """
    locked: Lock = self.locks[job][account]
    amount_wei: uint256 = min(locked.original_wei * bps // limits.BPS, locked.remaining_wei)
    if amount_wei == 0:
        return 0
    self.locks[job][account].remaining_wei = locked.remaining_wei - amount_wei
    log IStakePool.StakeSlashed(
        job=job, account=account, amount_wei=amount_wei, reason=reason
    )
    return amount_wei
