"""The command `d2m-node simulate`."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from d2m_node.cli.options import json_of
from d2m_node.cli.output import print_facts, print_result, print_table, round_wei
from d2m_node.cli.shapes import ReportResult
from d2m_node.errors import UserError
from d2m_node.simulation.report.outcome import Outcome, write_result

if TYPE_CHECKING:
    from d2m_node.simulation.scenario.plan import Scenario

LOG_FILE = "log.jsonl"


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option(
    "--report",
    "report_of",
    type=click.Path(file_okay=False, path_type=Path),
    help="Run nothing: make one page, report.html, of all results in this folder.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Run with another seed.")
@click.option(
    "--byzantine",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Let this share of the CONE nodes be hostile, instead of what the file says.",
)
@click.option(
    "--ablate",
    multiple=True,
    metavar="RULE",
    help="Leave a part of the mechanism out: yoda, osmd, or a rule of the file's list.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="D2M_DATA",
    help="Folder with the benchmark data; the digits need none.  [env: D2M_DATA]",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for result.json and the log of all that happened.",
)
@click.option(
    "--processes",
    type=click.IntRange(0, 256),
    help="Training processes; 0 trains in this one.  [default: one per core, of digits none]",
)
@json_of(Outcome, ReportResult, help_text="Print the result as JSON.")
def simulate(  # noqa: PLR0913 - click passes each option
    file: Path | None,
    *,
    report_of: Path | None,
    seed: int | None,
    byzantine: float | None,
    ablate: tuple[str, ...],
    data: Path | None,
    out: Path | None,
    processes: int | None,
    as_json: bool,
) -> None:
    """Run a whole market in this process, in simulated time, from one seed.

    FILE is a scenario, like those in configs/scenarios. The same file and seed always give the
    same log. What must never happen ends the run with one line that names the seed, the block, the
    job and the node.
    """
    if (file is None) == (report_of is None):
        raise click.UsageError("give either a scenario FILE or --report DIR")
    if report_of is not None:
        _report(report_of, as_json=as_json)
        return
    assert file is not None, "one of them was given"
    from d2m_node.cli.simulate_progress import open_progress
    from d2m_node.simulation.computing.evaluators import choose_evaluator
    from d2m_node.simulation.scenario.file import read_scenario
    from d2m_node.simulation.scenario.overrides import Overrides
    from d2m_node.simulation.world.market import RunOptions, run_scenario
    from d2m_node.simulation.world.quiet import silenced_logs

    overrides = Overrides(seed=seed, byzantine_share=byzantine, ablate=ablate)
    scenario = read_scenario(file, overrides)
    with silenced_logs(), _open_log(out) as log, open_progress(is_shown=not as_json) as show:
        options = RunOptions(
            processes=_choose_processes(processes, scenario),
            evaluate=choose_evaluator(scenario.request.model, threads=_count_cores()),
            log=log,
        )
        outcome = run_scenario(scenario, data=data, on_progress=show, options=options)
    path = None if out is None else write_result(outcome, out)
    if as_json:
        print_result(outcome)
    else:
        _print_summary(outcome, path)


def _report(folder: Path, *, as_json: bool) -> None:
    from d2m_node.simulation.experiments.report import write_report

    path = write_report(folder)
    if as_json:
        print_result(ReportResult(report=str(path)))
    else:
        click.echo(path)


def _open_log(folder: Path | None) -> AbstractContextManager[IO[bytes] | None]:
    if folder is None:
        return nullcontext()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / LOG_FILE).open("wb")
    except OSError as exc:
        raise UserError(f"--out: {folder}: {exc.strerror}") from exc


def _choose_processes(wanted: int | None, scenario: "Scenario") -> int:
    """Small models are trained faster here than a process is started."""
    if wanted is not None:
        return wanted
    return 0 if scenario.data.dataset == "digits" else _count_cores()


def _count_cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


def _print_summary(outcome: Outcome, path: Path | None) -> None:
    rounds = zip(
        outcome.accuracy,
        outcome.votes,
        outcome.mini_rounds,
        outcome.blocks,
        outcome.gas,
        outcome.network_bytes,
        strict=True,
    )
    print_table(
        ("round", "accuracy", "votes", "mini-rounds", "blocks", "gas", "bytes"),
        [
            (str(number), f"{accuracy:.4f}", *map(str, figures))
            for number, (accuracy, *figures) in enumerate(rounds, start=1)
        ],
    )
    click.echo()
    print_table(("group", "nodes", "paid per head", "slashed per head"), _group_payouts(outcome))
    click.echo()
    facts: list[tuple[str, object]] = [
        ("ended", outcome.ended),
        ("final accuracy", f"{outcome.final_accuracy:.4f}"),
        ("wrong decisions", outcome.wrong_decisions),
        ("taken back", outcome.overturned_decisions),
        ("seed", outcome.seed),
        ("log digest", outcome.log_digest),
        ("simulated", f"{outcome.virtual_seconds:.0f} s"),
        ("took", f"{outcome.seconds:.1f} s"),
    ]
    print_facts(facts if path is None else [*facts, ("result", path)])


def _group_payouts(outcome: Outcome) -> list[tuple[str, str, str, str]]:
    groups: dict[str, list[tuple[int, int]]] = {}
    for one in outcome.payouts:
        name = f"{one.group} {one.role}s"
        groups.setdefault(name, []).append((one.payout_wei, one.slashed_wei))
    return [
        (
            name,
            str(len(members)),
            round_wei(sum(paid for paid, _ in members) // len(members)),
            round_wei(sum(lost for _, lost in members) // len(members)),
        )
        for name, members in groups.items()
    ]
