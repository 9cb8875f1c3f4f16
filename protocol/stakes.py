"""The stake of CONE nodes as the chain tells it. A fold of events. Source: MECHANISM 2."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
from protocol.types import Address, BlockNumber, JobId, Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class Stake:
    """One account's stake: free, locked job by job, unbonding; and what it earned by slashes."""

    free_wei: Wei = Wei(0)
    since_block: BlockNumber = BlockNumber(0)
    locked_wei: Mapping[JobId, Wei] = field(default_factory=dict)
    """Never zero."""
    unbonding_wei: Wei = Wei(0)
    release_block: BlockNumber = BlockNumber(0)
    """Last block in which what is unbonding cannot be withdrawn."""
    reward_wei: Wei = Wei(0)
    withdrawn_wei: Wei = Wei(0)
    """All that the account has pulled so far."""

    def withdrawable_wei(self, block_number: BlockNumber) -> Wei:
        """Return what the account can pull in a block."""
        is_free = block_number > self.release_block
        return Wei(self.reward_wei + (self.unbonding_wei if is_free else 0))


Stakes = Mapping[Address, Stake]


def apply_stake_event(
    stakes: Stakes, event: StakeEvent | LockEvent, block_number: BlockNumber
) -> Stakes:
    """Fold one event, which the chain recorded in ``block_number``, into the stakes by account."""
    if isinstance(event, SlashShared):
        rewarded = {one: _reward(_find(stakes, one), event) for one in event.beneficiaries}
        return {**stakes, **rewarded}
    stake = _find(stakes, event.account)
    match event:
        case StakeDeposited():
            stake = replace(stake, free_wei=event.free_wei, since_block=event.since_block)
        case UnbondingStarted():
            stake = replace(
                stake,
                free_wei=Wei(stake.free_wei - event.amount_wei),
                unbonding_wei=Wei(stake.unbonding_wei + event.amount_wei),
                release_block=event.release_block,
            )
        case StakeWithdrawn():
            is_free = block_number > stake.release_block
            stake = replace(
                stake,
                unbonding_wei=Wei(0) if is_free else stake.unbonding_wei,
                reward_wei=Wei(0),
                withdrawn_wei=Wei(stake.withdrawn_wei + event.amount_wei),
            )
        case StakeLocked():
            stake = _move_to_lock(stake, event.job, event.amount_wei)
        case StakeReleased():
            stake = _move_to_lock(stake, event.job, -event.amount_wei)
        case StakeSlashed():
            stake = replace(stake, locked_wei=_lock(stake, event.job, -event.amount_wei))
    return {**stakes, event.account: stake}


def _find(stakes: Stakes, account: Address) -> Stake:
    return stakes.get(account, Stake())


def _reward(stake: Stake, event: SlashShared) -> Stake:
    return replace(stake, reward_wei=Wei(stake.reward_wei + event.reward_each_wei))


def _move_to_lock(stake: Stake, job: JobId, amount_wei: int) -> Stake:
    return replace(
        stake,
        free_wei=Wei(stake.free_wei - amount_wei),
        locked_wei=_lock(stake, job, amount_wei),
    )


def _lock(stake: Stake, job: JobId, amount_wei: int) -> Mapping[JobId, Wei]:
    """Add to what is locked for a job; one with nothing left is not listed for ever."""
    locked = {**stake.locked_wei, job: Wei(stake.locked_wei.get(job, 0) + amount_wei)}
    return {one: wei for one, wei in locked.items() if wei}
