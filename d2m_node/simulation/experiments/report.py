"""One HTML page of all results in a folder, with everything it needs inside.

Names and numbers come from files: the template escapes all of them. Figures are images of their
own, so no file can put a script into the page.
"""

import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from d2m_node.errors import UserError
from d2m_node.simulation.experiments.quantities import QUANTITIES, compute_pay_per_head
from d2m_node.simulation.experiments.results import RUN_FILE, Result, read_results
from d2m_node.simulation.experiments.show import EXPERIMENT_FILE, Shown, read_shown
from d2m_node.simulation.experiments.tables import Spread, group_by_cell, read_spread
from d2m_node.simulation.report.outcome import RESULT_FILE, Outcome, read_result
from d2m_node.user_input import read_file

REPORT_FILE: Final = "report.html"
MAX_FIGURE_BYTES: Final = 16 << 20
_TEMPLATES: Final = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure."""

    name: str
    source: str
    """A data URI."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """What is told of one experiment."""

    shown: Shown
    figures: Sequence[Figure]
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    seeds: Sequence[int]
    commands: Sequence[str]
    commits: Sequence[tuple[str, int]]
    """Each with how many runs it has."""
    run_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """What is told of a run that is no part of an experiment."""

    path: str
    outcome: Outcome
    pay: dict[str, float]


def write_report(folder: Path) -> Path:
    """Write `report.html` into a folder of results; return its path.

    Raises UserError if there are no results, or a file is none.
    """
    import jinja2

    chapters = [_tell_experiment(path.parent) for path in sorted(folder.rglob(EXPERIMENT_FILE))]
    singles = list(_find_singles(folder))
    if not chapters and not singles:
        raise UserError(f"{folder}: holds no results; run an experiment or a simulation first")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        chapters=sorted(chapters, key=lambda chapter: (chapter.shown.claim, chapter.shown.name)),
        singles=singles,
    )
    draft = folder / (REPORT_FILE + ".draft")
    draft.write_text(page, encoding="utf-8")
    return draft.replace(folder / REPORT_FILE)


def _tell_experiment(folder: Path) -> Chapter:
    shown, results = read_shown(folder), read_results(folder)
    commits = Counter(one.record.commit for one in results)
    named = [name for name in QUANTITIES if read_spread(name, results) is not None]
    return Chapter(
        shown=shown,
        figures=[_read_figure(folder / f"{name}.svg") for name in shown.figures],
        header=[*shown.axes.values(), "Seeds", *(QUANTITIES[name].label for name in named)],
        rows=[_tell_cell(points, cell, named) for points, cell in group_by_cell(results).items()],
        seeds=sorted({one.record.seed for one in results}),
        commands=sorted({one.record.command for one in results}),
        commits=commits.most_common(),
        run_count=len(results),
    )


def _tell_cell(points: Sequence[str], cell: Sequence[Result], named: Sequence[str]) -> list[str]:
    numbers = [read_spread(name, cell) for name in named]
    return [*points, str(len(cell)), *("" if one is None else tell(one) for one in numbers)]


def tell(spread: Spread) -> str:
    """Write a mean with its deviation, to as many digits as make sense."""
    digits = 2 if abs(spread.mean) < 1000 else 0
    mean = f"{spread.mean:.{digits}f}"
    return mean if spread.deviation is None else f"{mean} ± {spread.deviation:.{digits}f}"


def _read_figure(path: Path) -> Figure:
    encoded = base64.b64encode(read_file(path, MAX_FIGURE_BYTES)).decode()
    return Figure(name=path.stem, source=f"data:image/svg+xml;base64,{encoded}")


def _find_singles(folder: Path) -> Iterator[Single]:
    for path in sorted(folder.rglob(RESULT_FILE)):
        if not path.with_name(RUN_FILE).exists():
            outcome = read_result(path)
            yield Single(
                path=str(path.relative_to(folder)),
                outcome=outcome,
                pay=compute_pay_per_head(outcome),
            )
