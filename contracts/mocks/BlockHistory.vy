#pragma version 0.4.3
"""
@title Block history
@license Apache-2.0
@notice Stands in for the system contract of EIP-2935, with one hash. For tests only.
"""

number: uint256
hash: bytes32


@deploy
def __init__(number: uint256, hash: bytes32):
    """
    @notice Remember one block.
    @param number Block.
    @param hash Its hash.
    """
    self.number = number
    self.hash = hash


@external
@view
@raw_return
def __default__() -> Bytes[32]:
    """
    @notice Answer a block number of 32 bytes with the hash of that block.
    @return The hash; reverts for any other block.
    """
    assert convert(slice(msg.data, 0, 32), uint256) == self.number
    return abi_encode(self.hash)
