"""Where peers were reached, and who misbehaved; what is old or too much gives way."""

import sqlite3
import time
from collections.abc import Sequence
from typing import Final

from d2m_node.address_store import (
    ADDRESS_DAYS,
    ADDRESSES_KEPT,
    BANS_KEPT,
    PENALTIES_KEPT,
    PENALTY_SECONDS,
    KeptBan,
    KeptPenalty,
    ReachedAddress,
)
from d2m_node.storage.journal import RunInTransaction

_DAY_SECONDS: Final = 86_400


class Addresses:
    """`AddressStore` on SQLite. Methods raise StoreCorrupted and FatalError."""

    def __init__(
        self,
        run: RunInTransaction,
        kept: int = ADDRESSES_KEPT,
        bans_kept: int = BANS_KEPT,
        penalties_kept: int = PENALTIES_KEPT,
    ) -> None:
        self._run = run
        self._penalties_kept = penalties_kept
        self._bans_kept = bans_kept
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

    async def load_bans(self) -> Sequence[KeptBan]:
        """See `AddressStore.load_bans`."""

        def work(connection: sqlite3.Connection) -> Sequence[KeptBan]:
            rows = connection.execute(
                "SELECT peer_id, reason, ends_at FROM"
                " (SELECT * FROM peer_bans WHERE ends_at > ?"
                "  ORDER BY ends_at DESC, peer_id LIMIT ?) ORDER BY ends_at, peer_id",
                (int(time.time()), self._bans_kept),
            )
            return [
                KeptBan(peer_id=peer_id, reason=reason, ends_at=ends_at)
                for peer_id, reason, ends_at in rows
            ]

        return await self._run(work)

    async def save_bans(self, bans: Sequence[KeptBan]) -> None:
        """See `AddressStore.save_bans`."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO peer_bans (peer_id, reason, ends_at) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET reason = excluded.reason, ends_at = excluded.ends_at",
                [(one.peer_id, one.reason, one.ends_at) for one in bans],
            )
            connection.execute(
                "DELETE FROM peer_bans WHERE ends_at <= ? OR peer_id NOT IN"
                " (SELECT peer_id FROM peer_bans ORDER BY ends_at DESC, peer_id LIMIT ?)",
                (int(time.time()), self._bans_kept),
            )

        await self._run(work)

    async def load_penalties(self) -> Sequence[KeptPenalty]:
        """See `AddressStore.load_penalties`."""

        def work(connection: sqlite3.Connection) -> Sequence[KeptPenalty]:
            rows = connection.execute(
                "SELECT peer_id, penalty, counted_at FROM"
                " (SELECT * FROM peer_penalties WHERE counted_at > ?"
                "  ORDER BY counted_at DESC, peer_id LIMIT ?) ORDER BY counted_at, peer_id",
                (int(time.time()) - PENALTY_SECONDS, self._penalties_kept),
            )
            return [
                KeptPenalty(peer_id=peer_id, penalty=penalty, counted_at=counted_at)
                for peer_id, penalty, counted_at in rows
            ]

        return await self._run(work)

    async def save_penalties(self, penalties: Sequence[KeptPenalty]) -> None:
        """See `AddressStore.save_penalties`."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO peer_penalties (peer_id, penalty, counted_at) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET"
                " penalty = excluded.penalty, counted_at = excluded.counted_at",
                [(one.peer_id, one.penalty, one.counted_at) for one in penalties],
            )
            connection.execute(
                "DELETE FROM peer_penalties WHERE penalty <= 0 OR counted_at <= ?"
                " OR peer_id NOT IN (SELECT peer_id FROM peer_penalties"
                "  ORDER BY counted_at DESC, peer_id LIMIT ?)",
                (int(time.time()) - PENALTY_SECONDS, self._penalties_kept),
            )

        await self._run(work)
