"""A job in which hardly any node stays up for long, or keeps its connections."""

import os
import random
import signal
from pathlib import Path

import pytest
import trio

from d2m_node.devnet.launcher import Devnet, Staging, open_devnet
from d2m_node.devnet.layout import NodePlan
from d2m_node.devnet.processes import OUTPUT_NAME
from protocol.job import OVER, JobPhase, JobState
from protocol.market import MarketState
from protocol.types import JobId, Wei
from tests.faults.pace import measure_block_seconds
from tests.support.devnets import make_honest_options, show_nothing, submit_small_job
from tests.support.small_request import SmallJob

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.slow]

JOB = JobId(1)
SELLERS, CONES = 4, 7
KILLED = ("cone-1", "cone-2", "cone-3", "seller-1")
"""A third of the twelve nodes."""
BROKEN = ("buyer-1", "cone-4", "seller-2")
"""Others, whose network fails while they go on."""
JOB_SECONDS = 400.0
UP_BLOCKS = (12, 30)
"""For how many blocks a node is left alone."""
WISH = SmallJob(
    bid_wei=Wei(10**18), sellers=SELLERS, sellers_min=SELLERS - 1, cones=CONES, rounds=2
)


def command_of(plan: NodePlan) -> list[str]:
    return ["-m", "tests.support.breakable_node", "--data-dir", str(plan.folder), "run"]


class Churn:
    """Ends nodes, and their networks, until it is cancelled; counts both by node."""

    def __init__(self, devnet: Devnet, block_seconds: float) -> None:
        self._devnet = devnet
        self._plans = {plan.name: plan for plan in devnet.plans}
        self._block_seconds = block_seconds
        self.kills = dict.fromkeys(KILLED, 0)
        self.breaks = dict.fromkeys(BROKEN, 0)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for number, name in enumerate(KILLED):
                nursery.start_soon(self._kill, name, random.Random(number))
            for number, name in enumerate(BROKEN):
                nursery.start_soon(self._break, name, random.Random(number))

    async def _leave_alone(self, dice: random.Random) -> None:
        await trio.sleep(dice.uniform(*UP_BLOCKS) * self._block_seconds)

    async def _kill(self, name: str, dice: random.Random) -> None:
        processes = self._devnet.processes
        while True:
            await self._leave_alone(dice)
            processes.end(name, signal.SIGKILL)
            await processes.wait_ended(name)
            with trio.CancelScope(shield=True):
                await processes.start(self._plans[name])
            self.kills[name] += 1

    async def _break(self, name: str, dice: random.Random) -> None:
        pid = self._devnet.processes.pid(name)
        while True:
            await self._leave_alone(dice)
            os.kill(pid, signal.SIGUSR1)
            self.breaks[name] += 1


async def wait_over(devnet: Devnet) -> JobState:
    def find(state: MarketState) -> JobState | None:
        job = state.jobs.get(JOB)
        return job if job is not None and job.phase in OVER else None

    with trio.fail_after(JOB_SECONDS):
        return await devnet.chain.wait_for(find)


def count_restarts(plan: NodePlan) -> int:
    """Count how often a node's network was started anew, by its log."""
    return (plan.folder / OUTPUT_NAME).read_text(errors="replace").count("network_restarted")


async def run_job(folder: Path) -> None:
    options = make_honest_options(
        folder, sellers=SELLERS, cones=CONES, block_seconds=measure_block_seconds()
    )
    staging = Staging(command_of=command_of)
    async with (
        open_devnet(options, show_nothing, staging) as devnet,
        trio.open_nursery() as nursery,
    ):
        await submit_small_job(devnet, WISH)
        churn = Churn(devnet, options.block_seconds)
        nursery.start_soon(churn.run)
        job = await wait_over(devnet)
        nursery.cancel_scope.cancel()
    assert job.phase is JobPhase.SETTLED
    assert job.decided_rounds, "something was learnt"
    assert min(churn.kills.values()) >= 2
    assert min(churn.breaks.values()) >= 2
    restarts = {plan.name: count_restarts(plan) for plan in devnet.plans if plan.name in BROKEN}
    assert min(restarts.values()) >= 2, restarts


def test_a_job_completes_while_nodes_are_killed_and_networks_fail_all_the_time(
    tmp_path: Path,
) -> None:
    trio.run(run_job, tmp_path / "market")
