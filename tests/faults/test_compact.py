"""A selection of the table: every step once, every fault many times, in each kind of market."""

from pathlib import Path

import pytest
import trio

from tests.faults.pace import measure_block_seconds
from tests.faults.runner import Outcome, Plan, run_market
from tests.faults.setups import SETUPS
from tests.faults.table import compose, load_table, select_compact

TABLE = load_table()


def run(market: str, folder: Path) -> list[Outcome]:
    """Run the compact selection's cells of one kind of market."""
    cells = [cell for cell in select_compact(TABLE) if cell.step.market == market]
    plan = Plan(
        jobs=compose(TABLE, cells),
        market=market,
        folder=folder / "m",
        block_seconds=measure_block_seconds(),
    )
    lines: list[str] = []
    outcomes: list[Outcome] = trio.run(run_market, plan, lines.append)
    failed = [one for one in outcomes if one.verdict == "failed"]
    assert not failed, "\n".join(lines)
    return outcomes


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("market", list(SETUPS))
def test_a_market_outlives_the_faults_at_its_steps(tmp_path: Path, market: str) -> None:
    assert {one.verdict for one in run(market, tmp_path)} == {"passed"}
