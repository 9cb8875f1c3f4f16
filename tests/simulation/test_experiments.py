"""Experiments: their files, the runs that are left, and what is shown of them."""

import csv
import json
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from d2m_node import cli
from d2m_node.errors import UserError
from d2m_node.simulation.experiments import execute as execution
from d2m_node.simulation.experiments import results as kept
from d2m_node.simulation.experiments import runner
from d2m_node.simulation.experiments.command import CONFIGS, experiments, find_files
from d2m_node.simulation.experiments.file import merge, read_experiment
from d2m_node.simulation.experiments.quantities import QUANTITIES, compute_pay_per_head
from d2m_node.simulation.experiments.report import write_report
from d2m_node.simulation.experiments.results import Origin, list_runs, read_results
from d2m_node.simulation.experiments.runner import Workshop, run_all
from d2m_node.simulation.experiments.show import show_results
from d2m_node.simulation.experiments.tables import measure_spread
from d2m_node.simulation.report.outcome import NodePayout, Outcome, write_result

ORIGIN = Origin(command="scripts/experiments test", commit="0123456789ab")

ALL = sorted(CONFIGS.glob("*.toml"))
SMALL = sorted((CONFIGS / "small").glob("*.toml"))

SCENARIO = (CONFIGS / "base" / "digits.toml").read_text()
EXPERIMENT = """\
title = "A <b>test</b>"
claim = 1
engine = "learning"
scenario = "scenario.toml"
seeds = [1, 2]

[set.request.terms]
rounds_max = 2

[[axes]]
name = "rule"
label = "Rule"
points = [
    { name = "market" },
    { name = "fedavg", set.learning = { sampler = "uniform", aggregator = "fedavg" } },
]

[[axes]]
name = "share"
label = "Hostile, %"
points = [
    { name = "0", value = 0 },
    { name = "20", value = 20, set.hostile.sellers = [{ kind = "noise", share = 0.2 }] },
]

[[plots]]
name = "curve"
kind = "curve"
x = "share"
series = "rule"

[[plots]]
name = "rounds"
kind = "rounds"
y = "accuracy"
series = "rule"
facet = "share"

[[plots]]
name = "pay"
kind = "pay"
series = "rule"

[[plots]]
name = "bars"
kind = "bars"
x = "rule"
reference = 50
"""


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "scenario.toml").write_text(SCENARIO)
    (folder / "test.toml").write_text(EXPERIMENT)
    return folder


class Silent:
    def __init__(self) -> None:
        self.total = 0
        self.rounds: list[int] = []

    def begin(self, total: int) -> None:
        self.total = total

    def show_round(self, _: object, rounds_done: int) -> None:
        self.rounds.append(rounds_done)

    def show_end(self, _: object) -> None:
        pass


def run(configs: Path, results: Path, processes: int = 1) -> Silent:
    display = Silent()
    workshop = Workshop(results=results, data=None, origin=ORIGIN, processes=processes)
    runs = list_runs(read_experiment(configs / "test.toml"))
    assert run_all(runs, workshop, display) == []
    return display


# --- the files of this repository -------------------------------------------------------------


@pytest.mark.parametrize("path", [*ALL, *SMALL], ids=lambda path: path.stem)
def test_every_experiment_of_this_repository_can_be_read(path: Path) -> None:
    experiment = read_experiment(path)
    assert experiment.plots
    assert experiment.cells


def test_there_is_an_experiment_and_a_small_one_for_each_claim() -> None:
    assert {read_experiment(path).claim for path in ALL} == set(range(1, 9))
    assert {read_experiment(path).claim for path in SMALL} == set(range(1, 9))


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.stem)
def test_a_small_version_of_each_experiment_runs(path: Path, tmp_path: Path) -> None:
    experiment, display = read_experiment(path), Silent()
    workshop = Workshop(results=tmp_path, data=None, origin=ORIGIN)
    assert run_all(list_runs(experiment), workshop, display) == []
    shown = show_results(experiment, tmp_path)
    assert {path.name for path in shown} >= {"runs.csv", "summary.csv", "experiment.json"}
    assert len(read_results(tmp_path / experiment.name)) == len(list_runs(experiment))
    assert write_report(tmp_path).read_text().count("<figure>") == len(experiment.plots)


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("claim = 1", "clam = 1", r"unknown key 'clam'; did you mean 'claim'\?"),
        ('kind = "curve"', 'kind = "pie"', r"plots\[0\]\.kind: invalid enum value 'pie'"),
        ('x = "share"', 'x = "shares"', r"plots\[0\]\.x: no axis 'shares'; there are rule, share"),
        ('x = "share"', 'x = "rule"', r"plots\[0\]\.x: point 'market' of 'rule' has no value"),
        ('y = "accuracy"', 'y = "votes_"', r"plots\[1\]\.y: 'votes_' is none of accuracy, votes"),
        ("seeds = [1, 2]", "seeds = [1, 1]", "seeds: one stands there twice"),
        ('name = "fedavg"', 'name = "market"', r"axes\[0\]\.points: one stands there twice"),
        ('name = "share"\nlabel', 'name = "rule"\nlabel', "axes: one stands there twice"),
        ('"learning"', '"market"', r"learning: the market has its own rules.*with rule fedavg"),
        ('"fedavg" }', '"fedavk" }', r"no 'fedavk'.*\(with rule fedavg, share 0\)"),
        ('"uniform",', '"uniform", sampel = 1,', r"unknown key 'learning\.sampel'"),
        ("rounds_max = 2", "rounds_may = 2", r"request\.unknown key 'terms\.rounds_may'"),
        ('kind = "noise"', 'kind = "nois"', r"hostile\.sellers\[0\]\.kind: 'nois' is none of"),
        ("scenario.toml", "gone.toml", "gone.toml: cannot be read"),
        ("seeds = [1, 2]", "seeds = []", "seeds: expected `array` of length >= 1"),
        ('name = "bars"', 'name = "../bars"', r"plots\[3\]\.name: expected `str` matching"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_that_names_the_key(
    configs: Path, old: str, new: str, complaint: str
) -> None:
    path = configs / "test.toml"
    path.write_text(EXPERIMENT.replace(old, new, 1))
    with pytest.raises(UserError, match=complaint) as failure:
        read_experiment(path)
    assert "\n" not in str(failure.value)


def test_every_point_meets_every_point_of_the_other_axes_with_every_seed(configs: Path) -> None:
    runs = list_runs(read_experiment(configs / "test.toml"))
    assert [(*run.points.values(), run.seed) for run in runs] == [
        (rule, share, seed)
        for seed in (1, 2)
        for rule in ("market", "fedavg")
        for share in ("0", "20")
    ]
    assert len({run.folder for run in runs}) == len(runs)
    assert len({run.key for run in runs}) == len(runs)


def test_tables_are_merged_and_lists_of_as_many_tables_one_by_one() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": [{"kind": "x"}], "e": [1, 2]}
    changes: dict[str, object] = {"a": {"c": 3}, "d": [{"share": 0.5}], "e": [3]}
    assert merge(base, changes) == {
        "a": {"b": 1, "c": 3},
        "d": [{"kind": "x", "share": 0.5}],
        "e": [3],
    }
    assert base == {"a": {"b": 1, "c": 2}, "d": [{"kind": "x"}], "e": [1, 2]}


# --- running ----------------------------------------------------------------------------------


def test_runs_that_are_done_are_not_run_again(configs: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert run(configs, results).total == 8
    assert run(configs, results).total == 0
    (results / "test" / "market_20_seed-2" / "run.json").unlink()
    again = run(configs, results)
    assert (again.total, again.rounds) == (1, [1, 2])


def test_a_run_of_other_inputs_or_other_code_is_run_again(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    run(configs, results)
    changed = EXPERIMENT.replace("share = 0.2", "share = 0.3")
    (configs / "test.toml").write_text(changed)
    assert run(configs, results).total == 4
    monkeypatch.setattr(kept, "compute_code_version", lambda _: "another")
    assert run(configs, results).total == 8


def test_a_result_is_the_same_in_one_process_and_in_many(configs: Path, tmp_path: Path) -> None:
    run(configs, tmp_path / "one")
    assert run(configs, tmp_path / "two", processes=2).rounds
    one, two = (
        [replace(result.outcome, seconds=0) for result in read_results(tmp_path / place / "test")]
        for place in ("one", "two")
    )
    assert one == two


def test_cells_with_the_same_inputs_are_run_once(configs: Path, tmp_path: Path) -> None:
    none = '{ name = "none", value = 1, set.hostile.sellers = [{ kind = "idle", share = 0.0 }] },'
    same = none.replace('"none", value = 1', '"same", value = 2').replace("idle", "noise")
    first = '{ name = "0", value = 0 },'
    (configs / "test.toml").write_text(EXPERIMENT.replace(first, f"{none}\n{same}"))
    assert run(configs, tmp_path).total == 8
    results = read_results(tmp_path / "test")
    assert len(results) == 12
    none_hostile = [one for one in results if one.record.points["share"] != "20"]
    assert len({one.outcome.log_digest for one in none_hostile}) == 4
    assert {one.record.points["share"] for one in none_hostile} == {"none", "same"}


def test_a_failed_run_is_told_and_does_not_hold_up_the_rest(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = execution.run_learning

    def fail_once(plan: Any, **options: Any) -> Outcome:
        if plan.scenario.seed == 2 and plan.scenario.hostile_sellers:
            raise UserError("the data are gone")
        return honest(plan, **options)

    monkeypatch.setattr(execution, "run_learning", fail_once)
    runs = list_runs(read_experiment(configs / "test.toml"))
    workshop = Workshop(results=tmp_path, data=None, origin=ORIGIN)
    failures = run_all(runs, workshop, Silent())
    assert [failure.reason for failure in failures] == ["the data are gone"] * 2
    assert len(read_results(tmp_path / "test")) == 6


def test_a_result_says_what_it_is_of(configs: Path, tmp_path: Path) -> None:
    run(configs, tmp_path)
    folder = tmp_path / "test" / "fedavg_0_seed-1"
    record = json.loads((folder / "run.json").read_text())
    assert record["points"] == {"rule": "fedavg", "share": "0"}
    assert record["learning"] == {"sampler": "uniform", "aggregator": "fedavg"}
    assert (record["command"], record["commit"]) == (ORIGIN.command, ORIGIN.commit)
    result = json.loads((folder / "result.json").read_text())
    names = {
        *("accuracy", "final_accuracy", "log_digest", "wrong_decisions"),
        *("votes", "mini_rounds", "payouts", "seconds"),
    }
    assert names <= result.keys()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 3000, b" " * (2 << 20)])
def test_a_damaged_record_is_one_line(configs: Path, tmp_path: Path, content: bytes) -> None:
    run(configs, tmp_path)
    (tmp_path / "test" / "fedavg_0_seed-1" / "run.json").write_bytes(content)
    with pytest.raises(UserError, match=r"run\.json") as failure:
        run(configs, tmp_path)
    assert "\n" not in str(failure.value)


# --- showing ----------------------------------------------------------------------------------


def test_tables_hold_a_row_per_run_round_and_cell(configs: Path, tmp_path: Path) -> None:
    run(configs, tmp_path)
    show_results(read_experiment(configs / "test.toml"), tmp_path)

    def read(name: str) -> list[dict[str, str]]:
        with (tmp_path / "test" / name).open(newline="") as file:
            return list(csv.DictReader(file))

    assert len(read("runs.csv")) == 8
    assert len(read("rounds.csv")) == 16
    summary = read("summary.csv")
    assert len(summary) == 4
    assert {row["seeds"] for row in summary} == {"2"}
    values = [
        float(row["final_accuracy"])
        for row in read("runs.csv")
        if (row["rule"], row["share"]) == ("market", "0")
    ]
    spread = measure_spread(values)
    assert float(summary[0]["final_accuracy_mean"]) == pytest.approx(spread.mean, rel=1e-5)
    assert float(summary[0]["final_accuracy_deviation"]) == pytest.approx(
        spread.deviation, rel=1e-4
    )
    assert summary[0]["votes_mean"] == ""
    assert {row["group"] for row in read("pay.csv")} == {"honest", "noise"}


def test_figures_are_drawn_as_png_and_svg_and_are_the_same_each_time(
    configs: Path, tmp_path: Path
) -> None:
    run(configs, tmp_path)
    experiment, drawn = read_experiment(configs / "test.toml"), []
    for _ in range(2):
        show_results(experiment, tmp_path)
        names = ("curve", "rounds", "pay", "bars")
        drawn.append([(tmp_path / "test" / f"{name}.svg").read_bytes() for name in names])
        assert all((tmp_path / "test" / f"{name}.png").stat().st_size for name in names)
    assert drawn[0] == drawn[1]
    assert b"Test accuracy, %" in drawn[0][0]
    assert b"Hostile, %" in drawn[0][0]


def test_of_an_experiment_without_results_nothing_is_shown(configs: Path, tmp_path: Path) -> None:
    assert show_results(read_experiment(configs / "test.toml"), tmp_path) == []


def test_a_report_is_one_page_that_needs_nothing_else(configs: Path, tmp_path: Path) -> None:
    run(configs, tmp_path)
    experiment = read_experiment(configs / "test.toml")
    show_results(experiment, tmp_path)
    (outcome,) = (one.outcome for one in read_results(tmp_path / "test")[:1])
    write_result(outcome, tmp_path / "alone <i>")
    page = write_report(tmp_path).read_text()
    assert "<b>test</b>" not in page
    assert "A &lt;b&gt;test&lt;/b&gt;" in page
    assert "alone &lt;i&gt;/result.json" in page
    assert page.count("data:image/svg+xml;base64,") == 4
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    assert all(word in page for word in ("Seeds", "1, 2", "Command", "Commit", "8 of 8"))


def test_a_report_reads_no_figure_of_another_folder(configs: Path, tmp_path: Path) -> None:
    run(configs, tmp_path)
    show_results(read_experiment(configs / "test.toml"), tmp_path)
    path = tmp_path / "test" / "experiment.json"
    path.write_text(path.read_text().replace('"curve"', '"../curve"'))
    with pytest.raises(UserError, match=r"experiment\.json: is damaged: Expected `str` matching"):
        write_report(tmp_path)


def test_a_killed_process_is_told_in_one_line(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def submit(self, *_: object) -> Future[str | None]:
            future: Future[str | None] = Future()
            future.set_exception(BrokenProcessPool("terminated abruptly"))
            return future

        def shutdown(self, **_: object) -> None:
            pass

    monkeypatch.setattr(runner, "ProcessPoolExecutor", Killed)
    with pytest.raises(UserError, match="was killed, perhaps for want of memory"):
        run(configs, tmp_path, processes=2)


def test_a_folder_without_results_makes_no_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no results"):
        write_report(tmp_path)


def make_outcome(*payouts: NodePayout) -> Outcome:
    return Outcome(
        seed=1,
        scenario={},
        ended="ended",
        initial_accuracy=0.1,
        accuracy=(0.2, 0.4),
        final_accuracy=0.4,
        log_digest="",
        wrong_decisions=0,
        overturned_decisions=0,
        votes=(10, 20),
        mini_rounds=(1, 2),
        blocks=(),
        gas=(2000, 4000),
        network_bytes=(),
        gas_total=0,
        network_bytes_total=0,
        payouts=payouts,
        refused_calls=0,
        virtual_seconds=0,
        seconds=3,
    )


def pay(node: str, group: str, wei: int, role: str = "seller") -> NodePayout:
    return NodePayout(
        node=node, role=role, group=group, payout_wei=wei, contribution=0, slashed_wei=0
    )


def test_quantities_are_means_over_rounds_in_their_units() -> None:
    numbers = {name: quantity.read(make_outcome()) for name, quantity in QUANTITIES.items()}
    assert numbers["final_accuracy"] == 40
    assert (numbers["votes"], numbers["mini_rounds"], numbers["gas"]) == (15, 1.5, 3)
    assert numbers["seconds_per_round"] == 1.5
    assert numbers["network_bytes"] is None


def test_pay_per_head_is_relative_to_an_equal_split() -> None:
    outcome = make_outcome(
        pay("seller-1", "noise", 0),
        pay("seller-2", "honest", 30),
        pay("seller-3", "honest", 50),
        pay("seller-4", "honest", 0),
        pay("cone-1", "honest", 1000, role="cone"),
    )
    assert compute_pay_per_head(outcome) == pytest.approx({"honest": 4 / 3, "noise": 0})
    assert list(compute_pay_per_head(outcome)) == ["honest", "noise"]
    assert compute_pay_per_head(make_outcome(pay("seller-1", "honest", 0))) == {}


# --- the command ------------------------------------------------------------------------------


def command(*arguments: object) -> Result:
    return CliRunner().invoke(experiments, [str(argument) for argument in arguments])


def test_the_command_runs_what_is_left_and_tells_what_it_drew(
    configs: Path, tmp_path: Path
) -> None:
    places = ("--configs", configs, "--results", tmp_path / "r", "--processes", 1)
    assert "test: 0 of 8 runs" in command("--list", "test", *places).output
    ended = command("test", *places)
    assert ended.exit_code == 0, ended.output
    assert "summary.csv" in ended.output
    assert "test: 8 of 8 runs" in command("--list", "test", *places).output
    assert command("--show", "test", *places).exit_code == 0


def test_some_points_can_be_run_alone(configs: Path, tmp_path: Path) -> None:
    places = ("--configs", configs, "--results", tmp_path / "r", "--processes", 1)
    ended = command("test", "--only", "rule=fedavg", "--only", "seed=2", *places)
    assert ended.exit_code == 0, ended.output
    results = read_results(tmp_path / "r" / "test")
    assert [(one.record.points["rule"], one.record.seed) for one in results] == [("fedavg", 2)] * 2
    written = "scripts/experiments test --only rule=fedavg --only seed=2"
    assert {one.record.command for one in results} == {written}


@pytest.mark.parametrize("text", ["rule=none", "rul=market", "seed=7", "rule", "=", ""])
def test_a_point_that_there_is_not_is_refused(configs: Path, tmp_path: Path, text: str) -> None:
    ended = command("test", "--configs", configs, "--results", tmp_path / "r", "--only", text)
    assert ended.exit_code == 3
    assert f"test has no {text!r}; write AXIS=POINT" in ended.output


def test_an_unknown_experiment_is_named_with_the_closest_one(configs: Path) -> None:
    ended = command("tset", "--configs", configs)
    assert ended.exit_code == 3
    assert "unknown experiment 'tset'; did you mean 'test'?" in ended.output


def test_folders_that_cannot_be_used_are_one_line(configs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    ended = command("test", "--configs", configs, "--results", tmp_path / "file" / "x")
    assert (ended.exit_code, ended.output.count("\n")) == (3, 1)
    assert "--results" in ended.output
    ended = command("--configs", tmp_path / "nowhere")
    assert (ended.exit_code, ended.output.count("\n")) == (3, 1)
    assert "holds no experiment files" in ended.output


def test_a_result_that_cannot_be_written_is_a_failure_of_its_run(
    configs: Path, tmp_path: Path
) -> None:
    runs = list_runs(read_experiment(configs / "test.toml"))[:2]
    (tmp_path / "test").mkdir()
    (tmp_path / runs[0].folder).write_bytes(b"a file in the way")
    workshop = Workshop(results=tmp_path, data=None, origin=ORIGIN)
    (failure,) = run_all(runs, workshop, Silent())
    assert failure.run == runs[0]
    assert "cannot be written" in failure.reason
    assert len(read_results(tmp_path / "test")) == 1


def test_the_scenarios_that_experiments_start_from_are_no_experiments() -> None:
    with pytest.raises(UserError, match="unknown experiment 'mnist'"):
        find_files(CONFIGS, ["mnist"])


def test_without_a_name_the_small_ones_are_left_out() -> None:
    assert find_files(CONFIGS, ()) == ALL
    assert find_files(CONFIGS, [SMALL[0].stem]) == [SMALL[0]]


def test_missing_data_are_told_before_anything_runs(tmp_path: Path) -> None:
    ended = command("accuracy-mnist", "--results", tmp_path, "--data", tmp_path)
    assert ended.exit_code == 3
    assert "train-images-idx3-ubyte.gz: is missing; see `d2m-node data fetch`" in ended.output


def test_the_command_simulate_makes_the_report(
    configs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(configs, tmp_path)
    show_results(read_experiment(configs / "test.toml"), tmp_path)
    assert cli.run_command(["simulate", "--report", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(tmp_path / "report.html")}
    assert cli.run_command(["simulate", "--report", str(tmp_path / "configs")]) == 3
    assert cli.run_command(["simulate"]) == 2
    assert cli.run_command(["simulate", "x.toml", "--report", str(tmp_path)]) == 2
