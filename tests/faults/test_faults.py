"""Selections of the table; the whole of it has a script of its own, `scripts/faults`."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import trio

from tests.faults.pace import measure_block_seconds
from tests.faults.runner import Outcome, Plan, run_market
from tests.faults.setups import SETUPS
from tests.faults.table import Cell, compose, load_table, select_compact

TABLE = load_table()
CELLS = {cell.cell_id: cell for cell in TABLE.cells()}
OF_EACH_STAGE = (
    "journal/bid.before.kill",
    "tx/EnrolSeller.sent.cut-chain",
    "tx/EnrolCone.sent.kill",
    "tx/CloseEnrolment.signed.kill",
    "say/ValidationOffer.after.cut-peers",
    "fetch/validation.after.restart",
    "tx/SubmitReceipts.sent.stop",
    "train.before.kill",
    "say/UpdateCommit.after.restart",
    "say/AvailabilityBitmap.after.cut-all",
    "journal/vote.after.kill",
    "tx/SubmitOpenings.sent.kill",
    "compute/final.before.stop",
    "tx/SettleJob.signed.kill",
    "journal/model.before.kill",
    "serve/parameters.before.cut-peers",
)


def run(market: str, cells: Iterable[Cell], folder: Path) -> list[Outcome]:
    """Run cells in one market; all must be hit, and pass."""
    plan = Plan(
        jobs=compose(TABLE, cells),
        market=market,
        folder=folder / "m",
        block_seconds=measure_block_seconds(),
    )
    lines: list[str] = []
    outcomes: list[Outcome] = trio.run(run_market, plan, lines.append)
    assert {one.verdict for one in outcomes} == {"passed"}, "\n".join(lines)
    return outcomes


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.faults
def test_a_job_outlives_a_fault_at_each_of_its_stages(tmp_path: Path) -> None:
    outcomes = run("plain", (CELLS[name] for name in OF_EACH_STAGE), tmp_path)
    assert len({one.jobs for one in outcomes}) == 1


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("market", list(SETUPS))
def test_a_market_outlives_the_faults_at_its_steps(tmp_path: Path, market: str) -> None:
    """Of every step one fault, of every fault many, in each kind of market."""
    cells = (cell for cell in select_compact(TABLE) if cell.step.market == market)
    run(market, cells, tmp_path)
