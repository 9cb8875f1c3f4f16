"""From finished runs to tables and figures: what can be shown of an experiment at any time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from d2m_node.simulation.experiments.file import Experiment, Name
from d2m_node.simulation.experiments.plots import draw_plots
from d2m_node.simulation.experiments.results import Result, list_runs, read_json, read_results
from d2m_node.simulation.experiments.tables import write_tables

EXPERIMENT_FILE: Final = "experiment.json"


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What `experiment.json` holds: what a report says about an experiment beside its numbers."""

    name: str
    title: str
    claim: int
    paper: str | None
    engine: str
    axes: dict[str, str]
    """Name to label."""
    figures: list[Name]
    """Files in the same folder, without their ending."""
    runs_wanted: int


def show_results(experiment: Experiment, results: Path) -> list[Path]:
    """Write the tables and figures of an experiment beside its runs; return their paths.

    Runs that the file does not ask for any more are left out; without any other, nothing is
    written. What is there is shown even if some runs are still to come.
    """
    folder = results / experiment.name
    current = keep_current(experiment, read_results(folder))
    if not current:
        return []
    paths = [*write_tables(current, folder), *draw_plots(experiment, current, folder)]
    shown = Shown(
        name=experiment.name,
        title=experiment.title,
        claim=experiment.claim,
        paper=experiment.paper,
        engine=experiment.engine,
        axes={axis.name: axis.label for axis in experiment.axes},
        figures=[plot.name for plot in experiment.plots],
        runs_wanted=len(list_runs(experiment)),
    )
    draft = folder / (EXPERIMENT_FILE + ".draft")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(shown), indent=2) + b"\n")
    return [*paths, draft.replace(folder / EXPERIMENT_FILE)]


def keep_current(experiment: Experiment, results: Sequence[Result]) -> list[Result]:
    """Keep the results of runs that the file asks for, in its order."""
    wanted = {(tuple(run.points.items()), run.seed): None for run in list_runs(experiment)}
    found = {(tuple(one.record.points.items()), one.record.seed): one for one in results}
    return [found[place] for place in wanted if place in found]


def read_shown(folder: Path) -> Shown:
    """Read the `experiment.json` of a folder. Raises UserError that names the file and field."""
    return read_json(folder / EXPERIMENT_FILE, Shown)
