"""Who is paid what when a job ends, to the wei. Source: MECHANISM 14."""

from dataclasses import dataclass
from enum import IntEnum

from protocol.params import BPS
from protocol.types import UtilityQ20, Wei

MIN_PAID_PROGRESS_BPS = 1000
"""Below a tenth of the way the floor is not paid: it would reward noise."""

ACCESS_CAP_FACTOR = 3
"""Nobody is paid for more than three times an equal share of the accesses."""


class Outcome(IntEnum):
    """How training ended; the number stands in the event TrainingEnded."""

    TARGET = 1
    ENDED = 2
    ABORTED = 3
    UNSERVED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementInputs:
    """Everything a settlement depends on; all of it is on the chain."""

    price_wei: Wei
    outcome: Outcome
    cone_bps: int
    floor_bps: int
    rounds_max: int
    rounds_done: int
    sellers_per_round: int
    target: UtilityQ20
    initial_utility: UtilityQ20
    last_utility: UtilityQ20
    participation_counts: tuple[int, ...]
    """Per CONE node of the pool: ballots decided with its vote."""
    contribution_weights: tuple[int, ...]
    """Per enrolled seller: rounds in which it was accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """Payouts by index. Their sum and the refund are the price."""

    cone_pool_wei: Wei
    seller_pool_wei: Wei
    cone_payouts_wei: tuple[Wei, ...]
    seller_payouts_wei: tuple[Wei, ...]
    refund_wei: Wei


def compute_settlement(inputs: SettlementInputs) -> Settlement:
    """Split the price of a job; what nobody earned returns to the buyer.

    Source: MECHANISM 14.
    """
    cone_share = inputs.price_wei * inputs.cone_bps // BPS
    seller_share = inputs.price_wei - cone_share
    if inputs.outcome is Outcome.UNSERVED:
        return _settle_unserved(inputs, cone_share)
    if inputs.outcome is not Outcome.TARGET:
        cone_share = cone_share * inputs.rounds_done // inputs.rounds_max
        seller_share = seller_share * _compute_paid_bps(inputs) // BPS
    if inputs.rounds_done == 0:
        cone_share = seller_share = 0
    cones = _split(cone_share, inputs.participation_counts, inputs.participation_counts)
    sellers = _split(seller_share, _cap_weights(inputs), inputs.contribution_weights)
    return _close(inputs, cone_share, seller_share, cones, sellers)


def compute_progress_bps(target: int, initial_utility: int, last_utility: int) -> int:
    """Compute how far the utility came on its way to the target, 0 to 10000."""
    if target <= initial_utility:
        return BPS
    progress = BPS * (last_utility - initial_utility) // (target - initial_utility)
    return max(0, min(progress, BPS))


def _compute_paid_bps(inputs: SettlementInputs) -> int:
    progress = compute_progress_bps(inputs.target, inputs.initial_utility, inputs.last_utility)
    if progress < MIN_PAID_PROGRESS_BPS:
        return progress
    return max(progress, inputs.floor_bps * inputs.rounds_done // inputs.rounds_max)


def _cap_weights(inputs: SettlementInputs) -> tuple[int, ...]:
    """Cap the paid accesses at ceil(3 K rounds / M); the sum they are divided by is uncapped."""
    count = max(1, len(inputs.contribution_weights))
    accesses = ACCESS_CAP_FACTOR * inputs.sellers_per_round * inputs.rounds_done
    cap = -(-accesses // count)
    return tuple(min(weight, cap) for weight in inputs.contribution_weights)


def _settle_unserved(inputs: SettlementInputs, cone_share: int) -> Settlement:
    """Pay each enrolled CONE node its part of one round: the buyer did not serve its data."""
    pool = cone_share // inputs.rounds_max
    count = len(inputs.participation_counts)
    cones = tuple(Wei(pool // count) for _ in range(count))
    sellers = tuple(Wei(0) for _ in inputs.contribution_weights)
    return _close(inputs, pool, 0, cones, sellers)


def _split(pool: int, paid: tuple[int, ...], weights: tuple[int, ...]) -> tuple[Wei, ...]:
    total = sum(weights)
    return tuple(Wei(pool * weight // total if total else 0) for weight in paid)


def _close(
    inputs: SettlementInputs,
    cone_pool: int,
    seller_pool: int,
    cones: tuple[Wei, ...],
    sellers: tuple[Wei, ...],
) -> Settlement:
    return Settlement(
        cone_pool_wei=Wei(cone_pool),
        seller_pool_wei=Wei(seller_pool),
        cone_payouts_wei=cones,
        seller_payouts_wei=sellers,
        refund_wei=Wei(inputs.price_wei - sum(cones) - sum(sellers)),
    )
