#pragma version 0.4.3
"""
@title Proof that a seller signed two commitments for one round
@license Apache-2.0
@notice The rule of `protocol/evidence.py`; the vectors in `tests/vectors/deposits.json` hold for
        both (MECHANISM 6).
"""

from interfaces import ISellerDeposits
from modules import typed_data

# Half of the order of secp256k1. Above it a signature is the mirror image of another one.
HALF_ORDER: constant(bytes32) = (
    0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
)


@internal
@view
def _check(
    market: address,
    job: uint256,
    round_index: uint256,
    seller: address,
    first: ISellerDeposits.SignedCommitment,
    second: ISellerDeposits.SignedCommitment,
):
    """
    @notice Revert unless a seller signed two different commitments for one round.
    @dev Commitments are compared, not signatures: one commitment has as many signatures as its
         signer likes.
    @param market Market of the job.
    @param job Number of the job.
    @param round_index Round of both commitments.
    @param seller Account that is said to have signed both; not zero.
    @param first One commitment with its signature.
    @param second The other one.
    """
    assert first.commitment != second.commitment, "deposits: equal commitments"
    separator: bytes32 = typed_data._domain_separator(market)
    for signed: ISellerDeposits.SignedCommitment in [first, second]:
        message: bytes32 = typed_data._update_commitment(
            separator, job, round_index, signed.commitment
        )
        assert (
            self._signer(message, signed.signature) == seller
        ), "deposits: not signed by the seller"


@internal
@pure
def _signer(message: bytes32, signature: Bytes[65]) -> address:
    """
    @notice Who signed a message, as nodes read it: mirrored signatures are none.
    @param message EIP-712 digest.
    @param signature r, s and v, 65 bytes.
    @return The signer; zero if the bytes are no signature.
    """
    signer: address = typed_data._signer(message, signature)
    if signer == empty(address):
        return signer
    s: uint256 = convert(extract32(signature, 32), uint256)
    if s > convert(HALF_ORDER, uint256):
        return empty(address)
    return signer
