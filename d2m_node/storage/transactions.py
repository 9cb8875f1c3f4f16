"""Signed transactions of the node's account, stored before they are sent."""

import sqlite3
from collections.abc import Sequence

from d2m_node.storage.journal import RunInTransaction
from d2m_node.transaction_store import StoredTransaction, TransactionState


class Transactions:
    """`TransactionStore` on SQLite. Methods raise StoreCorrupted and FatalError."""

    def __init__(self, run: RunInTransaction) -> None:
        self._run = run

    async def load_open(self) -> Sequence[StoredTransaction]:
        """Return all open transactions by ascending nonce, those of a nonce as they were added."""

        def work(connection: sqlite3.Connection) -> list[StoredTransaction]:
            rows = connection.execute(
                "SELECT key, nonce, raw, transaction_hash FROM transactions"
                " WHERE state = ? ORDER BY nonce, position",
                (TransactionState.OPEN.value,),
            )
            return [
                StoredTransaction(key=key, nonce=nonce, raw=raw, transaction_hash=found_hash)
                for key, nonce, raw, found_hash in rows
            ]

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

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR IGNORE INTO transactions (key, nonce, raw, transaction_hash, state)"
                " VALUES (?, ?, ?, ?, ?)",
                (
                    transaction.key,
                    transaction.nonce,
                    transaction.raw,
                    transaction.transaction_hash,
                    transaction.state.value,
                ),
            )

        await self._run(work)

    async def close_nonce(self, nonce: int, state: TransactionState) -> None:
        """Set the state of every open transaction of a nonce."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE transactions SET state = ? WHERE nonce = ? AND state = ?",
                (state.value, nonce, TransactionState.OPEN.value),
            )

        await self._run(work)
