#pragma version 0.4.3
#pragma nonreentrancy on
"""
@title Market
@license Apache-2.0
@notice Auctions, the record of each job, and the winner's escrow.
@dev In each currency: balance = what bidders have in auctions + escrow of all jobs. A job has the
     number of its auction.
"""

from interfaces import IDataRegistry
from interfaces import IMarket
from interfaces import IStakePool
from modules import auction_rules
from modules import bids
from modules import limits
from modules import money
from modules import params as deployment
from modules import payments
from modules import tag_sets
from modules import terms as job_terms

initializes: bids

implements: IMarket

STATUS_AUCTION: constant(uint256) = 1
STATUS_CANCELLED: constant(uint256) = 2
STATUS_ENROLMENT: constant(uint256) = 3
STATUS_RUNNING: constant(uint256) = 4
STATUS_SETTLED: constant(uint256) = 5

PARAMS: immutable(deployment.Params)
CONTRACTS: immutable(IMarket.Contracts)


struct Auction:
    tags: DynArray[bytes32, limits.MAX_TAGS]
    mode: uint256
    deposit_wei: uint256
    reserve_wei: uint256
    commit_end: uint256
    reveal_end: uint256
    extended_blocks: uint256  # sum of the extensions of an open auction
    datasets: uint256  # registered for each of the tags when the auction opened
    stakers: uint256  # accounts with stake at that time


auction_count: public(uint256)
auctions: HashMap[uint256, Auction]
jobs: HashMap[uint256, IMarket.JobRecord]
escrows: HashMap[uint256, uint256]


@deploy
def __init__(params: deployment.Params, contracts: IMarket.Contracts):
    """
    @notice Fix the parameters and the other contracts.
    @param params Parameters of the deployment.
    @param contracts All others; nodes learn their addresses here.
    """
    deployment._validate(params)
    PARAMS = params
    CONTRACTS = contracts


@external
@payable
def open_auction(
    auction: uint256,
    tags: DynArray[bytes32, limits.MAX_TAGS],
    mode: uint256,
    currency: address,
    deposit_wei: uint256,
    reserve_wei: uint256,
    commit_blocks: uint256,
    reveal_blocks: uint256,
    commitment: bytes32,
    bond_wei: uint256,
    permits: DynArray[money.Permit, 1],
) -> uint256:
    """
    @notice Open an auction of sealed bids for a set of tags with the caller's own bid.
    @dev A bid's commitment holds the number of its auction. If another auction takes the number
         first, this reverts: the bid could never be revealed.
    @param auction Number that the auction will get: one more than there are.
    @param tags What the data must be, strictly ascending, at least one.
    @param mode 0: the winner pays its bid. 1: the winner pays the second bid.
    @param currency Zero for ether, else the deployment's token.
    @param deposit_wei Least deposit of a bid.
    @param reserve_wei Least amount of a bid.
    @param commit_blocks Blocks in which bids are taken.
    @param reveal_blocks Blocks in which bids are revealed.
    @param commitment The caller's sealed bid.
    @param bond_wei Its deposit, taken from the caller.
    @param permits At most one permit for the deposit.
    @return Number of the auction, and of the job if there is a winner, from 1.
    """
    assert (
        mode == auction_rules.MODE_SEALED or mode == auction_rules.MODE_SECOND_PRICE
    ), "market: mode not supported"
    assert (
        reveal_blocks >= 1 and reveal_blocks <= PARAMS.max_window_blocks
    ), "market: reveal_blocks out of range"
    self._open(
        auction, tags, mode, currency, deposit_wei, reserve_wei, commit_blocks, reveal_blocks
    )
    bids._commit(auction, currency, deposit_wei, commitment, bond_wei, permits)
    return auction


@external
@payable
def commit_bid(
    auction: uint256,
    commitment: bytes32,
    bond_wei: uint256,
    permits: DynArray[money.Permit, 1],
):
    """
    @notice Place a sealed bid.
    @param auction Auction to bid in.
    @param commitment Hash of the bid.
    @param bond_wei Deposit of the bid, taken from the caller.
    @param permits At most one permit for the deposit.
    """
    assert self.jobs[auction].status == STATUS_AUCTION, "market: no such auction"
    assert self.auctions[auction].mode != auction_rules.MODE_OPEN, "market: bids are not sealed"
    assert block.number <= self.auctions[auction].commit_end, "market: bidding closed"
    bids._commit(
        auction,
        self.jobs[auction].currency,
        self.auctions[auction].deposit_wei,
        commitment,
        bond_wei,
        permits,
    )


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
    assert self.auctions[auction].mode != auction_rules.MODE_OPEN, "market: bids are not sealed"
    assert block.number > self.auctions[auction].commit_end, "market: reveal not open"
    assert block.number <= self.auctions[auction].reveal_end, "market: reveal closed"
    assert amount_wei >= self.auctions[auction].reserve_wei, "market: below the reserve"
    self._check_terms(auction, terms)
    bids._reveal(auction, amount_wei, terms, body_hash, salt)
    # The amount is no larger than what was deposited.
    self._check_seller_deposit(amount_wei, terms)


@external
@payable
def open_clear_auction(
    auction: uint256,
    tags: DynArray[bytes32, limits.MAX_TAGS],
    currency: address,
    reserve_wei: uint256,
    bid_blocks: uint256,
    amount_wei: uint256,
    terms: job_terms.JobTerms,
    body_hash: bytes32,
    permits: DynArray[money.Permit, 1],
) -> uint256:
    """
    @notice Open an auction of bids in the clear for a set of tags with the caller's own bid.
    @param auction Number that the auction will get: one more than there are.
    @param tags What the data must be, strictly ascending, at least one.
    @param currency Zero for ether, else the deployment's token.
    @param reserve_wei Least amount of a bid.
    @param bid_blocks Blocks in which bids are taken, before extensions.
    @param amount_wei The caller's bid, taken from the caller.
    @param terms Terms of the job that the caller wants.
    @param body_hash Keccak-256 of the request's body.
    @param permits At most one permit for the amount.
    @return Number of the auction and of its job, from 1.
    """
    self._open(auction, tags, auction_rules.MODE_OPEN, currency, 0, reserve_wei, bid_blocks, 0)
    self._bid(auction, amount_wei, terms, body_hash, permits)
    return auction


@external
@payable
def bid(
    auction: uint256,
    amount_wei: uint256,
    terms: job_terms.JobTerms,
    body_hash: bytes32,
    permits: DynArray[money.Permit, 1],
):
    """
    @notice Bid in the clear, at least 5 % above the best bid. What the caller still has in the
            auction counts; the rest is taken from it.
    @dev A bid in the last tenth of the window moves the end, so that others can answer it.
    @param auction Auction to bid in.
    @param amount_wei Amount of the bid.
    @param terms Terms of the job that the bidder wants.
    @param body_hash Keccak-256 of the request's body.
    @param permits At most one permit for what is taken.
    """
    assert self.jobs[auction].status == STATUS_AUCTION, "market: no such auction"
    assert self.auctions[auction].mode == auction_rules.MODE_OPEN, "market: bids are sealed"
    commit_end: uint256 = self.auctions[auction].commit_end
    assert block.number <= commit_end, "market: bidding closed"

    extended_blocks: uint256 = self.auctions[auction].extended_blocks
    extension: uint256 = auction_rules._extension(
        block.number,
        self.jobs[auction].opened_block,
        commit_end,
        extended_blocks,
        PARAMS.max_window_blocks,
    )
    if extension > 0:
        self.auctions[auction].extended_blocks = extended_blocks + extension
        self.auctions[auction].commit_end = commit_end + extension
        self.auctions[auction].reveal_end = commit_end + extension
        log IMarket.AuctionExtended(auction=auction, commit_end=commit_end + extension)
    self._bid(auction, amount_wei, terms, body_hash, permits)


@external
def close_auction(auction: uint256):
    """
    @notice Fix the winner, or cancel an auction without a valid bid. Anyone may call.
    @param auction Auction whose windows are over.
    """
    assert self.jobs[auction].status == STATUS_AUCTION, "market: no such auction"
    reveal_end: uint256 = self.auctions[auction].reveal_end
    assert block.number > reveal_end, "market: reveal still open"

    best: bids.BestBid = bids.best[auction]
    if best.bidder == empty(address):
        self.jobs[auction].status = STATUS_CANCELLED
        log IMarket.AuctionCancelled(auction=auction)
        return

    price_wei: uint256 = auction_rules._price(
        self.auctions[auction].mode,
        best.amount_wei,
        best.second_wei,
        self.auctions[auction].reserve_wei,
    )
    enrolment_end: uint256 = (
        max(block.number, reveal_end + best.decision_blocks) + best.enrolment_blocks
    )
    self.jobs[auction] = IMarket.JobRecord(
        buyer=best.bidder,
        price_wei=price_wei,
        currency=self.jobs[auction].currency,
        terms_hash=best.terms_hash,
        request_hash=best.request_hash,
        body_hash=best.body_hash,
        opened_block=self.jobs[auction].opened_block,
        enrolment_end=enrolment_end,
        status=STATUS_ENROLMENT,
    )
    self.escrows[auction] = price_wei
    bids._pay_price(auction, price_wei)
    log IMarket.AuctionClosed(
        auction=auction,
        buyer=best.bidder,
        price_wei=price_wei,
        terms_hash=best.terms_hash,
        request_hash=best.request_hash,
        body_hash=best.body_hash,
        enrolment_end=enrolment_end,
    )


@external
def reclaim_bid(auction: uint256):
    """
    @notice Pay the caller what it has in an auction: all of it to a loser, what exceeds the price
            to the winner, all but the forfeit to a bidder that did not reveal.
    @dev In an open auction a bid that is not the best may go at once: it cannot win any more.
    @param auction Auction that was bid in.
    """
    status: uint256 = self.jobs[auction].status
    assert status != 0, "market: no such auction"
    if status == STATUS_AUCTION:
        assert self.auctions[auction].mode == auction_rules.MODE_OPEN, "market: auction not closed"
        assert bids.best[auction].bidder != msg.sender, "market: the best bid stays"

    amount_wei: uint256 = 0
    forfeited_wei: uint256 = 0
    amount_wei, forfeited_wei = bids._reclaim(auction, PARAMS.bid_forfeit_bps)
    log IMarket.BidReclaimed(
        auction=auction, bidder=msg.sender, amount_wei=amount_wei, forfeited_wei=forfeited_wei
    )
    currency: address = self.jobs[auction].currency
    money._burn(currency, forfeited_wei)
    money._pay(currency, msg.sender, amount_wei)


@external
def start_job(job: uint256):
    """
    @notice Note that enough enrolled. The enrolment calls this, and logs it.
    @param job Job in enrolment.
    """
    self._check_enrolment(job)
    self.jobs[job].status = STATUS_RUNNING


@external
def cancel_job(job: uint256):
    """
    @notice Give up a job for which too few enrolled. The enrolment calls this.
    @param job Job in enrolment.
    """
    self._check_enrolment(job)
    self.jobs[job].status = STATUS_CANCELLED
    log IMarket.JobCancelled(job=job, refund_wei=self.escrows[job])


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
    money._pay(self.jobs[job].currency, msg.sender, amount_wei)


@external
def release_escrow(job: uint256):
    """
    @notice Hand the price of a job over to the settlement, which calls this.
    @param job Job being settled.
    """
    assert msg.sender == CONTRACTS.settlement, "market: only the settlement"
    assert self.jobs[job].status == STATUS_RUNNING, "market: job not running"

    amount_wei: uint256 = self.escrows[job]
    self.escrows[job] = 0
    self.jobs[job].status = STATUS_SETTLED
    money._pay(self.jobs[job].currency, CONTRACTS.settlement, amount_wei)


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
def params() -> deployment.Params:
    """
    @notice Parameters of this deployment.
    @return The parameters.
    """
    return PARAMS


@external
@view
def contracts() -> IMarket.Contracts:
    """
    @notice The other contracts of this deployment.
    @return Their addresses.
    """
    return CONTRACTS


@external
@view
def auction_of(auction: uint256) -> Auction:
    """
    @notice An auction's tags, amounts and windows; its currency stands in the job's record.
    @param auction Number of the auction.
    @return The auction; empty if the number is unknown.
    """
    return self.auctions[auction]


@external
@view
def bid_of(auction: uint256, bidder: address) -> bids.Bid:
    """
    @notice A bidder's bid.
    @param auction Number of the auction.
    @param bidder Account that may have bid.
    @return Commitment, what the bidder has in the auction, order, and whether it was revealed. Of a
            bid in the clear the commitment is the hash of its request.
    """
    return bids.bids[auction][bidder]


@external
@view
def tags_of(job: uint256) -> DynArray[bytes32, limits.MAX_TAGS]:
    """
    @notice What the data of a job must be.
    @param job Number of the job.
    @return Tags, strictly ascending; empty if the number is unknown.
    """
    return self.auctions[job].tags


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
    @return The price from the close of the auction to settlement or refund, else zero.
    """
    return self.escrows[job]


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
def _open(
    auction: uint256,
    tags: DynArray[bytes32, limits.MAX_TAGS],
    mode: uint256,
    currency: address,
    deposit_wei: uint256,
    reserve_wei: uint256,
    commit_blocks: uint256,
    reveal_blocks: uint256,
):
    """
    @notice Open an auction.
    @param auction Number that the auction will get.
    @param tags What the data must be.
    @param mode Mode of the auction.
    @param currency Zero for ether, else the deployment's token.
    @param deposit_wei Least deposit of a sealed bid.
    @param reserve_wei Least amount of a bid.
    @param commit_blocks Blocks in which bids are taken.
    @param reveal_blocks Blocks after them in which sealed bids are revealed.
    """
    assert tag_sets._is_valid(tags), "market: tags not ascending"
    assert (
        currency == empty(address) or currency == PARAMS.token
    ), "market: currency not allowed"
    assert (
        commit_blocks >= 1 and commit_blocks <= PARAMS.max_window_blocks
    ), "market: commit_blocks out of range"
    assert auction == self.auction_count + 1, "market: number taken"

    self.auction_count = auction
    commit_end: uint256 = block.number + commit_blocks
    self.auctions[auction] = Auction(
        tags=tags,
        mode=mode,
        deposit_wei=deposit_wei,
        reserve_wei=reserve_wei,
        commit_end=commit_end,
        reveal_end=commit_end + reveal_blocks,
        extended_blocks=0,
        datasets=staticcall IDataRegistry(CONTRACTS.data_registry).count_of(tags),
        stakers=staticcall IStakePool(CONTRACTS.stake_pool).staker_count(),
    )
    self.jobs[auction].currency = currency
    self.jobs[auction].opened_block = block.number
    self.jobs[auction].status = STATUS_AUCTION
    log IMarket.AuctionOpened(
        auction=auction,
        opener=msg.sender,
        tags=tags,
        mode=mode,
        currency=currency,
        deposit_wei=deposit_wei,
        reserve_wei=reserve_wei,
        commit_end=commit_end,
        reveal_end=commit_end + reveal_blocks,
    )


@internal
@payable
def _bid(
    auction: uint256,
    amount_wei: uint256,
    terms: job_terms.JobTerms,
    body_hash: bytes32,
    permits: DynArray[money.Permit, 1],
):
    """
    @notice Take the caller's bid in the clear, if its terms hold.
    @param auction Auction that takes bids in the clear.
    @param amount_wei Amount of the bid.
    @param terms Terms of the job that the bidder wants.
    @param body_hash Keccak-256 of the request's body.
    @param permits At most one permit for what is taken.
    """
    self._check_terms(auction, terms)
    bids._bid(
        auction,
        self.jobs[auction].currency,
        self.auctions[auction].reserve_wei,
        amount_wei,
        terms,
        body_hash,
        permits,
    )
    self._check_seller_deposit(amount_wei, terms)


@internal
@view
def _check_terms(auction: uint256, terms: job_terms.JobTerms):
    """
    @notice Revert unless a job can run under these terms.
    @dev More sellers or nodes than were registered when the auction opened may never come: such a
         bid would win only to be cancelled. Within too short an appeal window the block that decides
         about an audit would not be mined.
    @param auction Number of the auction.
    @param terms Terms of a bid.
    """
    job_terms._validate(terms, PARAMS.min_stake_wei, PARAMS.max_window_blocks)
    assert (
        terms.appeal_blocks > PARAMS.seed_delay_blocks
    ), "terms: appeal_blocks within the seed's delay"
    assert (
        terms.sellers_min <= self.auctions[auction].datasets
    ), "market: sellers_min above the registered"
    assert (
        terms.cones_min <= self.auctions[auction].stakers
    ), "market: cones_min above the registered"


@internal
@view
def _check_seller_deposit(amount_wei: uint256, terms: job_terms.JobTerms):
    """
    @notice Revert unless what the terms ask of a seller fits the amount of the bid.
    @param amount_wei Amount of the bid, at most what was put up.
    @param terms Terms of the bid.
    """
    least_wei: uint256 = 0
    most_wei: uint256 = 0
    least_wei, most_wei = payments._deposit_range(amount_wei, terms.sellers_min, PARAMS)
    assert (
        terms.seller_deposit_wei >= least_wei and terms.seller_deposit_wei <= most_wei
    ), "market: seller_deposit_wei does not fit the price"


@internal
@view
def _check_enrolment(job: uint256):
    """
    @notice Revert unless the enrolment calls for a job in enrolment.
    @param job Number of the job.
    """
    assert msg.sender == CONTRACTS.enrolment, "market: only the enrolment"
    assert self.jobs[job].status == STATUS_ENROLMENT, "market: not in enrolment"
