"""An ordinary market that does job after job, sampled all the time."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import trio

from d2m_node.client import SUBMIT_REQUEST, AsyncRpcClient, SubmitRequestParams
from d2m_node.devnet.launcher import Devnet, Staging, interrupt_at_sigterm, open_devnet
from d2m_node.devnet.layout import ChainPlace, NodePlan
from d2m_node.errors import NodeError
from protocol.job import OVER, JobPhase
from protocol.market import MarketState
from protocol.types import JobId, Wei
from tests.soak.samples import Sample, take_sample, write_csv
from tests.support.devnets import make_honest_options, show_nothing
from tests.support.sizes import measure_bytes
from tests.support.small_request import (
    BRISK_WINDOWS,
    PATIENT_WINDOWS,
    SmallJob,
    write_small_request,
)

SAMPLE_SECONDS = 5.0
JOB_SECONDS = 300.0
KEPT_JOBS, SERVE_BLOCKS = 3, 300
"""Few, so that what nodes keep of old jobs is complete after the warm-up, and has to stay so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakPlan:
    """How long, how large, and whether nodes are restarted meanwhile."""

    folder: Path
    hours: float
    jobs: int | None
    sellers: int
    cones: int
    rounds: int
    block_seconds: float
    is_churned: bool
    seed: int


@dataclass
class SoakRun:
    """What a soak has seen so far."""

    plan: SoakPlan
    started: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)
    lives: dict[str, int] = field(default_factory=dict)
    job_seconds: list[float] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)
    restarts: int = 0
    state_bytes: list[int] = field(default_factory=list)
    """Of the folded state of each job that is over."""

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def is_over(self) -> bool:
        """Tell whether no further job is to be started."""
        is_enough = self.plan.jobs is not None and len(self.job_seconds) >= self.plan.jobs
        return is_enough or self.seconds > self.plan.hours * 3600


async def run_soak(run: SoakRun, say: Callable[[str], None]) -> None:
    """Do job after job until the time or the number is reached."""
    plan = run.plan
    options = make_honest_options(
        plan.folder / "market",
        sellers=plan.sellers,
        cones=plan.cones,
        seed=plan.seed,
        block_seconds=plan.block_seconds,
    )
    async with (
        open_devnet(options, show_nothing, Staging(place_of=_keep_little)) as devnet,
        trio.open_nursery() as nursery,
    ):
        run.lives = dict.fromkeys((one.name for one in devnet.plans), 1)
        nursery.start_soon(interrupt_at_sigterm)
        nursery.start_soon(_sample, run, devnet)
        if plan.is_churned:
            nursery.start_soon(_churn, run, devnet, random.Random(plan.seed))
        while not run.is_over():
            await _do_job(run, devnet)
            say(
                f"job {len(run.job_seconds)}: {run.job_seconds[-1]:.0f} s, "
                f"{run.state_bytes[-1]} bytes of state, {run.seconds / 60:.1f} min in all"
            )
        nursery.cancel_scope.cancel()


def _keep_little(_: NodePlan, place: ChainPlace) -> ChainPlace:
    return replace(
        place,
        further_settings=(
            "[storage]",
            f"keep_jobs = {KEPT_JOBS}",
            f"serve_blocks = {SERVE_BLOCKS}",
        ),
    )


async def _do_job(run: SoakRun, devnet: Devnet) -> None:
    began = time.monotonic()
    number = len(run.job_seconds) + 1
    buyer = next(one for one in devnet.plans if one.role == "buyer")
    plan = run.plan
    wish = SmallJob(
        bid_wei=Wei(10**18),
        sellers=plan.sellers,
        sellers_min=plan.sellers - 1,
        cones=plan.cones,
        rounds=plan.rounds,
        windows=PATIENT_WINDOWS if plan.is_churned else BRISK_WINDOWS,
    )
    path = write_small_request(buyer.folder, wish)
    params = SubmitRequestParams(path=str(path), idempotency_key=f"soak-{number}")
    with trio.move_on_after(JOB_SECONDS) as limit:
        job_id = await _ask(buyer.folder / "rpc.sock", params)

        def find_over(state: MarketState) -> JobPhase | None:
            job = state.jobs.get(job_id)
            return job.phase if job is not None and job.phase in OVER else None

        phase = await devnet.chain.wait_for(find_over)
        run.outcomes[phase.value] = run.outcomes.get(phase.value, 0) + 1
        run.job_seconds.append(time.monotonic() - began)
        run.state_bytes.append(measure_bytes(devnet.chain.state.jobs[job_id]))
    if limit.cancelled_caught:
        raise NodeError(f"job {number} was not over within {JOB_SECONDS:.0f} seconds")


async def _ask(path: Path, params: SubmitRequestParams) -> JobId:
    """Ask until the buyer takes it: it may just be restarting."""
    while True:
        try:
            async with AsyncRpcClient(path) as client:
                return JobId((await client.call(SUBMIT_REQUEST, params)).job)
        except NodeError:
            await trio.sleep(0.5)


async def _sample(run: SoakRun, devnet: Devnet) -> None:
    while True:
        taken = []
        for plan in devnet.plans:
            sample = await trio.to_thread.run_sync(
                lambda plan=plan: take_sample(
                    devnet.processes.pid(plan.name),
                    plan.folder,
                    seconds=run.seconds,
                    jobs=len(run.job_seconds),
                    node=plan.name,
                    life=run.lives[plan.name],
                )
            )
            if sample is not None:
                taken.append(sample)
        run.samples += taken
        write_csv(run.plan.folder / "samples.csv", taken)
        await trio.sleep(SAMPLE_SECONDS)


async def _churn(run: SoakRun, devnet: Devnet, dice: random.Random) -> None:
    """Restart a random node now and then: by SIGTERM or SIGKILL, never two at once."""
    while True:
        await trio.sleep(dice.uniform(20, 60))
        plan = dice.choice(devnet.plans)
        devnet.processes.end(plan.name, dice.choice((signal.SIGTERM, signal.SIGKILL)))
        await devnet.processes.wait_ended(plan.name)
        await devnet.processes.start(plan)
        run.lives[plan.name] += 1
        run.restarts += 1
