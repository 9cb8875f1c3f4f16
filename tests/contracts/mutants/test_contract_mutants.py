"""Each planted bug must make a test of the contracts fail.

The sources are copied, one text is changed, and the test that guards it runs on contracts of which
only those with the change are compiled again. A bug that nothing notices fails here, and so does one
whose place in the sources is gone: whoever changes a contract changes its mutants too.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import boa
import pytest
from boa import BoaError
from boa.interpret import disable_cache, set_cache_dir, set_search_paths

from tests.contracts.conftest import Deployers
from tests.contracts.mutants import money, votes
from tests.contracts.mutants.mutant import Mutant
from tests.contracts.world import SOURCES

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

    def __init__(self, originals: Deployers, folder: Path, changed: tuple[str, ...]) -> None:
        super().__init__()
        self._originals = originals
        set_search_paths([str(folder)])
        # Every run has another folder: nothing would be found again, and all would be kept.
        disable_cache()
        try:
            for name in changed:
                self[name] = boa.load_partial(str(folder / f"{name}.vy"))
        finally:
            set_cache_dir()
            set_search_paths([str(SOURCES)])

    def __missing__(self, name: str) -> Any:
        return self._originals[name]


@pytest.fixture(scope="session")
def originals() -> Deployers:
    set_search_paths([str(SOURCES)])
    return Deployers()


@pytest.fixture
def mutant(request: pytest.FixtureRequest) -> Mutant | None:
    """The planted bug; none for a test of the unchanged contracts."""
    return getattr(request, "param", None)


@pytest.fixture
def deployers(mutant: Mutant | None, originals: Deployers, tmp_path: Path) -> dict[str, Any]:
    """What the fixtures of the contract tests deploy."""
    if mutant is None:
        return originals
    plant(mutant, tmp_path / "contracts")
    return Planted(originals, tmp_path / "contracts", mutant.contracts)
