"""The command behind ``scripts/faults``."""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import click
import trio

from tests.faults.pace import measure_block_seconds
from tests.faults.runner import Plan, read_outcomes, run_market, write_outcomes
from tests.faults.table import Cell, compose, load_table

JOBS_PER_MARKET = 7


@click.command()
@click.option("--list", "is_list", is_flag=True, help="List the cells and what came of each.")
@click.option("--only", multiple=True, help="Cells whose name begins so; may be given often.")
@click.option("--again", is_flag=True, help="Run cells that passed before, too.")
@click.option("--limit", type=int, help="Run at most so many jobs.")
@click.option(
    "--block-seconds", type=float, help="Time between blocks.  [default: what the machine bears]"
)
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("faults.jsonl"),
    show_default=True,
    help="Where outcomes are added; what passed there is not run again.",
)
@click.option("--keep", is_flag=True, help="Keep the folders of markets in which all passed.")
def faults(
    *,
    is_list: bool,
    only: tuple[str, ...],
    again: bool,
    limit: int | None,
    block_seconds: float | None,
    results: Path,
    keep: bool,
) -> None:
    """Kill, stop, cut off and restart nodes at every step of a job, and check what comes of it."""
    table = load_table()
    cells = [cell for cell in table.cells() if not only or cell.cell_id.startswith(only)]
    latest = {one["cell"]: one["verdict"] for one in read_outcomes(results)}
    if is_list:
        _show(cells, latest)
        return
    todo = [cell for cell in cells if again or latest.get(cell.cell_id) != "passed"]
    jobs = compose(table, todo)[:limit]
    click.echo(f"{len(todo)} of {len(cells)} cells in {len(jobs)} jobs")
    is_bad = False
    for market, chunk in _group(jobs):
        folder = Path(tempfile.mkdtemp(prefix="d2m-faults-")) / "m"
        pace = block_seconds or measure_block_seconds()
        click.echo(f"market {market}: {folder}, a block every {pace:.2f} s")
        plan = Plan(jobs=chunk, market=market, folder=folder, block_seconds=pace)
        try:
            outcomes = trio.run(run_market, plan, click.echo)
        except* KeyboardInterrupt:
            click.echo("interrupted; what this market's jobs showed is not kept")
            raise SystemExit(1) from None
        write_outcomes(results, outcomes)
        is_failed = any(one.verdict == "failed" for one in outcomes)
        is_bad |= is_failed
        if {one.verdict for one in outcomes} == {"passed"} and not keep:
            shutil.rmtree(folder.parent)
    _show(cells, {one["cell"]: one["verdict"] for one in read_outcomes(results)})
    if is_bad:
        raise SystemExit(1)


def _group(jobs: list[list[Cell]]) -> list[tuple[str, list[list[Cell]]]]:
    """Put jobs of one kind of market together, a few per market."""
    groups: list[tuple[str, list[list[Cell]]]] = []
    for kind in dict.fromkeys(job[0].step.market for job in jobs):
        here = [job for job in jobs if job[0].step.market == kind]
        # Nodes join once in a market's life.
        size = 1 if here[0][0].step.stage == "joining" else JOBS_PER_MARKET
        groups += [(kind, here[start : start + size]) for start in range(0, len(here), size)]
    return groups


def _show(cells: list[Cell], latest: dict[str, str]) -> None:
    """Print the table: a line per step and side, a column per fault."""
    by_row: dict[tuple[str, str], dict[str, str]] = {}
    for cell in cells:
        row = by_row.setdefault((cell.step.action, cell.side), {})
        row[cell.fault] = latest.get(cell.cell_id, "to do")
    for (action, side), row in by_row.items():
        told = ", ".join(f"{fault} {verdict}" for fault, verdict in row.items())
        click.echo(f"{action} {side}: {told}")
    counts = Counter(latest.get(cell.cell_id, "to do") for cell in cells)
    click.echo(f"{len(cells)} cells: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
