"""A backup is whole while the node writes, and a node on a restored one knows that it is old."""

import json
import sqlite3
from pathlib import Path

import pytest

from d2m_node import cli
from d2m_node.errors import StoreCorrupted, StoreInUse, UserError
from d2m_node.ports import Purpose, Reference
from d2m_node.storage.backup import Copied, restore_backup, write_backup
from d2m_node.storage.database import BLOB_FOLDER, DATABASE_NAME, Store, open_store
from d2m_node.storage.schema import MIGRATIONS
from d2m_node.transaction_store import StoredTransaction
from protocol.hashing import keccak
from protocol.types import BlockNumber, JobId

BLOBS = {purpose: f"the {purpose.value}".encode() for purpose in Purpose}
ONLY_HERE = {Purpose.OWN_UPDATE, Purpose.OWN_REQUEST, Purpose.MODEL}


async def fill(store: Store) -> None:
    await store.journal.remember("vote", "1/0", b"said")
    raw = b"raw"
    await store.transactions.add(
        StoredTransaction(key="bid/1", nonce=3, raw=raw, transaction_hash=keccak(raw))
    )
    for purpose, data in BLOBS.items():
        await store.blobs.put(data, Reference(purpose, JobId(1)))


async def list_blobs(store: Store) -> set[Purpose]:
    return {
        purpose for purpose, data in BLOBS.items() if await store.blobs.get(keccak(data)) == data
    }


async def test_a_backup_of_a_running_node_brings_a_new_directory_to_the_same_state(
    tmp_path: Path,
) -> None:
    target = tmp_path / "node.backup"
    async with open_store(tmp_path / "node") as store:
        await fill(store)
        # SQLite's own copy waits for nobody, so that this thread may hold the store open.
        assert write_backup(tmp_path / "node", target) == Copied(1, 3, 0)
        await store.journal.remember("vote", "1/1", b"later")
    assert (target.stat().st_mode & 0o777) == 0o600
    assert restore_backup(target, tmp_path / "new") == Copied(1, 3, 4)
    async with open_store(tmp_path / "new") as store:
        assert await store.journal.recall_all("vote") == {"1/0": b"said"}
        assert [one.key for one in await store.transactions.load_watched()] == ["bid/1"]
        assert await list_blobs(store) == ONLY_HERE
        for purpose in ONLY_HERE:
            reference = Reference(purpose, JobId(1))
            assert await store.blobs.references(keccak(BLOBS[purpose])) == {reference}


async def test_a_restored_store_trusts_its_journal_only_from_the_next_block_on(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path / "node") as store:
        await store.marks.trust_from(BlockNumber(5))
        assert store.trusted_from == 0
    write_backup(tmp_path / "node", tmp_path / "backup")
    async with open_store(tmp_path / "node") as store:  # the node itself is none the wiser
        await store.marks.trust_from(BlockNumber(6))
        assert store.trusted_from == 0
    restore_backup(tmp_path / "backup", tmp_path / "node")
    for head in (100, 200):  # the block of the first start counts, not of later ones
        async with open_store(tmp_path / "node") as store:
            await store.marks.trust_from(BlockNumber(head))
            assert store.trusted_from == 101


async def test_a_backup_that_is_merely_copied_into_place_is_marked_too(tmp_path: Path) -> None:
    async with open_store(tmp_path / "node") as store:
        await fill(store)
    write_backup(tmp_path / "node", tmp_path / "backup")
    copy_into(tmp_path / "backup", tmp_path / "new")
    async with open_store(tmp_path / "new") as store:
        await store.marks.trust_from(BlockNumber(7))
        assert store.trusted_from == 8


def copy_into(backup: Path, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / DATABASE_NAME).write_bytes(backup.read_bytes())


async def test_a_restore_keeps_what_it_replaces_and_the_blobs_that_are_there(
    tmp_path: Path,
) -> None:
    node = tmp_path / "node"
    async with open_store(node) as store:
        await fill(store)
    write_backup(node, tmp_path / "backup")
    damage(node / DATABASE_NAME)
    with pytest.raises(StoreCorrupted):
        async with open_store(node):
            pass
    assert restore_backup(tmp_path / "backup", node).missing == 0
    assert read_bytes(node / "replaced-1" / DATABASE_NAME)[:1] == b"\x5a"
    async with open_store(node) as store:
        assert await list_blobs(store) == set(Purpose)
    restore_backup(tmp_path / "backup", node)
    assert names_in(node) >= {"replaced-1", "replaced-2"}


def damage(path: Path) -> None:
    path.write_bytes(b"\x5a" * path.stat().st_size)


def read_bytes(path: Path) -> bytes:
    return path.read_bytes()


def names_in(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


@pytest.mark.parametrize("is_empty", [True, False])
async def test_a_log_that_lost_its_database_is_not_taken_for_that_of_a_restored_one(
    tmp_path: Path, *, is_empty: bool
) -> None:
    """A restore may be cut off between moving the two files, or the database may be lost alone."""
    async with open_store(tmp_path / "old") as store:
        await store.journal.remember("vote", "1/0", b"old")
        log = (tmp_path / "old" / f"{DATABASE_NAME}-wal").read_bytes()
    async with open_store(tmp_path / "node") as store:
        await store.journal.remember("vote", "1/0", b"said")
    write_backup(tmp_path / "node", tmp_path / "backup")
    (tmp_path / "node" / DATABASE_NAME).unlink()
    if is_empty:
        (tmp_path / "node" / DATABASE_NAME).touch()
    (tmp_path / "node" / f"{DATABASE_NAME}-wal").write_bytes(log)
    restore_backup(tmp_path / "backup", tmp_path / "node")
    async with open_store(tmp_path / "node") as store:
        assert await store.journal.recall_all("vote") == {"1/0": b"said"}
    assert (tmp_path / "node" / "replaced-1" / f"{DATABASE_NAME}-wal").read_bytes() == log


async def test_a_running_node_is_not_restored_under(tmp_path: Path) -> None:
    async with open_store(tmp_path / "node") as store:
        await fill(store)
        write_backup(tmp_path / "node", tmp_path / "backup")
        with pytest.raises(StoreInUse):
            restore_backup(tmp_path / "backup", tmp_path / "node")


async def test_a_backup_never_replaces_a_file(tmp_path: Path) -> None:
    async with open_store(tmp_path / "node"):
        pass
    write_backup(tmp_path / "node", tmp_path / "backup")
    before = read_bytes(tmp_path / "backup")
    with pytest.raises(UserError, match="exists"):
        write_backup(tmp_path / "node", tmp_path / "backup")
    assert read_bytes(tmp_path / "backup") == before
    with pytest.raises(UserError, match="holds no node's store"):
        write_backup(tmp_path / "nobody", tmp_path / "other")


async def test_what_is_no_backup_is_refused_and_the_store_stays(tmp_path: Path) -> None:
    node = tmp_path / "node"
    async with open_store(node) as store:
        await fill(store)
    write_backup(node, tmp_path / "backup")
    make_files(tmp_path, node)
    for name, reason in (
        ("missing", "no such file"),
        ("text", "is damaged, or no backup"),
        ("store", "is no backup"),
        ("newer", f"schema {len(MIGRATIONS) + 1}"),
        ("cut", "is damaged, or no backup"),
    ):
        with pytest.raises(UserError, match=reason):
            restore_backup(tmp_path / name, node)
    assert not (names_in(node) & {"replaced-1", DATABASE_NAME + ".part"})
    async with open_store(node) as store:
        assert await store.journal.recall("vote", "1/0") == b"said"
        assert await list_blobs(store) == set(Purpose)


def make_files(folder: Path, node: Path) -> None:
    whole = (folder / "backup").read_bytes()
    (folder / "text").write_bytes(b"no database at all" * 100)
    (folder / "store").write_bytes((node / DATABASE_NAME).read_bytes())
    (folder / "cut").write_bytes(whole[: len(whole) // 2])
    (folder / "newer").write_bytes(whole)
    connection = sqlite3.connect(folder / "newer")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()


async def test_a_damaged_only_copy_is_counted_and_not_backed_up(tmp_path: Path) -> None:
    async with open_store(tmp_path / "node") as store:
        await fill(store)
    (path,) = (tmp_path / "node" / BLOB_FOLDER).rglob(keccak(BLOBS[Purpose.MODEL]).hex())
    damage(path)
    assert write_backup(tmp_path / "node", tmp_path / "backup") == Copied(1, 2, 1)


async def test_the_command_line_copies_and_puts_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_store(tmp_path / "node") as store:
        await fill(store)
    target = str(tmp_path / "backup")
    assert cli.run_command(["--data-dir", str(tmp_path / "node"), "backup", target]) == 0
    assert "The keys are not in it" in capsys.readouterr().out
    assert cli.run_command(["--data-dir", str(tmp_path / "new"), "restore", target, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"file": target, "journal_rows": 1, "blobs": 3, "missing": 4}
    assert cli.run_command(["--data-dir", str(tmp_path / "node"), "backup", target]) == 3
