"""The store keeps what it was told, says so when it cannot, and belongs to one process."""

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from d2m_node.errors import FatalError, StoreCorrupted, StoreInUse
from d2m_node.storage.database import DATABASE_NAME, open_store
from d2m_node.storage.facts import Facts
from d2m_node.storage.schema import MIGRATIONS
from d2m_node.transaction_store import BlockId, PaidFee, StoredTransaction, TransactionState
from protocol.hashing import keccak
from protocol.types import Address, BlockNumber, JobId, Wei


def make_transaction(key: str, nonce: int, raw: bytes) -> StoredTransaction:
    return StoredTransaction(key=key, nonce=nonce, raw=raw, transaction_hash=keccak(raw))


def remember_and_die(folder: Path) -> None:
    """Run a node that is killed right after `remember` returned."""
    script = """
import os, sys, trio
from pathlib import Path
from d2m_node.storage.database import open_store

async def main():
    async with open_store(Path(sys.argv[1])) as store:
        await store.journal.remember("vote", "1/0", b"said")
        os.kill(os.getpid(), 9)

trio.run(main)
"""
    subprocess.run([sys.executable, "-c", script, str(folder)], check=False)


async def test_a_record_is_on_disk_when_the_process_is_killed(tmp_path: Path) -> None:
    remember_and_die(tmp_path)
    async with open_store(tmp_path) as store:
        assert await store.journal.recall("vote", "1/0") == b"said"


async def test_a_second_node_on_the_same_directory_is_told_who_holds_it(tmp_path: Path) -> None:
    async with open_store(tmp_path):
        with pytest.raises(StoreInUse) as failure:
            async with open_store(tmp_path):
                pass
    assert str(failure.value) == f"{tmp_path} is in use by another d2m-node (pid {os.getpid()})"


async def test_a_directory_is_free_again_once_its_node_has_stopped(tmp_path: Path) -> None:
    for _ in range(2):
        async with open_store(tmp_path):
            pass


async def test_a_file_that_is_no_database_is_reported_as_corrupted(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(b"not a database" * 100)
    with pytest.raises(StoreCorrupted, match=DATABASE_NAME):
        async with open_store(tmp_path):
            pass


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    async with open_store(tmp_path):
        pass
    connection = sqlite3.connect(tmp_path / DATABASE_NAME)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(FatalError, match="newer d2m-node"):
        async with open_store(tmp_path):
            pass


async def test_what_is_stored_is_not_for_other_accounts_of_the_machine(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    async with open_store(folder):
        assert folder.stat().st_mode & 0o077 == 0
        assert (folder / DATABASE_NAME).stat().st_mode & 0o077 == 0


async def test_open_transactions_come_back_in_order(tmp_path: Path) -> None:
    later = make_transaction("reveal", 2, b"c")
    first = make_transaction("commit", 1, b"b")
    outbid = make_transaction("commit", 1, b"a")
    async with open_store(tmp_path) as store:
        for one in (later, first, outbid, first):
            await store.transactions.add(one)
    async with open_store(tmp_path) as store:
        assert await store.transactions.load_watched() == [first, outbid, later]


async def test_a_closed_nonce_is_no_longer_open(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await store.transactions.add(make_transaction("commit", 1, b"a"))
        assert not await store.transactions.is_confirmed("commit")
        await store.transactions.settle(1, TransactionState.CONFIRMED, None)
        assert await store.transactions.is_confirmed("commit")
        assert await store.transactions.load_watched() == []


async def test_a_mined_transaction_comes_back_until_its_block_is_final(tmp_path: Path) -> None:
    mined = BlockId(BlockNumber(7), b"\x07" * 32)
    transaction = make_transaction("commit", 1, b"a")
    async with open_store(tmp_path) as store:
        await store.transactions.add(transaction)
        await store.transactions.settle(1, TransactionState.CONFIRMED, mined)
        assert await store.transactions.is_confirmed("commit")
    async with open_store(tmp_path) as store:
        confirmed = replace(transaction, state=TransactionState.CONFIRMED, mined=mined)
        assert await store.transactions.load_watched() == [confirmed]
        # A reorganisation dropped it, and another transaction took the nonce.
        await store.transactions.settle(1, TransactionState.REPLACED, None)
        assert await store.transactions.load_watched() == []
        assert not await store.transactions.is_confirmed("commit")


async def test_the_highest_nonce_is_known_after_its_transactions_are_final(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        assert await store.transactions.find_highest_nonce() is None
        await store.transactions.add(make_transaction("commit", 3, b"a"))
        await store.transactions.settle(3, TransactionState.CONFIRMED, None)
        assert await store.transactions.find_highest_nonce() == 3


async def test_a_reverted_transaction_is_not_confirmed_by_its_successor_of_another_key(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path) as store:
        await store.transactions.add(make_transaction("commit", 1, b"a"))
        await store.transactions.settle(1, TransactionState.REVERTED, None)
        await store.transactions.add(make_transaction("reveal", 1, b"b"))
        await store.transactions.settle(1, TransactionState.CONFIRMED, None)
        assert not await store.transactions.is_confirmed("commit")
        assert await store.transactions.is_confirmed("reveal")


# --- facts of the node


async def test_facts_of_the_node_are_numbered_across_restarts_and_old_ones_give_way(
    tmp_path: Path,
) -> None:
    async with open_store(tmp_path) as store:
        first = await store.facts.add("role.enabled", {"role": "cone"}, None)
        assert first.number == 1
    async with open_store(tmp_path) as store:
        facts = Facts(store.run, kept=2)
        second = await facts.add("job.refused", {"reason": "the price is low"}, JobId(4))
        assert await facts.latest() == [first, second]
        third = await facts.add("role.disabled", {}, None)
        assert await facts.latest() == [second, third]
        assert third.number == 3


async def test_what_a_nonce_cost_is_kept_and_the_last_word_counts(tmp_path: Path) -> None:
    fee = PaidFee(nonce=3, callee=Address(b"\x01" * 20), call_head=b"\x02" * 36, fee_wei=Wei(2**70))
    async with open_store(tmp_path) as store:
        await store.transactions.note_fee(replace(fee, fee_wei=Wei(1)))
        await store.transactions.note_fee(fee)
        await store.transactions.note_fee(replace(fee, nonce=4, callee=None))
    async with open_store(tmp_path) as store:
        kept = {one.nonce: one for one in await store.transactions.load_fees()}
    assert kept == {3: fee, 4: replace(fee, nonce=4, callee=None)}
