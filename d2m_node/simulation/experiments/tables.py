"""The numbers of an experiment as CSV: a row per run, a row per round, a row per cell.

Standard deviations are those of a sample (n - 1); of one seed there is none.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Final

from d2m_node.simulation.experiments.quantities import (
    QUANTITIES,
    ROUND_QUANTITIES,
    compute_pay_per_head,
)
from d2m_node.simulation.experiments.results import Result

RUNS_FILE: Final = "runs.csv"
ROUNDS_FILE: Final = "rounds.csv"
SUMMARY_FILE: Final = "summary.csv"
PAY_FILE: Final = "pay.csv"


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean over seeds."""

    mean: float
    deviation: float | None
    """None of a single seed."""
    count: int


def measure_spread(values: Sequence[float]) -> Spread:
    """Compute mean and standard deviation of at least one value."""
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def group_by_cell(results: Iterable[Result]) -> dict[tuple[str, ...], list[Result]]:
    """Put the runs of a cell together, by its points; in the order of the results."""
    cells: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        cells.setdefault(tuple(result.record.points.values()), []).append(result)
    return cells


def read_spread(name: str, results: Iterable[Result]) -> Spread | None:
    """Compute the spread of a quantity over some runs; None if none of them has it."""
    read = (QUANTITIES[name].read(result.outcome) for result in results)
    values = [value for value in read if value is not None]
    return measure_spread(values) if values else None


def write_tables(results: Sequence[Result], folder: Path) -> list[Path]:
    """Write all tables of an experiment that has at least one run; return their paths."""
    axes = list(results[0].record.points)
    quantities = list(QUANTITIES)
    spreads = [f"{name}_{what}" for name in quantities for what in ("mean", "deviation")]
    return [
        _write(folder / RUNS_FILE, [*axes, "seed", *quantities, "log_digest"], _list_runs(results)),
        _write(folder / ROUNDS_FILE, [*axes, "seed", "round", *ROUND_QUANTITIES], _rounds(results)),
        _write(folder / SUMMARY_FILE, [*axes, "seeds", *spreads], _list_cells(results)),
        _write(folder / PAY_FILE, [*axes, "seed", "group", "pay_per_head"], _list_pay(results)),
    ]


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    draft = path.with_suffix(".draft")
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([_show(cell) for cell in row] for row in rows)
    draft.replace(path)
    return path


def _show(cell: object) -> object:
    if cell is None:
        return ""
    return f"{cell:.6g}" if isinstance(cell, float) else cell


def _list_runs(results: Iterable[Result]) -> Iterator[list[object]]:
    for result in results:
        numbers = [quantity.read(result.outcome) for quantity in QUANTITIES.values()]
        points = result.record.points.values()
        yield [*points, result.record.seed, *numbers, result.outcome.log_digest]


def _rounds(results: Iterable[Result]) -> Iterator[list[object]]:
    for result in results:
        columns = [quantity.read(result.outcome) for quantity in ROUND_QUANTITIES.values()]
        for index in range(max(map(len, columns), default=0)):
            cells = [column[index] if index < len(column) else None for column in columns]
            yield [*result.record.points.values(), result.record.seed, index + 1, *cells]


def _list_cells(results: Iterable[Result]) -> Iterator[list[object]]:
    for points, members in group_by_cell(results).items():
        cells: list[object] = []
        for name in QUANTITIES:
            spread = read_spread(name, members)
            cells += [None, None] if spread is None else [spread.mean, spread.deviation]
        yield [*points, len(members), *cells]


def _list_pay(results: Iterable[Result]) -> Iterator[list[object]]:
    for result in results:
        for group, pay in compute_pay_per_head(result.outcome).items():
            yield [*result.record.points.values(), result.record.seed, group, pay]
