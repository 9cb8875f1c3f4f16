#pragma version 0.4.3
"""
@title Terms of a job
@license Apache-2.0
@notice The few numbers of a request that contracts need. They are never stored: a call that
        needs them brings them along, and their hash is compared.
"""

from modules import limits

# Utilities are int64 in every header; a target outside that range could never be met.
MAX_UTILITY: constant(int256) = 2**62
# Accuracy, cross-entropy, macro-F1, squared error: a metric is a number here, no more.
MAX_METRIC: constant(uint256) = 3
MAX_ROUNDS: constant(uint256) = 1000
MAX_GROWTH_TERM: constant(uint256) = 1000


struct JobTerms:
    rounds_max: uint256
    target: int256
    metric: uint256
    sellers_per_round: uint256
    lead: uint256
    first_set_size: uint256
    growth_numerator: uint256
    growth_denominator: uint256
    sellers_min: uint256
    sellers_max: uint256
    cones_min: uint256
    cones_max: uint256
    stake_wei: uint256
    seller_deposit_wei: uint256
    enrolment_blocks: uint256
    validation_blocks: uint256
    update_commit_blocks: uint256
    update_open_blocks: uint256
    availability_blocks: uint256
    vote_commit_blocks: uint256
    vote_open_blocks: uint256
    decision_blocks: uint256
    appeal_blocks: uint256
    header_blocks: uint256


@internal
@pure
def _hash(terms: JobTerms) -> bytes32:
    """
    @notice Name a job's terms.
    @param terms Terms of the job.
    @return Keccak-256 of their ABI encoding.
    """
    return keccak256(abi_encode(terms))


@internal
@pure
def _request_hash(terms: JobTerms, body_hash: bytes32) -> bytes32:
    """
    @notice Name a request: what a sealed bid binds.
    @param terms Terms of the job.
    @param body_hash Keccak-256 of the request's body, which lives off the chain.
    @return Keccak-256 of the encoded terms followed by the body's hash.
    """
    return keccak256(concat(abi_encode(terms), body_hash))


@internal
@pure
def _validate(terms: JobTerms, min_stake_wei: uint256, max_window_blocks: uint256):
    """
    @notice Revert unless a job can run and end under these terms.
    @param terms Terms of the job.
    @param min_stake_wei Least stake of a CONE node in this deployment.
    @param max_window_blocks Longest window of this deployment.
    """
    assert self._is_within(terms.rounds_max, MAX_ROUNDS), "terms: rounds_max out of range"
    assert abs(terms.target) <= MAX_UTILITY, "terms: target out of range"
    assert terms.metric <= MAX_METRIC, "terms: metric out of range"
    self._validate_sizes(terms)
    assert terms.stake_wei >= min_stake_wei, "terms: stake_wei out of range"
    # A deposit of nothing could not be told from none.
    assert terms.seller_deposit_wei >= 1, "terms: seller_deposit_wei out of range"
    self._validate_windows(terms, max_window_blocks)


@internal
@pure
def _validate_sizes(terms: JobTerms):
    """
    @notice Revert unless the numbers of sellers, nodes and votes fit together.
    @param terms Terms of the job.
    """
    assert terms.sellers_per_round >= 3, "terms: sellers_per_round out of range"
    assert self._is_within(terms.lead, terms.cones_max), "terms: lead out of range"
    assert terms.first_set_size >= 1, "terms: first_set_size out of range"
    assert (
        terms.growth_numerator > terms.growth_denominator
        and terms.growth_numerator <= MAX_GROWTH_TERM
    ), "terms: growth_numerator out of range"
    assert terms.growth_denominator >= 1, "terms: growth_denominator out of range"
    # Sampling K sellers needs K of them.
    assert terms.sellers_min >= terms.sellers_per_round, "terms: sellers_min out of range"
    assert (
        terms.sellers_max >= terms.sellers_min and terms.sellers_max <= limits.MAX_SELLERS
    ), "terms: sellers_max out of range"
    assert terms.cones_min >= 1, "terms: cones_min out of range"
    assert (
        terms.cones_max >= terms.cones_min and terms.cones_max <= limits.MAX_CONES
    ), "terms: cones_max out of range"


@internal
@pure
def _validate_windows(terms: JobTerms, most: uint256):
    """
    @notice Revert unless every window has at least one block and at most the allowed number.
    @param terms Terms of the job.
    @param most Longest window of this deployment, in blocks.
    """
    assert self._is_within(terms.enrolment_blocks, most), "terms: enrolment_blocks out of range"
    assert self._is_within(terms.validation_blocks, most), "terms: validation_blocks out of range"
    assert self._is_within(
        terms.update_commit_blocks, most
    ), "terms: update_commit_blocks out of range"
    assert self._is_within(terms.update_open_blocks, most), "terms: update_open_blocks out of range"
    assert self._is_within(
        terms.availability_blocks, most
    ), "terms: availability_blocks out of range"
    assert self._is_within(terms.vote_commit_blocks, most), "terms: vote_commit_blocks out of range"
    assert self._is_within(terms.vote_open_blocks, most), "terms: vote_open_blocks out of range"
    assert self._is_within(terms.decision_blocks, most), "terms: decision_blocks out of range"
    assert self._is_within(terms.appeal_blocks, most), "terms: appeal_blocks out of range"
    assert self._is_within(terms.header_blocks, most), "terms: header_blocks out of range"


@internal
@pure
def _is_within(count: uint256, most: uint256) -> bool:
    """
    @notice Whether a count is at least one and at most a bound.
    @param count Number to look at.
    @param most Largest number allowed.
    @return True if 1 <= count <= most.
    """
    return count >= 1 and count <= most
