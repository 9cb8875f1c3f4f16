"""What every store does: the one on a disk, and the one of the simulation."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path

import pytest
import trio

from d2m_node.errors import DiskFull
from d2m_node.ports import Purpose, Reference, Refusal, StorePort
from d2m_node.settings import StorageSettings
from d2m_node.simulation.nodes.memory import BlobPool, MemoryStore, Room
from d2m_node.simulation.world.virtual_time import run_in_virtual_time
from d2m_node.storage.database import BLOB_FOLDER, Store, open_store
from d2m_node.storage.refusals import REFUSALS_KEPT
from d2m_node.user_input import ByteCount
from protocol.hashing import keccak
from protocol.types import BlockNumber, Digest, JobId

Reopen = Callable[[], AbstractAsyncContextManager[Store | MemoryStore]]
"""Opens one store, again and again, as restarts of its node do."""

UPDATE = Reference(Purpose.UPDATE, JobId(1))
STATE = Reference(Purpose.STATE, JobId(2))


@pytest.fixture(params=["disk", "memory"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    if request.param == "disk":
        return partial(open_store, tmp_path)
    store = MemoryStore()
    return lambda: nullcontext(store)


@pytest.fixture(params=["disk", "memory"])
def reopen_small(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """A store with a quota of 10000 bytes."""
    if request.param == "disk":
        settings = StorageSettings(blob_bytes=ByteCount(10_000), reserve_bytes=ByteCount(0))
        return partial(open_store, tmp_path, settings)
    store = MemoryStore(room=Room(quota_bytes=10_000))
    return lambda: nullcontext(store)


@pytest.fixture(params=["disk", "memory"])
def reopen_full(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """A store on a disk that takes no blob any more."""
    if request.param == "disk":
        settings = StorageSettings(reserve_bytes=ByteCount(2**60))
        return partial(open_store, tmp_path, settings)
    store = MemoryStore(room=Room(disk_bytes=0))
    return lambda: nullcontext(store)


def damage(store: Store | MemoryStore, folder: Path, digest: Digest, data: bytes) -> None:
    """Let the disk give other bytes for a blob."""
    if isinstance(store, MemoryStore):
        store.blobs.damage(digest, data)
    else:
        name = digest.hex()
        (folder / BLOB_FOLDER / name[:2] / name).write_bytes(data)


# --- journal


async def test_the_first_value_of_a_key_stays(reopen: Reopen) -> None:
    async with reopen() as store:
        assert await store.journal.remember("vote", "1/0", b"first") == b"first"
        assert await store.journal.remember("vote", "1/0", b"second") == b"first"
        assert await store.journal.recall("vote", "1/0") == b"first"


async def test_an_unknown_key_is_not_recalled(reopen: Reopen) -> None:
    async with reopen() as store:
        await store.journal.remember("vote", "1/0", b"value")
        assert await store.journal.recall("vote", "1/1") is None
        assert await store.journal.recall("update", "1/0") is None


async def test_the_store_satisfies_its_port_and_survives_a_restart(reopen: Reopen) -> None:
    async with reopen() as store:
        port: StorePort = store
        await port.journal.remember("vote", "1/0", b"value")
        digest = await port.blobs.put(b"model", Reference(Purpose.MODEL, JobId(1)))
    async with reopen() as store:
        assert await store.journal.recall("vote", "1/0") == b"value"
        assert await store.blobs.get(digest) == b"model"


async def test_records_are_recalled_by_literal_prefix_in_order(reopen: Reopen) -> None:
    async with reopen() as store:
        for key in ("1/b", "1/a", "10/a", "1_a", "2/a"):
            await store.journal.remember("vote", key, key.encode())
        await store.journal.remember("update", "1/c", b"other kind")
        assert list(await store.journal.recall_all("vote", "1/")) == ["1/a", "1/b"]
        assert len(await store.journal.recall_all("vote")) == 5


# --- refusals


def make_refusal(job: int = 1, role: str = "cone", code: str = "price", block: int = 5) -> Refusal:
    return Refusal(
        job_id=JobId(job),
        role=role,
        code=code,
        reason="too little",
        block_number=BlockNumber(block),
    )


async def test_a_refusal_is_new_once_across_restarts(reopen: Reopen) -> None:
    async with reopen() as store:
        assert await store.refusals.add(make_refusal())
        assert not await store.refusals.add(make_refusal(block=6))
    async with reopen() as store:
        assert not await store.refusals.add(make_refusal(block=7))
        assert await store.refusals.latest(10) == (make_refusal(),)
        for other in (make_refusal(2), make_refusal(role="seller"), make_refusal(code="stake")):
            assert await store.refusals.add(other)


async def test_refusals_come_newest_first_and_by_job(reopen: Reopen) -> None:
    kept = [make_refusal(1), make_refusal(2), make_refusal(1, code="stake")]
    async with reopen() as store:
        for one in kept:
            await store.refusals.add(one)
        assert await store.refusals.latest(2) == (kept[2], kept[1])
        assert await store.refusals.latest(10, JobId(1)) == (kept[2], kept[0])


async def test_the_oldest_refusals_give_way(reopen: Reopen) -> None:
    async with reopen() as store:
        for job in range(REFUSALS_KEPT + 2):
            await store.refusals.add(make_refusal(job))
        found = await store.refusals.latest(2 * REFUSALS_KEPT)
        assert [one.job_id for one in found] == list(range(REFUSALS_KEPT + 1, 1, -1))


# --- blobs


async def test_a_blob_is_found_by_its_keccak_only(reopen: Reopen) -> None:
    async with reopen() as store:
        digest = await store.blobs.put(b"update", UPDATE)
        assert digest == keccak(b"update")
        assert await store.blobs.get(digest) == b"update"
        assert await store.blobs.get(Digest(bytes(32))) is None


async def test_a_blob_collects_what_it_is_kept_for(reopen: Reopen) -> None:
    async with reopen() as store:
        for reference in (UPDATE, UPDATE, STATE):
            digest = await store.blobs.put(b"update", reference)
        assert await store.blobs.references(digest) == {UPDATE, STATE}


@pytest.mark.parametrize("data", [b"changed", b"updatE", b"", b"update and more"])
async def test_a_damaged_blob_is_not_there_and_can_be_put_again(
    reopen: Reopen, tmp_path: Path, data: bytes
) -> None:
    async with reopen() as store:
        digest = await store.blobs.put(b"update", UPDATE)
        damage(store, tmp_path, digest, data)
        assert await store.blobs.get(digest) is None
        assert await store.blobs.references(digest) == frozenset()
        await store.blobs.put(b"update", UPDATE)
        assert await store.blobs.get(digest) == b"update"


@pytest.mark.parametrize(("data", "found"), [(b"updatE", None), (b"torn", b"update")])
async def test_a_damaged_blob_is_written_anew_if_its_length_shows_it(
    reopen: Reopen, tmp_path: Path, data: bytes, found: bytes | None
) -> None:
    async with reopen() as store:
        digest = await store.blobs.put(b"update", UPDATE)
        damage(store, tmp_path, digest, data)
        await store.blobs.put(b"update", STATE)
        assert await store.blobs.get(digest) == found


async def test_a_full_disk_refuses_blobs_and_nothing_has_changed(reopen_full: Reopen) -> None:
    async with reopen_full() as store:
        with pytest.raises(DiskFull, match="do not fit on the disk"):
            await store.blobs.check_room(1)
        with pytest.raises(DiskFull):
            await store.blobs.put(b"update", UPDATE)
        assert await store.blobs.references(keccak(b"update")) == frozenset()
        assert await store.blobs.get(keccak(b"update")) is None


async def test_a_new_job_is_refused_while_others_may_need_the_room(reopen_small: Reopen) -> None:
    running, new = JobId(1), JobId(2)
    async with reopen_small() as store:
        assert await store.blobs.find_refusal(running, 6000) is None
        refusal = await store.blobs.find_refusal(new, 6000)
        assert refusal is not None
        assert "may need 6000 bytes" in refusal
        await store.blobs.put(bytes(6000), Reference(Purpose.UPDATE, running))
        assert await store.blobs.find_refusal(running, 6000) is None
        assert await store.blobs.find_refusal(new, 4000) is None
    async with reopen_small() as store:
        assert await store.blobs.find_refusal(JobId(3), 1) is not None


# --- what only the one in memory can do


async def test_stores_of_one_simulation_hold_each_blob_once() -> None:
    pool = BlobPool()
    first, second = (MemoryStore(pool) for _ in range(2))
    copies = [bytes([7]) * 1000 for _ in range(2)]
    assert copies[0] is not copies[1]
    digest = await first.blobs.put(copies[0], UPDATE)
    await second.blobs.put(copies[1], STATE)
    assert await second.blobs.get(digest) is copies[0]
    assert await first.blobs.references(digest) == {UPDATE}


async def test_a_job_that_is_over_leaves_what_is_kept_for_ever() -> None:
    pool = BlobPool()
    first, second = (MemoryStore(pool, Room(quota_bytes=1000)) for _ in range(2))
    model = await first.blobs.put(b"model", Reference(Purpose.MODEL, JobId(1)))
    shared = await first.blobs.put(b"update", UPDATE)
    await second.blobs.put(b"update", UPDATE)
    assert await first.blobs.find_refusal(JobId(1), 900) is None
    first.blobs.collect({JobId(1)})
    assert await first.blobs.get(model) == b"model"
    assert await first.blobs.get(shared) is None
    assert await second.blobs.get(shared) == b"update"
    assert await first.blobs.find_refusal(JobId(2), 900) is None
    second.blobs.collect({JobId(1)})
    assert await second.blobs.get(shared) is None


async def crash_while_writing(steps: int) -> tuple[bool, bool]:
    """Cancel a writer after some steps; tell whether the value is there, and whether it heard."""
    store, heard = MemoryStore(), []

    async def write() -> None:
        heard.append(await store.journal.remember("vote", "1/0", b"said"))

    async with trio.open_nursery() as node:
        node.start_soon(write)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        node.cancel_scope.cancel()
    return await store.journal.recall("vote", "1/0") is not None, bool(heard)


def test_a_node_may_crash_before_a_write_and_after_one_of_which_it_never_heard() -> None:
    found = {
        run_in_virtual_time(crash_while_writing, steps, seed=seed)
        for seed in range(8)
        for steps in range(4)
    }
    assert found == {(False, False), (True, False), (True, True)}
