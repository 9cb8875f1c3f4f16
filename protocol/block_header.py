"""Randomness and time out of a block's header, proved by the block's hash. Source: MECHANISM 4.

The contract reads the same bytes in `contracts/modules/header.vy`: whoever sends a transaction
brings the header along, and cannot choose what it says.
"""

from typing import Final

from protocol.errors import InvalidMessage, RuleViolation
from protocol.hashing import keccak
from protocol.types import BlockNumber, Digest

FIRST_NUMBER_AT: Final = 3 + 33 + 33 + 21 + 33 + 33 + 33 + 259
"""After the prefix of the list: parent, uncles, miner, state, transactions, receipts, bloom."""

FIELDS_TO_SKIP: Final = 6
"""Difficulty, number, gas limit, gas used, timestamp, extra data."""

TIMESTAMP_FIELD: Final = 4
"""Fields before the timestamp, of those that are skipped."""

MAX_TIMESTAMP_BYTES: Final = 8

_HASH_PREFIX: Final = 0xA0
_SHORT_STRING: Final = 0x80
_LONG_STRING: Final = 0xB8


def read_randomness(header: bytes, block_hash: Digest) -> bytes:
    """Read the beacon value out of a block's RLP header: 32 bytes, its field mixHash.

    Raises
    ------
    RuleViolation
        If the header is not of the block with this hash.
    InvalidMessage
        If a header of this hash is of another kind of chain, without such a field.
    """
    if keccak(header) != block_hash:
        raise RuleViolation(f"the header is not of block {block_hash.hex()}")
    position = _skip_fields(header, FIELDS_TO_SKIP)
    randomness = header[position + 1 : position + 33]
    if _byte_at(header, position) != _HASH_PREFIX or len(randomness) != 32:
        raise InvalidMessage("the header has no mix hash where it should be")
    return randomness


def read_timestamp(header: bytes) -> int:
    """Read the time that a block's header states, in seconds since 1970.

    The caller has checked the header. Raises InvalidMessage if it has no time where it should be.
    """
    position = _skip_fields(header, TIMESTAMP_FIELD)
    size = _measure_field(header, position)
    if size == 1 and _byte_at(header, position) < _SHORT_STRING:
        return header[position]
    number = header[position + 1 : position + size]
    if len(number) != size - 1 or size - 1 > MAX_TIMESTAMP_BYTES:
        raise InvalidMessage("the header has no timestamp where it should be")
    return int.from_bytes(number, "big")


def compute_anchor_block(
    seed_block: BlockNumber, head_block: BlockNumber, reach_blocks: int
) -> BlockNumber:
    """Compute the block whose randomness makes a seed that nobody has captured yet.

    A contract can prove a header only as far back as it reaches the block's hash. Once the seed
    block is out of reach, the seed moves on by the whole reach, as often as it must: the block
    follows from numbers alone, so nobody chooses it by waiting a little.

    Only for a seed that nothing depends on before it is captured, like that of the draw of a job's
    members. Votes are committed with traces of the first seed before anybody has to prove it on
    chain: a ballot whose seed nobody captured expires instead.

    Parameters
    ----------
    seed_block :
        Where the seed stood at first: a deadline plus ``seed_delay_blocks``.
    head_block :
        The block in which the seed is captured.
    reach_blocks :
        How far back hashes are served: 256, or 8191 with EIP-2935.

    Raises
    ------
    RuleViolation
        If the seed block is not mined yet.

    Source: MECHANISM 4.
    """
    if head_block <= seed_block:
        raise RuleViolation(f"seed block {seed_block} is not mined in block {head_block}")
    steps = (head_block - seed_block - 1) // reach_blocks
    return BlockNumber(seed_block + steps * reach_blocks)


def _skip_fields(header: bytes, count: int) -> int:
    """Return where the field lies that comes after so many of those from the first number on."""
    position = FIRST_NUMBER_AT
    for _ in range(count):
        position += _measure_field(header, position)
    return position


def _measure_field(header: bytes, position: int) -> int:
    """Measure one RLP string with its prefix, in bytes."""
    prefix = _byte_at(header, position)
    if prefix < _SHORT_STRING:
        return 1
    if prefix < _LONG_STRING:
        return 1 + prefix - _SHORT_STRING
    if prefix == _LONG_STRING:
        # Extra data of up to 255 bytes: some chains put signatures there.
        return 2 + _byte_at(header, position + 1)
    raise InvalidMessage("a field of the header is too long")


def _byte_at(header: bytes, position: int) -> int:
    if position >= len(header):
        raise InvalidMessage(f"the header ends after {len(header)} bytes")
    return header[position]
