"""The referee of a simulation notices what happens to honest nodes, and why it may.

Each fault is one that excuses what it does to a node. A referee that is told of none objects.
"""

from typing import Any

import pytest

from d2m_node.simulation.checks.invariants import InvariantViolated
from d2m_node.simulation.world.director import Director
from d2m_node.simulation.world.market import run_scenario
from tests.support.scenarios import small_scenario

CONES = ["cone-1", "cone-2", "cone-3", "cone-4", "cone-5"]


def crash(block: int, blocks: int, *nodes: str) -> dict[str, Any]:
    return {"kind": "crash", "block": block, "blocks": blocks, "nodes": list(nodes)}


FORFEIT = (crash(4, 8, "buyer-1"), "buyer-1: it forfeited a bid that it could reveal")
UNSERVED = (crash(16, 9, *CONES[:3]), r"buyer-1: it served its validation data, and \d of 5")
SLASHED = (crash(35, 9, *CONES), "it is honest and was slashed: it did not open its vote")


@pytest.mark.parametrize(("fault", "complaint"), [FORFEIT, UNSERVED, SLASHED])
def test_what_befalls_an_honest_node_without_a_fault_is_a_violation(
    fault: dict[str, Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = small_scenario(faults=[fault])
    assert run_scenario(scenario).ended
    monkeypatch.setattr(Director, "is_excused", lambda *_: False)
    with pytest.raises(InvariantViolated, match=complaint):
        run_scenario(scenario)
