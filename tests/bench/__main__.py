"""Run all benchmarks of this folder and print a table for each: ``python -m tests.bench``."""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import threadpoolctl
import torch
from rich.console import Console
from rich.table import Table

from tests.bench.rows import Plan, Row, Timing


def main() -> None:
    """Measure, print, and write the numbers if asked to."""
    arguments = parse_arguments()
    plan = Plan(arguments.repeat, arguments.max_values)
    torch.set_num_threads(arguments.threads)
    # A file or a pipe has no width; the table shall not be folded for that.
    console = Console(width=None if sys.stdout.isatty() else 160)
    results: dict[str, list[Row]] = {}
    with threadpoolctl.threadpool_limits(arguments.threads):
        for name in arguments.only or list_benchmarks():
            rows = import_module(f"tests.bench.bench_{name}").run(plan)
            if rows:
                console.print(build_table(f"{name}, threads: {arguments.threads}", rows))
            results[name] = rows
    if arguments.json:
        arguments.json.write_text(json.dumps(describe(results, arguments.threads), indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure speed and memory.")
    parser.add_argument(
        "only",
        nargs="*",
        choices=[[], *list_benchmarks()],
        metavar="BENCHMARK",
        help=f"which of {', '.join(list_benchmarks())}; all by default",
    )
    parser.add_argument("--threads", type=int, default=2, help="for numpy and torch (2)")
    parser.add_argument("--repeat", type=int, default=Plan().repetitions, help="times each (5)")
    parser.add_argument(
        "--max-values", type=int, help="leave out larger inputs; 100000000 takes two minutes"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here too")
    return parser.parse_args()


def list_benchmarks() -> list[str]:
    files = sorted(Path(__file__).parent.glob("bench_*.py"))
    return [file.stem.removeprefix("bench_") for file in files]


def build_table(title: str, rows: list[Row]) -> Table:
    """Show medians; a ratio is how many times longer the other one takes."""
    table = Table(title=title, caption="median seconds (best); x: times our median")
    table.add_column("case")
    for name in [rows[0].ours.name, *(other.name for other in rows[0].others)]:
        table.add_column(name, justify="right")
    if any(row.peak_memory for row in rows):
        table.add_column("memory / inputs", justify="right")
    for row in rows:
        others = [f"{show(other)}  x {other.median / row.ours.median:.2f}" for other in row.others]
        memory = [f"{row.peak_memory:.2f}"] if row.peak_memory else []
        table.add_row(row.case, show(row.ours), *others, *memory)
    return table


def show(timing: Timing) -> str:
    return f"{timing.median:.3f} ({timing.best:.3f})"


def describe(results: dict[str, list[Row]], threads: int) -> dict[str, object]:
    """Put everything measured into what JSON can hold."""
    return {
        "threads": threads,
        "numpy": np.__version__,
        "torch": torch.__version__,
        "benchmarks": {
            name: [
                {
                    "case": row.case,
                    "seconds": {one.name: one.seconds for one in (row.ours, *row.others)},
                    "ratios": {one.name: one.median / row.ours.median for one in row.others},
                    "peak_memory": row.peak_memory,
                }
                for row in rows
            ]
            for name, rows in results.items()
        },
    }


if __name__ == "__main__":
    main()
