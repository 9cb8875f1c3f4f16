"""Signed transactions of the node's account, stored before they are sent."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from d2m_node.storage.journal import RunInTransaction
from d2m_node.transaction_store import BlockId, PaidFee, StoredTransaction, TransactionState
from protocol.types import Wei


class Transactions:
    """`TransactionStore` on SQLite. Methods raise StoreCorrupted and FatalError."""

    def __init__(self, run: RunInTransaction) -> None:
        self._run = run

    async def load_watched(self) -> Sequence[StoredTransaction]:
        """Return the open transactions, and those that a reorganisation might drop.

        By ascending nonce, those of a nonce as they were added.
        """

        def work(connection: sqlite3.Connection) -> list[StoredTransaction]:
            rows = connection.execute(
                "SELECT key, nonce, raw, transaction_hash, state, block_number, block_hash"
                " FROM transactions WHERE state = 'open' OR block_hash IS NOT NULL"
                " ORDER BY nonce, position"
            )
            return [_read_row(row) for row in rows]

        return await self._run(work)

    async def find_highest_nonce(self) -> int | None:
        """Return the highest nonce that was ever signed for."""

        def work(connection: sqlite3.Connection) -> int | None:
            (nonce,) = connection.execute("SELECT max(nonce) FROM transactions").fetchone()
            assert nonce is None or isinstance(nonce, int)
            return nonce

        return await self._run(work)

    async def is_confirmed(self, key: str) -> bool:
        """Tell whether some transaction with this key is confirmed."""

        def work(connection: sqlite3.Connection) -> bool:
            row = connection.execute(
                "SELECT 1 FROM transactions WHERE key = ? AND state = ? LIMIT 1",
                (key, TransactionState.CONFIRMED.value),
            ).fetchone()
            return row is not None

        return await self._run(work)

    async def add(self, transaction: StoredTransaction) -> None:
        """Add a transaction; one whose hash is known stays as it is."""
        mined = transaction.mined

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR IGNORE INTO transactions"
                " (key, nonce, raw, transaction_hash, state, block_number, block_hash)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    transaction.key,
                    transaction.nonce,
                    transaction.raw,
                    transaction.transaction_hash,
                    transaction.state.value,
                    None if mined is None else mined.number,
                    None if mined is None else mined.block_hash,
                ),
            )

        await self._run(work)

    async def note_fee(self, fee: PaidFee) -> None:
        """Keep what a nonce cost; the last word counts, should a reorganisation mine another."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO fees (nonce, callee, call_head, fee_wei)"
                " VALUES (?, ?, ?, ?)",
                (fee.nonce, fee.callee, fee.call_head, str(fee.fee_wei)),
            )

        await self._run(work)

    async def load_fees(self) -> Sequence[PaidFee]:
        """Return what every nonce cost."""

        def work(connection: sqlite3.Connection) -> list[PaidFee]:
            rows = connection.execute("SELECT nonce, callee, call_head, fee_wei FROM fees")
            return [
                PaidFee(nonce=nonce, callee=callee, call_head=head, fee_wei=Wei(int(fee_wei)))
                for nonce, callee, head, fee_wei in rows
            ]

        return await self._run(work)

    async def settle(self, nonce: int, state: TransactionState, mined: BlockId | None) -> None:
        """Say what became of every watched transaction of a nonce, and whether to watch on."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE transactions SET state = ?, block_number = ?, block_hash = ?"
                " WHERE nonce = ? AND (state = 'open' OR block_hash IS NOT NULL)",
                (
                    state.value,
                    None if mined is None else mined.number,
                    None if mined is None else mined.block_hash,
                    nonce,
                ),
            )

        await self._run(work)


def _read_row(row: tuple[Any, ...]) -> StoredTransaction:
    key, nonce, raw, transaction_hash, state, block_number, block_hash = row
    return StoredTransaction(
        key=key,
        nonce=nonce,
        raw=raw,
        transaction_hash=transaction_hash,
        state=TransactionState(state),
        mined=None if block_hash is None else BlockId(block_number, block_hash),
    )
