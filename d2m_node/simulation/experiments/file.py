"""The experiment file: a scenario, what varies, from which seeds, and what is plotted.

    title = "Hostile sellers"
    claim = 6                             # of docs/RESULTS.md
    engine = "learning"                   # without chain and network; or "market": all of it
    scenario = "../scenarios/honest.toml" # starts at this file's folder
    seeds = [1, 2, 3]

    [set.request.terms]                   # put into the scenario, whatever varies
    rounds_max = 50

    [learning]                            # of the engine "learning": whose rules
    aggregator = "krum"

    [[axes]]                              # every point of one axis meets every point of the others
    name = "share"
    label = "Hostile sellers, %"
    points = [
        { name = "0", value = 0 },
        { name = "30", value = 30, set.hostile.sellers = [{ kind = "noise", share = 0.3 }] },
    ]

    [[plots]]
    name = "accuracy"
    kind = "curve"                        # or "rounds", "bars", "pay"
    x = "share"                           # an axis
    y = "final_accuracy"                  # see `quantities.py`

What a point sets is merged into the scenario, see `merge`. A point may set ``learning`` too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from d2m_node.errors import UserError
from d2m_node.simulation.experiments.quantities import QUANTITIES, ROUND_QUANTITIES
from d2m_node.simulation.learning.loop import build_round_rules, check_scenario
from d2m_node.simulation.learning.rules import Choice, build_mechanism
from d2m_node.simulation.scenario.file import make_plain, parse_scenario
from d2m_node.simulation.tables import Table, check_keys
from d2m_node.user_input import expand_home, explain_mismatch, read_toml
from protocol.errors import InvalidParams

MAX_RUNS: Final = 10_000

Name = Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Label = Annotated[str, Meta(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f]+$")]
Engine = Literal["learning", "market"]
PlotKind = Literal["rounds", "curve", "bars", "pay"]
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Point(Table, frozen=True, kw_only=True):
    """One choice of an axis."""

    name: Name
    label: Label | None = None
    value: float | None = None
    """Its place on the x axis of a curve."""
    set: dict[str, object] = msgspec.field(default_factory=dict)


class Axis(Table, frozen=True, kw_only=True):
    """What varies."""

    name: Name
    label: Label
    points: Annotated[list[Point], Meta(min_length=1, max_length=100)]

    def find(self, name: str) -> Point:
        """Return the point of a name."""
        return next(point for point in self.points if point.name == name)


class Plot(Table, frozen=True, kw_only=True):
    """One figure."""

    name: Name
    kind: PlotKind
    title: Label | None = None
    x: Name | None = None
    """The axis along which a curve goes, or that bars stand for."""
    y: Name = "final_accuracy"
    series: Name | None = None
    """The axis with a line, or a bar of each group, per point."""
    facet: Name | None = None
    """The axis with a panel per point."""
    reference: float | None = None
    """Where a horizontal line is drawn: what the paper reports."""


class LearningTable(Table, frozen=True, kw_only=True):
    """Whose rules a run of the engine "learning" follows."""

    sampler: str = "osmd"
    aggregator: str = "corrected-osmd"
    parameters: dict[str, int | float | str] = msgspec.field(default_factory=dict)

    def choose(self) -> Choice:
        """Return the rules."""
        return Choice(
            sampler=self.sampler,
            aggregator=self.aggregator,
            parameters=self.parameters,
        )


class _ExperimentTable(Table, frozen=True, kw_only=True):
    title: Label
    claim: Annotated[int, Meta(ge=1, le=99)]
    engine: Engine
    scenario: Annotated[str, Meta(min_length=1, max_length=1024)]
    seeds: Annotated[list[Seed], Meta(min_length=1, max_length=1000)]
    set: dict[str, object] = msgspec.field(default_factory=dict)
    learning: dict[str, object] = msgspec.field(default_factory=dict)
    axes: Annotated[list[Axis], Meta(max_length=6)] = msgspec.field(default_factory=list)
    plots: Annotated[list[Plot], Meta(max_length=20)] = msgspec.field(default_factory=list)
    paper: Label | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One combination of points."""

    points: Mapping[str, str]
    """Axis to point, in the order of the axes."""
    table: Mapping[str, object]
    """The scenario, without its seed."""
    learning: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment file, checked."""

    name: str
    """The file's, without its ending."""
    title: str
    claim: int
    engine: Engine
    seeds: tuple[int, ...]
    axes: tuple[Axis, ...]
    plots: tuple[Plot, ...]
    cells: tuple[Cell, ...]
    paper: str | None
    """What the paper says, in a few words."""


def read_experiment(path: Path) -> Experiment:
    """Read an experiment file and the scenario it names, and try every cell.

    Raises UserError: the file, the key, what it should be.
    """
    try:
        return _parse(path, read_toml(path))
    except UserError as exc:
        message = str(exc)
        raise UserError(message if message.startswith(str(path)) else f"{path}: {exc}") from exc


def read_learning(table: Mapping[str, object]) -> LearningTable:
    """Check a table ``learning``. Raises UserError that names the key."""
    check_keys(table, LearningTable, "learning.")
    try:
        return msgspec.convert(make_plain(table), LearningTable)
    except msgspec.ValidationError as exc:
        raise UserError(explain_mismatch(exc, prefix="learning")) from exc


def _parse(path: Path, table: Mapping[str, object]) -> Experiment:
    check_keys(table, _ExperimentTable)
    try:
        written = msgspec.convert(_make_numbers(table), _ExperimentTable)
    except msgspec.ValidationError as exc:
        raise UserError(explain_mismatch(exc)) from exc
    _check_axes(written.axes)
    for position, plot in enumerate(written.plots):
        _check_plot(f"plots[{position}]", plot, {axis.name: axis for axis in written.axes})
    if written.engine == "market" and written.learning:
        raise UserError("learning: the market has its own rules; remove it, or use ablate")
    base = read_toml(path.absolute().parent / expand_home(written.scenario))
    cells = tuple(_build_cells(written, merge(base, written.set)))
    _check_count("seeds", len(set(written.seeds)), len(written.seeds))
    if len(cells) * len(written.seeds) > MAX_RUNS:
        raise UserError(f"axes: {len(cells) * len(written.seeds)} runs; at most {MAX_RUNS}")
    for cell in cells:
        _try(cell, written.engine)
    return Experiment(
        name=path.stem,
        title=written.title,
        claim=written.claim,
        engine=written.engine,
        seeds=tuple(written.seeds),
        axes=tuple(written.axes),
        plots=tuple(written.plots),
        cells=cells,
        paper=written.paper,
    )


def _make_numbers(value: object) -> object:
    """Turn decimals into floats, but not in what goes into a scenario: those stay exact."""
    if isinstance(value, Mapping):
        exact = ("set", "learning")
        return {key: one if key in exact else _make_numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_make_numbers(one) for one in value]
    return float(value) if isinstance(value, Decimal) else value


def _check_axes(axes: Sequence[Axis]) -> None:
    names = [axis.name for axis in axes]
    _check_count("axes", len(set(names)), len(names))
    for position, axis in enumerate(axes):
        points = [point.name for point in axis.points]
        _check_count(f"axes[{position}].points", len(set(points)), len(points))


def _check_count(key: str, distinct: int, count: int) -> None:
    if distinct != count:
        raise UserError(f"{key}: one stands there twice")


def _check_plot(key: str, plot: Plot, axes: Mapping[str, Axis]) -> None:
    for field in ("x", "series", "facet"):
        name = getattr(plot, field)
        if name is not None and name not in axes:
            known = ", ".join(axes) or "none"
            raise UserError(f"{key}.{field}: no axis {name!r}; there are {known}")
    quantities = tuple(ROUND_QUANTITIES if plot.kind == "rounds" else QUANTITIES)
    if plot.kind != "pay" and plot.y not in quantities:
        raise UserError(f"{key}.y: {plot.y!r} is none of {', '.join(quantities)}")
    if plot.kind in ("curve", "bars") and plot.x is None:
        raise UserError(f"{key}.x: missing; give the axis of a {plot.kind} plot")
    if plot.kind == "curve" and plot.x is not None:
        for point in axes[plot.x].points:
            if point.value is None:
                raise UserError(f"{key}.x: point {point.name!r} of {plot.x!r} has no value")


def _build_cells(written: _ExperimentTable, base: Mapping[str, object]) -> Iterator[Cell]:
    for points in product(*(axis.points for axis in written.axes)):
        table = merge(base, {"learning": written.learning})
        for point in points:
            table = merge(table, point.set)
        learning = table.pop("learning")
        assert isinstance(learning, dict), "a table was merged into a table"
        table.pop("seed", None)
        _drop_nobody(table)
        names = {axis.name: point.name for axis, point in zip(written.axes, points, strict=True)}
        yield Cell(points=names, table=table, learning=learning)


def _drop_nobody(table: dict[str, object]) -> None:
    """Leave out hostile nodes of which there are none: such cells are the same cell."""
    hostile = table.get("hostile")
    if not isinstance(hostile, Mapping):
        return
    table["hostile"] = {
        role: [one for one in kinds if not (isinstance(one, Mapping) and one.get("share") == 0)]
        if isinstance(kinds, list)
        else kinds
        for role, kinds in hostile.items()
    }


def merge(base: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Put changes into a table, table by table.

    Of two lists with as many tables each, the tables are merged one by one, so that one axis says
    which nodes are hostile and another how many. Other lists, and values, are replaced.
    """
    merged = dict(base)
    for key, value in changes.items():
        merged[key] = _merge_values(merged.get(key), value)
    return merged


def _merge_values(old: object, new: object) -> object:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return merge(old, new)
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [_merge_values(one, other) for one, other in zip(old, new, strict=True)]
    return new


def _try(cell: Cell, engine: Engine) -> None:
    """Read a cell as it is read when it runs, so that no run fails for its file hours later."""
    try:
        scenario = parse_scenario({**cell.table, "seed": 0})
        choice = read_learning(cell.learning).choose()
        build_mechanism(choice, build_round_rules(scenario), scenario.sizes.sellers)
        if engine == "learning":
            check_scenario(scenario)
        elif cell.learning:
            raise UserError("learning: the market has its own rules; use ablate")
    except (UserError, InvalidParams) as exc:
        where = ", ".join(f"{axis} {point}" for axis, point in cell.points.items())
        raise UserError(f"{exc} (with {where})" if where else str(exc)) from exc
