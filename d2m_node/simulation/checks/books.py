"""Where the market's ether must lie, by the fold of its events: one sum per contract.

Source: MECHANISM 14; the same sums that the contracts' own tests take from the contracts.
"""

from protocol.course import list_participation
from protocol.deposits import DepositStatus
from protocol.events import SharesOpened
from protocol.job import JobPhase, JobState
from protocol.market import MarketState
from protocol.settlement import Outcome, PayeeRole, compute_access_cap
from protocol.shares import list_credits
from protocol.types import NO_ACCOUNT, Wei

SHARED_ROLES = (PayeeRole.CONE, PayeeRole.SELLER)


def compute_holdings(state: MarketState) -> dict[str, Wei]:
    """Compute what each contract holds for others, by its name. Jobs are in ether."""
    jobs = tuple(state.jobs.values())
    owed = {
        name: sum(claim.owed_wei for (currency, _), claim in claims.items() if _is_ether(currency))
        for name, claims in (("Settlement", state.payouts), ("Appeals", state.bonds))
    }
    return {
        "Market": Wei(sum(map(_count_market, jobs))),
        "SellerDeposits": Wei(sum(map(_count_deposits, jobs))),
        "Settlement": Wei(owed["Settlement"] + sum(map(_count_shares, jobs))),
        "Appeals": Wei(owed["Appeals"] + sum(_count_bond(job) for job in jobs)),
        "StakePool": Wei(
            sum(
                stake.free_wei
                + sum(stake.locked_wei.values())
                + stake.unbonding_wei
                + stake.reward_wei
                for stake in state.stakes.values()
            )
        ),
    }


def _is_ether(currency: bytes) -> bool:
    return currency == NO_ACCOUNT


def _count_market(job: JobState) -> int:
    """Count bids that nobody took back, and the price while it is in escrow."""
    held = sum(bid.deposit_wei for bid in job.bids.values() if not bid.reclaimed)
    if job.buyer is None:
        return held
    is_escrowed = job.phase is not JobPhase.SETTLED and not job.escrow_reclaimed
    # The price was part of the winner's deposit; what is over is there until it is taken back.
    of_winner = 0 if job.bids[job.buyer].reclaimed else job.price_wei
    return held - of_winner + (job.price_wei if is_escrowed else 0)


def _count_deposits(job: JobState) -> int:
    held = (one for one in job.deposits.values() if one.status is DepositStatus.HELD)
    return sum(one.amount_wei for one in held)


def _count_shares(job: JobState) -> int:
    """Count what members of a job with many payees did not claim yet."""
    if job.shares is None or job.shares_swept:
        return 0
    claimed = sum(one.amount_wei for one in job.payouts if one.role in SHARED_ROLES)
    return _sum_cone_shares(job, job.shares) + _sum_seller_shares(job, job.shares) - claimed


def _sum_cone_shares(job: JobState, shares: SharesOpened) -> int:
    """Sum up the shares as they are paid, each rounded down; the rest is the buyer's."""
    assert job.course is not None, "a job that is settled has a course"
    is_unserved = job.ended is not None and job.ended.outcome == Outcome.UNSERVED
    counts = list_participation(job.course, len(job.cones))
    return _sum_parts(shares.cone_pool_wei, (1,) * len(counts) if is_unserved else counts, None)


def _sum_seller_shares(job: JobState, shares: SharesOpened) -> int:
    assert job.terms is not None, "a job that is settled has terms"
    assert job.settled is not None, "shares are opened by a settlement"
    weights = tuple(weight for _, weight in list_credits(job)) or (1,) * len(job.sellers)
    rounds = job.settled.rounds_done
    cap = compute_access_cap(job.terms.sellers_per_round, rounds, len(weights))
    return _sum_parts(shares.seller_pool_wei, weights, cap)


def _sum_parts(pool_wei: int, weights: tuple[int, ...], cap: int | None) -> int:
    total = sum(weights)
    paid = (weight if cap is None else min(weight, cap) for weight in weights)
    return sum(pool_wei * one // total for one in paid) if total else 0


def _count_bond(job: JobState) -> int:
    return 0 if job.appeal is None else job.appeal.bond_wei
