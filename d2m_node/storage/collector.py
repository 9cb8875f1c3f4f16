"""The task that keeps the data directory within its bounds, for as long as the node runs."""

from collections.abc import Sequence
from typing import Final, NoReturn

import structlog
import trio

from d2m_node.errors import DiskFull
from d2m_node.ports import ChainPort
from d2m_node.settings import NodeSettings
from d2m_node.storage.database import Store
from d2m_node.storage.retention import (
    EndedJob,
    KeepRules,
    drop_references,
    note_ended_jobs,
    select_expired,
    take_unneeded,
    trim_records,
    trim_transactions,
)
from protocol.job import OVER
from protocol.market import MarketState
from protocol.types import BlockNumber

PERIOD_SECONDS: Final = 60.0
BATCH_BLOBS: Final = 32
"""Files deleted before others may have the disk."""

log = structlog.get_logger(__name__)


def make_rules(settings: NodeSettings) -> KeepRules:
    """Return how long what is kept."""
    storage = settings.storage
    return KeepRules(
        blob_bytes=storage.blob_bytes,
        keep_jobs=storage.keep_jobs,
        keep_blocks=storage.keep_blocks,
        serve_blocks=storage.serve_blocks,
        final_blocks=settings.chain.reorg_blocks,
    )


async def run_collector(store: Store, chain: ChainPort, rules: KeepRules) -> NoReturn:
    """Collect at the start and then every minute, until cancelled. Raises FatalError."""
    while True:
        try:
            await collect(store, chain.state, rules)
        except DiskFull as error:  # some file systems need room even to delete
            log.warning("collection_failed", reason=str(error))
        await trio.sleep(PERIOD_SECONDS)


async def collect(store: Store, state: MarketState, rules: KeepRules) -> None:
    """Let go of what is not needed as of a state of the market.

    Rows go before files: after a crash in between, the next start drops the files.
    """
    head = state.block_number
    over = {job.job_id for job in state.jobs.values() if job.phase in OVER}
    over.update(one.job_id for one in await store.past.list_kept() if state.is_past(one.job_id))
    await store.blobs.note_uses()
    ended = await store.run(lambda connection: note_ended_jobs(connection, over, head))
    expired = select_expired(ended, head, rules)
    await store.run(lambda connection: drop_references(connection, expired, head, rules))
    count = await _collect_blobs(store, head, rules)
    await _trim(store, expired, head)
    if count:
        log.info("blobs_collected", count=count)


async def _collect_blobs(store: Store, head: BlockNumber, rules: KeepRules) -> int:
    count = 0
    while True:
        with trio.CancelScope(shield=True):  # or files would stay without rows
            async with store.blobs.lock:
                digests = await store.run(
                    lambda connection: take_unneeded(connection, head, rules, most=BATCH_BLOBS)
                )
                await store.blobs.delete_files(digests)
        count += len(digests)
        if not digests:
            return count
        await trio.lowlevel.checkpoint()


async def _trim(store: Store, expired: Sequence[EndedJob], head: BlockNumber) -> None:
    await store.run(lambda connection: trim_records(connection, expired, head))
    await store.run(trim_transactions)
