"""A node that is killed at any system call finds at its next start all that the store returned."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from d2m_node.ports import Purpose
from tests.support.disk_faults import KILLED, Fault, FaultyDisk, open_faulty_disk
from tests.support.store_model import StoreModel

SCENARIO = [
    ["remember", "vote", "1/0", "first"],
    ["put", "update", "own-update", 1],
    ["put", "state", "state", 2],
    ["put", "update", "update", 2],
    ["add", "commits/1/2/7", 5],
    ["settle", 5, "confirmed"],
    ["remember", "vote", "1/0", "second"],
    ["add", "bid/1", 6],
    ["clean", 10, [1]],
    ["put", "model", "model", 2],
    ["clean", 20, [1, 2]],
    ["get", "model"],
]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyDisk]:
    with open_faulty_disk(tmp_path_factory.mktemp("disk")) as opened:
        yield opened


def copy_folder(source: Path, target: Path) -> None:
    shutil.copytree(source, target)


@pytest.mark.parametrize("torn", [False, True], ids=["between calls", "in the middle of a write"])
async def test_a_kill_at_any_call_loses_nothing_that_was_returned(
    disk: FaultyDisk, tmp_path: Path, torn: bool
) -> None:
    assert disk.run(tmp_path / "new", []).error is None
    copy_folder(tmp_path / "new", tmp_path / "whole")
    whole = disk.run(tmp_path / "whole", SCENARIO)
    assert (whole.error, whole.status) == (None, 0)
    for call in range(1, whole.calls + 1):
        folder = tmp_path / str(call)
        copy_folder(tmp_path / "new", folder)
        model = StoreModel()
        outcome = disk.run(folder, SCENARIO, Fault(die=call, torn=torn))
        assert outcome.status == KILLED
        model.take(SCENARIO, outcome)
        await model.check(folder)
        # And it goes on where it was.
        again = disk.run(folder, SCENARIO)
        assert (again.error, again.status) == (None, 0)
        model.take(SCENARIO, again)
        await model.check(folder)


def test_a_kill_at_any_call_of_the_first_start_is_followed_by_a_start(
    disk: FaultyDisk, tmp_path: Path
) -> None:
    calls = disk.run(tmp_path / "whole", []).calls
    for call in range(1, calls + 1):
        folder = tmp_path / str(call)
        assert disk.run(folder, [], Fault(die=call, torn=True)).status == KILLED
        again = disk.run(folder, SCENARIO)
        assert (again.error, again.status, len(again.done)) == (None, 0, len(SCENARIO))


def make_steps() -> st.SearchStrategy[list[list[object]]]:
    jobs, texts = st.integers(1, 3), st.sampled_from(["a", "b", "c" * 5000])
    nonces = st.integers(0, 4)
    purposes = st.sampled_from([purpose.value for purpose in Purpose])
    step = st.one_of(
        st.tuples(st.just("remember"), st.just("vote"), st.sampled_from(["1/0", "1/1"]), texts),
        st.tuples(st.just("put"), texts, purposes, jobs),
        st.tuples(st.just("get"), texts),
        nonces.map(lambda nonce: ("add", f"bid/{nonce}", nonce)),
        st.tuples(st.just("settle"), nonces, st.sampled_from(["confirmed"])),
        st.tuples(st.just("clean"), st.just(10), st.lists(jobs, unique=True, max_size=2)),
    )
    return st.lists(step.map(list), max_size=6)


class CrashingStore(RuleBasedStateMachine):
    """Runs of a node on one directory, one after the other, most of them killed somewhere."""

    disk: FaultyDisk

    def __init__(self) -> None:
        super().__init__()
        self._parent = tempfile.TemporaryDirectory()
        self._folder = Path(self._parent.name) / "node"
        self._model = StoreModel()
        self._over: set[int] = set()

    def teardown(self) -> None:
        self._parent.cleanup()

    @rule(steps=make_steps(), die=st.one_of(st.just(-1), st.integers(1, 150)), torn=st.booleans())
    def run(self, steps: list[list[object]], die: int, torn: bool) -> None:
        """Start a node, let it work, kill it, and look at what it left behind."""
        outcome = self.disk.run(self._folder, steps, Fault(die=die, torn=torn))
        assert outcome.error is None
        assert outcome.status in (0, KILLED)
        self._model.take(steps, outcome)
        trio.run(self._model.check, self._folder)


def test_random_runs_and_kills_leave_what_was_returned(disk: FaultyDisk) -> None:
    CrashingStore.disk = disk
    machine = CrashingStore.TestCase()
    machine.settings = settings(
        max_examples=25,
        stateful_step_count=6,
        deadline=None,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),  # a smaller example takes minutes
        suppress_health_check=list(HealthCheck),
    )
    machine.runTest()
