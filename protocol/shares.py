"""What a member of a job with many payees can claim, and the proof that it needs.

Source: MECHANISM 9.3, 14. The contract's side is `contracts/modules/shares.vy`.
"""

from dataclasses import dataclass

from protocol.course import list_participation
from protocol.digest import RoundHeader, add_credits, compute_credit_leaf
from protocol.job import JobState
from protocol.merkle import compute_proof, compute_root
from protocol.settlement import Outcome, PayeeRole, compute_access_cap
from protocol.types import NO_DIGEST, Address, Digest, Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One member's share of a pool."""

    index: int
    weight: int
    proof: tuple[Digest, ...]
    """Of a seller's weight; empty for a CONE node, and if the sellers share equally."""
    amount_wei: Wei


def list_credits(job: JobState) -> tuple[tuple[Address, int], ...]:
    """Return (payee, accepted rounds) of each seller; empty if no round was decided."""
    if not job.decided_rounds:
        return ()
    weights: tuple[int, ...] = (0,) * len(job.sellers)
    for one in job.decided_rounds:
        weights = add_credits(weights, RoundHeader.decode(one.header).accepted)
    accounts = (seller.account for seller in job.sellers)
    return tuple(zip(accounts, weights, strict=True))


def find_cone_share(job: JobState, account: Address) -> Share | None:
    """Find what a CONE node can still claim of a settled job; None if that is nothing."""
    index = job.cone_index(account)
    if job.shares is None or index is None or not _is_open(job, PayeeRole.CONE, index):
        return None
    counts = (1,) * len(job.cones)
    if job.ended is not None and job.ended.outcome != Outcome.UNSERVED:
        assert job.course is not None, "a job that was trained has a course"
        counts = list_participation(job.course, len(job.cones))
    amount_wei = _share(job.shares.cone_pool_wei, counts[index], sum(counts))
    if amount_wei == 0:
        return None
    return Share(index=index, weight=counts[index], proof=(), amount_wei=amount_wei)


def find_seller_share(job: JobState, account: Address) -> Share | None:
    """Find what a seller can still claim of a settled job; None if that is nothing.

    Nothing too if the credits of the decided headers are not those behind the root: then nobody
    has a proof.
    """
    index = job.seller_index(account)
    if job.shares is None or index is None or not _is_open(job, PayeeRole.SELLER, index):
        return None
    weights: tuple[int, ...] = (1,) * len(job.sellers)
    proof: tuple[Digest, ...] = ()
    if job.shares.credit_root != NO_DIGEST:
        credits = list_credits(job)
        leaves = [compute_credit_leaf(i, payee, v) for i, (payee, v) in enumerate(credits)]
        if compute_root(leaves) != job.shares.credit_root:
            return None
        weights, proof = tuple(v for _, v in credits), compute_proof(leaves, index)
    assert job.terms is not None, "a settled job has terms"
    assert job.settled is not None, "shares are opened by a settlement"
    cap = compute_access_cap(job.terms.sellers_per_round, job.settled.rounds_done, len(job.sellers))
    paid = min(weights[index], cap)
    amount_wei = _share(job.shares.seller_pool_wei, paid, sum(weights))
    if amount_wei == 0:
        return None
    return Share(index=index, weight=weights[index], proof=proof, amount_wei=amount_wei)


def _is_open(job: JobState, role: PayeeRole, index: int) -> bool:
    """Tell whether a share was neither paid nor swept."""
    is_paid = any(one.role == role and one.index == index for one in job.payouts)
    return not (is_paid or job.shares_swept)


def _share(pool_wei: Wei, part: int, total: int) -> Wei:
    return Wei(pool_wei * part // total if total else 0)
