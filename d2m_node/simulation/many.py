"""Many seeds of one scenario, side by side: ``python -m d2m_node.simulation.many``.

What `scripts/simulate-many` runs. A seed that breaks an invariant, or ends in an error, is printed
with the command that runs it again.
"""

import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from os import sched_getaffinity
from pathlib import Path
from typing import Final

import click

from d2m_node.errors import NodeError
from d2m_node.simulation.checks.invariants import InvariantViolated
from d2m_node.simulation.report.outcome import Outcome
from d2m_node.simulation.scenario.file import read_scenario
from d2m_node.simulation.scenario.overrides import Overrides
from d2m_node.simulation.scenario.plan import Scenario
from d2m_node.simulation.world.market import run_scenario
from d2m_node.simulation.world.quiet import silenced_logs

DEFAULT_SCENARIO: Final = Path(__file__).parents[2] / "configs" / "scenarios" / "hostile.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of one seed."""

    seed: int
    failure: str | None
    """In one line; None if all went as it must."""
    trace: str = ""
    """Of an error that is no violation."""
    ended: str = ""
    rounds: int = 0
    seconds: float = 0.0
    met: tuple[str, ...] = ()
    """Kinds of hostile nodes and of faults that were in it."""


class SeedRange(click.ParamType[range]):
    """Seeds written as 1-1000, or as one number."""

    name = "A-B"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> range:
        """Read both ends, which both belong to it."""
        if isinstance(value, range):
            return value
        first, _, last = str(value).partition("-")
        last = last or first
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) < 2**63):
            self.fail(f"{value!r} is no range of seeds; write 1-1000", param, ctx)
        return range(int(first), int(last) + 1)


def run_seed(scenario: Path, data: Path | None, seed: int) -> Verdict:
    """Run one seed; whatever goes wrong is part of the verdict."""
    try:
        with silenced_logs():
            read = read_scenario(scenario, Overrides(seed=seed))
            outcome = run_scenario(read, data=data)
    except InvariantViolated as violation:
        return Verdict(seed=seed, failure=str(violation))
    except Exception as error:  # noqa: BLE001 - the other seeds go on
        if isinstance(error, NodeError):
            return Verdict(seed=seed, failure=str(error))
        lines = traceback.format_exception(error)
        return Verdict(seed=seed, failure=lines[-1].strip(), trace="".join(lines))
    return Verdict(
        seed=seed,
        failure=None,
        ended=outcome.ended,
        rounds=len(outcome.accuracy),
        seconds=outcome.seconds,
        met=_list_kinds(read, outcome),
    )


def _list_kinds(scenario: Scenario, outcome: Outcome) -> tuple[str, ...]:
    """List kinds of hostile nodes and of faults, each once."""
    cones = {f"cone {one.kind}" for one in scenario.hostile_cones if one.count}
    sellers = {f"seller {one.kind}" for one in scenario.hostile_sellers if one.count}
    return tuple(sorted(cones | sellers | outcome.faults.keys()))


@click.command()
@click.option("--seeds", type=SeedRange(), default="1-100", show_default=True)
@click.option(
    "--scenario",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=DEFAULT_SCENARIO,
    help="A scenario file; its own seed is not used.  [default: configs/scenarios/hostile.toml]",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    help="Runs side by side.  [default: one per core]",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="D2M_DATA",
    help="Folder with the benchmark data; the digits need none.  [env: D2M_DATA]",
)
def simulate_many(seeds: range, scenario: Path, jobs: int | None, data: Path | None) -> None:
    """Run a scenario from many seeds, and print each seed that breaks what must hold.

    Ends with code 1 if there is one.
    """
    read_scenario(scenario)  # what is wrong in the file is said once
    failures: list[int] = []
    endings: Counter[str] = Counter()
    met: Counter[str] = Counter()
    rounds = done = 0
    with ProcessPoolExecutor(
        jobs or len(sched_getaffinity(0)), mp_context=get_context("spawn")
    ) as pool:
        for verdict in _run_all(pool, scenario, data, seeds):
            done += 1
            rounds += verdict.rounds
            endings[verdict.ended or "failed"] += 1
            met.update(verdict.met)
            if verdict.failure is not None:
                failures.append(verdict.seed)
                click.echo(f"{verdict.trace}FAILED: {verdict.failure}")
                click.echo(f"  again: d2m-node simulate {scenario} --seed {verdict.seed}")
            if done % 25 == 0 or done == len(seeds):
                click.echo(f"{done} of {len(seeds)} seeds, {len(failures)} failed")
    told = ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items()))
    if met:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(met.items()))
        click.echo(f"seeds in which nodes were hostile or something went wrong: {kinds}")
    click.echo(f"{done} jobs ({told}), {rounds} rounds decided; failed seeds: {failures or 'none'}")
    if failures:
        raise SystemExit(1)


def _run_all(
    pool: ProcessPoolExecutor, scenario: Path, data: Path | None, seeds: Iterable[int]
) -> Iterator[Verdict]:
    """Yield verdicts as they come; a few seeds at a time are handed out."""
    left = iter(seeds)
    running: set[Future[Verdict]] = set()
    while True:
        for seed in islice(left, 64 - len(running)):
            running.add(pool.submit(run_seed, scenario, data, seed))
        if not running:
            return
        finished = next(as_completed(running))
        running.discard(finished)
        yield finished.result()


if __name__ == "__main__":
    simulate_many()
