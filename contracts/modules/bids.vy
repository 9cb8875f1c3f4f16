#pragma version 0.4.3
"""
@title Sealed bids
@license Apache-2.0
@notice The bids of each auction, and the best of those that were revealed (MECHANISM 3.1).
"""

from interfaces import IMarket
from modules import commitments
from modules import limits
from modules import terms as job_terms


struct Bid:
    commitment: bytes32
    deposit_wei: uint256  # what was not reclaimed yet
    order: uint256
    is_revealed: bool


struct BestBid:
    bidder: address
    amount_wei: uint256
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
def _commit(auction: uint256, least_deposit_wei: uint256, commitment: bytes32):
    """
    @notice Record a sealed bid of the caller with the money sent.
    @param auction Auction that takes bids.
    @param least_deposit_wei Least deposit of a bid.
    @param commitment Hash of the bid.
    """
    assert commitment != empty(bytes32), "market: empty commitment"
    assert msg.value > 0, "market: no deposit"
    assert msg.value >= least_deposit_wei, "market: deposit too small"
    assert self.bids[auction][msg.sender].commitment == empty(bytes32), "market: already bid"
    order: uint256 = self.count[auction]
    assert order < limits.MAX_BIDS, "market: too many bids"

    self.count[auction] = order + 1
    self.bids[auction][msg.sender] = Bid(
        commitment=commitment, deposit_wei=msg.value, order=order, is_revealed=False
    )
    log IMarket.BidCommitted(
        auction=auction, bidder=msg.sender, commitment=commitment, deposit_wei=msg.value
    )


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
        self.best[auction] = BestBid(
            bidder=msg.sender,
            amount_wei=amount_wei,
            order=bid.order,
            terms_hash=job_terms._hash(terms),
            request_hash=request_hash,
            body_hash=body_hash,
            decision_blocks=terms.decision_blocks,
            enrolment_blocks=terms.enrolment_blocks,
        )


@internal
def _reclaim(auction: uint256, forfeit_bps: uint256) -> (uint256, uint256):
    """
    @notice Take the caller's bid out of a closed auction.
    @param auction Closed auction.
    @param forfeit_bps Part of a deposit that is lost without a reveal, in 1/10000.
    @return What the caller gets, and what it forfeits, in wei. What is missing to the deposit is
            the winner's price.
    """
    bid: Bid = self.bids[auction][msg.sender]
    assert bid.deposit_wei > 0, "market: nothing to reclaim"

    self.bids[auction][msg.sender].deposit_wei = 0
    if not bid.is_revealed:
        forfeited_wei: uint256 = bid.deposit_wei * forfeit_bps // limits.BPS
        return bid.deposit_wei - forfeited_wei, forfeited_wei
    if msg.sender == self.best[auction].bidder:
        return bid.deposit_wei - self.best[auction].amount_wei, 0
    return bid.deposit_wei, 0
