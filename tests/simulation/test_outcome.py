"""The record of a simulation, on disk."""

from pathlib import Path

import pytest

from d2m_node.errors import UserError
from d2m_node.simulation.report.outcome import (
    HONEST,
    NodePayout,
    Outcome,
    read_result,
    write_result,
)

OUTCOME = Outcome(
    seed=7,
    scenario={"seed": 7, "sizes": {"sellers": 4}},
    ended="target",
    initial_accuracy=0.1,
    accuracy=(0.5, 0.75),
    final_accuracy=0.75,
    log_digest="ab" * 32,
    wrong_decisions=0,
    overturned_decisions=1,
    votes=(4, 5),
    mini_rounds=(1, 2),
    blocks=(20, 28),
    gas=(1000, 2000),
    network_bytes=(10, 20),
    gas_total=5000,
    network_bytes_total=100,
    payouts=(
        NodePayout(
            node="seller-1",
            role="seller",
            group=HONEST,
            payout_wei=10**30,
            contribution=2,
            slashed_wei=0,
        ),
    ),
    refused_calls=0,
    virtual_seconds=60.5,
    seconds=1.5,
)


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write_result(OUTCOME, tmp_path / "new" / "folder")
    assert path.name == "result.json"
    assert read_result(path) == OUTCOME
    assert [one.name for one in path.parent.iterdir()] == ["result.json"]


@pytest.mark.parametrize("text", ["", "[]", '{"seed": "x"}', "\xff"])
def test_what_is_no_result_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"result.json: no result of a simulation"):
        read_result(path)


def test_a_result_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_result(tmp_path / "result.json")
