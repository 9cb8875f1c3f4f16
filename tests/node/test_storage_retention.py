"""What is needed stays, what is not goes, and new jobs hear why there is no room for them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from d2m_node.errors import DiskFull
from d2m_node.ports import Purpose, Reference
from d2m_node.settings import StorageSettings
from d2m_node.storage import collector
from d2m_node.storage.collector import collect
from d2m_node.storage.database import BLOB_FOLDER, Store, open_store
from d2m_node.storage.retention import JOB_RECORDS, PROVABLE_BLOCKS, STEP_CALLS, KeepRules
from d2m_node.transaction_store import BlockId, StoredTransaction, TransactionState
from d2m_node.user_input import ByteCount
from protocol.hashing import keccak
from protocol.job import JobPhase
from protocol.market import MarketState
from protocol.types import BlockNumber, Digest, JobId
from tests.support.market_states import make_state

OLD, NEW, OPEN = JobId(1), JobId(2), JobId(3)
FINAL, SERVED, KEPT = 10, 20, 40
RULES = KeepRules(
    blob_bytes=10_000, keep_jobs=10, keep_blocks=KEPT, serve_blocks=SERVED, final_blocks=FINAL
)
ALWAYS_KEPT = (Purpose.OWN_REQUEST, Purpose.MODEL)


def fill(job_id: JobId, purpose: Purpose, size: int = 1000) -> bytes:
    return f"{job_id} {purpose.value}".encode().ljust(size, b".")


async def put_all(store: Store, *jobs: JobId) -> None:
    for job_id in jobs:
        for purpose in Purpose:
            await store.blobs.put(fill(job_id, purpose, 100), Reference(purpose, job_id))


async def list_kept(store: Store, job_id: JobId, size: int = 100) -> set[Purpose]:
    return {
        purpose
        for purpose in Purpose
        if await store.blobs.get(keccak(fill(job_id, purpose, size))) is not None
    }


async def test_blobs_of_a_job_that_is_not_over_are_never_collected(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await put_all(store, OPEN)
        rules = replace(RULES, blob_bytes=0, keep_jobs=0, keep_blocks=0)
        for phase in set(JobPhase) - {JobPhase.SETTLED, JobPhase.CANCELLED}:
            await collect(store, make_state(10**6, j3=phase), rules)
        await collect(store, make_state(10**6), rules)  # nor one that the chain does not know
        assert await list_kept(store, OPEN) == set(Purpose)


async def test_an_old_job_keeps_only_what_its_buyer_has_paid_for(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await put_all(store, OLD, OPEN)
        states = {
            block: make_state(block, j1=JobPhase.SETTLED, j3=JobPhase.TRAINING)
            for block in (100, 100 + KEPT - 1, 100 + KEPT)
        }
        for block, state in states.items():
            await collect(store, state, RULES)
            expected = set(ALWAYS_KEPT) if block == 100 + KEPT else set(Purpose)
            assert await list_kept(store, OLD) == expected
        assert await list_kept(store, OPEN) == set(Purpose)


async def test_only_so_many_jobs_that_are_over_keep_their_blobs(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await put_all(store, OLD, NEW)
        rules = replace(RULES, keep_jobs=1)
        await collect(store, make_state(100, j1=JobPhase.SETTLED), rules)
        await collect(store, make_state(101, j1=JobPhase.SETTLED, j2=JobPhase.SETTLED), rules)
        state = make_state(100 + SERVED, j1=JobPhase.SETTLED, j2=JobPhase.SETTLED)
        await collect(store, state, rules)
        assert await list_kept(store, OLD) == set(ALWAYS_KEPT)
        assert await list_kept(store, NEW) == set(Purpose)


async def test_over_the_quota_inputs_go_first_and_models_stay_while_buyers_may_come(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path) as store:
        await put_all(store, OLD)
        rules = replace(RULES, blob_bytes=0)
        over = {"j1": JobPhase.SETTLED}
        inputs = {Purpose.UPDATE, Purpose.OWN_UPDATE, Purpose.VALIDATION}
        expected = {
            100: set(Purpose),
            100 + FINAL - 1: set(Purpose),
            100 + FINAL: set(Purpose) - inputs,
            100 + SERVED: set(ALWAYS_KEPT),
        }
        for block, kept in expected.items():
            await collect(store, make_state(block, **over), rules)
            assert await list_kept(store, OLD) == kept


async def test_no_more_is_collected_than_the_quota_asks_for(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for purpose in (Purpose.UPDATE, Purpose.VALIDATION, Purpose.STATE):
            await store.blobs.put(fill(OLD, purpose), Reference(purpose, OLD))
        rules = replace(RULES, blob_bytes=2500)
        await collect(store, make_state(100, j1=JobPhase.CANCELLED), rules)
        await collect(store, make_state(100 + FINAL, j1=JobPhase.CANCELLED), rules)
        kept = await list_kept(store, OLD, 1000)
        assert len(kept) == 2
        assert Purpose.STATE in kept


async def test_a_blob_that_another_job_needs_is_not_collected(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        data = fill(OLD, Purpose.UPDATE)
        for job_id in (OLD, OPEN):
            await store.blobs.put(data, Reference(Purpose.UPDATE, job_id))
        rules = replace(RULES, blob_bytes=0, keep_blocks=0)
        for block in (100, 200):
            state = make_state(block, j1=JobPhase.SETTLED, j3=JobPhase.TRAINING)
            await collect(store, state, rules)
        assert await store.blobs.get(keccak(data)) == data


async def test_a_job_that_a_reorganisation_brings_back_is_not_over(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await put_all(store, OLD)
        rules = replace(RULES, keep_blocks=0)
        await collect(store, make_state(100, j1=JobPhase.SETTLED), rules)
        await collect(store, make_state(101, j1=JobPhase.SETTLING), rules)
        await collect(store, make_state(100 + FINAL, j1=JobPhase.SETTLED), rules)
        assert await list_kept(store, OLD) == set(Purpose)


async def test_collected_blobs_leave_no_file(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        for number in range(100):
            await store.blobs.put(b"%d" % number, Reference(Purpose.UPDATE, OLD))
        rules = replace(RULES, keep_blocks=0)
        for block in (100, 200):
            await collect(store, make_state(block, j1=JobPhase.SETTLED), rules)
    assert [one for one in (tmp_path / BLOB_FOLDER).rglob("*") if one.is_file()] == []


async def test_a_new_job_is_refused_when_running_jobs_need_the_quota(tmp_path: Path) -> None:
    settings = StorageSettings(blob_bytes=ByteCount(10_000), reserve_bytes=ByteCount(0))
    async with open_store(tmp_path, settings) as store:
        assert await store.blobs.find_refusal(OPEN, 6000) is None
        refusal = await store.blobs.find_refusal(NEW, 6000)
        assert refusal is not None
        assert "6000 of storage.blob_bytes (10000)" in refusal
        # The running job is not harmed, and asking again for it changes nothing.
        data = fill(OPEN, Purpose.UPDATE, 6000)
        await store.blobs.put(data, Reference(Purpose.UPDATE, OPEN))
        assert await store.blobs.find_refusal(OPEN, 6000) is None
        assert await store.blobs.find_refusal(NEW, 4000) is None
    async with open_store(tmp_path, settings) as store:  # a claim outlives the process
        assert await store.blobs.find_refusal(OLD, 1) is not None
        state = make_state(100, j2=JobPhase.CANCELLED, j3=JobPhase.TRAINING)
        await collect(store, state, replace(RULES, blob_bytes=10_000))
        assert await store.blobs.find_refusal(OLD, 4000) is None


async def test_what_can_be_collected_does_not_keep_a_job_out(tmp_path: Path) -> None:
    settings = StorageSettings(blob_bytes=ByteCount(10_000), reserve_bytes=ByteCount(0))
    async with open_store(tmp_path, settings) as store:
        data = fill(OLD, Purpose.UPDATE, 9000)
        await store.blobs.put(data, Reference(Purpose.UPDATE, OLD))
        rules = replace(RULES, blob_bytes=10_000)
        state = make_state(100, j1=JobPhase.SETTLED, j2=JobPhase.ENROLMENT)
        await collect(store, state, rules)
        assert await store.blobs.find_refusal(NEW, 8000) is None
        await collect(store, replace(state, block_number=BlockNumber(100 + FINAL)), rules)
        assert await store.blobs.get(keccak(data)) is None


async def test_a_job_larger_than_the_disk_is_refused(tmp_path: Path) -> None:
    settings = StorageSettings(blob_bytes=ByteCount(2**60))
    async with open_store(tmp_path, settings) as store:
        refusal = await store.blobs.find_refusal(NEW, 2**59)
    assert refusal is not None
    assert "bytes of the disk" in refusal


async def write_records(store: Store, job_id: JobId) -> None:
    for kind in (*JOB_RECORDS, "bid", "model"):
        for key in (f"{job_id}", f"{job_id}/000001", f"{job_id}0/000001"):
            await store.journal.remember(kind, key, b"value")


def add_mined(key: str, nonce: int) -> StoredTransaction:
    raw = f"{key} {nonce}".encode()
    return StoredTransaction(key=key, nonce=nonce, raw=raw, transaction_hash=keccak(raw))


@pytest.mark.parametrize("age", [PROVABLE_BLOCKS, PROVABLE_BLOCKS + 1])
async def test_records_go_when_no_seed_of_their_job_can_be_proved(tmp_path: Path, age: int) -> None:
    async with open_store(tmp_path) as store:
        await write_records(store, OLD)
        for block in (100, 100 + age):
            await collect(store, make_state(block, j1=JobPhase.SETTLED), RULES)
        is_old = age > PROVABLE_BLOCKS
        for kind in JOB_RECORDS:
            kept = await store.journal.recall_all(kind)
            assert list(kept) == (["10/000001"] if is_old else ["1", "1/000001", "10/000001"])
        for kind in ("bid", "model"):
            assert len(await store.journal.recall_all(kind)) == 3


async def test_transactions_lose_their_bytes_and_keep_the_keys_that_move_money(
    tmp_path: Path,
) -> None:
    money = ("enrol-cone/1", "claim/00/5", "bid/1/ab", "stake/3/9")
    steps = [f"{call}/1/2/77" for call in STEP_CALLS]
    async with open_store(tmp_path) as store:
        for nonce, key in enumerate((*money, *steps)):
            await store.transactions.add(add_mined(key, nonce))
            await store.transactions.settle(nonce, TransactionState.CONFIRMED, None)
        reverted, watched, waiting = (len(money) + len(steps) + step for step in range(3))
        for nonce in (reverted, watched, waiting):
            await store.transactions.add(add_mined(f"commits/1/2/{nonce}", nonce))
        await store.transactions.settle(reverted, TransactionState.REVERTED, None)
        block = BlockId(BlockNumber(7), b"\x07" * 32)
        await store.transactions.settle(watched, TransactionState.CONFIRMED, block)
        before = await store.transactions.load_watched()
        for head in (100, 100 + PROVABLE_BLOCKS + 1):
            await collect(store, make_state(head, j1=JobPhase.SETTLED), RULES)
        for key in money:
            assert await store.transactions.is_confirmed(key)
        for key in steps:
            assert not await store.transactions.is_confirmed(key)
        assert await store.transactions.load_watched() == before
        assert await store.transactions.find_highest_nonce() == waiting

        rows = await store.run(
            lambda connection: connection.execute("SELECT raw FROM transactions").fetchall()
        )
        assert len(rows) == len(money) + 2
        assert sum(raw == b"" for (raw,) in rows) == len(money)


async def test_the_highest_nonce_stays_whatever_became_of_it(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.transactions.add(add_mined("commits/1/2/77", 4))
        await store.transactions.settle(4, TransactionState.REVERTED, None)
        await collect(store, make_state(100), RULES)
        assert await store.transactions.find_highest_nonce() == 4


async def test_reading_a_blob_makes_it_go_later(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        read, unread = (b"read".ljust(1000), b"unread".ljust(1000))
        for data in (read, unread):
            await store.blobs.put(data, Reference(Purpose.UPDATE, OLD))
        await store.run(
            lambda connection: connection.execute("UPDATE blobs SET last_use = 5").rowcount
        )
        await store.blobs.get(Digest(keccak(read)))
        rules = replace(RULES, blob_bytes=1500)
        for block in (100, 100 + FINAL):
            await collect(store, make_state(block, j1=JobPhase.SETTLED), rules)
        assert await store.blobs.get(keccak(read)) == read
        assert await store.blobs.get(keccak(unread)) is None


async def test_a_disk_that_is_too_full_to_delete_does_not_end_the_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_again = trio.Event()

    class Chain:
        asked = 0

        @property
        def state(self) -> MarketState:
            self.asked += 1
            if self.asked == 3:
                asked_again.set()
            return make_state(100 * self.asked, over=[OLD])

    def refuse(_: Digest) -> None:
        raise DiskFull("no room to delete")

    chain: Any = Chain()
    monkeypatch.setattr(collector, "PERIOD_SECONDS", 0)
    async with open_store(tmp_path) as store:
        await store.blobs.put(b"update", Reference(Purpose.UPDATE, OLD))
        monkeypatch.setattr(store.blobs.files, "delete", refuse)
        with capture_logs() as logs, trio.fail_after(20):
            async with trio.open_nursery() as nursery:  # ends before the store does
                rules = replace(RULES, keep_blocks=0)
                nursery.start_soon(collector.run_collector, store, chain, rules)
                await asked_again.wait()
                nursery.cancel_scope.cancel()
    assert [one["event"] for one in logs] == ["collection_failed"]
