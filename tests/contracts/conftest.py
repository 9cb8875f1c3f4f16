"""One compilation per run, one clean chain per test."""

from collections.abc import Iterator
from typing import Any

import boa
import pytest
from boa.interpret import set_search_paths

from tests.contracts.support import CASES
from tests.contracts.world import NAMES, SOURCES, Job, World


class Deployers(dict[str, Any]):
    """Contracts and mocks by name, each compiled when it is first asked for."""

    def __missing__(self, name: str) -> Any:
        folder = SOURCES if name in NAMES else SOURCES / "mocks"
        self[name] = boa.load_partial(str(folder / f"{name}.vy"))
        return self[name]


@pytest.fixture(scope="session")
def deployers() -> Deployers:
    """The compiled contracts and mocks, by name."""
    set_search_paths([str(SOURCES)])
    return Deployers()


@pytest.fixture(autouse=True)
def clean_chain() -> Iterator[None]:
    # Which slots were written is remembered by address, across anchors: what another contract at
    # the same address wrote in another test cannot be shown when a call reverts.
    boa.env.sstore_trace.clear()
    with boa.env.anchor():
        yield


@pytest.fixture
def world(deployers: dict[str, Any], clean_chain: None) -> World:
    return World(deployers)


@pytest.fixture
def job(world: World) -> Job:
    """A job that nobody has taken a step of."""
    return Job(world)


@pytest.fixture
def rules(deployers: dict[str, Any], clean_chain: None) -> Any:
    """The rules of the modules, each as a call."""
    return deployers["RulesHarness"].deploy()


@pytest.fixture
def packing(deployers: Deployers, clean_chain: None) -> Any:
    """The words of ballots and courses, opened to tests."""
    return deployers["PackingHarness"].deploy()


@pytest.fixture
def rules_of_vectors(rules: Any) -> Any:
    """The rules on the chain that the vectors are of."""
    boa.env.evm.patch.chain_id = CASES["chain"]
    return rules


@pytest.fixture
def members(deployers: dict[str, Any], clean_chain: None) -> Any:
    """The rules of applications, draws and rosters, each as a call."""
    return deployers["MembersHarness"].deploy()
