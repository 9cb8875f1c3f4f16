"""Each planted bug must make a test of the rules fail.

The rules and their tests are copied, one line is changed, and the tests that guard it run in a
process of their own. A bug that nothing notices fails here, and so does one whose place in the
code is gone: whoever changes a rule changes its mutants too.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants import earnings, joining, learning, limits, market, past, voting
from tests.mutants.mutant import Mutant

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    "protocol",
    "pyproject.toml",
    "tests/__init__.py",
    "tests/conftest.py",
    "tests/protocol",
    "tests/support",
    "tests/vectors",
)
PASSED, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED
MUTANTS = (
    *voting.SORTITION,
    *voting.CONSENSUS,
    *voting.MONEY,
    *voting.PLANNING,
    *learning.ARITHMETIC,
    *learning.GATE,
    *learning.KRUM,
    *learning.OSMD,
    *learning.ROUND,
    *learning.STEP,
    *learning.EVALUATION,
    *limits.LIMITS,
    *market.MARKET,
    *joining.JOINING,
    *earnings.EARNINGS,
    *past.PAST,
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the rules and their tests; compiled once, when its tests first run."""
    folder = tmp_path_factory.mktemp("original")
    for name in COPIED:
        (folder / name).parent.mkdir(exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
        else:
            shutil.copy2(ROOT / name, folder / name)
    return folder


def run_tests(folder: Path, names: list[str]) -> subprocess.CompletedProcess[str]:
    """Run tests of a copy; only the plugins that they need, because start-up is most of it."""
    plugins = (
        "-p",
        "no:cacheprovider",
        "-p",
        "pytest_trio.plugin",
        "-p",
        "_hypothesis_pytestplugin",
    )
    return subprocess.run(
        [
            sys.executable,
            *("-m", "pytest", "-x", "-q", "--tb=line", *plugins, "--hypothesis-seed=0"),
            *(f"tests/protocol/{name}" for name in names),
        ],
        cwd=folder,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def plant(mutant: Mutant, folder: Path) -> None:
    """Change the rule; ValueError unless its text stands there exactly once."""
    path = folder / "protocol" / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file} holds {mutant.old!r} {text.count(mutant.old)} times")
    path.write_text(text.replace(mutant.old, mutant.new))
    # The compiled file is told from the source by time and size only, and both can be equal.
    for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
        compiled.unlink()


def test_the_unchanged_rules_pass_the_tests_that_guard_them(original: Path) -> None:
    names = sorted({name for mutant in MUTANTS for name in mutant.killed_by})
    result = run_tests(original, names)
    assert result.returncode == PASSED, result.stdout


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.bug.replace(" ", "_"))
def test_a_planted_bug_is_noticed(mutant: Mutant, original: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mutant"
    shutil.copytree(original, folder)
    plant(mutant, folder)
    result = run_tests(folder, list(mutant.killed_by))
    assert result.returncode == FAILED, result.stdout


def test_a_bug_whose_place_is_gone_is_an_error(original: Path) -> None:
    stale = replace(MUTANTS[0], file="krum.py", old="no such text")
    with pytest.raises(ValueError, match="0 times"):
        plant(stale, original)
    twice = replace(MUTANTS[0], file="krum.py", old="byzantine_count")
    with pytest.raises(ValueError, match=r"\d+ times"):
        plant(twice, original)


def test_a_bug_without_a_test_to_notice_it_is_an_error() -> None:
    with pytest.raises(ValueError, match="no test is named"):
        replace(MUTANTS[0], killed_by=())
