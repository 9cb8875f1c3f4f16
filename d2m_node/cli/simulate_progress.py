"""How far a simulation has come: a bar on a terminal, else a line for each step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from d2m_node.simulation.report.progress import Progress as Step

Show = Callable[[Step], None]


@contextmanager
def open_progress(*, is_shown: bool) -> Iterator[Show]:
    """Give what shows each step. It goes to standard error: results do not."""
    console = Console(stderr=True, quiet=not is_shown)
    if not console.is_terminal:
        yield _PlainLines(console).show
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("joining", total=None, note="")

        def show(step: Step) -> None:
            bar.update(
                task,
                description=step.phase,
                completed=step.rounds_done,
                total=step.rounds_max or None,
                note=_describe(step),
            )

        yield show


class _PlainLines:
    """Says when a phase begins, and when a round is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: tuple[str, int] | None = None

    def show(self, step: Step) -> None:
        """Write a line if there is news."""
        news = (step.phase, step.rounds_done)
        if news != self._said:
            self._said = news
            done = f", round {step.rounds_done} of {step.rounds_max}" if step.rounds_done else ""
            self._console.print(f"block {step.block}: {step.phase}{done}{_describe(step, ', ')}")


def _describe(step: Step, separator: str = "") -> str:
    return "" if step.accuracy is None else f"{separator}accuracy {step.accuracy:.4f}"
