#pragma version 0.4.3
#pragma nonreentrancy on
"""
@title Settlement
@license Apache-2.0
@notice Splits the price of a job among CONE nodes, sellers and buyer; payees pull.
@dev balance = what all payees can still claim. The parts of a job sum to its price, to the wei.
"""

from interfaces import IMarket
from interfaces import IRounds
from interfaces import ISellerDeposits
from interfaces import ISettlement
from modules import commitments
from modules import limits
from modules import merkle
from modules import money
from modules import params as deployment
from modules import payments
from modules import terms as job_terms

implements: ISettlement

ROLE_CONE: constant(uint256) = 1
ROLE_SELLER: constant(uint256) = 2
ROLE_BUYER: constant(uint256) = 3

OUTCOME_UNSERVED: constant(uint256) = 4

MARKET: immutable(IMarket)
ROUNDS: immutable(IRounds)
SELLER_DEPOSITS: immutable(ISellerDeposits)
PARAMS: immutable(deployment.Params)

claimable: public(HashMap[address, uint256])
is_settled: public(HashMap[uint256, bool])


@deploy
def __init__(
    params: deployment.Params, market: address, rounds: address, seller_deposits: address
):
    """
    @notice Fix the parameters and the other contracts.
    @param params Parameters of the deployment.
    @param market Market, which holds the escrow.
    @param rounds Rounds, which knows how a job went.
    @param seller_deposits Where sellers have their deposits.
    """
    MARKET = IMarket(market)
    ROUNDS = IRounds(rounds)
    SELLER_DEPOSITS = ISellerDeposits(seller_deposits)
    PARAMS = params


@external
@payable
@reentrant
def __default__():
    """
    @notice Take the price of a job that is being settled.
    @dev Reentrant, because the market sends it during `settle`.
    """
    assert msg.sender == MARKET.address, "settlement: only the market"


@external
def settle(
    job: uint256,
    terms: job_terms.JobTerms,
    leaves: DynArray[ISettlement.CreditLeaf, limits.MAX_SELLERS],
):
    """
    @notice Split the price of a job whose training ended. Anyone may call.
    @dev The credits are in the headers on chain. If nobody knows those behind a decided root, the
         sellers share equally one longest window later, so that no money and no stake can be kept
         locked up by an unknown root.
    @param job Job whose appeal window is over.
    @param terms Terms of the job.
    @param leaves Sellers and their credits, by index; may be empty if no round was decided.
    """
    result: IRounds.TrainingResult = staticcall ROUNDS.training_result(job)
    assert result.outcome != 0, "settlement: training not ended"
    assert not self.is_settled[job], "settlement: already settled"
    assert job_terms._hash(terms) == result.terms_hash, "settlement: wrong terms"
    assert block.number > result.final_block, "settlement: appeal window open"
    sellers: DynArray[address, limits.MAX_SELLERS] = staticcall MARKET.sellers_of(job)
    credits: DynArray[uint256, limits.MAX_SELLERS] = self._credits(result, sellers, leaves)

    self.is_settled[job] = True
    record: IMarket.JobRecord = staticcall MARKET.job_of(job)
    extcall ROUNDS.execute_slashes(job)
    self._forfeit_deposits(job, result, leaves)
    extcall MARKET.release_escrow(job)
    pools: payments.Pools = payments._pools(record.price_wei, terms, PARAMS, result)
    paid_wei: uint256 = self._credit_cones(job, pools, result)
    paid_wei += self._credit_sellers(job, terms, pools, result, sellers, credits)
    refund_wei: uint256 = record.price_wei - paid_wei
    self._credit(job, record.buyer, ROLE_BUYER, 0, 0, refund_wei)
    log ISettlement.JobSettled(
        job=job,
        buyer=record.buyer,
        price_wei=record.price_wei,
        cone_pool_wei=pools.cone_wei,
        seller_pool_wei=pools.seller_wei,
        refund_wei=refund_wei,
        rounds_done=result.rounds_done,
        initial_utility=result.initial_utility,
        last_utility=result.last_utility,
        model_digest=result.model_digest,
    )


@external
def claim():
    """
    @notice Pay the caller everything credited to it.
    """
    amount_wei: uint256 = self.claimable[msg.sender]
    assert amount_wei > 0, "settlement: nothing to claim"

    self.claimable[msg.sender] = 0
    log ISettlement.PayoutClaimed(payee=msg.sender, amount_wei=amount_wei)
    money._pay(msg.sender, amount_wei)


@internal
@view
def _credits(
    result: IRounds.TrainingResult,
    sellers: DynArray[address, limits.MAX_SELLERS],
    leaves: DynArray[ISettlement.CreditLeaf, limits.MAX_SELLERS],
) -> DynArray[uint256, limits.MAX_SELLERS]:
    """
    @notice Contribution weights of the sellers, checked against the last decided header.
    @param result How the training ended.
    @param sellers Sellers of the job, by index.
    @param leaves Sellers and credits that the caller brought.
    @return One contribution weight per seller.
    """
    credits: DynArray[uint256, limits.MAX_SELLERS] = []
    if len(leaves) == 0 and result.rounds_done > 0:
        assert (
            block.number > result.final_block + PARAMS.max_window_blocks
        ), "settlement: leaves missing"
        for _: address in sellers:
            credits.append(1)
        return credits

    nodes: DynArray[bytes32, limits.MAX_SELLERS] = []
    assert len(leaves) == 0 or len(leaves) == len(sellers), "settlement: leaves missing"
    for index: uint256 in range(len(leaves), bound=limits.MAX_SELLERS):
        leaf: ISettlement.CreditLeaf = leaves[index]
        assert leaf.payee == sellers[index], "settlement: not the seller"
        nodes.append(commitments._credit_leaf(index, leaf.payee, leaf.v))
        credits.append(leaf.v)
    assert merkle._root(nodes) == result.credit_root, "settlement: not the credit root"
    return credits


@internal
def _forfeit_deposits(
    job: uint256,
    result: IRounds.TrainingResult,
    leaves: DynArray[ISettlement.CreditLeaf, limits.MAX_SELLERS],
):
    """
    @notice Burn the deposits of accepted sellers if the model ended no better than it began.
    @dev Before the job is closed, which would let them reclaim. Without leaves nobody knows who
         was accepted, and nobody forfeits.
    @param job Number of the job.
    @param result How the training ended.
    @param leaves Sellers and their credits, as the decided header has them.
    """
    if not payments._is_forfeit(result):
        return
    accepted: DynArray[address, limits.MAX_SELLERS] = []
    for leaf: ISettlement.CreditLeaf in leaves:
        if leaf.v > 0:
            accepted.append(leaf.payee)
    extcall SELLER_DEPOSITS.forfeit(job, accepted)


@internal
def _credit_cones(
    job: uint256, pools: payments.Pools, result: IRounds.TrainingResult
) -> uint256:
    """
    @notice Credit the CONE nodes by participation.
    @param job Number of the job.
    @param pools What is shared.
    @param result How the training ended.
    @return Sum of the payments, in wei.
    """
    accounts: DynArray[address, limits.MAX_CONES] = staticcall ROUNDS.cone_accounts(job)
    counts: DynArray[uint256, limits.MAX_CONES] = staticcall ROUNDS.participation(job)
    total: uint256 = 0
    for count: uint256 in counts:
        total += count
    paid_wei: uint256 = 0
    for index: uint256 in range(len(accounts), bound=limits.MAX_CONES):
        amount_wei: uint256 = payments._share(pools.cone_wei, counts[index], total)
        if result.outcome == OUTCOME_UNSERVED:
            # Nobody voted: one round's pay for having been ready.
            amount_wei = pools.cone_wei // len(accounts)
        self._credit(job, accounts[index], ROLE_CONE, index, counts[index], amount_wei)
        paid_wei += amount_wei
    return paid_wei


@internal
def _credit_sellers(
    job: uint256,
    terms: job_terms.JobTerms,
    pools: payments.Pools,
    result: IRounds.TrainingResult,
    sellers: DynArray[address, limits.MAX_SELLERS],
    credits: DynArray[uint256, limits.MAX_SELLERS],
) -> uint256:
    """
    @notice Credit the sellers by contribution weight.
    @param job Number of the job.
    @param terms Terms of the job.
    @param pools What is shared.
    @param result How the training ended.
    @param sellers Sellers of the job, by index.
    @param credits Their contribution weights; empty if no round was decided.
    @return Sum of the payments, in wei.
    """
    total: uint256 = 0
    for v: uint256 in credits:
        total += v
    cap: uint256 = payments._access_cap(
        terms.sellers_per_round, result.rounds_done, len(sellers)
    )
    paid_wei: uint256 = 0
    for index: uint256 in range(len(credits), bound=limits.MAX_SELLERS):
        v: uint256 = credits[index]
        amount_wei: uint256 = payments._share(pools.seller_wei, min(v, cap), total)
        self._credit(job, sellers[index], ROLE_SELLER, index, v, amount_wei)
        paid_wei += amount_wei
    return paid_wei


@internal
def _credit(
    job: uint256,
    payee: address,
    role: uint256,
    index: uint256,
    weight: uint256,
    amount_wei: uint256,
):
    """
    @notice Let a payee claim an amount; nothing happens for zero.
    @param job Number of the job.
    @param payee Account that may claim.
    @param role 1 CONE node, 2 seller, 3 buyer.
    @param index Position of the payee among those of its role.
    @param weight What the share was computed from.
    @param amount_wei Amount.
    """
    if amount_wei == 0:
        return
    self.claimable[payee] += amount_wei
    log ISettlement.PayoutCredited(
        job=job, payee=payee, role=role, index=index, weight=weight, amount_wei=amount_wei
    )
