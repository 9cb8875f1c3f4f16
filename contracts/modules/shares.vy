#pragma version 0.4.3
"""
@title Shares of jobs with many payees
@license Apache-2.0
@notice What is kept of a settled job whose payees claim one by one. What is left of the shares is
        counted down, so that nobody can take more than was set aside for a job.
"""

from modules import commitments
from modules import limits
from modules import merkle
from modules import payments

COUNTS_PER_WORD: constant(uint256) = 16
COUNT_BITS: constant(uint256) = 16
MASK_16: constant(uint256) = 2**16 - 1
MASK_32: constant(uint256) = 2**32 - 1
MASK_40: constant(uint256) = 2**40 - 1
MASK_128: constant(uint256) = 2**128 - 1


struct Shares:
    cone_pool_wei: uint256
    seller_pool_wei: uint256
    credit_root: bytes32  # zero: the sellers share equally
    cone_total: uint256  # sum of the CONE nodes' weights
    seller_total: uint256  # sum of the sellers' weights
    access_cap: uint256  # most accesses that a seller is paid for
    sellers: uint256
    is_token: bool
    claim_end: uint256  # last block before the shares may be swept


pools: HashMap[uint256, uint256]
sizes: HashMap[uint256, uint256]
roots: HashMap[uint256, bytes32]
cone_weights: HashMap[uint256, uint256[4]]
cones_paid: HashMap[uint256, uint256]
sellers_paid: HashMap[uint256, uint256]
left_wei: HashMap[uint256, uint256]


@internal
def _open(
    job: uint256,
    shares: Shares,
    cone_weights: DynArray[uint256, limits.MAX_CONES],
    total_wei: uint256,
):
    """
    @notice Set the shares of a job aside.
    @param job Job being settled.
    @param shares What the shares are computed from; every field fits by the bounds of terms.
    @param cone_weights Weight of each CONE node, below 2**16.
    @param total_wei Sum of all shares.
    """
    self.pools[job] = shares.cone_pool_wei | (shares.seller_pool_wei << 128)
    self.sizes[job] = (
        shares.cone_total
        | (shares.seller_total << 32)
        | (shares.access_cap << 64)
        | (shares.sellers << 96)
        | (shares.claim_end << 112)
        | (convert(shares.is_token, uint256) << 152)
    )
    self.roots[job] = shares.credit_root
    self.left_wei[job] = total_wei
    words: uint256[4] = empty(uint256[4])
    for index: uint256 in range(len(cone_weights), bound=limits.MAX_CONES):
        offset: uint256 = COUNT_BITS * (index % COUNTS_PER_WORD)
        words[index // COUNTS_PER_WORD] |= cone_weights[index] << offset
    self.cone_weights[job] = words


@internal
@view
def _read(job: uint256) -> Shares:
    """
    @notice The shares of a job. Reverts if there are none, or none any more.
    @param job Number of the job.
    @return What its shares are computed from.
    """
    assert self.left_wei[job] > 0, "shares: none left"
    pools: uint256 = self.pools[job]
    sizes: uint256 = self.sizes[job]
    return Shares(
        cone_pool_wei=pools & MASK_128,
        seller_pool_wei=pools >> 128,
        credit_root=self.roots[job],
        cone_total=sizes & MASK_32,
        seller_total=(sizes >> 32) & MASK_32,
        access_cap=(sizes >> 64) & MASK_32,
        sellers=(sizes >> 96) & MASK_16,
        is_token=(sizes >> 152) == 1,
        claim_end=(sizes >> 112) & MASK_40,
    )


@internal
def _take_cone(job: uint256, shares: Shares, index: uint256) -> (uint256, uint256):
    """
    @notice Take a CONE node's share off the books.
    @param job Number of the job.
    @param shares Shares of the job.
    @param index Index of the node in the pool.
    @return Its weight, and its share.
    """
    assert index < limits.MAX_CONES, "shares: no such node"
    assert (self.cones_paid[job] >> index) & 1 == 0, "shares: already paid"
    self.cones_paid[job] |= 1 << index
    word: uint256 = self.cone_weights[job][index // COUNTS_PER_WORD]
    weight: uint256 = (word >> (COUNT_BITS * (index % COUNTS_PER_WORD))) & MASK_16
    return weight, self._take(job, shares.cone_pool_wei, weight, shares.cone_total)


@internal
def _take_seller(
    job: uint256,
    shares: Shares,
    index: uint256,
    payee: address,
    v: uint256,
    proof: DynArray[bytes32, merkle.LEVELS],
) -> (uint256, uint256):
    """
    @notice Take a seller's share off the books.
    @dev Weight and proof are ignored if the sellers share equally.
    @param job Number of the job.
    @param shares Shares of the job.
    @param index Seller index.
    @param payee Account of the seller.
    @param v The seller's contribution weight.
    @param proof Siblings on the way from its leaf to the credit root.
    @return Its weight, and its share.
    """
    assert index < shares.sellers, "shares: no such seller"
    assert (self.sellers_paid[job] >> index) & 1 == 0, "shares: already paid"
    self.sellers_paid[job] |= 1 << index
    weight: uint256 = 1
    if shares.credit_root != empty(bytes32):
        leaf: bytes32 = commitments._credit_leaf(index, payee, v)
        assert merkle._is_proven(
            leaf, index, shares.sellers, proof, shares.credit_root
        ), "shares: not proven"
        weight = v
    part: uint256 = min(weight, shares.access_cap)
    return weight, self._take(job, shares.seller_pool_wei, part, shares.seller_total)


@internal
def _take(job: uint256, pool_wei: uint256, part: uint256, total: uint256) -> uint256:
    """
    @notice Take one share from what is left of a job's.
    @param job Number of the job.
    @param pool_wei What is shared.
    @param part Weight of the payee.
    @param total Sum of all weights.
    @return The share, more than zero.
    """
    amount_wei: uint256 = payments._share(pool_wei, part, total)
    assert amount_wei > 0, "shares: nothing earned"
    self.left_wei[job] -= amount_wei
    return amount_wei


@internal
def _sweep(job: uint256, shares: Shares) -> uint256:
    """
    @notice Take all that nobody claimed off the books.
    @param job Number of the job.
    @param shares Shares of the job.
    @return What was left.
    """
    assert block.number > shares.claim_end, "shares: too early"
    amount_wei: uint256 = self.left_wei[job]
    self.left_wei[job] = 0
    return amount_wei
