#pragma version 0.4.3
#pragma nonreentrancy on
"""
@title Market
@license Apache-2.0
@notice Sealed-bid auctions, enrolment of sellers and CONE nodes, and the winner's escrow.
@dev balance = bidders' deposits not reclaimed + escrow of all jobs. A job has the number of its auction.
"""

from interfaces import IDataRegistry
from interfaces import IMarket
from interfaces import IRounds
from interfaces import ISellerDeposits
from interfaces import IStakePool
from modules import bids
from modules import limits
from modules import money
from modules import params as deployment
from modules import payments
from modules import tag_sets
from modules import terms as job_terms

initializes: bids

implements: IMarket

# Only sealed bids so far; other auctions are other modes.
MODE_SEALED: constant(uint256) = 0

STATUS_AUCTION: constant(uint256) = 1
STATUS_CANCELLED: constant(uint256) = 2
STATUS_ENROLMENT: constant(uint256) = 3
STATUS_RUNNING: constant(uint256) = 4
STATUS_SETTLED: constant(uint256) = 5

PEER_REGISTRY: immutable(address)
DATA_REGISTRY: immutable(IDataRegistry)
STAKE_POOL: immutable(IStakePool)
SELLER_DEPOSITS: immutable(ISellerDeposits)
ROUNDS: immutable(IRounds)
SETTLEMENT: immutable(address)
PARAMS: immutable(deployment.Params)


struct Auction:
    tags: DynArray[bytes32, limits.MAX_TAGS]
    deposit_wei: uint256
    reserve_wei: uint256
    opened_block: uint256
    commit_end: uint256
    reveal_end: uint256


auction_count: public(uint256)
auctions: HashMap[uint256, Auction]
jobs: HashMap[uint256, IMarket.JobRecord]
escrows: HashMap[uint256, uint256]
sellers: HashMap[uint256, DynArray[address, limits.MAX_SELLERS]]
is_seller: HashMap[uint256, HashMap[address, bool]]


@deploy
def __init__(
    params: deployment.Params,
    peer_registry: address,
    data_registry: address,
    stake_pool: address,
    seller_deposits: address,
    rounds: address,
    settlement: address,
):
    """
    @notice Fix the parameters and the other contracts.
    @param params Parameters of the deployment.
    @param peer_registry Where accounts name their peers; the market only points to it.
    @param data_registry Where sellers' data sets are registered.
    @param stake_pool Where CONE nodes have their stake.
    @param seller_deposits Where sellers have their deposits.
    @param rounds Where jobs are trained.
    @param settlement Where prices are paid out.
    """
    deployment._validate(params)
    PEER_REGISTRY = peer_registry
    DATA_REGISTRY = IDataRegistry(data_registry)
    STAKE_POOL = IStakePool(stake_pool)
    SELLER_DEPOSITS = ISellerDeposits(seller_deposits)
    ROUNDS = IRounds(rounds)
    SETTLEMENT = settlement
    PARAMS = params


@external
@payable
def open_auction(
    auction: uint256,
    tags: DynArray[bytes32, limits.MAX_TAGS],
    mode: uint256,
    deposit_wei: uint256,
    reserve_wei: uint256,
    commit_blocks: uint256,
    reveal_blocks: uint256,
    commitment: bytes32,
) -> uint256:
    """
    @notice Open an auction for a set of tags with the caller's own sealed bid.
    @dev A bid's commitment holds the number of its auction. If another auction takes the number
         first, this reverts: the bid could never be revealed.
    @param auction Number that the auction will get: one more than there are.
    @param tags What the data must be, strictly ascending, at least one.
    @param mode 0: sealed bids.
    @param deposit_wei Least deposit of a bid.
    @param reserve_wei Least amount of a bid.
    @param commit_blocks Blocks in which bids are taken.
    @param reveal_blocks Blocks in which bids are revealed.
    @param commitment The caller's sealed bid; the money sent is its deposit.
    @return Number of the auction, and of the job if there is a winner, from 1.
    """
    assert mode == MODE_SEALED, "market: mode not supported"
    assert tag_sets._is_valid(tags), "market: tags not ascending"
    assert (
        commit_blocks >= 1 and commit_blocks <= PARAMS.max_window_blocks
    ), "market: commit_blocks out of range"
    assert (
        reveal_blocks >= 1 and reveal_blocks <= PARAMS.max_window_blocks
    ), "market: reveal_blocks out of range"
    assert auction == self.auction_count + 1, "market: number taken"

    self.auction_count = auction
    commit_end: uint256 = block.number + commit_blocks
    self.auctions[auction] = Auction(
        tags=tags,
        deposit_wei=deposit_wei,
        reserve_wei=reserve_wei,
        opened_block=block.number,
        commit_end=commit_end,
        reveal_end=commit_end + reveal_blocks,
    )
    self.jobs[auction].status = STATUS_AUCTION
    log IMarket.AuctionOpened(
        auction=auction,
        opener=msg.sender,
        tags=tags,
        mode=mode,
        deposit_wei=deposit_wei,
        reserve_wei=reserve_wei,
        commit_end=commit_end,
        reveal_end=commit_end + reveal_blocks,
    )
    bids._commit(auction, deposit_wei, commitment)
    return auction


@external
@payable
def commit_bid(auction: uint256, commitment: bytes32):
    """
    @notice Place a sealed bid; the money sent is its deposit.
    @param auction Auction to bid in.
    @param commitment Hash of the bid.
    """
    assert self.jobs[auction].status == STATUS_AUCTION, "market: no such auction"
    assert block.number <= self.auctions[auction].commit_end, "market: bidding closed"
    bids._commit(auction, self.auctions[auction].deposit_wei, commitment)


@external
def reveal_bid(
    auction: uint256,
    amount_wei: uint256,
    terms: job_terms.JobTerms,
    body_hash: bytes32,
    salt: bytes32,
):
    """
    @notice Open the caller's sealed bid. Only the best one so far is kept.
    @param auction Auction that was bid in.
    @param amount_wei Amount of the bid, at most its deposit.
    @param terms Terms of the job that the bidder wants.
    @param body_hash Keccak-256 of the request's body.
    @param salt The 32 random bytes hashed into the commitment.
    """
    assert self.jobs[auction].status == STATUS_AUCTION, "market: no such auction"
    assert block.number > self.auctions[auction].commit_end, "market: reveal not open"
    assert block.number <= self.auctions[auction].reveal_end, "market: reveal closed"
    assert amount_wei >= self.auctions[auction].reserve_wei, "market: below the reserve"
    job_terms._validate(terms, PARAMS.min_stake_wei, PARAMS.max_window_blocks)
    bids._reveal(auction, amount_wei, terms, body_hash, salt)
    # The price is known now, and the amount is no larger than what was deposited.
    least_wei: uint256 = 0
    most_wei: uint256 = 0
    least_wei, most_wei = payments._deposit_range(amount_wei, terms.sellers_min, PARAMS)
    assert (
        terms.seller_deposit_wei >= least_wei and terms.seller_deposit_wei <= most_wei
    ), "market: seller_deposit_wei does not fit the price"


@external
def close_auction(auction: uint256):
    """
    @notice Fix the winner, or cancel an auction without a valid bid. Anyone may call.
    @param auction Auction whose reveal window is over.
    """
    assert self.jobs[auction].status == STATUS_AUCTION, "market: no such auction"
    reveal_end: uint256 = self.auctions[auction].reveal_end
    assert block.number > reveal_end, "market: reveal still open"

    best: bids.BestBid = bids.best[auction]
    if best.bidder == empty(address):
        self.jobs[auction].status = STATUS_CANCELLED
        log IMarket.AuctionCancelled(auction=auction)
        return

    enrolment_end: uint256 = (
        max(block.number, reveal_end + best.decision_blocks) + best.enrolment_blocks
    )
    self.jobs[auction] = IMarket.JobRecord(
        buyer=best.bidder,
        price_wei=best.amount_wei,
        terms_hash=best.terms_hash,
        request_hash=best.request_hash,
        body_hash=best.body_hash,
        enrolment_end=enrolment_end,
        status=STATUS_ENROLMENT,
    )
    self.escrows[auction] = best.amount_wei
    log IMarket.AuctionClosed(
        auction=auction,
        buyer=best.bidder,
        price_wei=best.amount_wei,
        terms_hash=best.terms_hash,
        request_hash=best.request_hash,
        body_hash=best.body_hash,
        enrolment_end=enrolment_end,
    )


@external
def reclaim_bid(auction: uint256):
    """
    @notice Pay the caller what is left of its deposit: all of it to a loser, what exceeds the
            price to the winner, all but the forfeit to a bidder that did not reveal.
    @param auction Auction that was bid in.
    """
    assert self.jobs[auction].status > STATUS_AUCTION, "market: auction not closed"
    amount_wei: uint256 = 0
    forfeited_wei: uint256 = 0
    amount_wei, forfeited_wei = bids._reclaim(auction, PARAMS.bid_forfeit_bps)
    log IMarket.BidReclaimed(
        auction=auction, bidder=msg.sender, amount_wei=amount_wei, forfeited_wei=forfeited_wei
    )
    money._burn(forfeited_wei)
    money._pay(msg.sender, amount_wei)


@external
@payable
def enrol_seller(job: uint256, terms: job_terms.JobTerms, dataset_id: uint256):
    """
    @notice Offer the caller's data set to a job; the money sent is the deposit that the terms ask
            for.
    @param job Job in enrolment.
    @param terms Terms of the job.
    @param dataset_id A data set of the caller that carries all tags of the auction.
    """
    self._check_enrolment(job, terms)
    assert staticcall DATA_REGISTRY.seller_of(dataset_id) == msg.sender, "market: not your data"
    assert staticcall DATA_REGISTRY.has_tags(
        dataset_id, self.auctions[job].tags
    ), "market: tags missing"
    assert not self.is_seller[job][msg.sender], "market: already enrolled"
    index: uint256 = len(self.sellers[job])
    assert index < terms.sellers_max, "market: sellers full"
    assert msg.value == terms.seller_deposit_wei, "market: not the deposit of the terms"

    self.is_seller[job][msg.sender] = True
    self.sellers[job].append(msg.sender)
    log IMarket.SellerEnrolled(job=job, index=index, seller=msg.sender, dataset_id=dataset_id)
    extcall SELLER_DEPOSITS.deposit(job, msg.sender, value=msg.value)


@external
def enrol_cone(job: uint256, terms: job_terms.JobTerms, ticket_root: bytes32):
    """
    @notice Join a job's pool and lock the stake that its terms ask for.
    @param job Job in enrolment.
    @param terms Terms of the job.
    @param ticket_root End h_0 of a ticket chain that the caller made for this job.
    """
    self._check_enrolment(job, terms)
    since_block: uint256 = staticcall STAKE_POOL.staked_since(msg.sender)
    # Who stakes after seeing an auction could choose its jobs by name.
    assert (
        since_block > 0 and since_block < self.auctions[job].opened_block
    ), "market: staked too late"
    index: uint256 = staticcall ROUNDS.cone_count(job)
    assert index < terms.cones_max, "market: pool full"

    extcall STAKE_POOL.lock(job, msg.sender, terms.stake_wei)
    index = extcall ROUNDS.register_cone(job, msg.sender, ticket_root)
    log IMarket.ConeEnrolled(job=job, index=index, node=msg.sender, ticket_root=ticket_root)


@external
def close_enrolment(job: uint256, terms: job_terms.JobTerms):
    """
    @notice Start the job, or cancel it if too few enrolled. Anyone may call.
    @param job Job whose enrolment window is over.
    @param terms Terms of the job.
    """
    record: IMarket.JobRecord = self.jobs[job]
    assert record.status == STATUS_ENROLMENT, "market: not in enrolment"
    assert job_terms._hash(terms) == record.terms_hash, "market: wrong terms"
    assert block.number > record.enrolment_end, "market: enrolment still open"

    seller_count: uint256 = len(self.sellers[job])
    cone_count: uint256 = staticcall ROUNDS.cone_count(job)
    if seller_count < terms.sellers_min or cone_count < terms.cones_min:
        self.jobs[job].status = STATUS_CANCELLED
        log IMarket.JobCancelled(job=job, refund_wei=record.price_wei)
        return

    self.jobs[job].status = STATUS_RUNNING
    validation_end: uint256 = (
        max(block.number, record.enrolment_end + terms.decision_blocks)
        + terms.validation_blocks
    )
    extcall ROUNDS.open_job(job, record.terms_hash, validation_end)
    log IMarket.EnrolmentClosed(
        job=job,
        sellers=seller_count,
        cones=cone_count,
        enrolment_end=record.enrolment_end,
        validation_end=validation_end,
    )


@external
def reclaim_escrow(job: uint256):
    """
    @notice Pay the buyer of a cancelled job its money back.
    @param job Cancelled job of the caller.
    """
    assert self.jobs[job].status == STATUS_CANCELLED, "market: job not cancelled"
    assert self.jobs[job].buyer == msg.sender, "market: not the buyer"
    amount_wei: uint256 = self.escrows[job]
    assert amount_wei > 0, "market: nothing to reclaim"

    self.escrows[job] = 0
    log IMarket.EscrowReclaimed(job=job, buyer=msg.sender, amount_wei=amount_wei)
    money._pay(msg.sender, amount_wei)


@external
def release_escrow(job: uint256):
    """
    @notice Hand the price of a job over to the settlement, which calls this.
    @param job Job being settled.
    """
    assert msg.sender == SETTLEMENT, "market: only the settlement"
    assert self.jobs[job].status == STATUS_RUNNING, "market: job not running"

    amount_wei: uint256 = self.escrows[job]
    self.escrows[job] = 0
    self.jobs[job].status = STATUS_SETTLED
    money._pay(SETTLEMENT, amount_wei)


@external
@view
def params_hash() -> bytes32:
    """
    @notice Name of this deployment's parameters.
    @return Keccak-256 of the encoded parameters.
    """
    return deployment._hash(PARAMS)


@external
@view
def peer_registry() -> address:
    """
    @notice Where accounts name their peers.
    @return The registry.
    """
    return PEER_REGISTRY


@external
@view
def data_registry() -> address:
    """
    @notice Where sellers' data sets are registered.
    @return The registry.
    """
    return DATA_REGISTRY.address


@external
@view
def stake_pool() -> address:
    """
    @notice Where CONE nodes have their stake.
    @return The pool.
    """
    return STAKE_POOL.address


@external
@view
def seller_deposits() -> address:
    """
    @notice Where sellers have their deposits.
    @return The contract.
    """
    return SELLER_DEPOSITS.address


@external
@view
def rounds() -> address:
    """
    @notice Where jobs are trained.
    @return The contract.
    """
    return ROUNDS.address


@external
@view
def settlement() -> address:
    """
    @notice Where prices are paid out.
    @return The contract.
    """
    return SETTLEMENT


@external
@view
def params() -> deployment.Params:
    """
    @notice Parameters of this deployment.
    @return The parameters.
    """
    return PARAMS


@external
@view
def auction_of(auction: uint256) -> Auction:
    """
    @notice An auction's tags, amounts and windows.
    @param auction Number of the auction.
    @return The auction; empty if the number is unknown.
    """
    return self.auctions[auction]


@external
@view
def bid_of(auction: uint256, bidder: address) -> bids.Bid:
    """
    @notice A bidder's sealed bid.
    @param auction Number of the auction.
    @param bidder Account that may have bid.
    @return Commitment, deposit not yet reclaimed, order, and whether it was revealed.
    """
    return bids.bids[auction][bidder]


@external
@view
def job_of(job: uint256) -> IMarket.JobRecord:
    """
    @notice Buyer, price and hashes of a job.
    @param job Number of the job.
    @return The record. Status: 1 auction, 2 cancelled, 3 enrolment, 4 running, 5 settled.
    """
    return self.jobs[job]


@external
@view
def escrow_of(job: uint256) -> uint256:
    """
    @notice What the market holds of a job's price.
    @param job Number of the job.
    @return Amount, in wei: the price from the close of the auction to settlement or refund.
    """
    return self.escrows[job]


@external
@view
def sellers_of(job: uint256) -> DynArray[address, limits.MAX_SELLERS]:
    """
    @notice Sellers of a job by index.
    @param job Number of the job.
    @return Their accounts, in order of enrolment.
    """
    return self.sellers[job]


@external
@view
def is_closed(job: uint256) -> bool:
    """
    @notice Whether a job needs nobody's stake or deposit any more.
    @param job Number of the job.
    @return True once the job is cancelled or settled.
    """
    status: uint256 = self.jobs[job].status
    return status == STATUS_CANCELLED or status == STATUS_SETTLED


@internal
@view
def _check_enrolment(job: uint256, terms: job_terms.JobTerms):
    """
    @notice Revert unless the job is in its enrolment window and the terms are its own.
    @param job Number of the job.
    @param terms Terms that the caller brought.
    """
    assert self.jobs[job].status == STATUS_ENROLMENT, "market: not in enrolment"
    assert job_terms._hash(terms) == self.jobs[job].terms_hash, "market: wrong terms"
    assert block.number <= self.jobs[job].enrolment_end, "market: enrolment closed"
