"""Each planted bug must make a test of the contracts fail.

The sources are copied, one text is changed, and the test that guards it runs on contracts of which
only those with the change are compiled again. A bug that nothing notices fails here, and so does
one whose place in the sources is gone: whoever changes a contract changes its mutants too.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import boa
import pytest
from boa.interpret import set_cache_dir, set_search_paths

from tests.contracts import conftest
from tests.contracts.mutants import money, votes
from tests.contracts.mutants.mutant import Mutant
from tests.contracts.world import SOURCES

pytestmark = pytest.mark.long

MUTANTS = (*money.ALL, *votes.ALL)
FEWEST = 25


def plant(mutant: Mutant, folder: Path) -> None:
    """Copy the sources and change one; ValueError unless the text stands there exactly once."""
    shutil.copytree(SOURCES, folder)
    path = folder / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file} holds {mutant.old!r} {text.count(mutant.old)} times")
    path.write_text(text.replace(mutant.old, mutant.new))


class Planted(dict[str, Any]):
    """Compiled contracts by name, some of them from changed sources."""

    def __init__(
        self, originals: conftest.Deployers, folder: Path, changed: tuple[str, ...]
    ) -> None:
        super().__init__()
        self._originals = originals
        set_search_paths([str(folder)])
        # Every run has another folder: in the common cache nothing would be found again.
        set_cache_dir(str(folder.parent / "cache"))
        try:
            for name in changed:
                self[name] = boa.load_partial(str(folder / f"{name}.vy"))
        finally:
            set_cache_dir()
            set_search_paths([str(SOURCES)])

    def __missing__(self, name: str) -> Any:
        return self._originals[name]


class Stage:
    """Runs tests of the contracts on other contracts, with fixtures as pytest would make them."""

    def __init__(self, deployers: dict[str, Any]) -> None:
        self._deployers = deployers

    def run(self, name: str) -> None:
        """Run ``file::test``, with every case that it is parametrised by."""
        file, function = name.split("::")
        module = import_module(f"tests.contracts.{file}")
        test = getattr(module, function)
        for case in self._cases(test):
            with boa.env.anchor():
                boa.env.sstore_trace.clear()
                values = {"deployers": self._deployers, "clean_chain": None, **case}
                test(
                    **{
                        name: self._value(name, module, values)
                        for name in signature(test).parameters
                    }
                )

    def _cases(self, test: Callable[..., None]) -> list[dict[str, Any]]:
        cases: list[dict[str, Any]] = [{}]
        for mark in getattr(test, "pytestmark", []):
            if mark.name == "parametrize":
                names = mark.args[0]
                names = names.replace(" ", "").split(",") if isinstance(names, str) else names
                rows = [_values(row, len(names)) for row in mark.args[1]]
                cases = [
                    case | dict(zip(names, row, strict=True)) for case in cases for row in rows
                ]
        return cases

    def _value(self, name: str, module: Any, values: dict[str, Any]) -> Any:
        if name not in values:
            fixture = getattr(module, name, None) or getattr(conftest, name)
            function = fixture._get_wrapped_function()
            values[name] = function(
                **{
                    part: self._value(part, module, values)
                    for part in signature(function).parameters
                }
            )
        return values[name]


def _values(row: Any, count: int) -> tuple[Any, ...]:
    """The values of one case, however it is written."""
    if hasattr(row, "values") and hasattr(row, "marks"):
        return tuple(row.values)
    return tuple(row) if count > 1 else (row,)


@pytest.fixture(scope="session")
def originals() -> conftest.Deployers:
    set_search_paths([str(SOURCES)])
    return conftest.Deployers()


def is_noticed(mutant: Mutant, originals: conftest.Deployers, folder: Path) -> bool:
    plant(mutant, folder)
    stage = Stage(Planted(originals, folder, mutant.contracts))
    try:
        stage.run(mutant.killed_by)
    except (Exception, pytest.fail.Exception):  # noqa: BLE001 - whatever it is, it was noticed
        return True
    return False


@pytest.mark.parametrize("name", sorted({mutant.killed_by for mutant in MUTANTS}))
def test_the_unchanged_contracts_pass(name: str, originals: conftest.Deployers) -> None:
    Stage(originals).run(name)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.bug.replace(" ", "_"))
def test_a_planted_bug_is_noticed(
    mutant: Mutant, originals: conftest.Deployers, tmp_path: Path
) -> None:
    assert is_noticed(mutant, originals, tmp_path / "contracts"), mutant.killed_by


def test_there_are_enough_planted_bugs() -> None:
    assert len(MUTANTS) >= FEWEST
    assert len({mutant.bug for mutant in MUTANTS}) == len(MUTANTS)


def test_a_bug_whose_place_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 times"):
        plant(replace(MUTANTS[0], old="no such text"), tmp_path / "gone")
    with pytest.raises(ValueError, match=r"\d+ times"):
        plant(replace(MUTANTS[0], old="self.holdings"), tmp_path / "twice")
