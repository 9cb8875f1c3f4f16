"""The command behind ``scripts/fuzz-network``."""

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import click
import trio

from tests.fuzz.guided.run import GuidedReport, is_available, run_guided
from tests.fuzz.siege import SETTLE_SECONDS, Report, run_siege
from tests.fuzz.target import log_errors


@click.command()
@click.option("--frames", type=int, default=1_000_000, show_default=True, help="So many in all.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where report.json is written.  [default: a new temporary folder]",
)
@click.option(
    "--guided",
    type=click.IntRange(min=1000),
    metavar="RUNS",
    help="Give so many inputs to the readers of bytes instead, without sockets. They are chosen by"
    " the code that they reach; those worth keeping stay in --dir, and the next run goes on there.",
)
@click.option(
    "--input",
    "given",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Run an input that --guided found again, and nothing else.",
)
def fuzz(
    *, frames: int, seed: int, folder: Path | None, guided: int | None, given: Path | None
) -> None:
    """Send hostile frames on every protocol to a node, and tell what it did to it.

    Ends with code 1 if the node died, restarted its network, grew, or left an honest peer unserved;
    with --guided, if a reader raised what it must not, took too long, or memory grew.
    """
    if given is not None:
        _run_again(given)
        return
    if guided is not None and not is_available():
        raise click.UsageError(
            "--guided: atheris is not installed; it is for Python 3.11 on Linux x86-64 only"
        )
    folder = (folder or Path(tempfile.mkdtemp(prefix="d2m-fuzz-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    click.echo(f"writing to {folder}")
    if guided is not None:
        _guide(folder, guided, seed)
    else:
        _besiege(folder, frames, seed)


def _besiege(folder: Path, frames: int, seed: int) -> None:
    log_errors(sys.stderr)

    async def run() -> Report:
        return await run_siege(
            folder, frames=frames, seed=seed, settle_seconds=SETTLE_SECONDS, say=click.echo
        )

    report = trio.run(run)
    (folder / "report.json").write_text(json.dumps(report.describe(), indent=2) + "\n")
    for way, count in sorted(report.frames.items()):
        click.echo(f"{count:>9} frames: {way}")
    assert report.start is not None
    assert report.end is not None
    for name in ("rss_bytes", "fds", "threads"):
        warm = getattr(report.warm or report.start, name)
        click.echo(
            f"{name}: {getattr(report.start, name)} at the start, {warm} when warm,"
            f" {getattr(report.end, name)} at the end"
        )
    harm = report.find_harm()
    click.echo(
        f"{report.total} frames in {report.seconds:.0f} s, {report.honest_fetches} honest fetches,"
        f" {report.faults} faults: {'; '.join(harm) or 'no harm'}"
    )
    if harm:
        raise SystemExit(1)


def _guide(folder: Path, runs: int, seed: int) -> None:
    """Fuzz what reads bytes, and tell what came of it."""
    report = run_guided(folder, runs=runs, seed=seed, say=click.echo)
    told = asdict(report) | {"finding": str(report.finding or ""), "harm": report.find_harm()}
    (folder / "report.json").write_text(json.dumps(told, indent=2) + "\n")
    for name, (read, taken) in report.readers.items():
        click.echo(f"{read:>9} inputs: {name} ({taken} of them taken)")
    harm = report.find_harm()
    click.echo(
        f"{report.runs} inputs in {report.seconds:.0f} s, {report.edges} edges,"
        f" {report.features} features, {report.corpus_count} inputs in the corpus,"
        f" {report.warm_bytes >> 20} MB when warm, {report.end_bytes >> 20} MB at the end:"
        f" {'; '.join(harm) or 'no harm'}"
    )
    if harm:
        _explain(report, folder)
        raise SystemExit(1)


def _explain(report: GuidedReport, folder: Path) -> None:
    """Say what broke, and how to see it again."""
    click.echo(report.explanation or f"all that was printed is in {folder}/libfuzzer.log")
    if report.finding is not None:
        click.echo(f"run it again: scripts/fuzz-network --input {report.finding}")


def _run_again(path: Path) -> None:
    """Give one input to its reader; what that raises is shown as it is."""
    from tests.fuzz.guided.reader import run_input
    from tests.fuzz.guided.readers import READERS

    reader, is_taken = run_input(READERS, path.read_bytes())
    click.echo(f"{reader.name}: {'taken' if is_taken else 'refused'}, as it should be")
