#pragma version 0.4.3
"""
@title Parameters of a deployment
@license Apache-2.0
@notice Fixed for ever when the contracts are deployed; `Market.params_hash()` names them.
"""

from modules import limits

# Above these, the packed words of a job or the loop over a ticket chain could overflow.
MAX_WINDOW_BLOCKS: constant(uint256) = 2**32
MAX_RETRIES: constant(uint256) = 5
MAX_FINALS: constant(uint256) = 200


struct Params:
    cone_bps: uint256
    floor_bps: uint256
    bid_forfeit_bps: uint256
    slash_wrong_bps: uint256
    slash_noreveal_bps: uint256
    min_stake_wei: uint256
    unbonding_blocks: uint256
    max_window_blocks: uint256
    seed_delay_blocks: uint256
    retries: uint256
    finals_max: uint256
    audit_bps: uint256
    sweep_blocks: uint256
    refund_cap_bps: uint256
    token: address


@internal
@pure
def _hash(params: Params) -> bytes32:
    """
    @notice Name a set of parameters.
    @param params Parameters of a deployment.
    @return Keccak-256 of their ABI encoding.
    """
    return keccak256(abi_encode(params))


@internal
@pure
def _validate(params: Params):
    """
    @notice Revert unless jobs can run under these parameters.
    @param params Parameters of a deployment.
    """
    assert params.cone_bps <= limits.BPS, "params: cone_bps out of range"
    assert params.floor_bps <= limits.BPS, "params: floor_bps out of range"
    assert params.bid_forfeit_bps <= limits.BPS, "params: bid_forfeit_bps out of range"
    assert params.slash_wrong_bps <= limits.BPS, "params: slash_wrong_bps out of range"
    assert params.slash_noreveal_bps <= limits.BPS, "params: slash_noreveal_bps out of range"
    # A lock of nothing could not be told from no lock.
    assert params.min_stake_wei >= 1, "params: min_stake_wei out of range"
    assert params.unbonding_blocks <= MAX_WINDOW_BLOCKS, "params: unbonding_blocks out of range"
    assert (
        params.max_window_blocks >= 1 and params.max_window_blocks <= MAX_WINDOW_BLOCKS
    ), "params: max_window_blocks out of range"
    assert (
        params.seed_delay_blocks >= 1 and params.seed_delay_blocks <= MAX_WINDOW_BLOCKS
    ), "params: seed_delay_blocks out of range"
    assert params.retries <= MAX_RETRIES, "params: retries out of range"
    assert params.finals_max <= MAX_FINALS, "params: finals_max out of range"
    assert params.audit_bps <= limits.BPS, "params: audit_bps out of range"
    assert (
        params.sweep_blocks >= 1 and params.sweep_blocks <= MAX_WINDOW_BLOCKS
    ), "params: sweep_blocks out of range"
    assert params.refund_cap_bps <= limits.BPS, "params: refund_cap_bps out of range"
