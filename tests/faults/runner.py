"""Runs jobs full of faults, and tells what came of each cell."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import trio

from d2m_node.audit import audit_job
from d2m_node.client import JOB_MODEL, AsyncRpcClient, JobParams
from d2m_node.devnet.launcher import interrupt_at_sigterm
from d2m_node.devnet.layout import NodePlan
from d2m_node.model_file import read_parameters
from protocol.job import JobState
from protocol.types import JobId
from protocol.update import TensorKind, compute_tensor_digest
from tests.faults.checks import (
    Watch,
    check_job,
    check_money,
    check_recorded_votes,
    check_statements,
    check_transactions,
    read_sent,
)
from tests.faults.market import FaultyMarket, drain, enable, open_faulty_market, run_jobs
from tests.faults.setups import SETUPS
from tests.faults.table import Cell

MODEL_SECONDS = 60.0
LATE_SECONDS = 5.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one cell."""

    cell: str
    verdict: str
    """passed, failed, or missed: nobody came to its point."""
    jobs: tuple[int, ...]
    node: str | None
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run, and where."""

    jobs: Sequence[Sequence[Cell]]
    """Cells of each job; those of joining nodes are of the market's first one."""
    market: str
    """A name in `SETUPS`."""
    folder: Path
    block_seconds: float


async def run_market(plan: Plan, say: Say) -> list[Outcome]:
    """Run all jobs in one market, check each of them, and then the market."""
    outcomes: list[Outcome] = []
    joining = [cell for job in plan.jobs for cell in job if cell.step.stage == "joining"]
    problems: list[str] = []
    plans: list[NodePlan] = []
    jobs: Mapping[JobId, JobState] = {}
    setup = SETUPS[plan.market]
    job_count = 0
    async with (
        open_faulty_market(
            plan.folder, setup, block_seconds=plan.block_seconds, joining=joining
        ) as market,
        trio.open_nursery() as nursery,
    ):
        plans = market.devnet.plans
        watch = Watch()
        nursery.start_soon(interrupt_at_sigterm)
        nursery.start_soon(watch.follow, market)
        for number, cells in enumerate(plan.jobs, start=1):
            started = time.monotonic()
            here = [cell for cell in cells if cell not in joining]
            found = await _run_one(market, watch, number, here)
            first, job_count = job_count + 1, len(market.devnet.chain.state.jobs)
            judged = list(_judge(market, range(first, job_count + 1), cells, found))
            outcomes += judged
            say(_tell(number, judged, found, time.monotonic() - started))
        jobs = market.devnet.chain.state.jobs
        sent = await read_sent(market)
        problems += await check_money(market, sent)
        problems += check_recorded_votes(market, watch)
        nursery.cancel_scope.cancel()
    problems += [
        text for one in plans for text in check_transactions(one, sent.hashes[one.account])
    ]
    if not setup.is_cancelled:
        problems += await _audit(plans, jobs.values())
    if problems:
        say("\n".join(["of the market:", *problems]))
        outcomes = [_with_problems(one, problems) for one in outcomes]
    return outcomes


async def _run_one(market: FaultyMarket, watch: Watch, number: int, cells: list[Cell]) -> list[str]:
    """Run the jobs of one schedule; return what is wrong with them."""
    jobs = await run_jobs(market, number, cells)
    if jobs is None:
        phases = [job.phase.value for job in market.devnet.chain.state.jobs.values()]
        return [f"time was over when the market's jobs were {', '.join(phases) or 'not there'}"]
    found = []
    for job_id in jobs:
        found += await check_job(market, job_id, watch)
        found += await _check_model(market, market.devnet.chain.state.jobs[job_id])
    if market.setup.drained is not None:
        await drain(market, market.setup.drained)
    # Points that come after the settlement may still be armed.
    with trio.move_on_after(LATE_SECONDS):
        await market.director.all_hit.wait()
    await market.director.idle.wait()
    if market.setup.drained is not None:
        await enable(market, market.setup.drained, key=f"again-{number}")
    return found + check_statements(market.director.records, market.setup.attacks)


async def _check_model(market: FaultyMarket, job: JobState) -> list[str]:
    """Fetch the buyer's model over its RPC, and compare it with the digest on the chain."""
    if job.settled is None or not job.decided_rounds:
        return []
    winner = next(one for one in market.devnet.plans if one.account == job.buyer)
    reason: Exception | None = None
    with trio.move_on_after(MODEL_SECONDS):
        while True:
            try:
                async with AsyncRpcClient(winner.folder / "rpc.sock") as client:
                    model = await client.call(JOB_MODEL, JobParams(job=job.job_id))
                if not model.is_delivered:  # its buyer role has not taken it yet
                    await trio.sleep(0.3)
                    continue
                parameters = read_parameters(model.safetensors)
                digest = compute_tensor_digest(TensorKind.PARAMETERS, parameters)
                is_same = digest == job.settled.model_digest
                return [] if is_same else ["the delivered model is not the one that was settled"]
            except Exception as exc:  # noqa: BLE001 - not there yet, or the node is away
                reason = exc
                await trio.sleep(0.3)
    return [f"{winner.name} has no model: {reason}"]


async def _audit(plans: Sequence[NodePlan], jobs: Iterable[JobState]) -> list[str]:
    """Recompute every decided ballot and all payments, from the records of each job's pool."""
    found = []
    for job in jobs:
        number, covered = job.job_id, 0
        pool = {cone.account for cone in job.cones}
        for plan in (one for one in plans if one.account in pool):
            try:
                audit = await audit_job(plan.folder, number)
            except Exception as exc:  # noqa: BLE001 - any failure is a finding
                found.append(f"job {number}: {plan.name} cannot audit it: {exc}")
                continue
            covered = max(covered, len(audit.ballots))
            found += [
                f"job {number}, round {one.round_index}: {plan.name} computes another digest"
                for one in audit.ballots
                if not one.matches
            ]
            if audit.payments is not None and not audit.payments.is_exact:
                found.append(f"job {number}: {plan.name} computes other payments")
        if covered == 0:
            found.append(f"job {number}: nobody can audit a ballot of it")
    return found


def _judge(
    market: FaultyMarket, jobs: Sequence[int], cells: Sequence[Cell], problems: Sequence[str]
) -> Iterator[Outcome]:
    hits = market.director.records.hits
    for cell in cells:
        hit = hits.get(cell.cell_id)
        verdict = "missed" if hit is None else "failed" if problems else "passed"
        yield Outcome(
            cell=cell.cell_id,
            verdict=verdict,
            jobs=tuple(jobs),
            node=None if hit is None else hit.node,
            problems=tuple(problems),
        )


def _with_problems(outcome: Outcome, problems: Sequence[str]) -> Outcome:
    own = [one for one in problems if not one.startswith("job ") or _is_of(outcome.jobs, one)]
    if not own:
        return outcome
    verdict = "missed" if outcome.verdict == "missed" else "failed"
    told = (*outcome.problems, *own)
    return Outcome(**{**asdict(outcome), "verdict": verdict, "problems": told})


def _is_of(jobs: Sequence[int], problem: str) -> bool:
    return any(problem.startswith((f"job {job}:", f"job {job},")) for job in jobs)


def _tell(number: int, judged: Sequence[Outcome], problems: Sequence[str], seconds: float) -> str:
    lines = [f"job {number}: {seconds:.0f} s, {len(problems)} problems"]
    lines += [f"  {one.verdict:7} {one.cell} at {one.node}" for one in judged]
    lines += [f"  ! {text}" for text in problems]
    return "\n".join(lines)


def write_outcomes(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Append outcomes to a file of JSON lines."""
    with path.open("a") as file:
        for outcome in outcomes:
            file.write(json.dumps(asdict(outcome)) + "\n")


def read_outcomes(path: Path) -> list[dict[str, Any]]:
    """Return what earlier runs wrote."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]
