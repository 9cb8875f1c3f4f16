"""How full the store is, and whether it can be written."""

import os
from pathlib import Path

import pytest

from d2m_node.errors import DiskFull
from d2m_node.ports import Purpose, Reference
from d2m_node.settings import StorageSettings
from d2m_node.storage.database import open_store
from protocol.types import JobId


async def test_the_store_says_how_full_it_is(tmp_path: Path) -> None:
    settings = StorageSettings()
    async with open_store(tmp_path, settings) as store:
        await store.blobs.put(bytes(1000), Reference(Purpose.UPDATE, JobId(1)))
        reading = await store.measure()
    assert reading.blob_bytes == 1000
    assert reading.quota_bytes == settings.blob_bytes
    assert reading.kept_bytes == 1000, "its job is not over"
    disk = os.statvfs(tmp_path)
    assert 0 < reading.free_bytes < disk.f_blocks * disk.f_frsize


async def test_a_store_that_can_be_written_is_written(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        log = tmp_path / "store.sqlite-wal"
        before = size_of(log)
        await store.check_writable()
        assert size_of(log) > before
    async with open_store(tmp_path):
        pass  # the schema is what it was


async def test_a_disk_without_room_is_no_writable_store(tmp_path: Path) -> None:
    async with open_store(tmp_path, StorageSettings(reserve_bytes=1 << 60)) as store:
        with pytest.raises(DiskFull, match="free some space"):
            await store.check_writable()
        assert (await store.measure()).free_bytes == 0


def size_of(path: Path) -> int:
    return path.stat().st_size
