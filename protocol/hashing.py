"""Keccak-256 with domain separation, and the stream of pseudo-random words.

Every hash of the protocol starts with a domain string; integers inside hashes are big-endian.
Source: MECHANISM 0, 4.
"""

from dataclasses import dataclass

import numpy as np
from Crypto.Hash import keccak as _keccaks
from eth_hash.auto import keccak as _keccak
from numpy.typing import NDArray

from protocol.types import Address, Digest

WORDS_PER_BLOCK = 4
_WORD_RANGE = 1 << 64


@dataclass(frozen=True, slots=True)
class Domain:
    """The market that a hash or a signature belongs to: chain id and market contract."""

    chain_id: int
    market: Address

    @property
    def prefix(self) -> bytes:
        """chain(32) | market(32, left-padded)."""
        return word(self.chain_id) + address_word(self.market)


def keccak(data: bytes) -> Digest:
    """Hash with Keccak-256 (the Ethereum padding, not SHA3-256)."""
    return Digest(_keccak(data))


def begin_keccak() -> _keccaks.Keccak_Hash:
    """Begin a Keccak-256 of what comes in pieces: ``update`` it, then ask for its ``digest``."""
    return _keccaks.new(digest_bits=256)


def word(value: int) -> bytes:
    """Encode an unsigned integer as 32 bytes; OverflowError outside 0..2**256-1."""
    return value.to_bytes(32, "big")


def signed_word(value: int) -> bytes:
    """Encode a signed integer as 32 bytes in two's complement."""
    return value.to_bytes(32, "big", signed=True)


def address_word(address: Address) -> bytes:
    """Left-pad an address to 32 bytes; ValueError unless it has 20."""
    if len(address) != 20:
        raise ValueError(f"an address has 20 bytes, not {len(address)}")
    return bytes(12) + address


def fixed_bytes(value: bytes) -> bytes:
    """Pass 32 bytes through; ValueError otherwise, so that no hash input can shift."""
    if len(value) != 32:
        raise ValueError(f"expected 32 bytes, got {len(value)}")
    return value


def hash_domain(name: str, *parts: bytes) -> Digest:
    """keccak("D2M/v1/" | name | 0x00 | parts)."""
    return keccak(b"D2M/v1/" + name.encode("ascii") + b"\x00" + b"".join(parts))


class Stream:
    """The pseudo-random words that a seed defines.

    Block j is keccak(seed | uint64(j)) and gives four 64-bit words, big-endian. With a label the
    seed is first replaced by keccak("D2M/v1/" | label | 0x00 | seed), so that one chain seed
    serves several purposes.

    Source: MECHANISM 4.
    """

    def __init__(self, seed: bytes, label: str | None = None) -> None:
        self._seed = fixed_bytes(seed) if label is None else hash_domain(label, fixed_bytes(seed))
        self._position = 0
        self._block_index = -1
        self._block: tuple[int, ...] = ()

    def next_word(self) -> int:
        """Return the next 64-bit word."""
        block_index, offset = divmod(self._position, WORDS_PER_BLOCK)
        if block_index != self._block_index:
            block = self._hash_block(block_index)
            self._block = tuple(int.from_bytes(block[i : i + 8], "big") for i in range(0, 32, 8))
            self._block_index = block_index
        self._position += 1
        return self._block[offset]

    def words(self, count: int) -> NDArray[np.uint64]:
        """Return the next ``count`` words, shape (count,)."""
        first_block, offset = divmod(self._position, WORDS_PER_BLOCK)
        blocks = -(-(offset + count) // WORDS_PER_BLOCK)
        data = b"".join(self._hash_block(first_block + index) for index in range(blocks))
        self._position += count
        return np.frombuffer(data, dtype=">u8")[offset : offset + count].astype(np.uint64)

    def below(self, bound: int) -> int:
        """Draw uniformly from 0..bound-1, rejecting the words that would bias the result."""
        limit = self._rejection_limit(bound)
        while (value := self.next_word()) >= limit:
            pass
        return value % bound

    def below_many(self, bound: int, count: int) -> NDArray[np.int64]:
        """Draw ``count`` values: the same as that many calls of :meth:`below`, vectorised."""
        last_fair = np.uint64(self._rejection_limit(bound) - 1)
        fair = self.words(count)
        fair = fair[fair <= last_fair]
        while len(fair) < count:
            more = self.words(count - len(fair))
            fair = np.concatenate((fair, more[more <= last_fair]))
        return (fair % np.uint64(bound)).astype(np.int64)

    def draw(self, count: int, pool_size: int) -> list[int]:
        """Draw ``count`` of 0..pool_size-1 without replacement, in the order drawn.

        Fisher-Yates on a sparse map: O(count) memory, also for a contract.
        """
        if not 0 <= count <= pool_size:
            raise ValueError(f"cannot draw {count} of {pool_size}")
        moved: dict[int, int] = {}
        drawn = []
        for i in range(count):
            j = i + self.below(pool_size - i)
            drawn.append(moved.get(j, j))
            moved[j] = moved.get(i, i)
        return drawn

    def _hash_block(self, index: int) -> bytes:
        return keccak(self._seed + index.to_bytes(8, "big"))

    @staticmethod
    def _rejection_limit(bound: int) -> int:
        if not 0 < bound <= 1 << 63:
            raise ValueError(f"bound {bound} outside 1..2**63")
        return _WORD_RANGE - _WORD_RANGE % bound
