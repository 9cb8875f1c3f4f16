#pragma version 0.4.3
#pragma nonreentrancy on
"""
@title Settlement
@license Apache-2.0
@notice Splits the price of a job among CONE nodes, sellers and buyer. A few payees are credited at
        once and pull; many claim their shares one by one.
@dev balance of a currency = what all payees can still claim + shares that are left. The parts of a
     job sum to its price, to the wei.
"""

from interfaces import IEnrolment
from interfaces import IMarket
from interfaces import IRounds
from interfaces import ISellerDeposits
from interfaces import ISettlement
from ethereum.ercs import IERC20
from modules import commitments
from modules import limits
from modules import merkle
from modules import money
from modules import params as deployment
from modules import payments
from modules import roster
from modules import shares as share_book
from modules import terms as job_terms

initializes: share_book

implements: ISettlement

ROLE_CONE: constant(uint256) = 1
ROLE_SELLER: constant(uint256) = 2
ROLE_BUYER: constant(uint256) = 3
ROLE_BATCHER: constant(uint256) = 4

# A credit is one word: the amount, and above it the block of the last credit.
AMOUNT_BITS: constant(uint256) = 216
MAX_AMOUNT: constant(uint256) = 2**AMOUNT_BITS - 1

MARKET: immutable(IMarket)
ENROLMENT: immutable(IEnrolment)
ROUNDS: immutable(IRounds)
SELLER_DEPOSITS: immutable(ISellerDeposits)
PARAMS: immutable(deployment.Params)


struct Payees:
    cones: address  # roster
    sellers: address  # roster
    cone_weights: DynArray[uint256, limits.MAX_CONES]
    seller_weights: DynArray[uint256, limits.MAX_SELLERS]


credits: HashMap[address, HashMap[address, uint256]]
is_settled: public(HashMap[uint256, bool])


@deploy
def __init__(
    params: deployment.Params,
    market: address,
    enrolment: address,
    rounds: address,
    seller_deposits: address,
):
    """
    @notice Fix the parameters and the other contracts.
    @param params Parameters of the deployment.
    @param market Market, which holds the escrow.
    @param enrolment Enrolment, which knows who takes part.
    @param rounds Rounds, which knows how a job went.
    @param seller_deposits Where sellers have their deposits.
    """
    MARKET = IMarket(market)
    ENROLMENT = IEnrolment(enrolment)
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
    course: IRounds.Course,
    leaves: DynArray[ISettlement.CreditLeaf, limits.MAX_SELLERS],
):
    """
    @notice Split the price of a job whose training ended. Anyone may call, once.
    @dev The credits are in the headers on chain. If nobody knows those behind a decided root, the
         sellers share equally one longest window later, so that no money and no stake can be kept
         locked up by an unknown root.
    @param job Job whose appeal window is over.
    @param terms Terms of the job.
    @param course Course of the job, whose hash Rounds keeps.
    @param leaves Sellers and their credits, by index; may be empty if no round was decided.
    """
    assert not self.is_settled[job], "settlement: already settled"
    self.is_settled[job] = True
    # Reverts before the appeal window is over; carries out the slashes that waited for it.
    result: IRounds.TrainingResult = extcall ROUNDS.close_job(job, course)
    assert job_terms._hash(terms) == result.terms_hash, "settlement: wrong terms"
    payees: Payees = Payees(
        cones=staticcall ENROLMENT.cones_of(job),
        sellers=staticcall ENROLMENT.sellers_of(job),
        cone_weights=payments._cone_weights(result),
        seller_weights=[],
    )
    payees.seller_weights = self._seller_weights(result, payees.sellers, leaves)
    self._forfeit_deposits(job, result, leaves)

    record: IMarket.JobRecord = staticcall MARKET.job_of(job)
    price_wei: uint256 = self._collect(job, record)
    pools: payments.Pools = payments._pools(price_wei, terms, PARAMS, result)
    paid_wei: uint256 = 0
    if record.currency == empty(address):
        cap_wei: uint256 = payments._refund_cap(
            price_wei, terms.rounds_max, PARAMS, result.rounds_done, pools.cone_wei
        )
        paid_wei = self._refund_batches(job, payees.cones, result.refunds_wei, cap_wei)
    paid_wei += self._share_pools(
        job,
        record.currency,
        payees,
        payments.Pools(cone_wei=pools.cone_wei - paid_wei, seller_wei=pools.seller_wei),
        payments._access_cap(
            terms.sellers_per_round,
            result.rounds_done,
            roster._count(payees.sellers, roster.SELLER_SIZE),
        ),
        result.credit_root if len(leaves) > 0 else empty(bytes32),
    )
    refund_wei: uint256 = price_wei - paid_wei
    self._credit(job, record.currency, record.buyer, ROLE_BUYER, 0, 0, refund_wei)
    log ISettlement.JobSettled(
        job=job,
        buyer=record.buyer,
        price_wei=price_wei,
        cone_pool_wei=pools.cone_wei,
        seller_pool_wei=pools.seller_wei,
        refund_wei=refund_wei,
        rounds_done=result.rounds_done,
        initial_utility=result.initial_utility,
        last_utility=result.last_utility,
        model_digest=result.model_digest,
    )


@external
def claim(currency: address):
    """
    @notice Pay the caller everything credited to it in a currency.
    @param currency Zero for ether, else the token.
    """
    amount_wei: uint256 = self._clear(currency, msg.sender)
    assert amount_wei > 0, "settlement: nothing to claim"
    log ISettlement.PayoutClaimed(payee=msg.sender, currency=currency, amount_wei=amount_wei)
    money._pay(currency, msg.sender, amount_wei)


@external
def claim_cone_share(job: uint256, index: uint256):
    """
    @notice Pay a CONE node its share of a job with many payees. Anyone may call.
    @dev Paid at once: it is one call for each share, and a payee that refuses the money only
         keeps itself waiting.
    @param job Settled job.
    @param index Index of the node in the pool.
    """
    shares: share_book.Shares = share_book._read(job)
    weight: uint256 = 0
    amount_wei: uint256 = 0
    weight, amount_wei = share_book._take_cone(job, shares, index)
    payee: address = roster._cone_account(staticcall ENROLMENT.cones_of(job), index)
    self._pay_share(job, shares.is_token, payee, ROLE_CONE, index, weight, amount_wei)


@external
def claim_seller_share(
    job: uint256, index: uint256, v: uint256, proof: DynArray[bytes32, merkle.LEVELS]
):
    """
    @notice Pay a seller its share of a job with many payees. Anyone may call.
    @param job Settled job.
    @param index Seller index.
    @param v The seller's contribution weight; any number if the sellers share equally.
    @param proof Siblings on the way to the credit root; anything if the sellers share equally.
    """
    shares: share_book.Shares = share_book._read(job)
    payee: address = roster._seller(staticcall ENROLMENT.sellers_of(job), index)
    weight: uint256 = 0
    amount_wei: uint256 = 0
    weight, amount_wei = share_book._take_seller(job, shares, index, payee, v, proof)
    self._pay_share(job, shares.is_token, payee, ROLE_SELLER, index, weight, amount_wei)


@external
def sweep(payee: address, currency: address):
    """
    @notice Burn what a payee has not claimed for a long time. Anyone may call.
    @dev It never goes to the buyer, who could otherwise gain by keeping a payee from claiming.
    @param payee Account that was credited.
    @param currency Zero for ether, else the token.
    """
    credit: uint256 = self.credits[currency][payee]
    assert credit > 0, "settlement: nothing to sweep"
    assert (
        block.number > (credit >> AMOUNT_BITS) + PARAMS.sweep_blocks
    ), "settlement: too early to sweep"
    amount_wei: uint256 = self._clear(currency, payee)
    log ISettlement.MoneySwept(payee=payee, currency=currency, amount_wei=amount_wei)
    money._burn(currency, amount_wei)


@external
def sweep_shares(job: uint256):
    """
    @notice Burn what is left of a job's shares a long time after it was settled. Anyone may call.
    @param job Settled job with many payees.
    """
    shares: share_book.Shares = share_book._read(job)
    amount_wei: uint256 = share_book._sweep(job, shares)
    log ISettlement.SharesSwept(job=job, amount_wei=amount_wei)
    money._burn(self._currency(shares.is_token), amount_wei)


@external
@view
def claimable(currency: address, account: address) -> uint256:
    """
    @notice What an account can claim.
    @param currency Zero for ether, else the token.
    @param account Account that may have been credited.
    @return Amount, in the smallest unit of the currency.
    """
    return self.credits[currency][account] & MAX_AMOUNT


@external
@view
def shares_left(job: uint256) -> uint256:
    """
    @notice What is left of a job's shares.
    @param job Number of the job.
    @return Sum of the shares that were neither claimed nor swept.
    """
    return share_book.left_wei[job]


@internal
@view
def _seller_weights(
    result: IRounds.TrainingResult,
    sellers: address,
    leaves: DynArray[ISettlement.CreditLeaf, limits.MAX_SELLERS],
) -> DynArray[uint256, limits.MAX_SELLERS]:
    """
    @notice Contribution weights of the sellers, checked against the last decided header.
    @param result How the training ended.
    @param sellers Roster of the sellers.
    @param leaves Sellers and credits that the caller brought.
    @return One contribution weight per seller; none if no round was decided.
    """
    weights: DynArray[uint256, limits.MAX_SELLERS] = []
    count: uint256 = roster._count(sellers, roster.SELLER_SIZE)
    if len(leaves) == 0 and result.rounds_done > 0:
        assert (
            block.number > result.final_block + PARAMS.max_window_blocks
        ), "settlement: leaves missing"
        for _: uint256 in range(count, bound=limits.MAX_SELLERS):
            weights.append(1)
        return weights

    nodes: DynArray[bytes32, limits.MAX_SELLERS] = []
    assert len(leaves) == 0 or len(leaves) == count, "settlement: leaves missing"
    for index: uint256 in range(len(leaves), bound=limits.MAX_SELLERS):
        leaf: ISettlement.CreditLeaf = leaves[index]
        assert leaf.payee == roster._seller(sellers, index), "settlement: not the seller"
        assert leaf.v <= result.rounds_done, "settlement: more credits than rounds"
        nodes.append(commitments._credit_leaf(index, leaf.payee, leaf.v))
        weights.append(leaf.v)
    assert merkle._root(nodes) == result.credit_root, "settlement: not the credit root"
    return weights


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
def _collect(job: uint256, record: IMarket.JobRecord) -> uint256:
    """
    @notice Take the price over from the market.
    @dev What arrives is measured. If a token has begun to keep a fee since the price was paid in,
         what is left is split: no job's payees are paid with another job's money, and none is
         locked up.
    @param job Job being settled.
    @param record The market's record of the job.
    @return What is split.
    """
    before_wei: uint256 = self._balance(record.currency)
    extcall MARKET.release_escrow(job)
    return min(self._balance(record.currency) - before_wei, record.price_wei)


@internal
def _refund_batches(
    job: uint256,
    cones: address,
    spent_wei: DynArray[uint256, limits.MAX_CONES],
    cap_wei: uint256,
) -> uint256:
    """
    @notice Credit the CONE nodes what they spent on sending batches for all, up to a cap.
    @param job Number of the job, whose price is in ether as gas is.
    @param cones Roster of the CONE nodes.
    @param spent_wei What each node spent.
    @param cap_wei Most that all get.
    @return Sum of the refunds, at most the cap.
    """
    total_wei: uint256 = 0
    for amount_wei: uint256 in spent_wei:
        total_wei += amount_wei
    paid_wei: uint256 = 0
    for index: uint256 in range(len(spent_wei), bound=limits.MAX_CONES):
        amount_wei: uint256 = payments._refund(spent_wei[index], total_wei, cap_wei)
        if amount_wei == 0:
            continue
        payee: address = roster._cone_account(cones, index)
        self._credit(
            job, empty(address), payee, ROLE_BATCHER, index, spent_wei[index], amount_wei
        )
        paid_wei += amount_wei
    return paid_wei


@internal
def _share_pools(
    job: uint256,
    currency: address,
    payees: Payees,
    pools: payments.Pools,
    access_cap: uint256,
    credit_root: bytes32,
) -> uint256:
    """
    @notice Credit every payee its share, or let each claim it if there are many.
    @param job Number of the job.
    @param currency Currency of the job.
    @param payees CONE nodes and sellers with their weights.
    @param pools What they share.
    @param access_cap Most accesses that a seller is paid for.
    @param credit_root Root of the sellers' credits; zero if they share equally.
    @return Sum of all shares.
    """
    sellers: uint256 = len(payees.seller_weights)
    is_credited: bool = len(payees.cone_weights) + sellers <= limits.MAX_CREDITED
    cone_total: uint256 = 0
    for weight: uint256 in payees.cone_weights:
        cone_total += weight
    seller_total: uint256 = 0
    for weight: uint256 in payees.seller_weights:
        seller_total += weight

    paid_wei: uint256 = 0
    for index: uint256 in range(len(payees.cone_weights), bound=limits.MAX_CONES):
        weight: uint256 = payees.cone_weights[index]
        amount_wei: uint256 = payments._share(pools.cone_wei, weight, cone_total)
        paid_wei += amount_wei
        if is_credited:
            payee: address = roster._cone_account(payees.cones, index)
            self._credit(job, currency, payee, ROLE_CONE, index, weight, amount_wei)
    for index: uint256 in range(sellers, bound=limits.MAX_SELLERS):
        weight: uint256 = payees.seller_weights[index]
        part: uint256 = min(weight, access_cap)
        amount_wei: uint256 = payments._share(pools.seller_wei, part, seller_total)
        paid_wei += amount_wei
        if is_credited:
            payee: address = roster._seller(payees.sellers, index)
            self._credit(job, currency, payee, ROLE_SELLER, index, weight, amount_wei)
    if is_credited or paid_wei == 0:
        return paid_wei

    share_book._open(
        job,
        share_book.Shares(
            cone_pool_wei=pools.cone_wei,
            seller_pool_wei=pools.seller_wei,
            credit_root=credit_root,
            cone_total=cone_total,
            seller_total=seller_total,
            access_cap=access_cap,
            sellers=sellers,
            is_token=currency != empty(address),
            claim_end=block.number + PARAMS.sweep_blocks,
        ),
        payees.cone_weights,
        paid_wei,
    )
    log ISettlement.SharesOpened(
        job=job,
        cone_pool_wei=pools.cone_wei,
        seller_pool_wei=pools.seller_wei,
        credit_root=credit_root,
    )
    return paid_wei


@internal
def _credit(
    job: uint256,
    currency: address,
    payee: address,
    role: uint256,
    index: uint256,
    weight: uint256,
    amount_wei: uint256,
):
    """
    @notice Let a payee claim an amount; nothing happens for zero.
    @param job Number of the job.
    @param currency Currency of the job.
    @param payee Account that may claim.
    @param role 1 CONE node, 2 seller, 3 buyer, 4 CONE node for its batches.
    @param index Position of the payee among those of its role.
    @param weight What the share was computed from.
    @param amount_wei Amount.
    """
    if amount_wei == 0:
        return
    # No price exceeds 2**128, so a sum of them never reaches the block above it.
    total_wei: uint256 = (self.credits[currency][payee] & MAX_AMOUNT) + amount_wei
    self.credits[currency][payee] = total_wei | (block.number << AMOUNT_BITS)
    log ISettlement.PayoutCredited(
        job=job, payee=payee, role=role, index=index, weight=weight, amount_wei=amount_wei
    )


@internal
def _clear(currency: address, payee: address) -> uint256:
    """
    @notice Take all that a payee was credited off the books.
    @param currency Zero for ether, else the token.
    @param payee Account that was credited.
    @return The amount; zero if there is none.
    """
    amount_wei: uint256 = self.credits[currency][payee] & MAX_AMOUNT
    self.credits[currency][payee] = 0
    return amount_wei


@internal
def _pay_share(
    job: uint256,
    is_token: bool,
    payee: address,
    role: uint256,
    index: uint256,
    weight: uint256,
    amount_wei: uint256,
):
    """
    @notice Pay a share that was taken off the books.
    @param job Number of the job.
    @param is_token Whether the job is in the token.
    @param payee Account that earned it.
    @param role 1 CONE node, 2 seller.
    @param index Position of the payee among those of its role.
    @param weight What the share was computed from.
    @param amount_wei Amount.
    """
    currency: address = self._currency(is_token)
    log ISettlement.PayoutCredited(
        job=job, payee=payee, role=role, index=index, weight=weight, amount_wei=amount_wei
    )
    log ISettlement.PayoutClaimed(payee=payee, currency=currency, amount_wei=amount_wei)
    money._pay(currency, payee, amount_wei)


@internal
@view
def _currency(is_token: bool) -> address:
    """
    @notice Currency of a job with shares.
    @param is_token Whether it is the token.
    @return Zero for ether, else the token.
    """
    return PARAMS.token if is_token else empty(address)


@internal
@view
def _balance(currency: address) -> uint256:
    """
    @notice What this contract has of a currency.
    @param currency Zero for ether, else the token.
    @return The balance.
    """
    if currency == empty(address):
        return self.balance
    return staticcall IERC20(currency).balanceOf(self)
