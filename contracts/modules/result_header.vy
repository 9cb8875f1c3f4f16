#pragma version 0.4.3
"""
@title What a decided digest commits to
@license Apache-2.0
@notice Reads the bytes behind a digest: the header of a round (MECHANISM 9.3) and the vote of a
        final evaluation (MECHANISM 12).
@dev Positions are written as sums of the fields before them, in the order of the specification.
"""

ROUND_DOMAIN: constant(Bytes[10]) = b"D2M/v1/hdr"
FINAL_DOMAIN: constant(Bytes[11]) = b"D2M/v1/fin\x00"

ROUND_HEAD_SIZE: constant(uint256) = 10 + 7 * 32 + 2 * 8
ROUND_TAIL_SIZE: constant(uint256) = 5 * 32
FINAL_SIZE: constant(uint256) = 11 + 5 * 32 + 2 * 8
UTILITY_SIZE: constant(uint256) = 8
MAX_CREDIT_SUM: constant(uint256) = 2**32 - 1


struct Origin:
    market: address
    job: uint256
    round_index: uint256


struct RoundResult:
    model_digest: bytes32
    utility_before: int256
    utility_after: int256
    credit_root: bytes32
    credit_sum: uint256


struct FinalResult:
    initial_utility: int256
    utility: int256


@internal
@view
def _read_round(
    header: Bytes[2560], origin: Origin, previous_digest: bytes32, sampled_count: uint256
) -> RoundResult:
    """
    @notice Read the header of a round and check that it is this round's.
    @param header Bytes whose hash was decided.
    @param origin Market, job and round that were voted on.
    @param previous_digest Digest of the last decided round; zero before the first.
    @param sampled_count Sellers sampled per round, each with one utility in the header.
    @return What the contracts keep of it.
    """
    tail: uint256 = ROUND_HEAD_SIZE + UTILITY_SIZE * sampled_count
    assert len(header) == tail + ROUND_TAIL_SIZE, "header: wrong size"
    start: Bytes[74] = concat(ROUND_DOMAIN, abi_encode(origin.job, origin.round_index))
    assert slice(header, 0, 74) == start, "header: not of this round"
    ancestry: Bytes[96] = abi_encode(chain.id, origin.market, previous_digest)
    assert slice(header, tail, 96) == ancestry, "header: not of this chain of rounds"
    credit_sum: uint256 = convert(extract32(header, tail + 128), uint256)
    assert credit_sum <= MAX_CREDIT_SUM, "header: credit sum out of range"
    return RoundResult(
        model_digest=extract32(header, 74),
        utility_before=self._utility(header, 234),
        utility_after=self._utility(header, 242),
        credit_root=extract32(header, tail + 96),
        credit_sum=credit_sum,
    )


@internal
@view
def _read_final(header: Bytes[2560], origin: Origin, model_digest: bytes32) -> FinalResult:
    """
    @notice Read the vote of a final evaluation and check that it is of the decided model.
    @param header Bytes whose hash was decided.
    @param origin Market, job and last decided round.
    @param model_digest Model of the last decided round.
    @return Both utilities on the final part of the validation data.
    """
    assert len(header) == FINAL_SIZE, "header: wrong size"
    start: Bytes[171] = concat(
        FINAL_DOMAIN,
        abi_encode(chain.id, origin.market, origin.job, origin.round_index, model_digest),
    )
    assert slice(header, 0, 171) == start, "header: not of this final"
    return FinalResult(
        initial_utility=self._utility(header, 171), utility=self._utility(header, 179)
    )


@internal
@pure
def _utility(header: Bytes[2560], position: uint256) -> int256:
    """
    @notice An 8-byte signed number.
    @param header Bytes to read.
    @param position Where the number starts; at least 24 bytes must come before its end.
    @return The number.
    """
    # The 32 bytes that end with the number.
    low: uint256 = convert(extract32(header, position - 24), uint256) & (2**64 - 1)
    if low < 2**63:
        return convert(low, int256)
    return convert(low, int256) - 2**64
