"""The end of a job: settled by whoever has the turn, pulled by each payee for itself."""

from d2m_node.calls import ClaimPayout, ReleaseStake, SettleJob
from d2m_node.ports import Ports
from d2m_node.roles.rooms import OVER
from d2m_node.roles.seat import Seat
from d2m_node.roles.turns import Turn, take_turn
from protocol.digest import RoundHeader, add_credits
from protocol.job import JobPhase, JobState
from protocol.types import Address, JobId


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
        call = SettleJob(job=seat.job_id, terms=seat.terms, leaves=list_credits(seat.job))
        await seat.ports.chain.submit(call, key=f"settle/{seat.job_id}/{seat.head}")

    await take_turn(
        seat.ports.chain,
        Turn(seat.job.ended.final_block, seat.rank(2), len(seat.pool)),
        is_done=lambda: seat.job.phase is JobPhase.SETTLED,
        act=act,
    )


async def collect_pay(ports: Ports, job_id: JobId) -> None:
    """Claim what a job owes this account, and take back the stake it locked."""
    me = ports.signer.address
    job = ports.chain.state.jobs[job_id]
    if any(payout.payee == me and payout.amount_wei > 0 for payout in job.payouts):
        await ports.chain.submit(ClaimPayout(), key=f"claim/{job_id}")
    stake = ports.chain.state.stakes.get(me)
    if stake is not None and stake.locked_wei.get(job_id, 0) > 0:
        await ports.chain.submit(
            ReleaseStake(job=job_id, account=me), key=f"release-stake/{job_id}"
        )
