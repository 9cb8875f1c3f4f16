"""Blocks as endpoints give them, and the RLP header that hashes to the block's hash."""

from collections.abc import Sequence
from dataclasses import dataclass

import rlp

from d2m_node.chain.json_rpc import Json, parse_bytes, parse_quantity
from d2m_node.errors import ChainUnavailable
from protocol.hashing import keccak
from protocol.types import Address, BlockNumber

BLOOM_BYTES = 256
_BLOOM_BITS = 2048

# The header's fields in order: name in JSON-RPC, and length in bytes.
_INTEGER = None
_ANY_LENGTH = -1
_FIELDS: tuple[tuple[str, int | None], ...] = (
    ("parentHash", 32),
    ("sha3Uncles", 32),
    ("miner", 20),
    ("stateRoot", 32),
    ("transactionsRoot", 32),
    ("receiptsRoot", 32),
    ("logsBloom", BLOOM_BYTES),
    ("difficulty", _INTEGER),
    ("number", _INTEGER),
    ("gasLimit", _INTEGER),
    ("gasUsed", _INTEGER),
    ("timestamp", _INTEGER),
    ("extraData", _ANY_LENGTH),
    ("mixHash", 32),
    ("nonce", 8),
)
# Each of these came with a fork; a header has all up to its own fork.
_FIELDS_OF_FORKS: tuple[tuple[str, int | None], ...] = (
    ("baseFeePerGas", _INTEGER),
    ("withdrawalsRoot", 32),
    ("blobGasUsed", _INTEGER),
    ("excessBlobGas", _INTEGER),
    ("parentBeaconBlockRoot", 32),
    ("requestsHash", 32),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What following the chain takes from a block."""

    number: BlockNumber
    block_hash: bytes
    parent_hash: bytes
    bloom: int


@dataclass(frozen=True, slots=True)
class Header:
    """A block header whose bytes have been checked against the block's hash."""

    rlp: bytes
    block_hash: bytes
    randomness: bytes
    """mixHash: since the Merge, the randomness of the beacon chain."""


def parse_block(answer: Json) -> Block:
    """Read an answer to eth_getBlockByNumber. Raises ChainUnavailable if it is no block."""
    if not isinstance(answer, dict):
        raise ChainUnavailable("the endpoint does not know a block that should exist")
    return Block(
        number=BlockNumber(parse_quantity(answer.get("number"))),
        block_hash=parse_bytes(answer.get("hash"), 32),
        parent_hash=parse_bytes(answer.get("parentHash"), 32),
        bloom=int.from_bytes(parse_bytes(answer.get("logsBloom"), BLOOM_BYTES), "big"),
    )


def parse_header(answer: Json) -> Header:
    """Rebuild a block's RLP header and check that it hashes to the block's hash.

    Raises ChainUnavailable if it does not: the endpoint lies, or the chain has a fork whose
    headers hold more than this node knows of.
    """
    block = parse_block(answer)
    known = [field for field in _FIELDS_OF_FORKS if field[0] in answer]
    items = [_encode_field(answer, name, length) for name, length in (*_FIELDS, *known)]
    encoded: bytes = rlp.encode(items)
    if keccak(encoded) != block.block_hash:
        raise ChainUnavailable(
            f"the header of block {block.number} does not hash to the block's hash; "
            "a chain with newer headers needs a newer node"
        )
    return Header(encoded, block.block_hash, parse_bytes(answer["mixHash"], 32))


def _encode_field(answer: Json, name: str, length: int | None) -> bytes:
    if length is _INTEGER:
        value = parse_quantity(answer.get(name))
        return value.to_bytes((value.bit_length() + 7) // 8, "big")
    return parse_bytes(answer.get(name), None if length == _ANY_LENGTH else length)


def compute_bloom_masks(addresses: Sequence[Address]) -> tuple[int, ...]:
    """Compute the bits that each address sets in the bloom of a block it logged in."""
    return tuple(_compute_bloom_mask(address) for address in addresses)


def may_hold_logs(block: Block, masks: Sequence[int]) -> bool:
    """Tell whether any of the addresses may have logged in a block; False is certain."""
    return any(block.bloom & mask == mask for mask in masks)


def _compute_bloom_mask(address: Address) -> int:
    hashed = keccak(address)
    mask = 0
    for position in (0, 2, 4):
        mask |= 1 << (int.from_bytes(hashed[position : position + 2], "big") % _BLOOM_BITS)
    return mask
