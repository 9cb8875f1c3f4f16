#pragma version 0.4.3
"""
@title EIP-712 messages that CONE nodes and sellers sign
@license Apache-2.0
@notice Domain: name "D2M", version "1", the chain, and the market as verifying contract.
"""

DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
NAME_HASH: constant(bytes32) = keccak256("D2M")
VERSION_HASH: constant(bytes32) = keccak256("1")
VOTE_TYPE: constant(bytes32) = keccak256(
    "Vote(uint256 job,uint256 round,uint256 mini,bytes32 commitment)"
)
RECEIPT_TYPE: constant(bytes32) = keccak256("ValidationReceipt(uint256 job,uint256 part)")
UPDATE_TYPE: constant(bytes32) = keccak256(
    "UpdateCommitment(uint256 job,uint256 round,bytes32 commitment)"
)


@internal
@view
def _domain_separator(market: address) -> bytes32:
    """
    @notice What ties a signature to this chain and market.
    @dev Computed per call: a fork of the chain changes `chain.id`.
    @param market Verifying contract.
    @return The separator.
    """
    return keccak256(abi_encode(DOMAIN_TYPE, NAME_HASH, VERSION_HASH, chain.id, market))


@internal
@pure
def _vote(
    separator: bytes32, job: uint256, round_index: uint256, mini: uint256, commitment: bytes32
) -> bytes32:
    """
    @notice Digest that a voter signs.
    @param separator Domain separator.
    @param job Number of the job.
    @param round_index Round that is voted on.
    @param mini Kind, attempt and mini-round.
    @param commitment Commitment of the vote.
    @return The digest.
    """
    return self._digest(
        separator, keccak256(abi_encode(VOTE_TYPE, job, round_index, mini, commitment))
    )


@internal
@pure
def _receipt(separator: bytes32, job: uint256, part: uint256) -> bytes32:
    """
    @notice Digest by which a node says that it holds validation data.
    @param separator Domain separator.
    @param job Number of the job.
    @param part 0 for the samples of the rounds, 1 for those of the final evaluation.
    @return The digest.
    """
    return self._digest(separator, keccak256(abi_encode(RECEIPT_TYPE, job, part)))


@internal
@pure
def _update_commitment(
    separator: bytes32, job: uint256, round_index: uint256, commitment: bytes32
) -> bytes32:
    """
    @notice Digest by which a seller binds itself to one update of a round.
    @param separator Domain separator.
    @param job Number of the job.
    @param round_index Round that the seller trained for.
    @param commitment Commitment of the update.
    @return The digest.
    """
    return self._digest(
        separator, keccak256(abi_encode(UPDATE_TYPE, job, round_index, commitment))
    )


@internal
@pure
def _digest(separator: bytes32, struct_hash: bytes32) -> bytes32:
    """
    @notice EIP-712 digest of a struct.
    @param separator Domain separator.
    @param struct_hash Hash of the typed struct.
    @return The digest.
    """
    return keccak256(concat(b"\x19\x01", separator, struct_hash))


@internal
@pure
def _signer(digest: bytes32, signature: Bytes[65]) -> address:
    """
    @notice Who signed a digest.
    @dev The second, mirrored signature of a key is taken as well: nothing here counts signatures.
    @param digest EIP-712 digest.
    @param signature r, s and v, 65 bytes.
    @return The signer; zero if the bytes are no signature.
    """
    if len(signature) != 65:
        return empty(address)
    v: uint256 = convert(slice(signature, 64, 1), uint256)
    if v != 27 and v != 28:
        return empty(address)
    return ecrecover(
        digest,
        v,
        convert(extract32(signature, 0), uint256),
        convert(extract32(signature, 32), uint256),
    )


@internal
@pure
def _signer_compact(digest: bytes32, r: bytes32, vs: bytes32) -> address:
    """
    @notice Who signed a digest, by a signature of two words (EIP-2098).
    @param digest EIP-712 digest.
    @param r First word of the signature.
    @param vs Its second word, with the recovery bit on top.
    @return The signer; zero if the words are no signature.
    """
    word: uint256 = convert(vs, uint256)
    return ecrecover(digest, 27 + (word >> 255), convert(r, uint256), word & (2**255 - 1))
