"""`d2m-node incentives`: what it prints, and what it refuses."""

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from d2m_node import cli

KEYS = [
    "execution_set_sizes",
    "lead",
    "beta",
    "beta_job",
    "undecided",
    "expected_votes",
    "pay_per_vote",
    "q_caught",
    "margins",
    "k_star",
    "minimum_stake",
    "value_at_risk",
    "honest",
]


HUGE = "1" + "0" * 400


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_constant=refuse)


def refuse(constant: str) -> None:
    """JSON has no Infinity and no NaN."""
    raise AssertionError(constant)


@pytest.fixture
def incentives(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        code = cli.run_command(["incentives", *arguments])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


def test_json_has_the_figures_of_the_standard_profile(incentives: Any) -> None:
    found = incentives("--pool", "1000", "--byzantine", "0.3", "--json").json
    assert list(found) == KEYS
    assert found["execution_set_sizes"][:3] == [25, 38, 57]
    assert (found["lead"], found["k_star"]) == (17, 21)
    assert f"{found['beta']:.5e}" == "5.95366e-08"
    assert f"{found['expected_votes']:.1f}" == "53.7"
    assert found["pay_per_vote"] == pytest.approx(300 / (50 * 25))
    assert found["minimum_stake"] == pytest.approx(1000 / 15)
    assert list(found["margins"]) == ["seller", "cone", "system"]
    for margin in found["margins"].values():
        assert margin["holds"] is (margin["left"] >= margin["right"]) is True
    assert found["honest"] is True


def test_a_share_and_a_count_say_the_same(incentives: Any) -> None:
    share = incentives("--pool", "50", "--byzantine", "0.3", "--json")
    count = incentives("--pool", "50", "--byzantine", "15", "--json")
    assert share.json == count.json
    assert incentives("--byzantine", "0.29", "--pool", "100", "--json").code == 0


def test_growth_is_a_fraction_or_a_decimal(incentives: Any) -> None:
    fraction = incentives("--growth", "3/2", "--json").json
    assert fraction == incentives("--growth", "1.5", "--json").json
    doubled = incentives("--growth", "2", "--json").json
    assert doubled["execution_set_sizes"] == [25, 50]


def test_the_profile_may_be_given(incentives: Any) -> None:
    found = incentives("--lead", "9", "--first-set", "14", "--json").json
    assert (found["lead"], found["k_star"]) == (9, 12)
    assert f"{found['beta']:.5e}" == "3.15161e-07"


def test_what_has_no_limit_is_null(incentives: Any) -> None:
    # No wrong digest can win among 50, so that no bribe is enough.
    seller = incentives("--json").json["margins"]["seller"]
    assert (seller["left"], seller["margin"], seller["holds"]) == (None, None, True)
    assert "no limit" in incentives().out


def test_beta_is_that_of_exact_sizes_and_the_verdict_that_of_the_worse_draw(
    incentives: Any,
) -> None:
    small = ("--pool", "10", "--byzantine", "3", "--lead", "2", "--first-set", "6")
    found = incentives(*small, "--json").json
    assert list(found) == KEYS
    assert found["beta"] == found["beta_job"] == 0
    assert found["value_at_risk"] == pytest.approx(0.213 * 70, rel=1e-2)
    out = incentives(*small, "--stake", "400").out
    assert "0.0048 per round" in out
    assert "0.21 in 50 rounds" in out
    assert "worse of exact set sizes and sets drawn by tickets" in out
    assert out.endswith("but for the value at risk: raise the lead\n")
    lasting = ("--rounds", "1000", "--quality-gain", "1", "--audit", "1", "--stake", "360")
    assert incentives(*small, *lasting, "--json").json["honest"] is False


def test_the_largest_job_is_weighed_up_without_a_figure_that_json_lacks(incentives: Any) -> None:
    found = incentives("--price", "1e30", "--stake", "1e30", "--pool", "2000", "--json").json
    assert found["minimum_stake"] == pytest.approx(1e30 / 15)


def test_people_read_a_table_with_a_verdict(incentives: Any) -> None:
    ended = incentives()
    assert ended.code == 0
    assert ended.out.endswith("honesty is the best strategy\n")
    rows = {line.split("  ")[0]: line for line in ended.out.splitlines()}
    for name in ("seller", "CONE node", "system", "stake"):
        assert name in rows
    assert "25, 38, 50" in rows["execution sets"]
    assert "no bribe suits both sides" in rows["system"]


def test_a_stake_that_is_too_small_is_said(incentives: Any) -> None:
    ended = incentives("--stake", "5")
    assert ended.code == 0
    assert "too small: give 66.6667" in ended.out
    assert ended.out.endswith("honesty is not secured\n")


def test_without_audits_there_is_no_least_stake(incentives: Any) -> None:
    found = incentives("--audit", "0", "--json").json
    assert found["minimum_stake"] is None
    assert found["honest"] is False


@pytest.mark.parametrize(
    ("arguments", "option", "fix"),
    [
        (["--pool", "0"], "--pool", "x>=1"),
        (["--pool", "9999"], "--pool", "give 1 to 2000"),
        (["--pool", HUGE], "--pool", "give 1 to 2000"),
        (["--lead", HUGE], "--lead", "give 1 to 2000"),
        (["--first-set", HUGE], "--first-set", "give 1 to 2000"),
        (["--rounds", HUGE], "--rounds", "give 1 to 1000"),
        (["--byzantine", HUGE], "--byzantine", "write a count"),
        (["--byzantine", "1e-999999999"], "--byzantine", "write a count"),
        (["--byzantine", "1e999999999"], "--byzantine", "write a count"),
        (["--byzantine", "0." + "3" * 19], "--byzantine", "write a count"),
        (["--growth", "1e-999999999"], "--growth", "write 3/2 or 1.5"),
        (["--growth", "1e999999999"], "--growth", "write 3/2 or 1.5"),
        (["--growth", HUGE + "/3"], "--growth", "write 3/2 or 1.5"),
        (["--growth", "1.0001"], "--growth", "a fraction of numbers up to 1000"),
        (["--growth", "1000/999", "--pool", "500"], "--growth", "it makes 476 sets, over 64"),
        (["--price", "1e308"], "--price", "up to 1e+30"),
        (["--price", "nan"], "--price", "give more than 0"),
        (["--stake", "1e308"], "--stake", "up to 1e+30"),
        (["--byzantine", "25"], "--byzantine", "give less than half of 50"),
        (["--byzantine", "1.5"], "--byzantine", "a share from 0 to 1"),
        (["--byzantine=-1"], "--byzantine", "write a count"),
        (["--byzantine", "nan"], "--byzantine", "write a count"),
        (["--lead", "0"], "--lead", "x>=1"),
        (["--first-set", "none"], "--first-set", "not a valid integer"),
        (["--growth", "1"], "--growth", "give more than 1"),
        (["--growth", "3/0"], "--growth", "write 3/2 or 1.5"),
        (["--price", "0"], "--price", "give more than 0"),
        (["--rounds", "0"], "--rounds", "x>=1"),
        (["--stake", "inf"], "--stake", "give 0 or more"),
        (["--quality-gain", "2"], "--quality-gain", "give 0 to 1"),
        (["--audit=-0.1"], "--audit", "give 0 to 1"),
    ],
)
def test_a_bad_value_names_its_option_and_the_fix(
    incentives: Any, arguments: list[str], option: str, fix: str
) -> None:
    ended = incentives(*arguments)
    assert ended.code == 2
    line = ended.err.splitlines()[-1]
    assert line.startswith("Error: ")
    assert option in line
    assert fix in line


def test_the_help_names_every_option(incentives: Any) -> None:
    text = incentives("--help").out
    for option in (
        "--pool", "--byzantine", "--lead", "--first-set", "--growth", "--price", "--rounds",
        "--stake", "--quality-gain", "--audit", "--json",
    ):  # fmt: skip
        assert option in text


def test_the_calculator_loads_nothing_heavy() -> None:
    script = (
        "import sys; from d2m_node.cli import run_command;"
        "assert run_command(['incentives', '--json']) == 0;"
        "print(sorted({'torch', 'libp2p', 'trio'} & set(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stderr.strip() == "[]"
