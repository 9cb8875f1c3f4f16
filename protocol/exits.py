"""What a job still holds of one account, and gives back when it is asked.

The calls are of `d2m_node/roles/payday.py`. Source: MECHANISM 2, 3.1, 14.
"""

from protocol.auction import AuctionMode
from protocol.deposits import DepositStatus
from protocol.job import OVER, Bid, JobPhase, JobState
from protocol.market import MarketState
from protocol.shares import find_cone_share, find_seller_share
from protocol.stakes import Stake
from protocol.types import Address, BlockNumber


def holds_anything(state: MarketState, job: JobState, account: Address) -> bool:
    """Tell whether a job owes an account anything that the account has to ask for."""
    return (
        holds_stake(state, job, account)
        or holds_deposit(job, account)
        or holds_bid(job, account, state.block_number)
        or holds_escrow(job, account)
        or find_cone_share(job, account) is not None
        or find_seller_share(job, account) is not None
    )


def holds_stake(state: MarketState, job: JobState, account: Address) -> bool:
    """Tell whether a job holds a CONE node's stake that it does not need any more."""
    is_locked = job.job_id in state.stakes.get(account, Stake()).locked_wei
    return is_locked and (job.phase in OVER or job.is_cone_left_out(account))


def holds_deposit(job: JobState, account: Address) -> bool:
    """Tell whether a job holds a seller's deposit that it does not need any more."""
    deposit = job.deposits.get(account)
    is_held = deposit is not None and deposit.status is DepositStatus.HELD
    return is_held and (job.phase in OVER or job.is_seller_left_out(account))


def holds_bid(job: JobState, account: Address, block_number: BlockNumber) -> bool:
    """Tell whether an auction keeps more of an account's bid than it needs."""
    bid = job.bids.get(account)
    return bid is not None and not bid.reclaimed and _is_free(job, bid, block_number)


def _is_free(job: JobState, bid: Bid, block_number: BlockNumber) -> bool:
    """Tell whether an auction keeps more of a bid than it needs.

    In an open auction a bid that is not the best is free at once, but the buyer may still raise it,
    and what is there counts. So it stays until nobody can bid any more.
    """
    if job.phase is JobPhase.AUCTION:
        is_outbid = job.mode is AuctionMode.OPEN and job.best_bid != bid
        return is_outbid and block_number > job.commit_end
    return job.buyer != bid.bidder or bid.deposit_wei > job.price_wei


def holds_escrow(job: JobState, account: Address) -> bool:
    """Tell whether a job that was cancelled holds its buyer's price."""
    is_refundable = job.buyer == account and job.phase is JobPhase.CANCELLED
    return is_refundable and not job.escrow_reclaimed
