#pragma version 0.4.3
#pragma nonreentrancy on
"""
@title Seller deposits
@license Apache-2.0
@notice Holds what the sellers of a job put up when they enrol. A deposit goes back to its seller
        once the job is closed, and is burned if the seller is proved to have signed two
        commitments for one round, or was accepted into a model that ended no better than it began.
@dev balance of a currency = sum of all deposits in it that were neither returned nor burned.
     Nothing can strand one: every job is closed by block numbers alone, and whoever enrolled can
     then reclaim.
"""

from interfaces import IEnrolment
from interfaces import IMarket
from interfaces import ISellerDeposits
from modules import equivocation
from modules import limits
from modules import money
from modules import params as deployment

implements: ISellerDeposits

# A deposit is one word: the amount, and above it whether it is in the token.
TOKEN_FLAG: constant(uint256) = 2**255
# In place of a deposit that evidence burned: no amount, and no room for another deposit.
BURNED: constant(uint256) = TOKEN_FLAG

MARKET: immutable(address)
ENROLMENT: immutable(IEnrolment)
SETTLEMENT: immutable(address)
TOKEN: immutable(address)


struct Deposit:
    currency: address
    amount_wei: uint256


deposits: HashMap[uint256, HashMap[address, uint256]]


@deploy
def __init__(params: deployment.Params, market: address, enrolment: address, settlement: address):
    """
    @notice Fix the parameters and the other contracts.
    @param params Parameters of the deployment.
    @param market Market; its address is in everything that sellers sign.
    @param enrolment Enrolment, where sellers enrol.
    @param settlement Settlement, which knows whose updates were accepted.
    """
    MARKET = market
    ENROLMENT = IEnrolment(enrolment)
    SETTLEMENT = settlement
    TOKEN = params.token


@external
@payable
def deposit(
    job: uint256,
    seller: address,
    currency: address,
    amount_wei: uint256,
    permits: DynArray[money.Permit, 1],
):
    """
    @notice Keep the deposit of a seller that enrols: the ether sent, or its allowance of the token.
    @param job Job in enrolment.
    @param seller Account that enrols.
    @param currency Currency of the job: zero for ether, else the token.
    @param amount_wei Amount of the deposit.
    @param permits At most one permit for the token, signed by the seller.
    """
    assert msg.sender == ENROLMENT.address, "deposits: only the enrolment"
    assert currency == empty(address) or currency == TOKEN, "deposits: not a currency"
    assert amount_wei > 0 and amount_wei < TOKEN_FLAG, "deposits: amount out of range"
    assert self.deposits[job][seller] == 0, "deposits: already deposited"

    flag: uint256 = 0 if currency == empty(address) else TOKEN_FLAG
    self.deposits[job][seller] = amount_wei | flag
    log ISellerDeposits.SellerDeposited(job=job, seller=seller, amount_wei=amount_wei)
    for permit: money.Permit in permits:
        money._permit(currency, seller, permit)
    money._take(currency, seller, amount_wei)


@external
def forfeit(job: uint256, sellers: DynArray[address, limits.MAX_SELLERS]):
    """
    @notice Burn the deposits of sellers whose updates left the model no better (MECHANISM 14).
    @dev Who has none any more, by an equivocation say, is passed over. All deposits of a job are
         in its currency.
    @param job Job being settled.
    @param sellers Sellers that were accepted.
    """
    assert msg.sender == SETTLEMENT, "deposits: only the settlement"
    currency: address = empty(address)
    burned_wei: uint256 = 0
    for seller: address in sellers:
        taken: Deposit = self._take(job, seller)
        if taken.amount_wei == 0:
            continue
        currency = taken.currency
        burned_wei += taken.amount_wei
        log ISellerDeposits.DepositForfeited(
            job=job, seller=seller, amount_wei=taken.amount_wei
        )
    money._burn(currency, burned_wei)


@external
def reclaim(job: uint256):
    """
    @notice Pay the caller its deposit back, once nobody needs it any more.
    @param job Cancelled or settled job, or one whose draw left the caller out.
    """
    assert staticcall IMarket(MARKET).is_closed(job) or staticcall ENROLMENT.is_seller_left_out(
        job, msg.sender
    ), "deposits: job not closed"
    taken: Deposit = self._take(job, msg.sender)
    assert taken.amount_wei > 0, "deposits: nothing deposited"

    log ISellerDeposits.DepositReturned(
        job=job, seller=msg.sender, amount_wei=taken.amount_wei
    )
    money._pay(taken.currency, msg.sender, taken.amount_wei)


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
    taken: Deposit = self._take(job, seller)
    assert taken.amount_wei > 0, "deposits: nothing deposited"
    equivocation._check(MARKET, job, round_index, seller, first, second)
    # Proved during the enrolment, it must not let the seller enrol once more.
    self.deposits[job][seller] = BURNED

    log ISellerDeposits.EquivocationProved(
        job=job,
        seller=seller,
        round_index=round_index,
        first_commitment=first.commitment,
        second_commitment=second.commitment,
        amount_wei=taken.amount_wei,
    )
    money._burn(taken.currency, taken.amount_wei)


@external
@view
def deposit_of(job: uint256, seller: address) -> uint256:
    """
    @notice What is held for a seller of a job.
    @param job Number of the job.
    @param seller Account that may have enrolled.
    @return Amount, in the job's currency; zero once it was returned or burned.
    """
    return self.deposits[job][seller] & (TOKEN_FLAG - 1)


@internal
def _take(job: uint256, seller: address) -> Deposit:
    """
    @notice Take a deposit off the books.
    @param job Number of the job.
    @param seller Account that enrolled.
    @return The deposit; its amount is zero if there is none.
    """
    word: uint256 = self.deposits[job][seller]
    self.deposits[job][seller] = 0
    return Deposit(
        currency=TOKEN if word >= TOKEN_FLAG else empty(address),
        amount_wei=word & (TOKEN_FLAG - 1),
    )
