#pragma version 0.4.3
"""
@title Randomness of an earlier block
@license Apache-2.0
@notice Reads PREVRANDAO out of a block's RLP header, after checking that the header is the
        block's. Never `block.prevrandao`: whoever sends the transaction would choose the block.
"""

# EIP-2935: serves the hashes of the last 8,191 blocks where `blockhash` serves 256.
HISTORY_ACCOUNT: constant(address) = 0x0000F90827F1C53a10cb7A02335B175320002935
BLOCKHASH_REACH: constant(uint256) = 256
HISTORY_REACH: constant(uint256) = 8191

# A list prefix of one byte and two length bytes; then fields of fixed size:
# four hashes with prefixes, an address, receipts root and a bloom of 256 bytes.
FIRST_NUMBER_AT: constant(uint256) = 3 + 33 + 33 + 21 + 33 + 33 + 33 + 259
# difficulty, number, gas limit, gas used, timestamp, extra data
FIELDS_TO_SKIP: constant(uint256) = 6
HASH_PREFIX: constant(uint256) = 160  # 0xa0
SHORT_STRING: constant(uint256) = 128  # 0x80
LONG_STRING: constant(uint256) = 184  # 0xb8


@internal
@view
def _randomness(block_number: uint256, header: Bytes[1024]) -> bytes32:
    """
    @notice The beacon value of an earlier block.
    @param block_number Block whose header was brought.
    @param header RLP encoding of the header.
    @return mixHash of the header, which is PREVRANDAO.
    """
    assert block_number < block.number, "header: block not mined"
    assert keccak256(header) == self._block_hash(block_number), "header: not of this block"
    return self._mix_hash(header)


@internal
@view
def _anchor_block(seed_block: uint256) -> uint256:
    """
    @notice The block whose randomness makes a seed that nobody has captured yet.
    @dev Once the seed block is out of reach, the seed moves on by the whole reach, as often as it
         must: the block follows from numbers alone, so nobody chooses it by waiting a little.
    @param seed_block Where the seed stood at first, mined.
    @return That block, or the first one of its steps that is within reach.
    """
    assert seed_block < block.number, "header: block not mined"
    steps: uint256 = (block.number - seed_block - 1) // HISTORY_REACH
    return seed_block + steps * HISTORY_REACH


@internal
@view
def _block_hash(block_number: uint256) -> bytes32:
    """
    @notice Hash of an earlier block.
    @param block_number Block, before the current one.
    @return Its hash; zero if it is out of reach.
    """
    if block.number - block_number <= BLOCKHASH_REACH:
        return blockhash(block_number)
    is_served: bool = False
    answer: Bytes[32] = b""
    is_served, answer = raw_call(
        HISTORY_ACCOUNT,
        abi_encode(block_number),
        max_outsize=32,
        is_static_call=True,
        revert_on_failure=False,
    )
    assert is_served and len(answer) == 32, "header: block too old"
    return convert(answer, bytes32)


@internal
@pure
def _mix_hash(header: Bytes[1024]) -> bytes32:
    """
    @notice Find mixHash in an RLP header.
    @dev Only called on bytes whose hash is a block's, so shape errors mean another kind of chain.
    @param header RLP encoding of a header.
    @return The field.
    """
    position: uint256 = FIRST_NUMBER_AT
    for _: uint256 in range(FIELDS_TO_SKIP):
        position += self._field_size(header, position)
    assert self._byte(header, position) == HASH_PREFIX, "header: no mix hash"
    return extract32(header, position + 1)


@internal
@pure
def _field_size(header: Bytes[1024], position: uint256) -> uint256:
    """
    @notice Length of one RLP string with its prefix.
    @param header RLP encoding of a header.
    @param position Where the string's prefix is.
    @return Number of bytes up to the next field.
    """
    prefix: uint256 = self._byte(header, position)
    if prefix < SHORT_STRING:
        return 1
    if prefix < LONG_STRING:
        return 1 + prefix - SHORT_STRING
    # Extra data of up to 255 bytes: some chains put signatures there.
    assert prefix == LONG_STRING, "header: field too long"
    return 2 + self._byte(header, position + 1)


@internal
@pure
def _byte(header: Bytes[1024], position: uint256) -> uint256:
    """
    @notice One byte of a header.
    @param header Bytes to read.
    @param position Position of the byte.
    @return Its value.
    """
    return convert(slice(header, position, 1), uint256)
