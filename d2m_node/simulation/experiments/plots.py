"""Figures as in a paper: error bars over seeds, axes with units, colours that all can tell apart.

Error bars and bands are one standard deviation over the seeds to each side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from d2m_node.simulation.experiments.file import Axis, Experiment, Plot
from d2m_node.simulation.experiments.quantities import (
    QUANTITIES,
    ROUND_QUANTITIES,
    compute_pay_per_head,
)
from d2m_node.simulation.experiments.results import Result
from d2m_node.simulation.experiments.tables import measure_spread, read_spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS: Final = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#999999",
)
"""Okabe and Ito's palette, its yellow left out: lines of it are too pale on white."""
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
PANEL_INCHES: Final = (3.6, 2.6)
PANELS_PER_ROW: Final = 3
LEGEND_ROW_INCHES: Final = 0.2
HANDLE_INCHES: Final = 0.6
LETTER_INCHES: Final = 0.062
"""Of a legend's entry: its line, and what a letter takes on average."""
DOTS_PER_INCH: Final = 200
STYLE: Final[dict[str, Any]] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "font.size": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "errorbar.capsize": 2,
    # The same figure is the same file, wherever and whenever it is drawn.
    "svg.hashsalt": "d2m",
    "svg.fonttype": "none",
}


@dataclass(frozen=True, slots=True)
class Series:
    """The runs behind one line, or one bar of each group."""

    label: str
    results: Sequence[Result]
    number: int

    @property
    def colour(self) -> str:
        """One of its own."""
        return COLOURS[self.number % len(COLOURS)]

    @property
    def marker(self) -> str:
        """One of its own: figures are printed in grey, too."""
        return MARKERS[self.number % len(MARKERS)]


def draw_plots(experiment: Experiment, results: Sequence[Result], folder: Path) -> list[Path]:
    """Draw all figures of an experiment as PNG and SVG; return the paths of the PNGs."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    paths = []
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # its stub lists every key
        for plot in experiment.plots:
            figure = Figure(layout="constrained")
            _fill(figure, plot, experiment, results)
            path = folder / f"{plot.name}.png"
            _save(figure, path)
            paths.append(path)
    return paths


def _save(figure: "Figure", path: Path) -> None:
    """Write both kinds, each whole or not at all."""
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        draft = path.with_suffix(f".draft-{kind}")
        figure.savefig(draft, format=kind, dpi=DOTS_PER_INCH, metadata=metadata)
        draft.replace(path.with_suffix(f".{kind}"))


def _fill(figure: "Figure", plot: Plot, experiment: Experiment, results: Sequence[Result]) -> None:
    axes = {axis.name: axis for axis in experiment.axes}
    facets = _split(results, axes.get(plot.facet or ""))
    columns = min(PANELS_PER_ROW, len(facets))
    rows = -(-len(facets) // columns)
    height = PANEL_INCHES[1] * rows
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for panel in panels.flat[len(facets) :]:
        panel.remove()
    for facet, panel in zip(facets, panels.flat, strict=False):
        series = list(_split(facet.results, axes.get(plot.series or "")))
        DRAWERS[plot.kind](panel, plot, axes.get(plot.x or ""), series)
        if plot.reference is not None:
            panel.axhline(
                plot.reference, color="#555555", linewidth=0.9, linestyle=":", label="the paper"
            )
        if plot.facet is not None:
            panel.set_title(facet.label, fontsize=9)
        if panel not in panels[:, 0]:
            panel.set_ylabel("")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    if len(labels) > 1:
        entry = HANDLE_INCHES + LETTER_INCHES * max(map(len, labels))
        fitting = max(1, int(PANEL_INCHES[0] * columns / entry))
        ncols = min(4, fitting)
        figure.legend(handles, labels, loc="outside lower center", ncols=ncols)
        height += LEGEND_ROW_INCHES * -(-len(labels) // ncols)
    figure.set_size_inches(PANEL_INCHES[0] * columns, height)
    if plot.title is not None:
        figure.suptitle(plot.title, fontsize=10)


def _split(results: Sequence[Result], axis: Axis | None) -> list[Series]:
    """Split runs by the points of an axis, in their order; all together without an axis."""
    if axis is None:
        return [Series("", results, 0)]
    found = []
    for number, point in enumerate(axis.points):
        members = [one for one in results if one.record.points.get(axis.name) == point.name]
        if members:
            found.append(Series(point.label or point.name, members, number))
    return found or [Series("", results, 0)]


def _draw_rounds(panel: "Axes", plot: Plot, _: Axis | None, series: Sequence[Series]) -> None:
    """A line per series: mean over seeds of each round, with a band of one deviation."""
    from matplotlib.ticker import MaxNLocator

    quantity = ROUND_QUANTITIES[plot.y]
    for one in series:
        runs = [list(quantity.read(result.outcome)) for result in one.results]
        length = min(map(len, runs))
        if not length:
            continue
        rows = np.array([run[:length] for run in runs], dtype=np.float64)
        rounds, mean = np.arange(1, length + 1), rows.mean(axis=0)
        panel.plot(rounds, mean, color=one.colour, label=one.label)
        if len(rows) > 1:
            deviation = rows.std(axis=0, ddof=1)
            panel.fill_between(
                rounds, mean - deviation, mean + deviation, color=one.colour, alpha=0.2, lw=0
            )
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("Round")
    panel.set_ylabel(quantity.label)


def _draw_curve(panel: "Axes", plot: Plot, x: Axis | None, series: Sequence[Series]) -> None:
    """A line per series along an axis of numbers."""
    assert x is not None, "the file was checked"
    for one in series:
        places, means, deviations = [], [], []
        for point in _split(one.results, x):
            spread = read_spread(plot.y, point.results)
            value = x.points[point.number].value
            if spread is not None and value is not None:
                places.append(value)
                means.append(spread.mean)
                deviations.append(spread.deviation or 0)
        panel.errorbar(
            places, means, yerr=deviations, color=one.colour, marker=one.marker, label=one.label
        )
    panel.set_xticks([point.value for point in x.points if point.value is not None])
    panel.set_xlabel(x.label)
    panel.set_ylabel(QUANTITIES[plot.y].label)


def _draw_bars(panel: "Axes", plot: Plot, x: Axis | None, series: Sequence[Series]) -> None:
    """A group of bars per point, a bar of each group per series."""
    assert x is not None, "the file was checked"
    width = 0.8 / len(series)
    for position, one in enumerate(series):
        for point in _split(one.results, x):
            spread = read_spread(plot.y, point.results)
            if spread is not None:
                is_first = point.number == 0
                panel.bar(
                    point.number - 0.4 + width * (position + 0.5),
                    spread.mean,
                    width * 0.92,
                    yerr=spread.deviation,
                    color=one.colour,
                    label=one.label if is_first else None,
                )
    _name_ticks(panel, [point.label or point.name for point in x.points])
    panel.set_xlabel(x.label)
    panel.set_ylabel(QUANTITIES[plot.y].label)


def _draw_pay(panel: "Axes", _: Plot, __: Axis | None, series: Sequence[Series]) -> None:
    """A group of bars per kind of seller: its pay per head, 1 being an equal split."""
    pays = [[compute_pay_per_head(one.outcome) for one in line.results] for line in series]
    groups = list(dict.fromkeys(name for line in pays for pay in line for name in pay))
    width = 0.8 / len(series)
    for position, (one, runs) in enumerate(zip(series, pays, strict=True)):
        for number, group in enumerate(groups):
            values = [pay[group] for pay in runs if group in pay]
            if values:
                spread = measure_spread(values)
                panel.bar(
                    number - 0.4 + width * (position + 0.5),
                    spread.mean,
                    width * 0.92,
                    yerr=spread.deviation,
                    color=one.colour,
                    label=one.label if number == 0 else None,
                )
    panel.axhline(1, color="#555555", linewidth=0.9, linestyle=":")
    _name_ticks(panel, groups)
    panel.set_xlabel("Sellers")
    panel.set_ylabel("Pay per head (1: equal split)")


def _name_ticks(panel: "Axes", names: Sequence[str]) -> None:
    """Name the groups of bars; nothing that bars stand for is below zero."""
    panel.set_ylim(bottom=0)
    panel.set_xticks(range(len(names)), names)
    panel.grid(visible=False, axis="x")
    if sum(map(len, names)) > 30:
        panel.tick_params(axis="x", labelrotation=30)
        for label in panel.get_xticklabels():
            label.set_horizontalalignment("right")


Drawer = Callable[["Axes", Plot, Axis | None, Sequence[Series]], None]
DRAWERS: Final[dict[str, Drawer]] = {
    "rounds": _draw_rounds,
    "curve": _draw_curve,
    "bars": _draw_bars,
    "pay": _draw_pay,
}
