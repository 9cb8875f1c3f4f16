"""The address cache on disk: bounded, aged, and there again after a restart."""

import time
from pathlib import Path

from d2m_node.address_store import (
    ADDRESS_DAYS,
    PENALTY_SECONDS,
    KeptBan,
    KeptPenalty,
    ReachedAddress,
)
from d2m_node.storage.addresses import Addresses
from d2m_node.storage.database import open_store

DAY_SECONDS = 86_400


def reach(number: int, *, days_ago: float = 0.0, port: int = 9393) -> ReachedAddress:
    return ReachedAddress(
        peer_id=b"peer %d" % number,
        multiaddr=f"/ip4/192.0.2.{number}/tcp/{port}",
        reached_at=int(time.time() - days_ago * DAY_SECONDS),
    )


async def test_addresses_are_there_after_a_restart_the_newest_first(tmp_path: Path) -> None:
    old, new = reach(1, days_ago=2), reach(2, days_ago=1)
    async with open_store(tmp_path) as store:
        await store.addresses.save([old, new])
    async with open_store(tmp_path) as store:
        assert await store.addresses.load() == [new, old]


async def test_a_peer_has_one_address_the_last_one(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.addresses.save([reach(1, days_ago=1)])
        await store.addresses.save([moved := reach(1, port=1)])
        assert await store.addresses.load() == [moved]


async def test_the_oldest_give_way_where_there_are_many(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        few = Addresses(store.run, kept=3)
        await few.save([reach(number, days_ago=number) for number in range(1, 6)])
        await few.save([reach(9)])
        kept = await few.load()
        assert [one.peer_id for one in kept] == [b"peer 9", b"peer 1", b"peer 2"]
        assert len(await store.addresses.load()) == 3, "the others are gone, not hidden"


async def test_what_is_too_old_is_neither_read_nor_kept(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.addresses.save([reach(1, days_ago=ADDRESS_DAYS + 1), reach(2)])
        assert [one.peer_id for one in await store.addresses.load()] == [b"peer 2"]
        await store.addresses.save([reach(3)])
        count = await store.run(
            lambda connection: connection.execute("SELECT count(*) FROM peer_addresses").fetchone()
        )
        assert count == (2,)


def ban(number: int, *, seconds: int = 600) -> KeptBan:
    return KeptBan(
        peer_id=b"peer %d" % number, reason=f"fault {number}", ends_at=int(time.time()) + seconds
    )


async def test_bans_are_there_after_a_restart_the_first_to_end_first(tmp_path: Path) -> None:
    late, soon, over = ban(1, seconds=900), ban(2), ban(3, seconds=-1)
    async with open_store(tmp_path) as store:
        await store.addresses.save_bans([late, soon, over])
        await store.addresses.save_bans([later := ban(1, seconds=950)])
    async with open_store(tmp_path) as store:
        assert await store.addresses.load_bans() == [soon, later]


async def test_bans_that_end_first_give_way_where_there_are_many(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        few = Addresses(store.run, bans_kept=2)
        await few.save_bans([ban(number, seconds=100 * number) for number in range(1, 5)])
        assert [one.peer_id for one in await store.addresses.load_bans()] == [b"peer 3", b"peer 4"]


def penalise(number: int, *, penalty: float = 1.5, seconds_ago: int = 0) -> KeptPenalty:
    return KeptPenalty(
        peer_id=b"peer %d" % number, penalty=penalty, counted_at=int(time.time()) - seconds_ago
    )


async def test_penalties_are_there_after_a_restart_and_the_last_one_counts(tmp_path: Path) -> None:
    first, second = penalise(1, seconds_ago=60), penalise(2, seconds_ago=90)
    async with open_store(tmp_path) as store:
        await store.addresses.save_penalties([first, second])
        await store.addresses.save_penalties([again := penalise(1, penalty=2.25)])
    async with open_store(tmp_path) as store:
        assert await store.addresses.load_penalties() == [second, again]


async def test_penalties_that_are_forgotten_or_old_are_not_kept(tmp_path: Path) -> None:
    old = penalise(3, seconds_ago=PENALTY_SECONDS + 1)
    async with open_store(tmp_path) as store:
        await store.addresses.save_penalties([penalise(1), penalise(2), old])
        await store.addresses.save_penalties([penalise(2, penalty=0.0)])
        count = await store.run(
            lambda connection: connection.execute("SELECT count(*) FROM peer_penalties").fetchone()
        )
        assert count == (1,)
        assert [one.peer_id for one in await store.addresses.load_penalties()] == [b"peer 1"]


async def test_penalties_counted_longest_ago_give_way_where_there_are_many(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        few = Addresses(store.run, penalties_kept=2)
        await few.save_penalties([penalise(number, seconds_ago=number) for number in range(1, 5)])
        kept = await store.addresses.load_penalties()
        assert [one.peer_id for one in kept] == [b"peer 2", b"peer 1"]
