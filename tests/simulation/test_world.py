"""Whole markets in simulated time: honest, hostile and broken ones."""

import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from d2m_node.simulation.checks import invariants
from d2m_node.simulation.checks.invariants import InvariantViolated
from d2m_node.simulation.hostile.kinds import CONE_KINDS, FLAWS, SELLER_KINDS
from d2m_node.simulation.report.outcome import HONEST, Outcome
from d2m_node.simulation.report.progress import Progress
from d2m_node.simulation.world import market
from d2m_node.simulation.world.market import RunOptions, run_scenario
from protocol.market import MarketState
from protocol.types import Wei
from protocol.windows import AT_STAKE
from tests.support.scenarios import small_scenario, small_table

SEVEN = {"sizes": {"sellers": 4, "cones": 7}}


def run(**tables: Any) -> Outcome:
    return run_scenario(small_scenario(**tables))


def forget_time(outcome: Outcome) -> Outcome:
    return dataclasses.replace(outcome, seconds=0.0)


@pytest.fixture(scope="module")
def honest() -> Outcome:
    return run()


def slashed(outcome: Outcome, group: str) -> int:
    return sum(one.slashed_wei for one in outcome.payouts if one.group == group)


def test_a_job_runs_from_its_bid_to_its_payout(honest: Outcome) -> None:
    assert honest.ended == "ended"
    assert honest.wrong_decisions == honest.overturned_decisions == 0
    assert len(honest.accuracy) == len(honest.votes) == len(honest.gas) == 2
    assert honest.accuracy[-1] > honest.initial_accuracy
    assert honest.final_accuracy == honest.accuracy[-1]
    assert sum(one.payout_wei for one in honest.payouts) == 10 * 10**18
    assert slashed(honest, HONEST) == 0
    assert sum(honest.gas) < honest.gas_total
    assert sum(honest.network_bytes) <= honest.network_bytes_total


def test_a_job_without_any_gossip_ends_the_same_and_costs_the_same() -> None:
    """Each phase ends with a pull: gossip only makes it quicker."""
    heard, deaf = run(**SEVEN), run(network={"loss": 1.0}, **SEVEN)
    assert deaf.ended == heard.ended == "ended"
    assert (deaf.accuracy, deaf.votes) == (heard.accuracy, heard.votes)
    # One node sends for all, as ever. A zero byte in a signature is cheaper than another one.
    assert deaf.gas == pytest.approx(heard.gas, rel=1e-3)


def test_two_runs_of_one_seed_are_the_same_and_another_seed_is_not(honest: Outcome) -> None:
    assert forget_time(run()) == forget_time(honest)
    assert run(seed=2).log_digest != honest.log_digest


def test_neither_the_hash_seed_nor_other_processes_change_what_happens(
    honest: Outcome, tmp_path: Path
) -> None:
    path = tmp_path / "scenario.json"
    path.write_text(json.dumps(small_table()))
    script = (
        "import json, sys\n"
        "from d2m_node.simulation.world.quiet import silenced_logs\n"
        "from d2m_node.simulation.scenario.file import parse_scenario\n"
        "from d2m_node.simulation.world.market import RunOptions, run_scenario\n"
        "scenario = parse_scenario(json.load(open(sys.argv[1])))\n"
        "with silenced_logs():\n"
        "    outcome = run_scenario(scenario, options=RunOptions(processes=2))\n"
        "print(outcome.log_digest)\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4", "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    assert ended.stdout.strip() == honest.log_digest


def test_the_log_tells_blocks_statements_and_faults() -> None:
    log = io.BytesIO()
    scenario = small_scenario(
        faults=[{"kind": "crash", "block": 20, "blocks": 2, "nodes": ["seller-1"]}]
    )
    outcome = run_scenario(scenario, options=RunOptions(log=log))
    entries = [json.loads(line) for line in log.getvalue().splitlines()]
    assert {"block", "say", "fault"} <= {one["kind"] for one in entries}
    assert [one["t"] for one in entries] == sorted(one["t"] for one in entries)
    assert [one["nodes"] for one in entries if one["kind"] == "fault"] == [["seller-1"]]
    assert outcome.log_digest != ""


def test_progress_is_told_with_each_block() -> None:
    steps: list[Progress] = []
    outcome = run_scenario(small_scenario(), on_progress=steps.append)
    assert [one.block for one in steps] == list(range(len(steps)))
    assert {one.phase for one in steps} >= {
        "joining",
        "auction",
        "enrolment",
        "training",
        "settled",
    }
    assert steps[-1].accuracy == outcome.final_accuracy
    assert steps[-1].rounds_done == 2


def test_of_many_buyers_the_one_that_bids_most_gets_the_job() -> None:
    outcome = run(sizes={"buyers": 3, "sellers": 4, "cones": 5})
    price_wei = sum(one.payout_wei for one in outcome.payouts)
    assert price_wei == 12 * 10**18
    assert [one.node for one in outcome.payouts if one.role == "buyer" and one.payout_wei] == [
        "buyer-3"
    ]


@pytest.mark.parametrize("kind", CONE_KINDS)
def test_hostile_cone_nodes_of_each_kind_change_nothing(kind: str) -> None:
    outcome = run(**SEVEN, hostile={"cones": [{"kind": kind, "count": 2}]})
    assert outcome.wrong_decisions == 0
    assert slashed(outcome, HONEST) == 0
    if kind in ("random", "stale", "collude", "withhold"):
        assert slashed(outcome, kind) > 0


def test_hostile_sellers_of_every_kind_at_once_break_nothing() -> None:
    kinds = [{"kind": kind, "count": 1} for kind in SELLER_KINDS]
    outcome = run(
        sizes={"sellers": 2 * len(kinds), "cones": 5},
        data={"validation_samples": 300, "test_samples": 100},
        hostile={"sellers": kinds},
        request=small_table()["request"]
        | {
            "terms": small_table()["request"]["terms"]
            | {"sellers_per_round": 2 * len(kinds) - 1, "rounds_max": 1}
        },
    )
    assert outcome.wrong_decisions == 0
    groups = {one.group: one for one in outcome.payouts if one.role == "seller"}
    assert set(groups) == {HONEST, *SELLER_KINDS}
    assert groups["equivocate"].slashed_wei > 0
    lost = {one.group for one in outcome.payouts if one.slashed_wei}
    assert lost <= {"equivocate"}
    assert lost.isdisjoint(FLAWS)


FAULTS = {
    "crash": {"kind": "crash", "blocks": 4, "nodes": ["cone-1", "seller-2"]},
    "pause": {"kind": "pause", "blocks": 3, "nodes": ["cone-2"]},
    "cut-chain": {"kind": "cut-chain", "blocks": 3, "nodes": ["cone-3"]},
    "cut-peers": {"kind": "cut-peers", "blocks": 4, "nodes": ["cone-4"]},
    "partition": {"kind": "partition", "blocks": 3, "nodes": ["cone-5", "seller-1", "seller-2"]},
    "late-block": {"kind": "late-block", "seconds": 40.0},
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_job_goes_on_after_each_kind_of_fault(kind: str) -> None:
    faults = [{**FAULTS[kind], "block": block} for block in (22, 34, 47)]
    outcome = run(faults=faults)
    assert outcome.ended == "ended"
    assert outcome.wrong_decisions == 0


def test_a_buyer_that_crashes_after_its_bid_reveals_it_and_gets_its_model() -> None:
    faults = [{"kind": "crash", "block": 1, "blocks": 4, "nodes": ["buyer-1"]}]
    outcome = run(faults=faults)
    assert outcome.ended == "ended"
    assert len(outcome.accuracy) == 2


def test_a_chain_that_turns_no_deeper_than_nodes_wait_misleads_nobody() -> None:
    request = small_table()["request"]
    longer = dict.fromkeys(WINDOWS, 6)
    outcome = run(
        chain={"confirmations": 1},
        request={**request, "terms": {**request["terms"], **longer}},
        faults=[
            {"kind": "reorganisation", "block": block, "depth": 1} for block in range(8, 99, 7)
        ],
    )
    assert outcome.ended == "ended"
    assert outcome.wrong_decisions == 0


@pytest.mark.parametrize("confirmations", [2, 5])
def test_nodes_that_wait_for_confirmations_are_in_time_in_the_shortest_windows_they_take(
    confirmations: int,
) -> None:
    request = small_table()["request"]
    shortest = dict.fromkeys(WINDOWS, confirmations + 3)
    shortest |= dict.fromkeys(AT_STAKE, 2 * confirmations + 4)
    outcome = run(
        chain={"confirmations": confirmations},
        request={
            **request,
            "auction": {"reveal_blocks": 2 * confirmations + 2},
            "terms": {**request["terms"], **shortest},
        },
    )
    assert outcome.ended == "ended"
    assert len(outcome.accuracy) == 2
    assert slashed(outcome, HONEST) == 0


WINDOWS = (
    "enrolment_blocks",
    "validation_blocks",
    "update_commit_blocks",
    "update_open_blocks",
    "availability_blocks",
    "vote_commit_blocks",
    "vote_open_blocks",
    "appeal_blocks",
)


def test_a_final_evaluation_that_a_check_interrupts_is_served_when_it_opens_again() -> None:
    # The pool is called to every decision; the last one's check closes the final ballot.
    outcome = run(**SEVEN, params={"audit_bps": 10_000})
    assert outcome.ended == "ended"  # without receipts the target would count as reached


def test_messages_that_are_lost_and_doubled_are_made_good() -> None:
    outcome = run(network={"loss": 0.1, "duplicate": 0.1, "jitter_seconds": 0.3})
    assert outcome.ended == "ended"
    assert slashed(outcome, HONEST) == 0


def test_without_a_vote_of_many_the_digest_of_one_hostile_node_is_taken() -> None:
    hostile = {"cones": [{"kind": "collude", "count": 2}]}
    outcome = run(**SEVEN, ablate=["yoda"], hostile=hostile)
    assert outcome.wrong_decisions > 0
    assert max(outcome.votes) < 4


def test_without_corrected_osmd_all_sellers_are_in_the_mean() -> None:
    outcome = run(ablate=["osmd"], hostile={"sellers": [{"kind": "noise", "count": 1}]})
    assert outcome.wrong_decisions == 0
    sellers = [one for one in outcome.payouts if one.role == "seller"]
    assert sum(one.contribution for one in sellers) == 6


def test_a_wrong_digest_is_caught_and_named_by_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The referee believes that the vote is planned for any number of hostile nodes.
    monkeypatch.setattr(market, "count_byzantine", lambda *_: 64)
    with pytest.raises(InvariantViolated) as caught:
        run(seed=5, hostile={"cones": [{"kind": "collude", "count": 4}]})
    violation = caught.value
    assert violation.seed == 5
    assert violation.job == 1
    assert "a wrong digest was decided for round 0" in violation.what
    assert str(violation).startswith(f"seed 5, block {violation.block}, job 1, node -: ")


def test_money_that_lies_in_the_wrong_place_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest_books = invariants.compute_holdings

    def cooked(state: MarketState) -> Mapping[str, Wei]:
        books = honest_books(state)
        return books | {"Market": Wei(books["Market"] + len(state.jobs))}

    monkeypatch.setattr(invariants, "compute_holdings", cooked)
    with pytest.raises(InvariantViolated, match=r"seed 1, block \d+, .*Market holds"):
        run()
