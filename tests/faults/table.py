"""The table of steps x faults, read from `table.toml`, and cut into jobs.

A cell is one fault at one side of one step. Many cells share a job: they hit other nodes, or other
stages, and never so many at once that the job could not be done honestly.
"""

import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

TABLE_FILE = Path(__file__).with_name("table.toml")


class Fault(StrEnum):
    """What happens to a node."""

    KILL = "kill"
    """SIGKILL; started again at once."""
    STOP = "stop"
    """SIGSTOP; SIGCONT some blocks later."""
    RESTART = "restart"
    """SIGTERM; started again when it has ended."""
    CUT_CHAIN = "cut-chain"
    """No chain endpoint for some blocks."""
    CUT_PEERS = "cut-peers"
    """No peers for some blocks."""
    CUT_ALL = "cut-all"
    """Neither."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that nodes do."""

    action: str
    role: str
    stage: str
    """Where in a job it happens; each stage has room for so many faults of a role."""
    market: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault at one side of a step."""

    step: Step
    side: str
    fault: Fault

    @property
    def cell_id(self) -> str:
        """Name the cell, on a command line too."""
        return f"{self.step.action}.{self.side}.{self.fault}"


@dataclass(frozen=True, slots=True)
class Table:
    """All steps, and the faults at each side of them."""

    steps: tuple[Step, ...]
    sides: dict[str, dict[str, tuple[Fault, ...]]]
    """By kind of step (what its name begins with), then by side."""
    room: dict[str, dict[str, int]]
    """How many faults of a role one job takes in a stage."""

    def cells(self) -> Iterator[Cell]:
        """List every cell."""
        for step in self.steps:
            for side, faults in self.sides[step.action.split("/")[0]].items():
                for fault in faults:
                    yield Cell(step, side, fault)


def load_table() -> Table:
    """Read the table from its file."""
    data = tomllib.loads(TABLE_FILE.read_text())
    steps = tuple(
        Step(action, role, stage, market)
        for market, stages in data["steps"].items()
        for stage, roles in stages.items()
        for role, actions in roles.items()
        for action in actions
    )
    sides = {
        kind: {side: tuple(map(Fault, faults)) for side, faults in by_side.items()}
        for kind, by_side in data["sides"].items()
    }
    return Table(steps, sides, data["room"])


def compose(table: Table, cells: Iterable[Cell]) -> list[list[Cell]]:
    """Share cells out over jobs of one market each, in the order of the table.

    Two cells of one step never share a job: it must be clear which of them was hit.
    """
    jobs: list[list[Cell]] = []
    for cell in cells:
        for job in jobs:
            if job[0].step.market == cell.step.market and _has_room(table, job, cell):
                job.append(cell)
                break
        else:
            jobs.append([cell])
    return jobs


def _has_room(table: Table, job: Sequence[Cell], cell: Cell) -> bool:
    step = cell.step
    if any(one.step == step for one in job):
        return False
    beside = sum((one.step.stage, one.step.role) == (step.stage, step.role) for one in job)
    return beside < table.room[step.stage][step.role]


def select_compact(table: Table) -> list[Cell]:
    """Choose cells that touch every step and every fault, as few as there are steps."""
    chosen: list[Cell] = []
    by_step: dict[Step, list[Cell]] = {}
    for cell in table.cells():
        by_step.setdefault(cell.step, []).append(cell)
    for number, cells in enumerate(by_step.values()):
        chosen.append(cells[number % len(cells)])
    return chosen
