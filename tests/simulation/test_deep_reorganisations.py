"""Reorganisations deeper than nodes wait: they may cost a job, and never a node."""

import pytest

from d2m_node.simulation.world.market import run_scenario
from tests.support.scenarios import small_scenario

DEPTH = 6


@pytest.mark.parametrize("block", [10, 14, 16, 24, 40])
def test_a_job_ends_whatever_a_reorganisation_takes_back(block: int) -> None:
    """The auction's end, the enrolment, receipts, the start of training, a decision."""
    fault = {"kind": "reorganisation", "block": block, "depth": DEPTH}
    assert run_scenario(small_scenario(faults=[fault])).ended
