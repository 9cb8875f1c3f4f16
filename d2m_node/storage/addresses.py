"""Where peers were reached; what is old or too much gives way."""

import sqlite3
import time
from collections.abc import Sequence
from typing import Final

from d2m_node.address_store import ADDRESS_DAYS, ADDRESSES_KEPT, ReachedAddress
from d2m_node.storage.journal import RunInTransaction

_DAY_SECONDS: Final = 86_400


class Addresses:
    """`AddressStore` on SQLite. Methods raise StoreCorrupted and FatalError."""

    def __init__(self, run: RunInTransaction, kept: int = ADDRESSES_KEPT) -> None:
        self._run = run
        self._kept = kept

    async def load(self) -> Sequence[ReachedAddress]:
        """See `AddressStore.load`."""

        def work(connection: sqlite3.Connection) -> Sequence[ReachedAddress]:
            rows = connection.execute(
                "SELECT peer_id, multiaddr, reached_at FROM peer_addresses"
                " WHERE reached_at > ? ORDER BY reached_at DESC, peer_id LIMIT ?",
                (int(time.time()) - ADDRESS_DAYS * _DAY_SECONDS, self._kept),
            )
            return [
                ReachedAddress(peer_id=peer_id, multiaddr=multiaddr, reached_at=reached_at)
                for peer_id, multiaddr, reached_at in rows
            ]

        return await self._run(work)

    async def save(self, reached: Sequence[ReachedAddress]) -> None:
        """See `AddressStore.save`."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO peer_addresses (peer_id, multiaddr, reached_at) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET"
                " multiaddr = excluded.multiaddr, reached_at = excluded.reached_at",
                [(one.peer_id, one.multiaddr, one.reached_at) for one in reached],
            )
            connection.execute(
                "DELETE FROM peer_addresses WHERE reached_at <= ? OR peer_id NOT IN"
                " (SELECT peer_id FROM peer_addresses"
                "  ORDER BY reached_at DESC, peer_id LIMIT ?)",
                (int(time.time()) - ADDRESS_DAYS * _DAY_SECONDS, self._kept),
            )

        await self._run(work)
