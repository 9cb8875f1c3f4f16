#pragma version 0.4.3
#pragma nonreentrancy on
"""
@title Seller deposits
@license Apache-2.0
@notice Holds what the sellers of a job put up when they enrol. A deposit goes back to its seller
        once the job is closed, and is burned if the seller is proved to have signed two
        commitments for one round, or was accepted into a model that ended no better than it began.
@dev balance = sum of all deposits that were neither returned nor burned. Nothing can strand one:
     every job is closed by block numbers alone, and whoever enrolled can then reclaim.
"""

from interfaces import IMarket
from interfaces import ISellerDeposits
from modules import equivocation
from modules import limits
from modules import money

implements: ISellerDeposits

MARKET: immutable(address)
SETTLEMENT: immutable(address)

deposits: HashMap[uint256, HashMap[address, uint256]]


@deploy
def __init__(market: address, settlement: address):
    """
    @notice Fix the other contracts.
    @param market Market, which enrols sellers; its address is in everything that they sign.
    @param settlement Settlement, which knows whose updates were accepted.
    """
    MARKET = market
    SETTLEMENT = settlement


@external
@payable
def deposit(job: uint256, seller: address):
    """
    @notice Keep the deposit of a seller that enrols; the money sent is the deposit.
    @param job Job in enrolment.
    @param seller Account that enrols.
    """
    assert msg.sender == MARKET, "deposits: only the market"
    assert msg.value > 0, "deposits: no deposit"
    assert self.deposits[job][seller] == 0, "deposits: already deposited"

    self.deposits[job][seller] = msg.value
    log ISellerDeposits.SellerDeposited(job=job, seller=seller, amount_wei=msg.value)


@external
def forfeit(job: uint256, sellers: DynArray[address, limits.MAX_SELLERS]):
    """
    @notice Burn the deposits of sellers whose updates left the model no better (MECHANISM 14).
    @dev Who has none any more, by an equivocation say, is passed over.
    @param job Job being settled.
    @param sellers Sellers that were accepted.
    """
    assert msg.sender == SETTLEMENT, "deposits: only the settlement"
    for seller: address in sellers:
        amount_wei: uint256 = self._take(job, seller)
        if amount_wei == 0:
            continue
        log ISellerDeposits.DepositForfeited(job=job, seller=seller, amount_wei=amount_wei)
        money._burn(amount_wei)


@external
def reclaim(job: uint256):
    """
    @notice Pay the caller its deposit back, once nobody needs it any more.
    @param job Cancelled or settled job.
    """
    assert staticcall IMarket(MARKET).is_closed(job), "deposits: job not closed"
    amount_wei: uint256 = self._take(job, msg.sender)
    assert amount_wei > 0, "deposits: nothing deposited"

    log ISellerDeposits.DepositReturned(job=job, seller=msg.sender, amount_wei=amount_wei)
    money._pay(msg.sender, amount_wei)


@external
def report_equivocation(
    job: uint256,
    round_index: uint256,
    seller: address,
    first: ISellerDeposits.SignedCommitment,
    second: ISellerDeposits.SignedCommitment,
):
    """
    @notice Burn the deposit of a seller that signed two different commitments for one round.
            Anyone may call, until the deposit is returned (MECHANISM 6).
    @dev All is burned. A reward for the reporter would be a way out for the seller, which can
         report itself from another account.
    @param job Number of the job.
    @param round_index Round of both commitments.
    @param seller Account that signed both.
    @param first One commitment with its signature.
    @param second The other one.
    """
    amount_wei: uint256 = self._take(job, seller)
    assert amount_wei > 0, "deposits: nothing deposited"
    equivocation._check(MARKET, job, round_index, seller, first, second)

    log ISellerDeposits.EquivocationProved(
        job=job,
        seller=seller,
        round_index=round_index,
        first_commitment=first.commitment,
        second_commitment=second.commitment,
        amount_wei=amount_wei,
    )
    money._burn(amount_wei)


@external
@view
def deposit_of(job: uint256, seller: address) -> uint256:
    """
    @notice What is held for a seller of a job.
    @param job Number of the job.
    @param seller Account that may have enrolled.
    @return Amount, in wei; zero once it was returned or burned.
    """
    return self.deposits[job][seller]


@internal
def _take(job: uint256, seller: address) -> uint256:
    """
    @notice Take a deposit off the books.
    @param job Number of the job.
    @param seller Account that enrolled.
    @return Amount, in wei; zero if there is none.
    """
    amount_wei: uint256 = self.deposits[job][seller]
    self.deposits[job][seller] = 0
    return amount_wei
