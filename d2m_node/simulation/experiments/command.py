"""The command behind `scripts/experiments`."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from d2m_node.errors import UserError
from d2m_node.simulation.experiments.execute import check_data
from d2m_node.simulation.experiments.file import Experiment, read_experiment
from d2m_node.simulation.experiments.results import (
    Origin,
    Run,
    find_commit,
    is_done,
    list_runs,
)
from d2m_node.simulation.experiments.runner import Workshop, run_all
from d2m_node.simulation.experiments.show import show_results
from d2m_node.user_input import explain_unknown_key

CONFIGS: Final = Path(__file__).resolve().parents[3] / "configs" / "experiments"
BASE: Final = "base"
"""Folder of the scenarios that experiments start from."""
EXIT_FAILED: Final = 1
EXIT_USER_ERROR: Final = 3

_FOLDER: Final = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("names", metavar="[NAME ...]", nargs=-1)
@click.option(
    "--data",
    type=_FOLDER,
    envvar="D2M_DATA",
    help="Folder with the benchmark data.  [env: D2M_DATA]",
)
@click.option(
    "--results",
    type=_FOLDER,
    default=Path("experiment-results"),
    show_default=True,
    help="Where results, tables and figures go; what is there is not run again.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    help="Runs at a time.  [default: one per core]",
)
@click.option(
    "--only",
    multiple=True,
    metavar="AXIS=POINT",
    help="Run only this point of an axis, or this seed (seed=1); may be given more than once.",
)
@click.option("--list", "is_list", is_flag=True, help="List experiments and how far they are.")
@click.option("--show", "is_show", is_flag=True, help="Draw what is there; run nothing.")
@click.option("--configs", type=_FOLDER, default=CONFIGS, help="Folder with the experiment files.")
def experiments(  # noqa: PLR0913 - click passes each option
    *,
    names: tuple[str, ...],
    data: Path | None,
    results: Path,
    processes: int,
    only: tuple[str, ...],
    is_list: bool,
    is_show: bool,
    configs: Path,
) -> None:
    """Run experiments from where they were left, and draw their tables and figures.

    NAME is that of a file below the folder of experiments, without its ending. Without a name, all
    run but the small ones. A run whose result is there, of the same inputs and the same code, is
    not run again. Ends with code 1 if a run failed.
    """
    try:
        chosen = [read_experiment(path) for path in find_files(configs, names)]
        if is_list:
            _list(chosen, results)
            return
        workshop = Workshop(
            results=results,
            data=data,
            origin=Origin(command=_write_command(chosen, only), commit=find_commit()),
            processes=processes,
        )
        _make_folder(results)
        failed = 0 if is_show else _run(chosen, only, workshop)
        for experiment in chosen:
            for path in show_results(experiment, results):
                click.echo(path)
    except UserError as exc:
        click.echo(f"experiments: {exc}", err=True)
        sys.exit(EXIT_USER_ERROR)
    if failed:
        sys.exit(EXIT_FAILED)


def find_files(configs: Path, names: Sequence[str]) -> list[Path]:
    """Find experiment files by name; without names, all that are not in a folder of their own.

    Raises UserError for a name that no file has, and for a folder without any.
    """
    paths = sorted(configs.rglob("*.toml"))
    known = {path.stem: path for path in paths if path.parent.name != BASE}
    if not known:
        raise UserError(f"--configs: {configs} holds no experiment files")
    for name in names:
        if name not in known:
            raise UserError(explain_unknown_key(name, known).replace("key", "experiment"))
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    return [path for path in known.values() if path.parent == configs]


def _make_folder(results: Path) -> None:
    """Make the folder of results now, and not after hours. Raises UserError."""
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UserError(f"--results: {results} cannot be made: {exc.strerror}") from exc


def _list(chosen: Sequence[Experiment], results: Path) -> None:
    for experiment in chosen:
        runs = list_runs(experiment)
        done = sum(is_done(run, results) for run in runs)
        click.echo(f"{experiment.name}: {done} of {len(runs)} runs; {experiment.title}")


def _run(chosen: Sequence[Experiment], only: Sequence[str], workshop: Workshop) -> int:
    """Run what is left; return how many runs failed."""
    runs = [run for experiment in chosen for run in select_runs(experiment, only)]
    check_data([run for run in runs if not is_done(run, workshop.results)], workshop.data)
    with Bars() as bars:
        failures = run_all(runs, workshop, bars)
    for failure in failures:
        click.echo(f"failed: {failure.run.folder}: {failure.reason}", err=True)
    return len(failures)


def select_runs(experiment: Experiment, only: Sequence[str]) -> list[Run]:
    """List the runs at some points; of an axis that is not named, all.

    Raises UserError for an axis or point that the experiment does not have.
    """
    wanted: dict[str, set[str]] = {}
    known = {axis.name: {point.name for point in axis.points} for axis in experiment.axes}
    known["seed"] = {str(seed) for seed in experiment.seeds}
    for text in only:
        axis, _, point = text.partition("=")
        if point not in known.get(axis, ()):
            raise UserError(f"--only: {experiment.name} has no {text!r}; write AXIS=POINT")
        wanted.setdefault(axis, set()).add(point)
    return [
        run
        for run in list_runs(experiment)
        if all({**run.points, "seed": str(run.seed)}[axis] in wanted[axis] for axis in wanted)
    ]


def _write_command(chosen: Sequence[Experiment], only: Sequence[str]) -> str:
    options = [word for one in only for word in ("--only", one)]
    return shlex.join(["scripts/experiments", *(one.name for one in chosen), *options])


class Bars:
    """Progress bars: one of all runs, one of each run that is on its way.

    Where there is no terminal, a line for each run that has ended.
    """

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._is_terminal = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[Path, TaskID] = {}
        self._ended: set[Path] = set()
        self._all: TaskID | None = None

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, total: int) -> None:
        """So many runs are left."""
        self._all = self._progress.add_task("runs", total=total)
        if not self._is_terminal:
            click.echo(f"{total} runs are left", err=True)

    def show_round(self, run: Run, rounds_done: int) -> None:
        """A run has come so far."""
        if run.folder in self._ended:  # a word that was still on its way
            return
        if run.folder not in self._tasks:
            self._tasks[run.folder] = self._progress.add_task(str(run.folder), total=run.rounds_max)
        self._progress.update(self._tasks[run.folder], completed=rounds_done)

    def show_end(self, run: Run) -> None:
        """A run has ended, well or not."""
        self._ended.add(run.folder)
        task = self._tasks.pop(run.folder, None)
        if task is not None:
            self._progress.remove_task(task)
        if self._all is not None:
            self._progress.advance(self._all)
        if not self._is_terminal:
            click.echo(f"ended: {run.folder}", err=True)
