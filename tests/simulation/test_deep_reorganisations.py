"""Reorganisations deeper than nodes wait: they may cost a job, and never a node."""

import pytest

from d2m_node.simulation.world.market import run_scenario
from tests.support.scenarios import small_scenario

DEPTH = 6


def run_with_turn(block: int, depth: int) -> str:
    """Return how a job ends of which one reorganisation takes back so much."""
    fault = {"kind": "reorganisation", "block": block, "depth": depth}
    return run_scenario(small_scenario(faults=[fault])).ended


@pytest.mark.parametrize("block", [10, 14, 16, 24, 40])
def test_a_job_ends_whatever_a_reorganisation_takes_back(block: int) -> None:
    """The auction's end, the enrolment, receipts, the start of training, a decision."""
    assert run_with_turn(block, DEPTH)


def test_a_job_ends_that_nobody_could_apply_for_after_a_reorganisation() -> None:
    """The chain forgets all applications, and the time for new ones is over."""
    assert run_with_turn(21, 10) == "cancelled"
