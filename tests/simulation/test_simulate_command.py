"""`d2m-node simulate` and `scripts/simulate-many`, as a person runs them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from d2m_node import cli
from d2m_node.cli.simulate import simulate
from d2m_node.simulation.checks import invariants
from d2m_node.simulation.many import Verdict, run_seed, simulate_many
from d2m_node.simulation.report.outcome import read_result

SCENARIO = """\
seed = 3
sizes = { sellers = 3, cones = 3 }
data = { validation_samples = 100, test_samples = 50, samples_per_seller = 30 }

[request]
model = { preset = "logreg", input_shape = [1, 8, 8], outputs = 10 }
training = { learning_rate = 0.01, batch_size = 16, epochs = 1 }
validation = { final_count = 40, subset_count = 40 }

[request.terms]
target = 0.99
rounds_max = 1
sellers_per_round = 3
lead = 2
first_set_size = 3
growth_numerator = 3
growth_denominator = 2
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO)
    return path


def test_a_run_writes_its_result_and_its_log(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = CliRunner().invoke(simulate, [str(file), "--out", str(out)])
    assert ended.exit_code == 0, ended.output
    outcome = read_result(out / "result.json")
    assert outcome.seed == 3
    assert outcome.log_digest in ended.stdout
    assert "accuracy" in ended.stdout
    assert "block 0: joining" in ended.stderr
    assert len((out / "log.jsonl").read_bytes().splitlines()) > 50


def test_the_result_is_printed_as_json_and_nothing_else(file: Path) -> None:
    ended = CliRunner().invoke(simulate, [str(file), "--json", "--seed", "4"])
    assert ended.exit_code == 0, ended.output
    assert ended.stderr == ""
    told = json.loads(ended.stdout)
    assert told["seed"] == told["scenario"]["seed"] == 4
    assert {
        "accuracy",
        "final_accuracy",
        "log_digest",
        "wrong_decisions",
        "votes",
        "mini_rounds",
        "payouts",
        "seconds",
    } <= told.keys()


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["nothing.toml"], cli.EXIT_USER_ERROR, "nothing.toml: cannot be read"),
        (["--ablate", "all", "FILE"], cli.EXIT_USER_ERROR, "ablate: 'all' is none of yoda"),
        (["--byzantine", "2", "FILE"], 2, "--byzantine"),
        (["--out", "/proc/none", "FILE"], cli.EXIT_USER_ERROR, "--out: /proc/none: "),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    file: Path, arguments: list[str], code: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(file) if one == "FILE" else one for one in arguments]
    assert cli.run_command(["simulate", *given]) == code
    assert complaint in capsys.readouterr().err


def test_a_model_that_does_not_fit_the_data_is_refused_before_anything_is_run(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(SCENARIO.replace("[1, 8, 8]", "[1, 8, 9]"))
    assert cli.run_command(["simulate", str(file)]) == cli.EXIT_USER_ERROR
    printed = capsys.readouterr().err
    assert printed.startswith("d2m-node: request.model: does not fit digits: ")


def test_a_violation_is_one_line_that_names_the_seed(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invariants, "compute_last_block", lambda *_: 20)
    assert cli.run_command(["simulate", str(file), "--json"]) == cli.EXIT_BUG
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("d2m-node: seed 3, block 21, job 1, node -: it should have ended")


def test_many_seeds_are_run_side_by_side(file: Path) -> None:
    arguments = ["--seeds", "1-3", "--jobs", "2", "--scenario", str(file)]
    ended = CliRunner().invoke(simulate_many, arguments)
    assert ended.exit_code == 0, ended.output
    assert "3 of 3 seeds, 0 failed" in ended.stdout
    assert "3 rounds decided; failed seeds: none" in ended.stdout


def test_a_seed_that_fails_is_printed_with_what_runs_it_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invariants, "compute_last_block", lambda *_: 20)
    verdict = run_seed(file, None, 8)
    assert verdict.failure is not None
    assert verdict.failure.startswith("seed 8, block 21, ")
    verdicts = [verdict, Verdict(seed=9, failure=None, ended="ended", rounds=1)]
    monkeypatch.setattr("d2m_node.simulation.many._run_all", lambda *_: iter(verdicts))
    ended = CliRunner().invoke(simulate_many, ["--seeds", "8-9", "--scenario", str(file)])
    assert ended.exit_code == 1
    assert f"again: d2m-node simulate {file} --seed 8" in ended.stdout
    assert "failed seeds: [8]" in ended.stdout


def test_what_the_seeds_met_is_counted(file: Path) -> None:
    hostile = "[[hostile.cones]]\nkind = 'stale'\ncount = 1\n" * 2
    faults = "[[faults]]\nkind = 'late-block'\nblock = 3\n"
    file.write_text(SCENARIO + hostile + faults)
    arguments = ["--seeds", "1-2", "--jobs", "1", "--scenario", str(file)]
    ended = CliRunner().invoke(simulate_many, arguments)
    assert "something went wrong: cone stale 2, late-block 2" in ended.stdout


@pytest.mark.parametrize("seeds", ["x", "5-3", "-1", ""])
def test_seeds_that_are_no_range_are_refused(seeds: str, file: Path) -> None:
    ended = CliRunner().invoke(simulate_many, [f"--seeds={seeds}", "--scenario", str(file)])
    assert ended.exit_code == 2
    assert "no range of seeds" in ended.output
