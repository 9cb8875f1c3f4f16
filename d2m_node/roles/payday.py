"""The end of a job: each account pulls what is its own."""

from collections.abc import Callable

import structlog
import trio

from d2m_node.calls import (
    ClaimPayout,
    ContractCall,
    ReclaimBid,
    ReclaimDeposit,
    ReclaimEscrow,
    ReleaseStake,
)
from d2m_node.errors import TransactionReverted, TransientError
from d2m_node.ports import Ports
from d2m_node.roles.rooms import OVER
from protocol.deposits import DepositStatus
from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.types import Address, BlockNumber, JobId, Wei

log = structlog.get_logger(__name__)

PAUSE_BLOCKS = 10


async def run_payday(ports: Ports) -> None:
    """Pull whatever this account is owed, for as long as the node runs.

    It looks at the chain alone, so what was credited while the node was down is pulled too, and
    what a job that failed at this node left behind.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_claim_payouts, ports)
        nursery.start_soon(_release_stakes, ports)
        nursery.start_soon(_reclaim, ports, "deposit", _is_deposit_owed, _reclaim_deposit)
        nursery.start_soon(_reclaim, ports, "bid", _is_bid_owed, _reclaim_bid)
        nursery.start_soon(_reclaim, ports, "escrow", _is_escrow_owed, _reclaim_escrow)


async def _claim_payouts(ports: Ports) -> None:
    me = ports.signer.address

    def find_claimed(state: MarketState) -> Wei | None:
        """Return what was claimed before, if more is credited."""
        credited = sum(
            payout.amount_wei
            for job in state.jobs.values()
            for payout in job.payouts
            if payout.payee == me
        )
        claimed = state.claimed_wei.get(me, Wei(0))
        return claimed if credited > claimed else None

    while True:
        claimed = await ports.chain.wait_for(find_claimed)
        await _try(ports, ClaimPayout(), f"claim/{claimed}")


async def _try(ports: Ports, call: ContractCall, key: str) -> None:
    """Send a call that anyone, or a lack of gas money, may frustrate; the caller looks again."""
    try:
        await ports.chain.submit(call, key=key)
    except (TransactionReverted, TransientError) as refusal:
        log.info("payday_refused", key=key, reason=str(refusal))
        await ports.chain.wait_block(BlockNumber(ports.chain.state.block_number + PAUSE_BLOCKS))


async def _release_stakes(ports: Ports) -> None:
    me = ports.signer.address

    def find_job(state: MarketState) -> JobId | None:
        stake = state.stakes.get(me)
        for job_id, amount_wei in stake.locked_wei.items() if stake else ():
            job = state.jobs.get(job_id)
            if amount_wei > 0 and job is not None and job.phase in OVER:
                return job_id
        return None

    while True:
        job_id = await ports.chain.wait_for(find_job)
        call = ReleaseStake(job=job_id, account=me)
        await _try(ports, call, f"release-stake/{job_id}")


async def _reclaim(
    ports: Ports,
    name: str,
    is_owed: Callable[[JobState, Address], bool],
    make_call: Callable[[JobId], ContractCall],
) -> None:
    """Take back one kind of money from every job that still holds it."""
    me = ports.signer.address

    def find_job(state: MarketState) -> JobId | None:
        return next((job.job_id for job in state.jobs.values() if is_owed(job, me)), None)

    while True:
        job_id = await ports.chain.wait_for(find_job)
        await _try(ports, make_call(job_id), f"reclaim-{name}/{job_id}")


def _is_deposit_owed(job: JobState, account: Address) -> bool:
    deposit = job.deposits.get(account)
    is_held = deposit is not None and deposit.status is DepositStatus.HELD
    return is_held and job.phase in OVER


def _reclaim_deposit(job_id: JobId) -> ContractCall:
    return ReclaimDeposit(job=job_id)


def _is_bid_owed(job: JobState, account: Address) -> bool:
    """Tell whether the auction is closed and keeps more of a bid than the winner's price."""
    bid = job.bids.get(account)
    if bid is None or bid.reclaimed or job.phase is JobPhase.AUCTION:
        return False
    return job.buyer != account or bid.deposit_wei > job.price_wei


def _reclaim_bid(job_id: JobId) -> ContractCall:
    return ReclaimBid(auction=job_id)


def _is_escrow_owed(job: JobState, account: Address) -> bool:
    is_refundable = job.buyer == account and job.phase is JobPhase.CANCELLED
    return is_refundable and not job.escrow_reclaimed


def _reclaim_escrow(job_id: JobId) -> ContractCall:
    return ReclaimEscrow(job=job_id)
