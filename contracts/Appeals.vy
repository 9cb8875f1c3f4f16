#pragma version 0.4.3
#pragma nonreentrancy on
"""
@title Appeals
@license Apache-2.0
@notice Holds the bonds of those who call the whole pool to check a decision (MECHANISM 9.4).
@dev balance, by currency = bonds of open appeals + what accounts can withdraw. Every appeal is
     resolved by block numbers alone: Rounds lets anyone expire a call that nobody counted.
"""

from interfaces import IAppeals
from interfaces import IEnrolment
from interfaces import IMarket
from interfaces import IRounds
from modules import limits
from modules import money
from modules import params as deployment
from modules import roster
from modules import terms as job_terms

implements: IAppeals

MARKET: immutable(IMarket)
ENROLMENT: immutable(IEnrolment)
ROUNDS: immutable(IRounds)
CONE_BPS: immutable(uint256)


struct Appeal:
    appellant: address
    currency: address
    bond_wei: uint256


appeals: HashMap[uint256, Appeal]
withdrawable: public(HashMap[address, HashMap[address, uint256]])


@deploy
def __init__(params: deployment.Params, market: address, enrolment: address, rounds: address):
    """
    @notice Fix the parameters and the other contracts.
    @param params Parameters of the deployment.
    @param market Market, which knows prices and currencies.
    @param enrolment Who takes part in a job.
    @param rounds Rounds, which calls the pool.
    """
    MARKET = IMarket(market)
    ENROLMENT = IEnrolment(enrolment)
    ROUNDS = IRounds(rounds)
    CONE_BPS = params.cone_bps


@external
@payable
def appeal(
    job: uint256,
    terms: job_terms.JobTerms,
    course: IRounds.Course,
    is_seller: bool,
    index: uint256,
    permits: DynArray[money.Permit, 1],
):
    """
    @notice Call the whole pool to check the last decision of a job, for a bond that pays those who
            have not voted yet. Once per decision, within its appeal window.
    @param job Number of the job.
    @param terms Terms of the job.
    @param course Course of the job.
    @param is_seller Whether the caller is a seller of the job, and not a node of its pool.
    @param index The caller's index among the sellers, or in the pool.
    @param permits At most one permit of the token that prices are in.
    """
    assert self._member(job, is_seller, index) == msg.sender, "appeals: not of this job"
    record: IMarket.JobRecord = staticcall MARKET.job_of(job)
    # Rounds refuses a second call for one decision, so this overwrites nothing.
    missing: uint256 = extcall ROUNDS.call_pool(job, terms, course)
    bond_wei: uint256 = missing * self._vote_wei(record.price_wei, terms)
    self.appeals[job] = Appeal(
        appellant=msg.sender, currency=record.currency, bond_wei=bond_wei
    )
    log IAppeals.AppealOpened(job=job, appellant=msg.sender, bond_wei=bond_wei)
    for permit: money.Permit in permits:
        money._permit(record.currency, msg.sender, permit)
    money._take(record.currency, msg.sender, bond_wei)


@external
def resolve(job: uint256, is_overturned: bool, voters: DynArray[address, limits.MAX_CONES]):
    """
    @notice Give a bond back if the decision changed, else share it among those who voted because
            of it. What cannot be divided, or has nobody to go to, is burned.
    @param job Number of the job.
    @param is_overturned Whether the decision changed.
    @param voters Accounts that voted because of the appeal.
    """
    assert msg.sender == ROUNDS.address, "appeals: only rounds"
    closed: Appeal = self.appeals[job]
    self.appeals[job] = empty(Appeal)
    reward_each_wei: uint256 = 0
    burned_wei: uint256 = 0
    beneficiaries: DynArray[address, limits.MAX_CONES] = []
    if is_overturned:
        self.withdrawable[closed.currency][closed.appellant] += closed.bond_wei
    else:
        beneficiaries = voters
        if len(voters) > 0:
            reward_each_wei = closed.bond_wei // len(voters)
        for voter: address in voters:
            self.withdrawable[closed.currency][voter] += reward_each_wei
        burned_wei = closed.bond_wei - reward_each_wei * len(voters)
    log IAppeals.AppealResolved(
        job=job,
        is_overturned=is_overturned,
        bond_wei=closed.bond_wei,
        reward_each_wei=reward_each_wei,
        burned_wei=burned_wei,
        beneficiaries=beneficiaries,
    )
    money._burn(closed.currency, burned_wei)


@external
def withdraw(currency: address):
    """
    @notice Pay the caller its bonds and rewards.
    @param currency Zero for ether, else the deployment's token.
    """
    amount_wei: uint256 = self.withdrawable[currency][msg.sender]
    assert amount_wei > 0, "appeals: nothing to withdraw"

    self.withdrawable[currency][msg.sender] = 0
    log IAppeals.BondWithdrawn(account=msg.sender, currency=currency, amount_wei=amount_wei)
    money._pay(currency, msg.sender, amount_wei)


@external
@view
def bond_of(job: uint256, terms: job_terms.JobTerms, missing: uint256) -> uint256:
    """
    @notice What an appeal costs.
    @param job Number of the job.
    @param terms Terms of the job.
    @param missing Nodes of the pool that have not voted.
    @return The bond, in the smallest unit of the job's currency.
    """
    record: IMarket.JobRecord = staticcall MARKET.job_of(job)
    return missing * self._vote_wei(record.price_wei, terms)


@external
@view
def appeal_of(job: uint256) -> Appeal:
    """
    @notice The open appeal of a job.
    @param job Number of the job.
    @return Appellant, currency and bond; empty if there is none.
    """
    return self.appeals[job]


@internal
@view
def _member(job: uint256, is_seller: bool, index: uint256) -> address:
    """
    @notice A member of a job.
    @param job Number of the job.
    @param is_seller Whether the member is a seller, and not a node of the pool.
    @param index Position among the sellers, or in the pool.
    @return Its account; zero if there is none.
    """
    if is_seller:
        sellers: address = staticcall ENROLMENT.sellers_of(job)
        if index < roster._count(sellers, roster.SELLER_SIZE):
            return roster._seller(sellers, index)
    else:
        cones: address = staticcall ENROLMENT.cones_of(job)
        if index < roster._count(cones, roster.CONE_SIZE):
            return roster._cone_account(cones, index)
    return empty(address)


@internal
@view
def _vote_wei(price_wei: uint256, terms: job_terms.JobTerms) -> uint256:
    """
    @notice What one vote is paid when nothing goes wrong: a round's share of the CONE nodes' pool,
            divided by the first execution set.
    @param price_wei Price of the job.
    @param terms Terms of the job.
    @return The amount, at least one.
    """
    pool_wei: uint256 = price_wei * CONE_BPS // limits.BPS
    votes: uint256 = terms.rounds_max * min(terms.first_set_size, terms.cones_max)
    return max(pool_wei // votes, 1)
