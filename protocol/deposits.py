"""What a seller puts up when it enrols, and what becomes of it. Source: MECHANISM 2, 6, 14."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from protocol.errors import InvalidParams
from protocol.events import (
    DepositEvent,
    DepositForfeited,
    DepositReturned,
    EquivocationProved,
    SellerDeposited,
)
from protocol.params import BPS, ProtocolParams
from protocol.settlement import Outcome
from protocol.terms import JobTerms
from protocol.types import Address, Wei


class DepositStatus(Enum):
    """Where a seller's deposit is."""

    HELD = "held"
    RETURNED = "returned"
    FORFEITED = "forfeited"
    """Burned: the seller was accepted into a model that ended no better than it began."""
    EQUIVOCATED = "equivocated"
    """Burned: the seller signed two commitments for one round."""


@dataclass(frozen=True, slots=True)
class SellerDeposit:
    """One seller's deposit for one job."""

    amount_wei: Wei
    status: DepositStatus


def compute_deposit_range(
    price_wei: Wei, sellers_min: int, params: ProtocolParams
) -> tuple[Wei, Wei]:
    """Find what a job of this price may ask of each seller, smallest and largest.

    At least what the floor could pay one seller for nothing; at most an equal share of the
    sellers' pool, because a seller that enrols by itself must not be lured into risking more than
    it can earn. Both are of the fewest sellers the job may have, rounded up, and at least 1 wei.

    Source: MECHANISM 14; the upper end is this market's own.
    """
    pool_wei = price_wei - price_wei * params.cone_bps // BPS
    least_wei = -(-pool_wei * params.floor_bps // (BPS * sellers_min))
    most_wei = -(-pool_wei // sellers_min)
    return Wei(max(least_wei, 1)), Wei(max(most_wei, 1))


def validate_seller_deposit(terms: JobTerms, price_wei: Wei, params: ProtocolParams) -> None:
    """Check the deposit of a job's terms against its price, as the contract does at the reveal.

    Raises
    ------
    InvalidParams
        If the deposit is outside the range of this price.
    """
    least_wei, most_wei = compute_deposit_range(price_wei, terms.sellers_min, params)
    deposit_wei = terms.seller_deposit_wei
    if deposit_wei < least_wei:
        reason = f"is {deposit_wei}; a bid of {price_wei} wei needs at least {least_wei}"
        raise InvalidParams("seller_deposit_wei", reason)
    if deposit_wei > most_wei:
        reason = f"is {deposit_wei}; a bid of {price_wei} wei allows at most {most_wei}"
        raise InvalidParams("seller_deposit_wei", reason)


def compute_seller_deposit(terms: JobTerms, price_wei: Wei, params: ProtocolParams) -> Wei:
    """Find what each seller of a job puts up.

    The terms fit the amount of the winning bid. The price of a second-price auction may be lower,
    and a seller must not be asked for more than it can earn.

    Source: MECHANISM 3.1, 14.
    """
    _, most_wei = compute_deposit_range(price_wei, terms.sellers_min, params)
    return min(terms.seller_deposit_wei, most_wei)


def is_forfeit(
    outcome: Outcome,
    rounds_done: int,
    initial_utility: int,
    last_utility: int,
    *,
    is_final_evaluated: bool,
) -> bool:
    """Tell whether the sellers that were accepted lose their deposits.

    They do if their updates left the model no better than it was. A model at its target is what
    the buyer asked for, however it began: nobody forfeits for it. Nobody does either if the two
    utilities are not of one final evaluation: measured on other samples they prove nothing.

    Source: MECHANISM 14.
    """
    return (
        outcome in (Outcome.ENDED, Outcome.ABORTED)
        and rounds_done > 0
        and is_final_evaluated
        and last_utility <= initial_utility
    )


def apply_deposit_event(
    deposits: Mapping[Address, SellerDeposit], event: DepositEvent
) -> Mapping[Address, SellerDeposit]:
    """Fold one event into a job's deposits, by seller."""
    match event:
        case SellerDeposited():
            deposit = SellerDeposit(event.amount_wei, DepositStatus.HELD)
        case DepositReturned():
            deposit = replace(deposits[event.seller], status=DepositStatus.RETURNED)
        case DepositForfeited():
            deposit = replace(deposits[event.seller], status=DepositStatus.FORFEITED)
        case EquivocationProved():
            deposit = replace(deposits[event.seller], status=DepositStatus.EQUIVOCATED)
    return {**deposits, event.seller: deposit}
