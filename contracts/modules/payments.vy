#pragma version 0.4.3
"""
@title How a price is split
@license Apache-2.0
@notice The arithmetic of MECHANISM 14. Every division rounds down; the buyer gets the rest.
"""

from interfaces import IRounds
from modules import limits
from modules import params as deployment
from modules import terms as job_terms

OUTCOME_TARGET: constant(uint256) = 1
OUTCOME_ENDED: constant(uint256) = 2
OUTCOME_ABORTED: constant(uint256) = 3
OUTCOME_UNSERVED: constant(uint256) = 4
# Below a tenth of the way to the target, progress may be noise: no floor is paid.
FLOOR_PROGRESS: constant(uint256) = 1000
# A seller is paid for at most this many times the accesses of an equal split.
ACCESS_FACTOR: constant(uint256) = 3
# No product of a price below overflows, so no settlement can fail for its size.
MAX_PRICE: constant(uint256) = 2**128 - 1


struct Pools:
    cone_wei: uint256
    seller_wei: uint256


@internal
@pure
def _pools(
    price_wei: uint256,
    terms: job_terms.JobTerms,
    params: deployment.Params,
    result: IRounds.TrainingResult,
) -> Pools:
    """
    @notice What CONE nodes and sellers share.
    @param price_wei Price of the job.
    @param terms Terms of the job.
    @param params Parameters of the deployment.
    @param result How the training ended.
    @return Both pools after rounds done and progress made.
    """
    cone_wei: uint256 = price_wei * params.cone_bps // limits.BPS
    seller_wei: uint256 = price_wei - cone_wei
    if result.outcome == OUTCOME_UNSERVED:
        return Pools(cone_wei=cone_wei // terms.rounds_max, seller_wei=0)
    if result.rounds_done == 0:
        return empty(Pools)
    if result.outcome == OUTCOME_TARGET:
        return Pools(cone_wei=cone_wei, seller_wei=seller_wei)

    paid_bps: uint256 = self._progress_bps(
        terms.target, result.initial_utility, result.last_utility
    )
    if paid_bps >= FLOOR_PROGRESS:
        floor_bps: uint256 = params.floor_bps * result.rounds_done // terms.rounds_max
        paid_bps = max(paid_bps, floor_bps)
    return Pools(
        cone_wei=cone_wei * result.rounds_done // terms.rounds_max,
        seller_wei=seller_wei * paid_bps // limits.BPS,
    )


@internal
@pure
def _refund_cap(
    price_wei: uint256,
    rounds_max: uint256,
    params: deployment.Params,
    rounds_done: uint256,
    cone_wei: uint256,
) -> uint256:
    """
    @notice Most that is refunded for batches, taken out of the CONE nodes' pool.
    @param price_wei Price of the job.
    @param rounds_max Rounds that the terms allow.
    @param params Parameters of the deployment.
    @param rounds_done Decided rounds.
    @param cone_wei The CONE nodes' pool.
    @return The deployment's part of their share of the price, for the rounds done.
    """
    whole_wei: uint256 = price_wei * params.cone_bps // limits.BPS
    cap_wei: uint256 = whole_wei * params.refund_cap_bps // limits.BPS
    return min(cap_wei * rounds_done // rounds_max, cone_wei)


@internal
@pure
def _refund(spent_wei: uint256, total_wei: uint256, cap_wei: uint256) -> uint256:
    """
    @notice What a node gets back for its batches.
    @param spent_wei What it spent.
    @param total_wei What all nodes spent.
    @param cap_wei Most that all nodes get.
    @return What it spent, or its part of the cap, rounded down.
    """
    if total_wei <= cap_wei:
        return spent_wei
    return cap_wei * spent_wei // total_wei


@internal
@pure
def _cone_weights(result: IRounds.TrainingResult) -> DynArray[uint256, limits.MAX_CONES]:
    """
    @notice What the CONE nodes' shares are computed from.
    @param result How the training ended.
    @return Per node the ballots decided with its vote; one for each if nobody could vote.
    """
    if result.outcome != OUTCOME_UNSERVED:
        return result.participation
    # One round's pay for having been ready, for each alike.
    ready: DynArray[uint256, limits.MAX_CONES] = []
    for _: uint256 in result.participation:
        ready.append(1)
    return ready


@internal
@pure
def _progress_bps(target: int256, initial_utility: int256, last_utility: int256) -> uint256:
    """
    @notice Part of the way to the target that was made.
    @param target Utility that the buyer asked for.
    @param initial_utility Utility of the first model.
    @param last_utility Utility of the last model.
    @return The part in 1/10000, from 0 to 10000.
    """
    if target <= initial_utility or last_utility >= target:
        return limits.BPS
    if last_utility <= initial_utility:
        return 0
    gained: uint256 = convert(last_utility - initial_utility, uint256)
    wanted: uint256 = convert(target - initial_utility, uint256)
    return limits.BPS * gained // wanted


@internal
@pure
def _access_cap(sellers_per_round: uint256, rounds_done: uint256, sellers: uint256) -> uint256:
    """
    @notice Most accesses that one seller is paid for.
    @param sellers_per_round Sellers sampled per round.
    @param rounds_done Decided rounds.
    @param sellers Sellers of the job, at least one.
    @return Three times the accesses of an equal split, rounded up.
    """
    return (ACCESS_FACTOR * sellers_per_round * rounds_done + sellers - 1) // sellers


@internal
@pure
def _share(pool_wei: uint256, part: uint256, total: uint256) -> uint256:
    """
    @notice One payee's share.
    @param pool_wei What is shared.
    @param part The payee's weight.
    @param total Sum of all weights.
    @return The share, rounded down; zero if nobody has a weight.
    """
    if total == 0:
        return 0
    return pool_wei * part // total


@internal
@pure
def _deposit_range(
    price_wei: uint256, sellers_min: uint256, params: deployment.Params
) -> (uint256, uint256):
    """
    @notice What a job of this price may ask of a seller as its deposit.
    @dev At least what the floor could pay one seller for nothing, at most an equal share of the
         sellers' pool: a seller that enrols by itself must not be lured into risking more than it
         can earn. Both are of the fewest sellers the job may have, rounded up.
    @param price_wei Price of the job.
    @param sellers_min Fewest sellers of the job, at least one.
    @param params Parameters of the deployment.
    @return Smallest and largest deposit, in wei.
    """
    assert price_wei <= MAX_PRICE, "payments: price out of range"
    seller_wei: uint256 = price_wei - price_wei * params.cone_bps // limits.BPS
    parts: uint256 = limits.BPS * sellers_min
    least_wei: uint256 = (seller_wei * params.floor_bps + parts - 1) // parts
    most_wei: uint256 = (seller_wei + sellers_min - 1) // sellers_min
    return max(least_wei, 1), max(most_wei, 1)


@internal
@pure
def _seller_deposit(
    price_wei: uint256, terms: job_terms.JobTerms, params: deployment.Params
) -> uint256:
    """
    @notice What each seller of a job puts up.
    @dev The terms were checked against the amount of the bid. The price of a second-price auction
         may be lower, and a seller must not be asked for more than it can earn.
    @param price_wei Price of the job.
    @param terms Terms of the job.
    @param params Parameters of the deployment.
    @return The deposit of the terms, or the largest one that the price allows if that is less.
    """
    _: uint256 = 0
    most_wei: uint256 = 0
    _, most_wei = self._deposit_range(price_wei, terms.sellers_min, params)
    return min(terms.seller_deposit_wei, most_wei)


@internal
@pure
def _is_forfeit(result: IRounds.TrainingResult) -> bool:
    """
    @notice Whether the sellers that were accepted lose their deposits.
    @dev A model at its target is what the buyer asked for, however it began. Utilities that were
         not measured on the same samples prove nothing.
    @param result How the training ended.
    @return True if their updates left the model no better than it was.
    """
    return (
        (result.outcome == OUTCOME_ENDED or result.outcome == OUTCOME_ABORTED)
        and result.rounds_done > 0
        and result.is_final_evaluated
        and result.last_utility <= result.initial_utility
    )
