"""Runs what is left of some experiments, on as many processes as wanted, and shows how far it is.

Every run is a process's own work from beginning to end: runs do not share anything, so they give
the same results on one process and on many. A run writes its result itself. Whoever stops the
runner loses the runs that have not ended, and no more.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from threading import Thread
from typing import Protocol

from d2m_node.errors import NodeError, UserError
from d2m_node.simulation.experiments.execute import execute
from d2m_node.simulation.experiments.results import (
    Origin,
    Run,
    copy_result,
    is_done,
    keep_result,
)
from protocol.errors import ProtocolError


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where runs find their data and leave their results."""

    results: Path
    data: Path | None
    origin: Origin
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that could not be done."""

    run: Run
    reason: str


class Display(Protocol):
    """Shows how far it is."""

    def begin(self, total: int) -> None:
        """So many runs are left."""
        ...

    def show_round(self, run: Run, rounds_done: int) -> None:
        """A run has come so far."""
        ...

    def show_end(self, run: Run) -> None:
        """A run has ended, well or not."""
        ...


def run_all(runs: Sequence[Run], workshop: Workshop, display: Display) -> list[Failure]:
    """Do all runs whose results are not there; return those that failed.

    Runs with the same inputs, like those without hostile sellers of whatever kind, are done once.
    One failure does not hold up the rest.

    Raises UserError if a process was killed.
    """
    twins: dict[str, list[Run]] = {}
    for run in runs:
        if not is_done(run, workshop.results):
            twins.setdefault(run.key, []).append(run)
    left = [first for first, *_ in twins.values()]
    display.begin(len(left))
    if workshop.processes <= 1 or len(left) <= 1:
        failures = [failure for run in left if (failure := _run_here(run, workshop, display))]
    else:
        failures = _run_in_pool(left, workshop, display)
    failed = {failure.run.key for failure in failures}
    for first, *others in twins.values():
        for other in others if first.key not in failed else ():
            copy_result(first, other, workshop.results)
    return failures


def _run_here(run: Run, workshop: Workshop, display: Display) -> Failure | None:
    try:
        _do(run, workshop, lambda rounds: display.show_round(run, rounds))
    except (NodeError, ProtocolError) as exc:
        return Failure(run, str(exc))
    finally:
        display.show_end(run)
    return None


def _do(run: Run, workshop: Workshop, on_round: Callable[[int], None]) -> None:
    outcome = execute(run, workshop.data, on_round)
    keep_result(run, outcome, workshop.results, workshop.origin)


# --- in several processes -----------------------------------------------------------------------

_Word = tuple[int, int]
"""Position of a run, and its rounds that are done."""

_words: list["SimpleQueue[_Word | None]"] = []
"""In a process of the pool: where it tells how far it is."""


def _run_in_pool(left: Sequence[Run], workshop: Workshop, display: Display) -> list[Failure]:
    # A fresh interpreter for each process: threads of numerical libraries do not survive a fork.
    context = multiprocessing.get_context("spawn")
    words: SimpleQueue[_Word | None] = context.SimpleQueue()
    pool = ProcessPoolExecutor(
        workshop.processes, mp_context=context, initializer=_take_words, initargs=(words,)
    )
    failures = []
    with _listening(words, left, display):
        pending: dict[Future[str | None], Run] = {}
        try:
            for position, run in enumerate(left):
                pending[pool.submit(_run_there, position, run, workshop)] = run
            for future in as_completed(pending):
                run, reason = pending[future], future.result()
                display.show_end(run)
                if reason is not None:
                    failures.append(Failure(run, reason))
        except BrokenProcessPool as exc:
            raise UserError(
                "a process that ran an experiment was killed, perhaps for want of memory; "
                "lower --processes"
            ) from exc
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return failures


def _take_words(words: "SimpleQueue[_Word | None]") -> None:
    """Keep the queue; called once in each process of the pool."""
    _words.append(words)


def _run_there(position: int, run: Run, workshop: Workshop) -> str | None:
    """Do a run in a process of the pool; return why it failed."""
    try:
        _do(run, workshop, lambda rounds: _words[0].put((position, rounds)))
    except (NodeError, ProtocolError) as exc:
        return str(exc)
    return None


@contextmanager
def _listening(
    words: "SimpleQueue[_Word | None]", runs: Sequence[Run], display: Display
) -> Iterator[None]:
    """Show what the processes tell, until the context closes."""

    def listen() -> None:
        while (word := words.get()) is not None:
            position, rounds = word
            display.show_round(runs[position], rounds)

    thread = Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        words.put(None)
        thread.join()
