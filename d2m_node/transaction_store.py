"""What the sender of transactions needs to remember. The storage adapter implements it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from protocol.types import Address, BlockNumber, Wei


class TransactionState(Enum):
    """What became of a nonce's transactions."""

    OPEN = "open"
    CONFIRMED = "confirmed"
    REVERTED = "reverted"
    """Mined without effect: the contract refused, or an empty transaction took the place."""
    REPLACED = "replaced"
    """Something used the nonce, and it is not known that one of these did; none will be."""


@dataclass(frozen=True, slots=True)
class BlockId:
    """One block of one branch of the chain."""

    number: BlockNumber
    block_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTransaction:
    """One signed transaction. A nonce has several where fees were raised, all with one key."""

    key: str
    nonce: int
    raw: bytes
    transaction_hash: bytes
    state: TransactionState = TransactionState.OPEN
    mined: BlockId | None = None
    """Where it was mined, as long as a reorganisation might drop that block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidFee:
    """What the mined transaction of a nonce cost."""

    nonce: int
    callee: Address | None
    call_head: bytes
    """Selector and first argument: which function, and of which job."""
    fee_wei: Wei


class TransactionStore(Protocol):
    """Signed transactions of one account on one chain. All writes are durable on return.

    Methods raise StoreCorrupted.
    """

    async def load_watched(self) -> Sequence[StoredTransaction]:
        """Return the open transactions, and those that a reorganisation might drop.

        By ascending nonce, those of a nonce as they were added.
        """

    async def find_highest_nonce(self) -> int | None:
        """Return the highest nonce that was ever signed for."""

    async def is_confirmed(self, key: str) -> bool:
        """Tell whether some transaction with this key is confirmed."""

    async def add(self, transaction: StoredTransaction) -> None:
        """Add a transaction. Hashes are unique; a key may come again with another nonce."""

    async def note_fee(self, fee: PaidFee) -> None:
        """Keep what a nonce cost; the last word counts, should a reorganisation mine another."""

    async def load_fees(self) -> Sequence[PaidFee]:
        """Return what every nonce cost."""

    async def settle(self, nonce: int, state: TransactionState, mined: BlockId | None) -> None:
        """Say what became of every watched transaction of a nonce, and whether to watch on.

        ``mined`` is None once nothing can change it any more.
        """
