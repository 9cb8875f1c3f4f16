"""What a node takes while nothing happens, and how long an operator waits for an answer.

Commands are compared with a bare Python that imports what they cannot do without.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import trio

from tests.bench.idle import IdleCost, measure_idle, open_idle_node
from tests.bench.rows import Plan, Row, Timing, measure_in_turn

IDLE_SECONDS = 60.0
LIMIT_BYTES = 160 * 10**6
"""Of an idle node, without torch."""

BARE = ("-c", "import click")
CLIENT = ("-c", "import click, httpx, msgspec")


def run(plan: Plan) -> list[Row]:
    """Measure the commands, then a quiet minute."""
    return trio.run(_measure, plan)


async def _measure(plan: Plan) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="d2m-idle-") as folder:
        async with open_idle_node(Path(folder)) as node:
            rows = await trio.to_thread.run_sync(compare_commands, node.folder, plan.repetitions)
            return [*rows, describe_cost(await measure_idle(node, IDLE_SECONDS))]


def compare_commands(folder: Path, repetitions: int) -> list[Row]:
    """Time `--help` and `status`, each beside what Python itself takes."""
    rows = []
    for case, command, bare in (
        ("d2m-node --help", ("-m", "d2m_node", "--help"), BARE),
        ("d2m-node status", ("-m", "d2m_node", "--data-dir", str(folder), "status"), CLIENT),
    ):
        ours, other = measure_in_turn(
            {
                "d2m-node": lambda command=command: start(*command),  # type: ignore[misc]
                "python, its imports": lambda bare=bare: start(*bare),  # type: ignore[misc]
            },
            repetitions,
        )
        rows.append(Row(case=case, ours=ours, others=(other,)))
    return rows


def describe_cost(cost: IdleCost) -> Row:
    """Show processor time beside the time that passed; memory in parts of the limit."""
    return Row(
        case=f"idle, {cost.blocks} blocks, {cost.resident_bytes / 1e6:.0f} MB of 160",
        ours=Timing("d2m-node", (cost.cpu_seconds,)),
        others=(Timing("python, its imports", (cost.wall_seconds,)),),
        peak_memory=cost.resident_bytes / LIMIT_BYTES,
    )


def start(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
