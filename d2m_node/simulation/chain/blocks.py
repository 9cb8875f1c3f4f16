"""Blocks of the simulated chain, with headers whose hashes the contracts check."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import rlp

from d2m_node.simulation.chain.evm import BLOCK_GAS, BlockContext, Log
from protocol.events import RecordedEvent
from protocol.hashing import keccak
from protocol.types import Address, BlockNumber, Wei

_BLOOM_BITS: Final = 2048
_NO_OMMERS: Final = keccak(rlp.encode([]))
_NO_WITHDRAWALS: Final = keccak(rlp.encode(b""))
_NO_REQUESTS: Final = bytes.fromhex(
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)
"""SHA-256 of nothing (EIP-7685)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MinedCall:
    """One transaction of a block."""

    sender: Address
    name: str
    """Contract.function."""
    key: str
    """What the call means to its sender."""
    transaction_hash: bytes
    data_bytes: int
    """Length of its calldata."""
    gas_used: int
    fee_wei: Wei
    is_reverted: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MinedBlock:
    """One block of one branch."""

    number: BlockNumber
    block_hash: bytes
    timestamp: int
    header: bytes
    """RLP, as the contracts take it."""
    prevrandao: bytes
    parent: "MinedBlock | None" = field(repr=False)
    calls: tuple[MinedCall, ...]
    events: tuple[RecordedEvent, ...]

    def find(self, number: int) -> "MinedBlock | None":
        """Return the block of this branch with a number, this one at most."""
        found: MinedBlock | None = self
        while found is not None and found.number > number:
            found = found.parent
        return found if found is not None and found.number == number else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockContent:
    """What a header commits to."""

    transaction_hashes: Sequence[bytes]
    logs: Sequence[Log]
    writes: bytes
    """A hash of all that the block wrote."""
    gas_used: int


def encode_header(parent: MinedBlock | None, context: BlockContext, content: BlockContent) -> bytes:
    """Return the RLP header of a block, fields as of the Prague fork.

    Where a chain has roots of tries, this one has plain hashes of the same things: the header
    commits to all of the block, and nobody proves a part of it.
    """
    logged = [[log.address, list(log.topics), log.data] for log in content.logs]
    fields = [
        parent.block_hash if parent else bytes(32),
        _NO_OMMERS,
        context.proposer,
        content.writes,
        keccak(b"".join(content.transaction_hashes)),
        keccak(rlp.encode(logged)),
        _compute_bloom(content.logs).to_bytes(_BLOOM_BITS // 8, "big"),
        0,  # difficulty
        context.number,
        BLOCK_GAS,
        content.gas_used,
        context.timestamp,
        b"d2m",  # extra data
        context.prevrandao,
        bytes(8),  # nonce
        context.base_fee_wei,
        _NO_WITHDRAWALS,
        0,  # gas for blobs
        0,
        bytes(32),  # beacon root
        _NO_REQUESTS,
    ]
    return bytes(rlp.encode(fields))


def _compute_bloom(logs: Iterable[Log]) -> int:
    bloom = 0
    for entry in {part for log in logs for part in (log.address, *log.topics)}:
        hashed = keccak(entry)
        for position in (0, 2, 4):
            bit = int.from_bytes(hashed[position : position + 2], "big") % _BLOOM_BITS
            bloom |= 1 << bit
    return bloom
