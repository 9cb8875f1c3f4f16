"""Chains that turn no deeper than nodes wait, at the worst moments: nobody loses by it."""

from typing import Any

import pytest

from d2m_node.simulation.world.market import run_scenario
from tests.support.scenarios import small_scenario, small_table

SHORTEST = {
    "enrolment_blocks": 5,
    "validation_blocks": 6,
    "update_commit_blocks": 5,
    "update_open_blocks": 5,
    "availability_blocks": 5,
    "vote_commit_blocks": 5,
    "vote_open_blocks": 5,
    "appeal_blocks": 4,
    "rounds_max": 1,
}


def run_with_turns(*blocks: int, **tables: Any) -> str:
    """Return how a job ends if one block is taken back at each of these."""
    request = small_table()["request"]
    scenario = small_scenario(
        chain={"confirmations": 1},
        request={**request, "terms": {**request["terms"], **SHORTEST}},
        faults=[{"kind": "reorganisation", "block": block, "depth": 1} for block in blocks],
        **tables,
    )
    return run_scenario(scenario).ended


@pytest.mark.parametrize("block", [22, 23, 24])
def test_a_buyer_that_serves_its_data_is_not_taken_for_one_that_does_not(block: int) -> None:
    """The receipts are mined, taken back, mined again, and taken back again."""
    assert run_with_turns(block, block + 1) == "ended"


@pytest.mark.parametrize("block", [63, 64, 65])
def test_a_missed_target_is_not_paid_for_because_receipts_were_taken_back(block: int) -> None:
    assert run_with_turns(block, block + 1) == "ended"
