"""Starts the process that fuzzes, and tells what came of it."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.guided.settings import CORPUS, GROWTH_BYTES, LOG, READERS, SEEDS, TALLY

ROOT = Path(__file__).resolve().parents[3]
_STATE = re.compile(r"^#(\d+)\s+(\w+)\s+cov: (\d+) ft: (\d+) corp: (\d+)/(\S+)")
_WRITTEN = re.compile(r"Test unit written to (\S+)")


@dataclass
class GuidedReport:
    """What was run, what it reached, and the input that something did not stand, if there is one.

    ``readers`` says for each how many inputs it was given, and how many of them it took.
    """

    seed: int
    runs: int = 0
    seconds: float = 0.0
    edges: int = 0
    features: int = 0
    corpus_count: int = 0
    warm_bytes: int = 0
    end_bytes: int = 0
    readers: dict[str, tuple[int, int]] = field(default_factory=dict)
    code: int = 0
    finding: Path | None = None
    reader: str | None = None
    """The one that did not stand the input."""
    explanation: str = ""
    """What it raised; libFuzzer's word if it raised nothing but took too long, or too much."""

    def find_harm(self) -> list[str]:
        """Say what is wrong."""
        harm = {
            f"{self.reader or 'a reader'} does not stand {self.finding}": self.finding is not None,
            f"the process ended with code {self.code}": self.code != 0 and self.finding is None,
            "memory grew": self.end_bytes - self.warm_bytes > GROWTH_BYTES and self.warm_bytes > 0,
        }
        return [what for what, is_so in harm.items() if is_so]


def is_available() -> bool:
    """Tell whether atheris is there: its wheels are for some platforms only."""
    return importlib.util.find_spec("atheris") is not None


def run_guided(
    folder: Path,
    *,
    runs: int,
    seed: int,
    say: Callable[[str], None],
    readers: str = READERS,
) -> GuidedReport:
    """Fuzz the readers of a module in another process; see `scripts/fuzz-network --help`."""
    report = GuidedReport(seed)
    for name in (CORPUS, SEEDS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / TALLY).unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.guided", str(folder), str(runs), str(seed)]
    began = time.monotonic()
    with (folder / LOG).open("w") as log:
        process = subprocess.Popen(
            [*command, readers],
            cwd=ROOT,
            # The order of sets must not depend on chance, or a seed would not tell a run.
            env=os.environ | {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None
        with process:
            for line in process.stdout:
                log.write(line)
                _take_line(report, line.rstrip(), say)
    report.code = process.returncode
    report.seconds = round(time.monotonic() - began, 1)
    _take_tally(report, folder / TALLY)
    return report


def _take_line(report: GuidedReport, line: str, say: Callable[[str], None]) -> None:
    """Take what libFuzzer prints of its state, and the explanation of a finding."""
    state = _STATE.match(line)
    if state is not None:
        report.runs, report.edges = int(state[1]), int(state[3])
        report.features, report.corpus_count = int(state[4]), int(state[5])
        if state[2] in ("INITED", "pulse", "DONE"):
            say(
                f"{report.runs} inputs, {report.edges} edges, {report.features} features,"
                f" {report.corpus_count} inputs in the corpus"
            )
        return
    written = _WRITTEN.search(line)
    if written is not None:
        report.finding = Path(written[1])
    elif line.startswith("SUMMARY: "):
        report.explanation = line.removeprefix("SUMMARY: ")


def _take_tally(report: GuidedReport, path: Path) -> None:
    """Take what the process counted; it leaves nothing if it was killed."""
    if not path.exists():
        return
    told = json.loads(path.read_text())
    report.runs = max(report.runs, told["runs"])
    report.warm_bytes = told["memory"].get("warm_bytes", 0)
    report.end_bytes = told["memory"]["end_bytes"]
    report.reader, report.explanation = told["reader"], told["error"] or report.explanation
    report.readers = {name: (read, taken) for name, (read, taken) in told["readers"].items()}
