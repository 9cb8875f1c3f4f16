"""The events that the contracts log when an account pulls its money, for the market in memory."""

from collections.abc import Sequence

from d2m_node.calls import (
    ClaimConeShare,
    ClaimPayout,
    ClaimSellerShare,
    DepositStake,
    ReleaseStake,
    RequestUnbond,
    WithdrawBond,
    WithdrawStake,
)
from protocol.claims import claim_of
from protocol.events import (
    BondWithdrawn,
    Event,
    PayoutClaimed,
    PayoutCredited,
    StakeDeposited,
    StakeReleased,
    StakeWithdrawn,
    UnbondingStarted,
)
from protocol.job import JobState
from protocol.market import MarketState
from protocol.settlement import PayeeRole
from protocol.shares import Share, find_cone_share, find_seller_share
from protocol.stakes import Stake
from protocol.types import Address, BlockNumber, Wei
from tests.support.params import PARAMS

MoneyCall = (
    ClaimPayout
    | WithdrawBond
    | DepositStake
    | RequestUnbond
    | WithdrawStake
    | ReleaseStake
    | ClaimConeShare
    | ClaimSellerShare
)


def events_of_money(state: MarketState, sender: Address, call: MoneyCall) -> Sequence[Event]:
    """Return what is logged; nothing if the call would revert."""
    match call:
        case ClaimPayout():
            owed = claim_of(state.payouts, call.currency, sender).owed_wei
            claimed = PayoutClaimed(payee=sender, currency=call.currency, amount_wei=owed)
            return (claimed,) if owed else ()
        case WithdrawBond():
            owed = claim_of(state.bonds, call.currency, sender).owed_wei
            withdrawn = BondWithdrawn(account=sender, currency=call.currency, amount_wei=owed)
            return (withdrawn,) if owed else ()
        case DepositStake():
            held = state.stakes.get(sender, Stake())
            deposited = StakeDeposited(
                account=sender,
                amount_wei=call.value_wei,
                free_wei=Wei(held.free_wei + call.value_wei),
                since_block=state.block_number,
            )
            return (deposited,)
        case RequestUnbond():
            unbonding = UnbondingStarted(
                account=sender,
                amount_wei=call.amount_wei,
                release_block=BlockNumber(state.block_number + PARAMS.unbonding_blocks),
            )
            return (unbonding,) if call.amount_wei <= state.stakes[sender].free_wei else ()
        case WithdrawStake():
            owed = state.stakes[sender].withdrawable_wei(state.block_number)
            return (StakeWithdrawn(account=sender, amount_wei=owed),) if owed else ()
        case ReleaseStake():
            locked = state.stakes[call.account].locked_wei.get(call.job, Wei(0))
            released = StakeReleased(job=call.job, account=call.account, amount_wei=locked)
            return (released,) if locked else ()
        case ClaimConeShare():
            job = state.jobs[call.job]
            payee = job.cones[call.index].account
            return _pay_share(job, payee, PayeeRole.CONE, find_cone_share(job, payee))
        case ClaimSellerShare():
            job = state.jobs[call.job]
            payee = job.sellers[call.index].account
            share = find_seller_share(job, payee)
            is_proven = share is not None and (share.weight, share.proof) == (call.v, call.proof)
            return _pay_share(job, payee, PayeeRole.SELLER, share if is_proven else None)


def _pay_share(job: JobState, payee: Address, role: int, share: Share | None) -> Sequence[Event]:
    if share is None:
        return ()
    credited = PayoutCredited(
        job=job.job_id,
        payee=payee,
        role=role,
        index=share.index,
        weight=share.weight,
        amount_wei=share.amount_wei,
    )
    claimed = PayoutClaimed(payee=payee, currency=job.currency, amount_wei=share.amount_wei)
    return credited, claimed
