"""What the sender of transactions needs to remember. The storage adapter implements it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class TransactionState(Enum):
    """What became of a nonce's transactions."""

    OPEN = "open"
    CONFIRMED = "confirmed"
    REVERTED = "reverted"
    REPLACED = "replaced"
    """Something that this store does not know used the nonce: none of these was or will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTransaction:
    """One signed transaction. A nonce has several where fees were raised, all with one key."""

    key: str
    nonce: int
    raw: bytes
    transaction_hash: bytes
    state: TransactionState = TransactionState.OPEN


class TransactionStore(Protocol):
    """Signed transactions of one account on one chain. All writes are durable on return.

    Methods raise StoreCorrupted.
    """

    async def load_open(self) -> Sequence[StoredTransaction]:
        """Return all open transactions by ascending nonce, those of a nonce as they were added."""

    async def is_confirmed(self, key: str) -> bool:
        """Tell whether some transaction with this key is confirmed."""

    async def add(self, transaction: StoredTransaction) -> None:
        """Add a transaction. Hashes are unique; a key may come again with another nonce."""

    async def close_nonce(self, nonce: int, state: TransactionState) -> None:
        """Set the state of every open transaction of a nonce."""
