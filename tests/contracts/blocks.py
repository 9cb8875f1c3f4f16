"""Blocks of the in-process EVM with real headers, so that seeds are captured as on a chain."""

import boa
import rlp
from eth_utils.crypto import keccak

BLOCKHASH_REACH = 256


def beacon_value(number: int) -> bytes:
    return keccak(b"randomness" + number.to_bytes(8, "big"))


def header_of(number: int) -> bytes:
    """RLP header of a block, fields as of the Prague fork."""
    return rlp.encode(
        [
            keccak(b"parent" + number.to_bytes(8, "big")),
            bytes(32),  # ommers
            bytes(20),  # coinbase
            bytes(32),  # state
            bytes(32),  # transactions
            bytes(32),  # receipts
            bytes(256),  # bloom
            0,  # difficulty
            number,
            30_000_000,
            0,  # gas used
            1_700_000_000 + number,
            b"d2m",  # extra data
            beacon_value(number),
            bytes(8),  # nonce
            7,  # base fee
            bytes(32),  # withdrawals
            0,
            0,
            bytes(32),  # beacon root
            bytes(32),  # requests
        ]
    )


class Blocks:
    """Moves the in-process chain on; block hashes are those of `header_of`."""

    def __init__(self) -> None:
        self._hashes: dict[int, bytes] = {}
        self.mine_to(max(int(boa.env.evm.patch.block_number), 1000))

    @property
    def number(self) -> int:
        """The block that the next transaction is in."""
        return int(boa.env.evm.patch.block_number)

    def mine(self, count: int = 1) -> None:
        self.mine_to(self.number + count)

    def mine_to(self, number: int) -> None:
        """Let the next transaction be in this block."""
        boa.env.evm.patch.block_number = number
        boa.env.evm.patch.prev_hashes = [
            self._hash(number - distance) for distance in range(1, BLOCKHASH_REACH + 1)
        ]

    def mine_past(self, number: int) -> None:
        """Let the next transaction be in the first block after this one."""
        self.mine_to(max(number + 1, self.number))

    def _hash(self, number: int) -> bytes:
        if number not in self._hashes:
            self._hashes[number] = keccak(header_of(number))
        return self._hashes[number]
