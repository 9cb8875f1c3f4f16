"""Who is paid what when a job ends, to the wei. Source: MECHANISM 14."""

from dataclasses import dataclass
from enum import IntEnum

from protocol.params import BPS
from protocol.types import UtilityQ20, Wei

MIN_PAID_PROGRESS_BPS = 1000
"""Below a tenth of the way the floor is not paid: it would reward noise."""

ACCESS_CAP_FACTOR = 3
"""Nobody is paid for more than three times an equal share of the accesses."""

MAX_PRICE_WEI = (1 << 128) - 1
"""No product of a price below overflows in the contracts."""

MAX_CREDITED = 20
"""Payees of a job that are credited when it is settled; with more of them, each claims."""


class Outcome(IntEnum):
    """How training ended; the number stands in the event TrainingEnded."""

    TARGET = 1
    ENDED = 2
    ABORTED = 3
    UNSERVED = 4


class PayeeRole(IntEnum):
    """As what an account is paid; the number stands in the event PayoutCredited."""

    CONE = 1
    SELLER = 2
    BUYER = 3
    BATCHER = 4
    """A CONE node, for the gas of the batches it sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementInputs:
    """Everything a settlement depends on; all of it is on the chain."""

    price_wei: Wei
    outcome: Outcome
    cone_bps: int
    floor_bps: int
    refund_cap_bps: int
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
    spent_wei: tuple[Wei, ...]
    """Per CONE node: what it spent on sending batches for all. Zero in a job that is not in ether,
    as gas is."""

    @property
    def cone_weights(self) -> tuple[int, ...]:
        """What the CONE nodes' shares are computed from: one for each if nobody could vote."""
        if self.outcome is Outcome.UNSERVED:
            return (1,) * len(self.participation_counts)
        return self.participation_counts

    @property
    def access_cap(self) -> int:
        """Most accesses that one seller is paid for."""
        count = max(1, len(self.contribution_weights))
        return compute_access_cap(self.sellers_per_round, self.rounds_done, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """Payouts by index. Their sum, with the refunds of batches and the buyer's, is the price."""

    cone_pool_wei: Wei
    """Before the refunds of batches are taken out of it."""
    seller_pool_wei: Wei
    batch_refunds_wei: tuple[Wei, ...]
    """Per CONE node: for what it spent on batches."""
    cone_payouts_wei: tuple[Wei, ...]
    seller_payouts_wei: tuple[Wei, ...]
    refund_wei: Wei


def compute_settlement(inputs: SettlementInputs) -> Settlement:
    """Split the price of a job; what nobody earned returns to the buyer.

    Source: MECHANISM 14.
    """
    cone_pool, seller_pool = _compute_pools(inputs)
    refunds = compute_batch_refunds(inputs.spent_wei, compute_refund_cap(inputs, cone_pool))
    weights = inputs.contribution_weights
    paid_accesses = tuple(min(weight, inputs.access_cap) for weight in weights)
    cones = _split(cone_pool - sum(refunds), inputs.cone_weights, inputs.cone_weights)
    sellers = _split(seller_pool, paid_accesses, weights)
    return Settlement(
        cone_pool_wei=Wei(cone_pool),
        seller_pool_wei=Wei(seller_pool),
        batch_refunds_wei=refunds,
        cone_payouts_wei=cones,
        seller_payouts_wei=sellers,
        refund_wei=Wei(inputs.price_wei - sum(refunds) - sum(cones) - sum(sellers)),
    )


def compute_progress_bps(target: int, initial_utility: int, last_utility: int) -> int:
    """Compute how far the utility came on its way to the target, 0 to 10000."""
    if target <= initial_utility:
        return BPS
    progress = BPS * (last_utility - initial_utility) // (target - initial_utility)
    return max(0, min(progress, BPS))


def compute_access_cap(sellers_per_round: int, rounds_done: int, seller_count: int) -> int:
    """Compute the most accesses that one seller is paid for: three times those of an equal split,
    rounded up.

    Source: MECHANISM 14.
    """
    return -(-ACCESS_CAP_FACTOR * sellers_per_round * rounds_done // seller_count)


def compute_refund_cap(inputs: SettlementInputs, cone_pool_wei: int) -> Wei:
    """Compute the most that is refunded for batches: a part of the CONE nodes' share of the price,
    for the rounds done, and never more than their pool.

    Source: MECHANISM 9.2, 14.
    """
    share = inputs.price_wei * inputs.cone_bps // BPS
    cap = share * inputs.refund_cap_bps // BPS * inputs.rounds_done // inputs.rounds_max
    return Wei(min(cap, cone_pool_wei))


def compute_batch_refunds(spent_wei: tuple[Wei, ...], cap_wei: Wei) -> tuple[Wei, ...]:
    """Refund what each CONE node spent on batches, or its part of the cap, rounded down."""
    total = sum(spent_wei)
    if total <= cap_wei:
        return spent_wei
    return tuple(Wei(cap_wei * spent // total) for spent in spent_wei)


def _compute_pools(inputs: SettlementInputs) -> tuple[int, int]:
    """Find what CONE nodes and sellers share after rounds done and progress made."""
    cone_share = inputs.price_wei * inputs.cone_bps // BPS
    seller_share = inputs.price_wei - cone_share
    if inputs.outcome is Outcome.UNSERVED:
        # One round's pay for having been ready: the buyer did not serve its data.
        return cone_share // inputs.rounds_max, 0
    if inputs.rounds_done == 0:
        return 0, 0
    if inputs.outcome is Outcome.TARGET:
        return cone_share, seller_share
    return (
        cone_share * inputs.rounds_done // inputs.rounds_max,
        seller_share * compute_paid_bps(inputs) // BPS,
    )


def compute_paid_bps(inputs: SettlementInputs) -> int:
    """Compute the part of the sellers' pool that a job without its target pays, in 1/10000.

    The progress, or the floor of the rounds done where the progress is more than noise.
    """
    progress = compute_progress_bps(inputs.target, inputs.initial_utility, inputs.last_utility)
    if progress < MIN_PAID_PROGRESS_BPS:
        return progress
    return max(progress, inputs.floor_bps * inputs.rounds_done // inputs.rounds_max)


def _split(pool: int, paid: tuple[int, ...], weights: tuple[int, ...]) -> tuple[Wei, ...]:
    total = sum(weights)
    return tuple(Wei(pool * weight // total if total else 0) for weight in paid)
