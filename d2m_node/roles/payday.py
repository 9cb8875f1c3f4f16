"""The end of a job: settled by whoever has the turn, pulled by each payee for itself."""

import structlog
import trio

from d2m_node.calls import ClaimPayout, ContractCall, ReclaimDeposit, ReleaseStake, SettleJob
from d2m_node.errors import TransactionReverted, TransientError
from d2m_node.ports import Ports
from d2m_node.roles.rooms import OVER
from d2m_node.roles.seat import Seat
from d2m_node.roles.turns import Turn, take_turn
from protocol.deposits import DepositStatus
from protocol.digest import RoundHeader, add_credits
from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.types import Address, BlockNumber, JobId, Wei

log = structlog.get_logger(__name__)

PAUSE_BLOCKS = 10


def list_credits(job: JobState) -> tuple[tuple[Address, int], ...]:
    """Return (payee, accepted rounds) of each seller; empty if no round was decided."""
    if not job.decided_rounds:
        return ()
    weights: tuple[int, ...] = (0,) * len(job.sellers)
    for one in job.decided_rounds:
        weights = add_credits(weights, RoundHeader.decode(one.header).accepted)
    accounts = (seller.account for seller in job.sellers)
    return tuple(zip(accounts, weights, strict=True))


async def settle_in_turn(seat: Seat) -> None:
    """See the job settled; this node sends the settlement if it has the turn."""
    await seat.ports.chain.wait_for(
        lambda _: True if seat.job.ended is not None or seat.job.phase in OVER else None
    )
    if seat.job.ended is None:
        return

    async def act() -> None:
        ended = seat.job.ended
        assert ended is not None
        # The contract's way out if nobody can open the credit root: no leaves, much later.
        is_stuck = seat.head > ended.final_block + seat.ports.chain.params.max_window_blocks
        leaves = () if is_stuck else list_credits(seat.job)
        call = SettleJob(job=seat.job_id, terms=seat.terms, leaves=leaves)
        await seat.ports.chain.submit(call, key=f"settle/{seat.job_id}/{seat.head}")

    await take_turn(
        seat.ports.chain,
        Turn(seat.job.ended.final_block, seat.rank(2), len(seat.pool)),
        is_done=lambda: seat.job.phase is JobPhase.SETTLED,
        act=act,
    )


async def run_payday(ports: Ports) -> None:
    """Pull whatever this account is owed, for as long as the node runs.

    It looks at the chain alone, so what was credited while the node was down is pulled too.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_claim_payouts, ports)
        nursery.start_soon(_release_stakes, ports)
        nursery.start_soon(_reclaim_deposits, ports)


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
            if amount_wei > 0 and state.jobs[job_id].phase in OVER:
                return job_id
        return None

    while True:
        job_id = await ports.chain.wait_for(find_job)
        call = ReleaseStake(job=job_id, account=me)
        await _try(ports, call, f"release-stake/{job_id}")


async def _reclaim_deposits(ports: Ports) -> None:
    me = ports.signer.address

    def find_job(state: MarketState) -> JobId | None:
        for job_id, job in state.jobs.items():
            deposit = job.deposits.get(me)
            is_held = deposit is not None and deposit.status is DepositStatus.HELD
            if is_held and job.phase in OVER:
                return job_id
        return None

    while True:
        job_id = await ports.chain.wait_for(find_job)
        await _try(ports, ReclaimDeposit(job=job_id), f"reclaim-deposit/{job_id}")
