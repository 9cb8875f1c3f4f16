"""A node that is killed while it handles what is sealed: each start finds all of it, or none.

Real processes are killed between sealed transfers by `tests/faults/table.toml`, [steps.sealed].
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.disk_faults import KILLED, Fault, FaultyDisk, open_faulty_disk

MODEL, STATE = "a model file", "the parameters after a round"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyDisk]:
    with open_faulty_disk(tmp_path_factory.mktemp("disk")) as opened:
        yield opened


def kill_at_each_call(disk: FaultyDisk, folder: Path, steps: list[list[Any]]) -> Iterator[Path]:
    """Yield what each death leaves behind: one before every call that changes the disk."""
    assert disk.run(folder / "new", []).error is None
    shutil.copytree(folder / "new", folder / "whole")
    whole = disk.run(folder / "whole", steps)
    assert (whole.error, whole.status) == (None, 0)
    for call in range(1, whole.calls + 1):
        left = folder / str(call)
        shutil.copytree(folder / "new", left)
        assert disk.run(left, steps, Fault(die=call, torn=True)).status == KILLED
        yield left


def test_a_buyer_that_is_killed_at_any_call_has_its_model_after_the_next_start(
    disk: FaultyDisk, tmp_path: Path
) -> None:
    """Sealed and stored, but not yet journaled, it is taken again; journaled, it opens."""
    for left in kill_at_each_call(disk, tmp_path, [["deliver", MODEL]]):
        again = disk.run(left, [["deliver", MODEL], ["deliver", "another file"]])
        assert again.error is None
        assert again.done == [MODEL, MODEL]


def test_a_node_that_is_killed_with_a_state_seals_it_as_ever_or_has_none(
    disk: FaultyDisk, tmp_path: Path
) -> None:
    steps = [["put", STATE, "state", 1], ["seal_state", STATE]]
    (_, expected) = disk.run(tmp_path / "unharmed", steps).done
    assert expected is not None
    found = set()
    for left in kill_at_each_call(disk, tmp_path, steps):
        first, _, second = disk.run(left, [["seal_state", STATE], *steps]).done
        assert second == expected
        found.add(first)
    assert found == {None, expected}
