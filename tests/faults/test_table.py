"""The table has a row for everything that nodes write down, send or say."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from d2m_node.calls import ContractCall
from protocol.wire.messages import GossipMessage
from tests.faults.setups import SETUPS
from tests.faults.table import Cell, Fault, compose, load_table, select_compact

ROOT = Path(__file__).parents[2]
TABLE = load_table()
ACTIONS = {step.action for step in TABLE.steps}


def _list_constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        named = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(named, ast.Name) and isinstance(value, ast.Constant):
            yield named.id, value.value


def find_journal_kinds() -> Iterator[str]:
    """Yield the kinds that the code gives to `remember`: literals, or constants of the module."""
    for path in (ROOT / "d2m_node").rglob("*.py"):
        tree = ast.parse(path.read_text())
        constants = dict(_list_constants(tree))
        for node in ast.walk(tree):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if not is_call or node.func.attr not in ("remember", "_write_beside"):
                continue
            first = node.args[0]
            if isinstance(first, ast.Constant):
                yield first.value
            elif isinstance(first, ast.Name) and first.id in constants:
                yield constants[first.id]
        yield from (
            value for name, value in constants.items() if name == "KIND" or name.endswith("_KIND")
        )


def test_every_journal_kind_has_its_row() -> None:
    kinds = set(find_journal_kinds())
    assert {"vote", "update", "bid", "decision"} <= kinds, "the search finds what is there"
    assert {f"journal/{kind}" for kind in kinds} <= ACTIONS


def test_every_call_of_the_contracts_has_its_row() -> None:
    assert {f"tx/{call.__name__}" for call in get_args(ContractCall)} <= ACTIONS


def test_every_statement_has_its_row() -> None:
    assert {f"say/{message.__name__}" for message in get_args(GossipMessage)} <= ACTIONS


def test_each_step_meets_each_fault() -> None:
    for step in TABLE.steps:
        sides = TABLE.sides[step.action.split("/")[0]]
        assert {fault for faults in sides.values() for fault in faults} == set(Fault)


def test_every_kind_of_market_is_set_up() -> None:
    assert {step.market for step in TABLE.steps} == SETUPS.keys()


def test_no_two_cells_have_one_name() -> None:
    names = [cell.cell_id for cell in TABLE.cells()]
    assert len(set(names)) == len(names)


def test_the_compact_selection_touches_every_step_and_every_fault() -> None:
    chosen = select_compact(TABLE)
    assert {cell.step for cell in chosen} == set(TABLE.steps)
    assert {cell.fault for cell in chosen} == set(Fault)


@pytest.mark.parametrize("cells", [list(TABLE.cells()), select_compact(TABLE)])
def test_jobs_hold_every_cell_once_and_never_more_than_there_is_room_for(
    cells: list[Cell],
) -> None:
    jobs = compose(TABLE, cells)
    assert sorted(cell.cell_id for job in jobs for cell in job) == sorted(
        cell.cell_id for cell in cells
    )
    for job in jobs:
        assert len({cell.step for cell in job}) == len(job), "it must be clear which one was hit"
        assert len({cell.step.market for cell in job}) == 1
        for cell in job:
            here = (cell.step.stage, cell.step.role)
            beside = [one for one in job if (one.step.stage, one.step.role) == here]
            assert len(beside) <= TABLE.room[cell.step.stage][cell.step.role]
