"""The command behind ``scripts/fuzz-network``."""

import json
import sys
import tempfile
from pathlib import Path

import click
import trio

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
def fuzz(*, frames: int, seed: int, folder: Path | None) -> None:
    """Send hostile frames on every protocol to a node, and tell what it did to it.

    Ends with code 1 if the node died, restarted its network, grew, or left an honest peer unserved.
    """
    folder = (folder or Path(tempfile.mkdtemp(prefix="d2m-fuzz-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    click.echo(f"writing to {folder}")

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
