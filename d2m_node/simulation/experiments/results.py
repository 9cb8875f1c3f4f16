"""Runs of experiments on disk: one folder each, with what was run and what came of it.

`run.json` is written last, so a run that was cut off is no run. It holds a key: the digest of all
inputs of the run and of the code that ran it. A run whose key is another one is run again.
"""

import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from d2m_node.errors import UserError
from d2m_node.simulation.experiments.file import Engine, Experiment
from d2m_node.simulation.report.outcome import RESULT_FILE, Outcome, read_result, write_result
from d2m_node.simulation.scenario.file import make_plain
from d2m_node.user_input import read_file

RUN_FILE: Final = "run.json"
MAX_RECORD_BYTES: Final = 1 << 20
Read = TypeVar("Read", bound=msgspec.Struct)

UNKNOWN_COMMIT: Final = "unknown"

_PACKAGE: Final = Path(__file__).resolve().parents[2]
_ROOT: Final = _PACKAGE.parent
_LEARNING_CODE: Final = (
    "protocol/**/*.py",
    "d2m_node/training/*.py",
    "d2m_node/simulation/**/*.py",
)
_MARKET_CODE: Final = ("protocol/**/*.py", "d2m_node/**/*.py", "d2m_node/chain/artifacts/*.json")
_SHOWN_ONLY: Final = "d2m_node/simulation/experiments/"
"""What is no part of a run: it plans, keeps and shows them."""


@dataclass(frozen=True, kw_only=True)  # without slots: the key is kept once computed
class Run:
    """One cell of an experiment with one seed."""

    experiment: str
    engine: Engine
    points: Mapping[str, str]
    seed: int
    table: Mapping[str, object]
    """The scenario, with its seed; numbers with a point are exact decimals."""
    learning: Mapping[str, object]

    @property
    def folder(self) -> Path:
        """Where its results are, below those of all experiments."""
        words = [re.sub(r"[^A-Za-z0-9._-]", "-", point) for point in self.points.values()]
        return Path(self.experiment, "_".join([*words, f"seed-{self.seed}"]))

    @property
    def rounds_max(self) -> int | None:
        """Rounds that it may have; None if the scenario leaves that open."""
        request = self.table.get("request")
        terms = request.get("terms") if isinstance(request, Mapping) else None
        rounds = terms.get("rounds_max") if isinstance(terms, Mapping) else None
        return rounds if isinstance(rounds, int) else None

    @cached_property
    def key(self) -> str:
        """Digest of the inputs and the code."""
        inputs = [self.engine, make_plain(self.table), make_plain(self.learning)]
        text = json.dumps([inputs, compute_code_version(self.engine)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What `run.json` holds."""

    experiment: str
    engine: Engine
    points: dict[str, str]
    seed: int
    key: str
    command: str
    commit: str
    """Of the checkout that ran it, with "+" if files had changed since."""
    learning: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a result says about how it came to be."""

    command: str
    commit: str
    """As `find_commit` says it when the runner starts: the code is read then."""


@dataclass(frozen=True, slots=True)
class Result:
    """A run that is done."""

    record: RunRecord
    outcome: Outcome


def list_runs(experiment: Experiment) -> list[Run]:
    """List the runs of an experiment: all cells with the first seed, then with the next."""
    return [
        Run(
            experiment=experiment.name,
            engine=experiment.engine,
            points=cell.points,
            seed=seed,
            table={**cell.table, "seed": seed},
            learning=cell.learning,
        )
        for seed in experiment.seeds
        for cell in experiment.cells
    ]


def is_done(run: Run, results: Path) -> bool:
    """Tell whether a run's results are there, of these inputs and this code.

    Raises UserError if what is there is no result.
    """
    path = results / run.folder / RUN_FILE
    return path.exists() and read_record(path).key == run.key


def keep_result(run: Run, outcome: Outcome, results: Path, origin: Origin) -> None:
    """Write what came of a run."""
    learning = make_plain(run.learning)
    assert isinstance(learning, dict)
    record = RunRecord(
        experiment=run.experiment,
        engine=run.engine,
        points=dict(run.points),
        seed=run.seed,
        key=run.key,
        command=origin.command,
        commit=origin.commit,
        learning=learning,
    )
    _write(Result(record, outcome), results / run.folder)


def copy_result(run: Run, twin: Run, results: Path) -> None:
    """Give the result of a run to one with the same inputs. Raises UserError if there is none."""
    assert run.key == twin.key, "another run"
    record = read_record(results / run.folder / RUN_FILE)
    outcome = read_result(results / run.folder / RESULT_FILE)
    own = msgspec.structs.replace(
        record, experiment=twin.experiment, points=dict(twin.points), seed=twin.seed
    )
    _write(Result(own, outcome), results / twin.folder)


def _write(result: Result, folder: Path) -> None:
    """Write the outcome, then the record: without one, it is no result.

    Raises UserError if the folder cannot be written.
    """
    path = folder / RUN_FILE
    record = msgspec.json.format(msgspec.json.encode(result.record), indent=2) + b"\n"
    try:
        path.unlink(missing_ok=True)
        write_result(result.outcome, folder)
        draft = path.with_suffix(".draft")
        draft.write_bytes(record)
        draft.replace(path)
    except OSError as exc:
        raise UserError(f"{folder}: cannot be written: {exc.strerror}") from exc


def read_record(path: Path) -> RunRecord:
    """Read a `run.json`. Raises UserError that names the file and field."""
    return read_json(path, RunRecord)


def read_json(path: Path, kind: type[Read]) -> Read:
    """Read a small file of one JSON document. Raises UserError that names the file and field."""
    data = read_file(path, MAX_RECORD_BYTES)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise UserError(f"{path}: is damaged: {exc}") from exc


def read_results(folder: Path) -> list[Result]:
    """Read all finished runs in the folder of one experiment, by their folders' names."""
    return [
        Result(read_record(path), read_result(path.with_name(RESULT_FILE)))
        for path in sorted(folder.glob(f"*/{RUN_FILE}"))
    ]


@cache
def compute_code_version(engine: Engine) -> str:
    """Hash the sources that a run depends on."""
    patterns = _LEARNING_CODE if engine == "learning" else _MARKET_CODE
    paths = sorted({path for pattern in patterns for path in _ROOT.glob(pattern)})
    hasher = hashlib.sha256()
    for path in paths:
        name = path.relative_to(_ROOT).as_posix()
        if not name.startswith(_SHOWN_ONLY):
            hasher.update(f"{name} {path.stat().st_size} ".encode())
            hasher.update(path.read_bytes())
    return hasher.hexdigest()


def find_commit() -> str:
    """Name the commit of the checkout, or say that there is none."""
    try:
        commit = _ask_git("rev-parse", "--short=12", "HEAD")
        changed = _ask_git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN_COMMIT
    return f"{commit}+" if changed else commit


def _ask_git(*arguments: str) -> str:
    asked = subprocess.run(  # noqa: S603 - words of our own
        ["git", "-C", str(_ROOT), *arguments],  # noqa: S607 - whichever git is there
        check=True,
        capture_output=True,
        text=True,
    )
    return asked.stdout.strip()
