"""Blobs are found by their hash, agree with their rows after any crash, and heal from peers."""

import sqlite3
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from d2m_node.errors import DiskFull
from d2m_node.ports import Purpose, Reference
from d2m_node.settings import StorageSettings
from d2m_node.storage import blobs
from d2m_node.storage.blob_files import DAMAGED, MAX_DAMAGED_FILES
from d2m_node.storage.database import BLOB_FOLDER, DATABASE_NAME, open_store
from d2m_node.storage.schema import MIGRATIONS
from d2m_node.user_input import ByteCount
from protocol.hashing import keccak
from protocol.types import Digest, JobId

UPDATE = Reference(Purpose.UPDATE, JobId(1))
OWN_UPDATE = Reference(Purpose.OWN_UPDATE, JobId(1))
STATE = Reference(Purpose.STATE, JobId(2))


def file_of(folder: Path, digest: Digest) -> Path:
    return folder / BLOB_FOLDER / digest.hex()[:2] / digest.hex()


def find_damaged(folder: Path) -> list[bytes]:
    return [one.read_bytes() for one in (folder / BLOB_FOLDER / DAMAGED).iterdir()]


def read_rows(folder: Path, table: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(folder / DATABASE_NAME)
    rows = connection.execute(f"SELECT * FROM {table}").fetchall()
    connection.close()
    return rows


async def test_a_blob_is_only_for_its_owner_to_read(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        digest = await store.blobs.put(b"update", UPDATE)
        path = file_of(tmp_path, digest)
        assert path.stat().st_mode & 0o077 == 0
        assert path.parent.stat().st_mode & 0o077 == 0
        assert path.parent.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", [b"changed", b"updatE", b"", b"update and more"])
async def test_a_damaged_blob_is_set_aside_and_can_be_put_again(
    tmp_path: Path, damage: bytes
) -> None:
    async with open_store(tmp_path) as store:
        digest = await store.blobs.put(b"update", UPDATE)
        file_of(tmp_path, digest).write_bytes(damage)
        with capture_logs() as logs:
            assert await store.blobs.get(digest) is None
        (report,) = logs
        assert (report["event"], report["job"], report["purpose"]) == ("blob_damaged", 1, "update")
        assert report["lost"].startswith("nothing")
        assert find_damaged(tmp_path) == [damage]
        await store.blobs.put(b"update", UPDATE)
        assert await store.blobs.get(digest) == b"update"


async def test_a_blob_is_read_without_its_keccak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(tmp_path) as store:
        digest = await store.blobs.put(b"update", UPDATE)
        monkeypatch.setattr(blobs, "is_intact", _never)
        assert await store.blobs.get(digest) == b"update"


async def test_a_blob_of_an_older_version_gets_its_check_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(tmp_path) as store:
        digest = await store.blobs.put(b"update", UPDATE)
    _set_check(tmp_path, None)
    async with open_store(tmp_path) as store:
        assert await store.blobs.get(digest) == b"update"
        monkeypatch.setattr(blobs, "is_intact", _never)
        assert await store.blobs.get(digest) == b"update"


async def test_a_damaged_check_costs_no_blob(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        digest = await store.blobs.put(b"update", UPDATE)
    _set_check(tmp_path, bytes(32))
    async with open_store(tmp_path) as store:
        assert await store.blobs.get(digest) == b"update"
    assert find_damaged(tmp_path) == []


def _never(_data: bytes, _digest: Digest) -> bool:
    raise AssertionError("the Keccak of a blob that has a check")


def _set_check(folder: Path, check: bytes | None) -> None:
    connection = sqlite3.connect(folder / DATABASE_NAME)
    with connection:
        connection.execute("UPDATE blobs SET quick_check = ?", (check,))
    connection.close()


async def test_the_loss_of_an_only_copy_is_an_error_that_says_what_is_lost(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        digest = await store.blobs.put(b"update", OWN_UPDATE)
        file_of(tmp_path, digest).write_bytes(b"changed")
        with capture_logs() as logs:
            await store.blobs.get(digest)
    (report,) = logs
    assert report["log_level"] == "error"
    assert report["lost"].startswith("the update that this node signed for")


async def test_only_so_many_damaged_files_are_set_aside(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for number in range(MAX_DAMAGED_FILES + 2):
            digest = await store.blobs.put(b"%d" % number, UPDATE)
            file_of(tmp_path, digest).write_bytes(b"changed")
            await store.blobs.get(digest)
    assert len(list((tmp_path / BLOB_FOLDER / DAMAGED).iterdir())) == MAX_DAMAGED_FILES


async def test_a_missing_file_is_reported_at_the_start_and_its_rows_are_dropped(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path) as store:
        digest = await store.blobs.put(b"update", OWN_UPDATE)
    file_of(tmp_path, digest).unlink()
    with capture_logs() as logs:
        async with open_store(tmp_path) as store:
            assert await store.blobs.get(digest) is None
            assert await store.blobs.references(digest) == frozenset()
    assert [(one["event"], one["log_level"]) for one in logs] == [("blob_missing", "error")]


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 4097, 9999])
async def test_a_torn_file_is_found_at_the_start(tmp_path: Path, length: int) -> None:
    async with open_store(tmp_path) as store:
        digest = await store.blobs.put(bytes(10_000), UPDATE)
    with file_of(tmp_path, digest).open("r+b") as file:
        file.truncate(length)
    with capture_logs() as logs:
        async with open_store(tmp_path) as store:
            assert await store.blobs.get(digest) is None
    assert [one["event"] for one in logs] == ["blob_damaged"]


async def test_a_file_that_nothing_refers_to_is_dropped_at_the_start(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        kept = await store.blobs.put(b"kept", UPDATE)
    orphan = file_of(tmp_path, keccak(b"orphan"))
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"orphan")
    unfinished = tmp_path / BLOB_FOLDER / "unfinished" / "tmp1"
    unfinished.write_bytes(b"half")
    stranger = orphan.parent / "note.txt"
    stranger.write_text("not a blob")
    async with open_store(tmp_path) as store:
        assert await store.blobs.get(kept) == b"kept"
        assert not orphan.exists()
        assert not unfinished.exists()
        assert stranger.exists()


async def test_blobs_of_an_older_version_keep_their_audience(tmp_path: Path) -> None:
    data = {b"request": ("public", 1), b"update": ("cones", 1), b"state": ("participants", 2)}
    connection = sqlite3.connect(tmp_path / DATABASE_NAME)
    for number, script in enumerate(MIGRATIONS[:2], start=1):
        connection.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")
    rows = [(keccak(one), *rule) for one, rule in data.items()]
    connection.executemany("INSERT INTO blob_access VALUES (?, ?, ?)", rows)
    connection.execute("INSERT INTO journal VALUES ('model', '2', ?)", (keccak(b"model"),))
    connection.commit()
    connection.close()
    for one in (*data, b"model", b"forgotten"):
        path = file_of(tmp_path, keccak(one))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one)
    async with open_store(tmp_path) as store:
        for one, reference in (
            (b"request", Reference(Purpose.REQUEST, JobId(1))),
            (b"update", UPDATE),
            (b"state", STATE),
            (b"model", Reference(Purpose.MODEL, JobId(2))),
        ):
            assert await store.blobs.get(keccak(one)) == one
            assert await store.blobs.references(keccak(one)) == {reference}
        assert await store.blobs.get(keccak(b"forgotten")) is None
    assert len(read_rows(tmp_path, "blobs")) == 4


async def test_a_blob_that_would_use_up_the_reserve_is_refused_before_it_is_written(
    tmp_path: Path,
) -> None:
    whole_disk = StorageSettings(reserve_bytes=ByteCount(2**60))
    async with open_store(tmp_path, whole_disk) as store:
        with pytest.raises(DiskFull, match=r"do not fit.*storage.reserve_bytes"):
            await store.blobs.check_room(1)
        with pytest.raises(DiskFull):
            await store.blobs.put(b"update", UPDATE)
        assert await store.blobs.references(keccak(b"update")) == frozenset()
    assert list((tmp_path / BLOB_FOLDER / "unfinished").iterdir()) == []
