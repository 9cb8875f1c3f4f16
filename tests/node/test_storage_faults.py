"""A disk that is full, fails, lies or is another's: one clear line, and nothing lost."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from d2m_node.errors import FatalError, StoreCorrupted
from d2m_node.storage.connection import check_integrity, connect
from d2m_node.storage.database import BLOB_FOLDER, DATABASE_NAME, lock_folder, open_store
from tests.support.disk_faults import KILLED, Fault, FaultyDisk, open_faulty_disk
from tests.support.store_model import StoreModel

STEPS = [
    ["remember", "vote", "1/0", "first"],
    ["put", "update " * 2000, "own-update", 1],
    ["add", "bid/1", 6],
    ["put", "state", "state", 2],
    ["settle", 6, "confirmed"],
    ["clean", 20, [2]],
    ["remember", "vote", "1/1", "second"],
]
WAL_NAME = DATABASE_NAME + "-wal"
VALUES = 60
ROOM_STEP = 4000


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyDisk]:
    with open_faulty_disk(tmp_path_factory.mktemp("disk")) as opened:
        yield opened


async def check_goes_on(disk: FaultyDisk, folder: Path, fault: Fault) -> str | None:
    """Let the disk fail, then mend it: what was returned is there, and the rest can be done."""
    model = StoreModel()
    outcome = disk.run(folder, STEPS, fault)
    assert outcome.status == 0, "the node stops in order"
    model.take(STEPS, outcome)
    await model.check(folder)
    again = disk.run(folder, STEPS)
    assert (again.error, again.status) == (None, 0)
    model.take(STEPS, again)
    await model.check(folder)
    if outcome.error is None:
        return None
    kind, text = outcome.error
    assert kind in ("FatalError", "DiskFull")
    assert text.startswith(str(folder))
    assert "\n" not in text
    return text


async def test_a_disk_that_gets_full_stops_the_node_in_order_and_later_it_goes_on(
    disk: FaultyDisk, tmp_path: Path
) -> None:
    told, room = set(), 0
    while (text := await check_goes_on(disk, tmp_path / str(room), Fault(bytes=room))) is not None:
        told.add(text.rpartition("; ")[2])
        room += ROOM_STEP
    assert room > 20 * ROOM_STEP, "until it is large enough for all"
    assert {one for one in told if "space" in one}, told


async def test_a_disk_that_fails_at_any_call_stops_the_node_in_order(
    disk: FaultyDisk, tmp_path: Path
) -> None:
    calls = disk.run(tmp_path / "whole", STEPS).calls
    for call in range(1, calls + 1, 2):
        await check_goes_on(disk, tmp_path / str(call), Fault(fail=call))


def test_a_read_only_directory_is_told(disk: FaultyDisk, tmp_path: Path) -> None:
    outcome = disk.run(tmp_path, STEPS, Fault(read_only=True))
    assert outcome.error is not None
    assert outcome.error[1].endswith("Read-only file system")


def test_a_file_system_without_locks_is_refused(disk: FaultyDisk, tmp_path: Path) -> None:
    outcome = disk.run(tmp_path, STEPS, Fault(no_locks=True))
    assert outcome.error is not None
    assert "has no locks" in outcome.error[1]
    assert "local disk" in outcome.error[1]


async def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path if os.geteuid() == 0 else Path("/usr")
    if folder is tmp_path:
        os.chown(folder, 1, 1)
    with pytest.raises(FatalError, match=r"belongs to user \d+.*chown"):
        async with open_store(folder):
            pass


def test_a_directory_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with lock_folder(tmp_path):
        assert tmp_path.stat().st_mode & 0o777 == 0o700


def leave_wal_behind(disk: FaultyDisk, folder: Path) -> None:
    """Remember values one after the other, and be killed before the file takes them in."""
    steps = [["remember", "vote", f"1/{number:03d}", str(number)] for number in range(VALUES)]
    calls = disk.run(folder.with_suffix(".whole"), steps).calls
    while disk.run(folder, steps, Fault(die=calls)).status != KILLED:
        calls -= 1
    assert (folder / WAL_NAME).stat().st_size > 100_000


async def list_values(folder: Path) -> list[str]:
    async with open_store(folder) as store:
        return [value.decode() for value in (await store.journal.recall_all("vote")).values()]


HEADER, FRAME = 32, 24 + 4096


def choose_cuts(log: bytes) -> set[int]:
    """Places of every kind: in the header, in a frame's header, in its page, and between."""
    frames = (len(log) - HEADER) // FRAME
    counts = {1, 7, *(frames - back for back in (1, 2, 5, 10, 20, 40))}
    within = {HEADER + FRAME * count + rest for count in counts for rest in (-1, 0, 1, 24, 2000)}
    return {0, 1, 31, 32, 33, HEADER + 23, HEADER + 24, HEADER + 25, *within}


@pytest.mark.parametrize("damage", ["cut", "garbage", "zeros"])
async def test_a_torn_log_leaves_a_beginning_of_the_history_and_no_mixture(
    disk: FaultyDisk, tmp_path: Path, damage: str
) -> None:
    """What a power cut may do to the end of the log, on a disk that says "written" too early."""
    leave_wal_behind(disk, tmp_path / "node")
    files = {one.name: one.read_bytes() for one in (tmp_path / "node").iterdir() if one.is_file()}
    log = files[WAL_NAME]
    tails = {"cut": b"", "garbage": b"\x5a" * len(log), "zeros": bytes(len(log))}
    seen = set()
    for cut in choose_cuts(log):
        folder = tmp_path / str(cut)
        folder.mkdir()
        for name, data in files.items():
            if not name.endswith("-shm"):
                (folder / name).write_bytes(data)
        (folder / WAL_NAME).write_bytes(log[:cut] + tails[damage][cut:])
        values = await list_values(folder)
        assert values == [str(number) for number in range(len(values))]
        seen.add(len(values))
    assert len(seen) > 3


async def test_a_damaged_page_is_found_at_the_start_or_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    async with open_store(folder) as store:
        for number in range(VALUES):
            await store.journal.remember("vote", f"1/{number:03d}", b"%d" % number * 300)
    whole = (folder / DATABASE_NAME).read_bytes()
    expected = [str(number) * 300 for number in range(VALUES)]
    assert await list_values(folder) == expected
    found = 0
    for page in range(len(whole) // 4096):
        damaged = bytearray(whole)
        damaged[page * 4096 : page * 4096 + 200] = b"\x5a" * 200
        (folder / DATABASE_NAME).write_bytes(damaged)
        with suppress(StoreCorrupted):
            assert await list_values(folder) == expected
            continue
        found += 1
    assert found > 5


@pytest.mark.parametrize("length", [0, 1, 99, 100, 4095, 4096, 5000, 8192])
async def test_a_file_that_was_cut_is_found_at_the_start(tmp_path: Path, length: int) -> None:
    async with open_store(tmp_path) as store:
        for number in range(VALUES):
            await store.journal.remember("vote", str(number), bytes(1000))
    with (tmp_path / DATABASE_NAME).open("r+b") as file:
        file.truncate(length)
    with pytest.raises(StoreCorrupted, match=rf"{DATABASE_NAME}.*d2m-node restore"):
        async with open_store(tmp_path):
            pass


def lose_file(path: Path, *, is_there: bool) -> None:
    path.unlink()
    if is_there:
        path.touch()


def move_away(folder: Path) -> None:
    folder.rename(folder.with_name("old"))


@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "missing"])
async def test_a_lost_file_is_not_taken_for_a_new_node(tmp_path: Path, is_there: bool) -> None:
    async with open_store(tmp_path) as store:
        await store.journal.remember("vote", "1/0", b"said")
    lose_file(tmp_path / DATABASE_NAME, is_there=is_there)
    with pytest.raises(StoreCorrupted, match=r"missing or empty.*what this node has signed"):
        async with open_store(tmp_path):
            pass
    move_away(tmp_path / BLOB_FOLDER)  # as the error says
    async with open_store(tmp_path) as store:
        assert await store.journal.recall("vote", "1/0") is None


def test_the_check_of_a_large_file_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / DATABASE_NAME
    connection = connect(path)
    connection.execute("CREATE TABLE large (value BLOB)")
    connection.execute(
        "WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter LIMIT 20000)"
        " INSERT INTO large SELECT randomblob(100) FROM counter"
    )
    assert check_integrity(connection, path)
    assert not check_integrity(connection, path, seconds=-1)
    assert connection.execute("SELECT count(*) FROM large").fetchone() == (20000,)
    connection.close()


async def test_a_database_that_another_program_locks_is_told(tmp_path: Path) -> None:
    async with open_store(tmp_path):
        pass
    stranger = sqlite3.connect(tmp_path / DATABASE_NAME, isolation_level=None)
    stranger.execute("PRAGMA locking_mode = EXCLUSIVE")
    stranger.execute("BEGIN EXCLUSIVE")
    with pytest.raises(FatalError, match="another program keeps it locked"):
        async with open_store(tmp_path):
            pass
    stranger.close()
