"""Nodes that act some blocks behind the chain's tip still say everything in time."""

import pytest

from d2m_node.simulation.report.outcome import HONEST
from d2m_node.simulation.scenario.file import parse_scenario
from d2m_node.simulation.scenario.plan import Scenario
from d2m_node.simulation.world.market import run_scenario
from tests.support.scenarios import small_table

REACTION_BLOCKS = 2


def lagging_scenario(confirmations: int, spare_blocks: int) -> Scenario:
    """Return a scenario whose windows are so much longer than the shortest that nodes accept."""
    least = confirmations + REACTION_BLOCKS + spare_blocks
    table = small_table(chain={"confirmations": confirmations})
    table["request"]["auction"] = {"commit_blocks": least, "reveal_blocks": least + confirmations}
    table["request"]["terms"] |= {
        "enrolment_blocks": least,
        "validation_blocks": least + confirmations + 2,
        "update_commit_blocks": least,
        "update_open_blocks": least,
        "availability_blocks": least + confirmations + 1,
        "vote_commit_blocks": least,
        "vote_open_blocks": least + confirmations + 1,
        "header_blocks": least + 5,
        "appeal_blocks": least,
    }
    return parse_scenario(table)


@pytest.mark.parametrize("spare_blocks", [0, 4])
@pytest.mark.parametrize("confirmations", [2, 5])
def test_a_job_is_served_by_nodes_that_wait_for_confirmations(
    confirmations: int, spare_blocks: int
) -> None:
    outcome = run_scenario(lagging_scenario(confirmations, spare_blocks))
    assert outcome.ended == "ended"
    assert len(outcome.accuracy) == 2
    assert all(votes >= 3 for votes in outcome.votes)
    assert not [one for one in outcome.payouts if one.group == HONEST and one.slashed_wei]
