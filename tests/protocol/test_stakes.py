"""Stakes as the chain tells them: free, locked, unbonding, rewarded."""

from protocol.events import (
    LockEvent,
    SlashShared,
    StakeDeposited,
    StakeEvent,
    StakeLocked,
    StakeReleased,
    StakeSlashed,
    StakeWithdrawn,
    UnbondingStarted,
)
from protocol.stakes import Stake, Stakes, apply_stake_event
from protocol.types import Address, BlockNumber, JobId, Wei

JOB, NODE, OTHER = JobId(1), Address(b"\x01" * 20), Address(b"\x02" * 20)
RELEASE = BlockNumber(20)


def fold(*events: StakeEvent | LockEvent, block: int = 10, stakes: Stakes | None = None) -> Stakes:
    stakes = stakes or {}
    for event in events:
        stakes = apply_stake_event(stakes, event, BlockNumber(block))
    return stakes


def deposit(amount_wei: int, free_wei: int) -> StakeDeposited:
    return StakeDeposited(
        account=NODE,
        amount_wei=Wei(amount_wei),
        free_wei=Wei(free_wei),
        since_block=BlockNumber(3),
    )


def unbond(amount_wei: int) -> UnbondingStarted:
    return UnbondingStarted(account=NODE, amount_wei=Wei(amount_wei), release_block=RELEASE)


def share(*beneficiaries: Address) -> SlashShared:
    return SlashShared(
        job=JOB, burned_wei=Wei(5), reward_each_wei=Wei(2), beneficiaries=beneficiaries
    )


def withdraw(amount_wei: int) -> StakeWithdrawn:
    return StakeWithdrawn(account=NODE, amount_wei=Wei(amount_wei))


def test_stake_moves_between_free_and_locked() -> None:
    lock = StakeLocked(job=JOB, account=NODE, amount_wei=Wei(4))
    slash = StakeSlashed(job=JOB, account=NODE, amount_wei=Wei(1), reason=1)
    stakes = fold(deposit(10, 10), lock, slash)
    assert (stakes[NODE].free_wei, stakes[NODE].locked_wei) == (6, {JOB: 3})
    release = StakeReleased(job=JOB, account=NODE, amount_wei=Wei(3))
    assert fold(release, stakes=stakes)[NODE].free_wei == 9


def test_unbonding_stake_waits_and_rewards_do_not() -> None:
    stakes = fold(deposit(10, 10), unbond(4), unbond(1), share(OTHER, NODE))
    stake = stakes[NODE]
    assert (stake.free_wei, stake.unbonding_wei, stake.reward_wei) == (5, 5, 2)
    assert stake.withdrawable_wei(RELEASE) == 2
    assert stake.withdrawable_wei(BlockNumber(RELEASE + 1)) == 7
    assert stakes[OTHER] == Stake(reward_wei=Wei(2))


def test_a_withdrawal_before_the_wait_is_over_takes_rewards_only() -> None:
    stakes = fold(deposit(10, 10), unbond(4), share(NODE))
    early = fold(withdraw(2), stakes=stakes, block=RELEASE)[NODE]
    assert (early.unbonding_wei, early.reward_wei, early.withdrawn_wei) == (4, 0, 2)
    late = fold(withdraw(6), stakes=stakes, block=RELEASE + 1)[NODE]
    assert (late.unbonding_wei, late.reward_wei, late.withdrawn_wei) == (0, 0, 6)


def test_a_slash_that_rewards_nobody_changes_no_stake() -> None:
    stakes = fold(deposit(10, 10))
    assert fold(share(), stakes=stakes) == stakes
