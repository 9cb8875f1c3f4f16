"""Each account pulls what is its own: the exits that contracts have for its money."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from d2m_node.calls import (
    ClaimConeShare,
    ClaimPayout,
    ClaimSellerShare,
    ContractCall,
    ReclaimBid,
    ReclaimDeposit,
    ReclaimEscrow,
    ReleaseStake,
    WithdrawBond,
    WithdrawStake,
)
from d2m_node.errors import TransactionReverted, TransientError
from d2m_node.ports import Ports
from protocol.claims import Claims
from protocol.exits import holds_bid, holds_deposit, holds_escrow, holds_stake
from protocol.market import MarketState
from protocol.shares import find_cone_share, find_seller_share
from protocol.stakes import Stake
from protocol.types import Address

log = structlog.get_logger(__name__)

PAUSE_BLOCKS: Final = 10


@dataclass(frozen=True, slots=True)
class Exit:
    """A call that brings money home."""

    call: ContractCall
    key: str
    """Names which money: the chain port sends a key once, across restarts too."""


async def run_payday(ports: Ports) -> None:
    """Pull whatever this account is owed, for as long as the node runs.

    It looks at the chain alone, so what was credited while the node was down is pulled too, and
    what a job that failed at this node left behind. Kinds of money do not wait for each other.
    """
    async with trio.open_nursery() as nursery:
        for find in EXITS:
            nursery.start_soon(_pull, ports, find)


async def _pull(ports: Ports, find: Callable[[MarketState, Address], Exit | None]) -> None:
    """Take one kind of money out, exit by exit."""
    me = ports.signer.address
    while True:
        found = await ports.chain.wait_for(lambda state: find(state, me))
        try:
            await ports.chain.submit(found.call, key=found.key)
        except (TransactionReverted, TransientError) as refusal:
            # Anyone may have taken this exit for us, or there is no money for gas.
            log.info("payday_refused", key=found.key, reason=str(refusal))
        await _wait_change(ports, find, found)


async def _wait_change(
    ports: Ports, find: Callable[[MarketState, Address], Exit | None], found: Exit
) -> None:
    """Return when an exit is not the next one any more, or when it is time to try again."""
    me = ports.signer.address
    last_block = ports.chain.state.block_number + PAUSE_BLOCKS
    await ports.chain.wait_for(
        lambda state: state.block_number >= last_block or find(state, me) != found or None
    )


def find_payout(state: MarketState, account: Address) -> Exit | None:
    """Find what settlements credited, in any currency."""
    owed = _find_claim(state.payouts, account)
    if owed is None:
        return None
    currency, withdrawn_wei = owed
    key = f"claim/{currency.hex()}/{withdrawn_wei}"
    return Exit(ClaimPayout(currency=currency), key)


def find_bond(state: MarketState, account: Address) -> Exit | None:
    """Find a bond that came back, or parts of others' bonds, in any currency."""
    owed = _find_claim(state.bonds, account)
    if owed is None:
        return None
    currency, withdrawn_wei = owed
    key = f"withdraw-bond/{currency.hex()}/{withdrawn_wei}"
    return Exit(WithdrawBond(currency=currency), key)


def _find_claim(claims: Claims, account: Address) -> tuple[Address, int] | None:
    """Return a currency in which an account is owed something, and what it had of it before."""
    for (currency, payee), claim in claims.items():
        if payee == account and claim.owed_wei > 0:
            return currency, claim.withdrawn_wei
    return None


def find_stake(state: MarketState, account: Address) -> Exit | None:
    """Find rewards of slashes, and stake whose unbonding is over."""
    stake = state.stakes.get(account, Stake())
    if stake.withdrawable_wei(state.block_number) == 0:
        return None
    return Exit(WithdrawStake(), f"withdraw-stake/{stake.withdrawn_wei}")


def find_lock(state: MarketState, account: Address) -> Exit | None:
    """Find stake that is locked for a job which does not need it any more."""
    for job_id in state.stakes.get(account, Stake()).locked_wei:
        job = state.jobs.get(job_id)
        if job is not None and holds_stake(state, job, account):
            return Exit(ReleaseStake(job=job_id, account=account), f"release-stake/{job_id}")
    return None


def find_deposit(state: MarketState, account: Address) -> Exit | None:
    """Find a seller's deposit that its job does not need any more."""
    for job in state.jobs.values():
        if holds_deposit(job, account):
            return Exit(ReclaimDeposit(job=job.job_id), f"reclaim-deposit/{job.job_id}")
    return None


def find_bid(state: MarketState, account: Address) -> Exit | None:
    """Find a bid of which an auction keeps more than it needs."""
    for job in state.jobs.values():
        if holds_bid(job, account, state.block_number):
            return Exit(ReclaimBid(auction=job.job_id), f"reclaim-bid/{job.job_id}")
    return None


def find_escrow(state: MarketState, account: Address) -> Exit | None:
    """Find the price of a job that was cancelled."""
    for job in state.jobs.values():
        if holds_escrow(job, account):
            return Exit(ReclaimEscrow(job=job.job_id), f"reclaim-escrow/{job.job_id}")
    return None


def find_cone_claim(state: MarketState, account: Address) -> Exit | None:
    """Find the share of a CONE node in a job with many payees."""
    for job in state.jobs.values():
        share = find_cone_share(job, account)
        if share is not None:
            call = ClaimConeShare(job=job.job_id, index=share.index)
            return Exit(call, f"claim-cone-share/{job.job_id}")
    return None


def find_seller_claim(state: MarketState, account: Address) -> Exit | None:
    """Find the share of a seller in a job with many payees."""
    for job in state.jobs.values():
        share = find_seller_share(job, account)
        if share is not None:
            call = ClaimSellerShare(
                job=job.job_id, index=share.index, v=share.weight, proof=share.proof
            )
            return Exit(call, f"claim-seller-share/{job.job_id}")
    return None


EXITS: Final = (
    find_payout,
    find_bond,
    find_stake,
    find_lock,
    find_deposit,
    find_bid,
    find_escrow,
    find_cone_claim,
    find_seller_claim,
)
"""Each finds what an account can pull of one kind of money."""
