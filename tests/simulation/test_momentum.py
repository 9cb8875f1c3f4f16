"""Markets whose rounds build on each other: who was away, and who checks, gets what it needs."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from d2m_node.simulation.report.outcome import HONEST, Outcome
from d2m_node.simulation.world.market import run_scenario
from tests.support.scenarios import small_scenario, small_table

STEP = {"lengths": [0.5, 1.0], "momentum": 0.8}


def run(terms: Mapping[str, int] = MappingProxyType({}), **tables: Any) -> Outcome:
    request = small_table()["request"]
    scheduled = {
        **request,
        "training": {**request["training"], "rate_decay": 0.9},
        "terms": {**request["terms"], "rounds_max": 5, **terms},
        "step": STEP,
    }
    return run_scenario(small_scenario(request=scheduled, **tables))


def contribution(outcome: Outcome, node: str) -> int:
    return next(one.contribution for one in outcome.payouts if one.node == node)


def slashed(outcome: Outcome) -> int:
    return sum(one.slashed_wei for one in outcome.payouts if one.group == HONEST)


def test_a_node_that_missed_rounds_is_paid_again_once_it_is_back() -> None:
    whole = run()
    away = {"kind": "crash", "block": 45, "blocks": 35, "nodes": ["cone-2"]}
    found = run(faults=[away])
    for outcome in (whole, found):
        assert outcome.ended == "ended"
        assert outcome.wrong_decisions == 0
        assert len(outcome.accuracy) == 5
    assert 0 < contribution(found, "cone-2") < contribution(whole, "cone-2")


def test_after_an_overturned_decision_the_job_goes_on_from_the_models_before_it() -> None:
    first_vote_decides = {"lead": 1, "first_set_size": 1}
    found = run(
        first_vote_decides,
        hostile={"cones": [{"kind": "collude", "count": 2}]},
        params={"audit_bps": 10_000},
    )
    assert found.ended == "ended"
    assert found.overturned_decisions > 0
    assert found.wrong_decisions == 0
    assert slashed(found) == 0
    assert len(found.accuracy) == 5
