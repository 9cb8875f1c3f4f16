"""CONE nodes that come back after whole rounds catch up from the chain and from peers alone."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from d2m_node.devnet.launcher import Devnet, open_devnet
from d2m_node.devnet.layout import NodePlan
from d2m_node.storage.database import BLOB_FOLDER
from protocol.job import OVER, JobPhase, JobState
from protocol.market import MarketState
from protocol.types import BlockNumber, JobId, Wei
from tests.support.devnets import make_honest_options, show_nothing, submit_small_job
from tests.support.small_request import SmallJob

pytestmark = [pytest.mark.integration, pytest.mark.slow]

JOB = JobId(1)
SELLERS, CONES, ROUNDS = 4, 7, 5
KEYS = ("account.json", "password", "peer.key", "config.toml")
JOB_SECONDS = 420.0
WISH = SmallJob(
    bid_wei=Wei(10**19),
    sellers=SELLERS,
    sellers_min=SELLERS - 1,
    cones=CONES,
    rounds=ROUNDS,
    first_set_size=5,
)


def find_plan(devnet: Devnet, name: str) -> NodePlan:
    return next(one for one in devnet.plans if one.name == name)


async def wait_job(devnet: Devnet, is_so: Callable[[JobState], bool]) -> JobState:
    def find(state: MarketState) -> JobState | None:
        job = state.jobs.get(JOB)
        return job if job is not None and is_so(job) else None

    return await devnet.chain.wait_for(find)


def empty_blobs(folder: Path) -> None:
    shutil.rmtree(folder / BLOB_FOLDER)


def keep_only_keys(folder: Path) -> None:
    """What is left when an operator has the keys and nothing else."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in KEYS:
            path.unlink()


def votes_after(job: JobState, index: int, block: BlockNumber) -> list[bool]:
    """Whether a node voted in each ballot that was decided and opened after a block."""
    later = (one.ballot for one in job.decided if one.ballot.opened_at[0] > block)
    return [index in ballot.opened for ballot in later]


async def run_job_with_late_nodes(folder: Path) -> None:
    options = make_honest_options(folder, sellers=SELLERS, cones=CONES)
    async with open_devnet(options, show_nothing) as devnet:
        await submit_small_job(devnet, WISH)
        await wait_job(devnet, lambda job: job.ballot is not None)
        blobless, amnesiac = (find_plan(devnet, f"cone-{number}") for number in (CONES - 1, CONES))
        for plan in (blobless, amnesiac):
            devnet.processes.end(plan.name, signal.SIGKILL)
            await devnet.processes.wait_ended(plan.name)
        job = await wait_job(devnet, lambda job: len(job.decided_rounds) >= 2)
        empty_blobs(blobless.folder)
        keep_only_keys(amnesiac.folder)
        for plan in (blobless, amnesiac):
            await devnet.processes.start(plan)
        back = devnet.chain.state.block_number
        job = await wait_job(devnet, lambda job: job.phase in OVER)
        assert job.phase is JobPhase.SETTLED
        assert len(job.decided_rounds) == ROUNDS
        first, second = (job.cone_index(plan.account) for plan in (blobless, amnesiac))
        assert first is not None
        assert second is not None
        assert any(votes_after(job, first, back)), "it goes on with blobs from its peers"
        assert not any(votes_after(job, second, back)), "without its tickets it must not vote"
        assert job.slashes == ()
        told = (amnesiac.folder / "output.log").read_text()
        assert "lacks the secret of the ticket root on the chain" in told
        told = (blobless.folder / "output.log").read_text()
        assert "blob_missing" in told


def test_nodes_that_lost_their_blobs_or_all_but_their_keys_come_back(tmp_path: Path) -> None:
    async def run() -> None:
        with trio.fail_after(JOB_SECONDS):
            await run_job_with_late_nodes(tmp_path / "devnet")

    trio.run(run)
