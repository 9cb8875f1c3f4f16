#pragma version 0.4.3
"""
@title Bids
@license Apache-2.0
@notice The bids of each auction, sealed or in the clear, and the best of those that count
        (MECHANISM 3.1). What a bid puts up stays with it until its bidder takes it back or the
        price is taken out of it.
"""

from interfaces import IMarket
from modules import auction_rules
from modules import commitments
from modules import limits
from modules import money
from modules import terms as job_terms

# Products of amounts with basis points stay far from the end of a word, whatever a token's unit.
MAX_BOND: constant(uint256) = 2**128 - 1


struct Bid:
    commitment: bytes32
    deposit_wei: uint256  # what was neither reclaimed nor paid
    order: uint256
    is_revealed: bool


struct BestBid:
    bidder: address
    amount_wei: uint256
    second_wei: uint256  # the best of the others, for a second price
    order: uint256
    terms_hash: bytes32
    request_hash: bytes32
    body_hash: bytes32
    decision_blocks: uint256
    enrolment_blocks: uint256


bids: HashMap[uint256, HashMap[address, Bid]]
best: HashMap[uint256, BestBid]
count: HashMap[uint256, uint256]


@internal
@payable
def _commit(
    auction: uint256,
    currency: address,
    least_deposit_wei: uint256,
    commitment: bytes32,
    bond_wei: uint256,
    permits: DynArray[money.Permit, 1],
):
    """
    @notice Record a sealed bid of the caller and take its deposit.
    @dev The number of bids needs no bound: no loop runs over them. With one, somebody could keep
         all others out of an auction by filling it with small bids.
    @param auction Auction that takes sealed bids.
    @param currency Currency of the auction.
    @param least_deposit_wei Least deposit of a bid.
    @param commitment Hash of the bid.
    @param bond_wei Deposit of the bid.
    @param permits At most one permit for the deposit.
    """
    assert commitment != empty(bytes32), "market: empty commitment"
    assert bond_wei > 0, "market: no deposit"
    assert bond_wei >= least_deposit_wei, "market: deposit too small"
    assert bond_wei <= MAX_BOND, "market: deposit too large"
    assert self.bids[auction][msg.sender].commitment == empty(bytes32), "market: already bid"
    order: uint256 = self.count[auction]

    self.count[auction] = order + 1
    self.bids[auction][msg.sender] = Bid(
        commitment=commitment, deposit_wei=bond_wei, order=order, is_revealed=False
    )
    log IMarket.BidCommitted(
        auction=auction, bidder=msg.sender, commitment=commitment, deposit_wei=bond_wei
    )
    self._take(currency, bond_wei, permits)


@internal
def _reveal(
    auction: uint256,
    amount_wei: uint256,
    terms: job_terms.JobTerms,
    body_hash: bytes32,
    salt: bytes32,
):
    """
    @notice Open the caller's bid, and keep it if it is higher than the best, or as high and
            earlier.
    @param auction Auction in its reveal window.
    @param amount_wei Amount of the bid.
    @param terms Terms of the bid, which the caller of this has validated.
    @param body_hash Hash of the request's body.
    @param salt The 32 random bytes hashed into the commitment.
    """
    bid: Bid = self.bids[auction][msg.sender]
    assert bid.commitment != empty(bytes32), "market: nothing committed"
    assert not bid.is_revealed, "market: already revealed"
    request_hash: bytes32 = job_terms._request_hash(terms, body_hash)
    opened: bytes32 = commitments._bid(
        self, auction, msg.sender, amount_wei, request_hash, salt
    )
    assert opened == bid.commitment, "market: reveal mismatch"
    assert amount_wei <= bid.deposit_wei, "market: above the deposit"

    self.bids[auction][msg.sender].is_revealed = True
    log IMarket.BidRevealed(
        auction=auction,
        bidder=msg.sender,
        amount_wei=amount_wei,
        terms=terms,
        body_hash=body_hash,
    )
    best: BestBid = self.best[auction]
    is_first: bool = best.bidder == empty(address)
    is_earlier: bool = amount_wei == best.amount_wei and bid.order < best.order
    if is_first or amount_wei > best.amount_wei or is_earlier:
        self._keep(auction, amount_wei, best.amount_wei, bid.order, terms, request_hash, body_hash)
    elif amount_wei > best.second_wei:
        self.best[auction].second_wei = amount_wei


@internal
@payable
def _bid(
    auction: uint256,
    currency: address,
    reserve_wei: uint256,
    amount_wei: uint256,
    terms: job_terms.JobTerms,
    body_hash: bytes32,
    permits: DynArray[money.Permit, 1],
):
    """
    @notice Take the caller's bid in the clear, which becomes the best one.
    @dev What the caller still has in the auction counts, so that it pays the difference only. The
         number of bids needs no bound: each costs 5 % more than the one before. Two events speak of
         a bid, as of a sealed one that was revealed.
    @param auction Auction that takes bids in the clear.
    @param currency Currency of the auction.
    @param reserve_wei Least amount of a bid.
    @param amount_wei Amount of the bid.
    @param terms Terms of the bid, which the caller of this has validated.
    @param body_hash Hash of the request's body.
    @param permits At most one permit for what has to be paid.
    """
    assert amount_wei >= reserve_wei, "market: below the reserve"
    least_wei: uint256 = auction_rules._least_bid(reserve_wei, self.best[auction].amount_wei)
    assert amount_wei >= least_wei, "market: raise too small"
    assert amount_wei <= MAX_BOND, "market: deposit too large"

    # Whatever a bidder has in the auction is at most the best bid.
    missing_wei: uint256 = amount_wei - self.bids[auction][msg.sender].deposit_wei
    request_hash: bytes32 = job_terms._request_hash(terms, body_hash)
    self.bids[auction][msg.sender] = Bid(
        commitment=request_hash, deposit_wei=amount_wei, order=0, is_revealed=True
    )
    self._keep(auction, amount_wei, 0, 0, terms, request_hash, body_hash)
    log IMarket.BidCommitted(
        auction=auction, bidder=msg.sender, commitment=request_hash, deposit_wei=amount_wei
    )
    log IMarket.BidRevealed(
        auction=auction,
        bidder=msg.sender,
        amount_wei=amount_wei,
        terms=terms,
        body_hash=body_hash,
    )
    self._take(currency, missing_wei, permits)


@internal
def _keep(
    auction: uint256,
    amount_wei: uint256,
    second_wei: uint256,
    order: uint256,
    terms: job_terms.JobTerms,
    request_hash: bytes32,
    body_hash: bytes32,
):
    """
    @notice Keep the caller's bid as the best one of an auction.
    @param auction Number of the auction.
    @param amount_wei Amount of the bid.
    @param second_wei Best amount of the other bids.
    @param order Place of the bid among the commitments.
    @param terms Terms of the bid.
    @param request_hash Hash of terms and body.
    @param body_hash Hash of the request's body.
    """
    self.best[auction] = BestBid(
        bidder=msg.sender,
        amount_wei=amount_wei,
        second_wei=second_wei,
        order=order,
        terms_hash=job_terms._hash(terms),
        request_hash=request_hash,
        body_hash=body_hash,
        decision_blocks=terms.decision_blocks,
        enrolment_blocks=terms.enrolment_blocks,
    )


@internal
def _pay_price(auction: uint256, price_wei: uint256):
    """
    @notice Take the price out of what the winner put up.
    @param auction Auction with a best bid.
    @param price_wei What the winner pays, at most the amount of its bid.
    """
    self.bids[auction][self.best[auction].bidder].deposit_wei -= price_wei


@internal
def _reclaim(auction: uint256, forfeit_bps: uint256) -> (uint256, uint256):
    """
    @notice Take what the caller has in an auction out of it.
    @param auction Auction that does not need the caller's bid any more.
    @param forfeit_bps Part of a deposit that is lost without a reveal, in 1/10000.
    @return What the caller gets, and what it forfeits.
    """
    bid: Bid = self.bids[auction][msg.sender]
    assert bid.deposit_wei > 0, "market: nothing to reclaim"

    self.bids[auction][msg.sender].deposit_wei = 0
    if bid.is_revealed:
        return bid.deposit_wei, 0
    forfeited_wei: uint256 = bid.deposit_wei * forfeit_bps // limits.BPS
    return bid.deposit_wei - forfeited_wei, forfeited_wei


@internal
@payable
def _take(currency: address, amount_wei: uint256, permits: DynArray[money.Permit, 1]):
    """
    @notice Take money from the caller, after its permit if it gave one.
    @param currency Currency of the auction.
    @param amount_wei What has to be paid.
    @param permits At most one permit.
    """
    for permit: money.Permit in permits:
        money._permit(currency, msg.sender, permit)
    money._take(currency, msg.sender, amount_wei)
