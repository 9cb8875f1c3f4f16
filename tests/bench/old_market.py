"""Follow a market that is old, in a process of its own: ``python -m tests.bench.old_market JOBS``.

Prints one line of JSON: what memory it took, what lies on the disk, and how long it took.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import structlog
import trio

from d2m_node.chain.archivist import Archivist
from d2m_node.chain.follower import Follower
from d2m_node.chain.json_rpc import Json, Request, to_hex
from d2m_node.storage.database import open_store
from d2m_node.storage.past_jobs import PAST_NAME
from protocol.hashing import keccak
from protocol.types import BlockNumber
from tests.support.chain import SETTINGS, make_bindings, make_log
from tests.support.old_jobs import BLOCKS, CONES, life_of, record, stake_events

JOB_BLOCKS = BLOCKS + 2
"""An auction opens in every one of so many blocks; the tail of a life overlaps with nothing."""
RANGE_BLOCKS = 300


class OldChain:
    """Stands in for `RpcClient`: writes what it is asked for, and keeps nothing of it."""

    silent_seconds = 0.0

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self.height = (jobs + 1) * JOB_BLOCKS + 2 * RANGE_BLOCKS

    async def call(self, method: str, *params: Json) -> Json:
        (answer,) = await self.batch([Request(method, params)])
        return answer

    async def batch(self, batch: Sequence[Request]) -> list[Json]:
        return [self._answer(request.method, *request.params) for request in batch]

    def distrust_endpoint(self) -> None:
        raise AssertionError("the chain writes what contracts could write")

    def _answer(self, method: str, first: Json, *_: Json) -> Json:
        if method == "eth_getLogs":
            return self._list_logs(first)
        number = self.height if first == "latest" else int(first, 16)
        return {
            "number": hex(number),
            "hash": _hash_of(number),
            "parentHash": _hash_of(number - 1),
            "logsBloom": to_hex(b"\xff" * 256),
        }

    def _list_logs(self, log_filter: Json) -> list[Json]:
        if "blockHash" in log_filter:  # so near to the tip nothing happens any more
            return []
        first, last = int(log_filter["fromBlock"], 16), int(log_filter["toBlock"], 16)
        numbers = range(max(first // JOB_BLOCKS, 0), last // JOB_BLOCKS + 1)
        return [entry for number in numbers for entry in self._list_of_job(number, first, last)]

    def _list_of_job(self, number: int, first: int, last: int) -> list[Json]:
        base = number * JOB_BLOCKS
        if number > self._jobs:
            return []
        told = life_of(number, base) if number else [(5, one) for one in stake_events()]
        return [
            {
                **make_log(one.event),
                "blockNumber": hex(one.block_number),
                "logIndex": hex(one.log_index),
                "transactionHash": to_hex(one.transaction_hash),
            }
            for one in record(told, base)
            if first <= one.block_number <= last
        ]


def _hash_of(number: int) -> str:
    return to_hex(keccak(max(number, 0).to_bytes(8, "big")))


async def follow(jobs: int, folder: Path, *, is_kept: bool) -> dict[str, float]:
    """Follow a market of so many jobs as one of their CONE nodes, to the end."""
    settings = replace(SETTINGS, range_blocks=RANGE_BLOCKS, deployment_block=1)
    async with open_store(folder) as store:
        archivist = None if is_kept else Archivist(store.past, CONES[0])
        chain = OldChain(jobs)
        follower = Follower(chain, make_bindings(), settings, archivist)  # type: ignore[arg-type]
        began = time.process_time()
        while await follower.follow():
            pass
        assert follower.state.block_number == BlockNumber(chain.height)
        assert follower.state.job_count == jobs
        return {
            "jobs": jobs,
            "in_state": len(follower.state.jobs),
            "resident_bytes": psutil.Process().memory_info().rss,
            "disk_bytes": (folder / PAST_NAME).stat().st_size,
            "cpu_seconds": round(time.process_time() - began, 2),
        }


def main() -> None:
    """Follow, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", type=int)
    parser.add_argument("--keep", action="store_true", help="let no job leave the state")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory(prefix="d2m-old-") as folder:
        found = trio.run(lambda: follow(arguments.jobs, Path(folder), is_kept=arguments.keep))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
