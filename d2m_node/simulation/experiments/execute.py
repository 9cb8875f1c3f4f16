"""One run of an experiment, by the engine that its file names."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from d2m_node.benchmark_data.files import DATASETS
from d2m_node.benchmark_data.verify import find_flaw
from d2m_node.errors import UserError
from d2m_node.simulation.computing.evaluators import choose_evaluator
from d2m_node.simulation.experiments.file import read_learning
from d2m_node.simulation.experiments.results import Run
from d2m_node.simulation.learning.loop import Helpers, LearningPlan, run_learning
from d2m_node.simulation.report.outcome import Outcome
from d2m_node.simulation.scenario.file import parse_scenario
from d2m_node.simulation.scenario.plan import Scenario

OnRound = Callable[[int], None]
"""Called with the number of rounds that are done."""

DIGITS: Final = "digits"


def execute(run: Run, data: Path | None, on_round: OnRound) -> Outcome:
    """Run it to its end. Raises UserError if its data are not there."""
    scenario = parse_scenario(run.table)
    if run.engine == "market":
        return _execute_market(scenario, data, on_round)
    plan = LearningPlan(scenario=scenario, choice=read_learning(run.learning).choose())
    helpers = Helpers(
        evaluate=choose_evaluator(scenario.request.model, threads=1),
        on_round=lambda note: on_round(note.round_index + 1),
    )
    return run_learning(plan, data=data, helpers=helpers)


def _execute_market(scenario: Scenario, data: Path | None, on_round: OnRound) -> Outcome:
    # It brings the chain along, and the learning loop needs none.
    from d2m_node.simulation.world.market import RunOptions, run_scenario
    from d2m_node.simulation.world.quiet import silenced_logs

    with silenced_logs():
        return run_scenario(
            scenario,
            data=data,
            on_progress=lambda progress: on_round(progress.rounds_done),
            # Runs have a core each.
            options=RunOptions(evaluate=choose_evaluator(scenario.request.model, threads=1)),
        )


def check_data(runs: list[Run], data: Path | None) -> None:
    """Check the files of all data sets that runs read, before the first begins.

    Raises UserError that names the file.
    """
    named = {parse_scenario(run.table).data.dataset for run in runs}
    for dataset in sorted(named - {DIGITS}):
        if data is None:
            raise UserError(f"{dataset}: give --data DIR, or set D2M_DATA to the folder")
        for file in DATASETS[dataset]:
            flaw = find_flaw(file, data)
            if flaw is not None:
                raise UserError(f"{data / file.path}: {flaw}; see `d2m-node data fetch`")
