"""The command behind ``scripts/soak``."""

import json
import statistics
import tempfile
from dataclasses import asdict
from pathlib import Path

import click
import trio

from tests.soak.market import SoakPlan, SoakRun, run_soak
from tests.soak.samples import LIMITS, compute_trends


@click.command()
@click.option("--hours", type=float, default=8.0, show_default=True, help="Start no job after it.")
@click.option("--jobs", type=click.IntRange(1), help="End after so many jobs.")
@click.option("--sellers", type=click.IntRange(4), default=4, show_default=True)
@click.option("--cones", type=click.IntRange(1), default=5, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--block-seconds", type=float, default=0.5, show_default=True)
@click.option("--churn", "is_churned", is_flag=True, help="Restart random nodes meanwhile.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where samples.csv and summary.json are written.  [default: a new temporary folder]",
)
def soak(
    *,
    hours: float,
    jobs: int | None,
    sellers: int,
    cones: int,
    rounds: int,
    block_seconds: float,
    is_churned: bool,
    seed: int,
    folder: Path | None,
) -> None:
    """Run a market for hours, job after job, and tell what grows.

    Ends with code 1 if memory, file descriptors, threads or blobs of a node are not flat.
    """
    plan = SoakPlan(
        folder=(folder or Path(tempfile.mkdtemp(prefix="d2m-soak-"))).absolute(),
        hours=hours,
        jobs=jobs,
        sellers=sellers,
        cones=cones,
        rounds=rounds,
        block_seconds=block_seconds,
        is_churned=is_churned,
        seed=seed,
    )
    plan.folder.mkdir(parents=True, exist_ok=True)
    click.echo(f"writing to {plan.folder}")
    run = SoakRun(plan)
    try:
        trio.run(run_soak, run, click.echo)
    except* KeyboardInterrupt:
        click.echo("interrupted; telling what was seen so far")
    finally:
        is_flat = _summarise(run)
    if not is_flat:
        raise SystemExit(1)


def _summarise(run: SoakRun) -> bool:
    """Write the summary, print its trends; return whether all that has a limit is flat."""
    trends = compute_trends(run.samples)
    rising = [one for one in trends if one.is_flat is False]
    summary = {
        "jobs": len(run.job_seconds),
        "outcomes": run.outcomes,
        "minutes": round(run.seconds / 60, 1),
        "restarts": run.restarts,
        "seconds_per_job": round(statistics.median(run.job_seconds), 1)
        if run.job_seconds
        else None,
        "state_bytes_per_job": statistics.median(run.state_bytes) if run.state_bytes else None,
        "limits_per_job": dict(LIMITS),
        "is_flat": not rising,
        "trends": [asdict(one) for one in trends],
    }
    (run.plan.folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    for one in trends:
        verdict = {True: "flat", False: "RISES", None: "by design"}[one.is_flat]
        click.echo(
            f"{one.node} (life {one.life}) {one.name}: {one.first:.0f} to {one.last:.0f} in "
            f"{one.jobs} jobs, {one.per_job:+.2f} per job: {verdict}"
        )
    click.echo(f"{len(run.job_seconds)} jobs, {len(rising)} numbers rise")
    return not rising
