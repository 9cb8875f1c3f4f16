"""The process that atheris fuzzes in: it ends by itself, and with a finding not well.

Run by `tests.fuzz.guided.run`, which reads what it leaves in its folder.
"""

import importlib
import json
import logging
import os
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import ModuleType

import atheris
import psutil
import structlog

from tests.fuzz.guided.settings import (
    CORPUS,
    GROWN_BYTES,
    INSTRUMENTED,
    LIBFUZZER,
    LOOK_EVERY,
    MAX_INPUT_BYTES,
    SEEDS,
    TALLY,
    WARM_UP_SHARE,
)


class Tally:
    """Who read how much, and what the process took."""

    def __init__(self, folder: Path, runs: int) -> None:
        self._path = folder / TALLY
        self._expected = runs
        self._process = psutil.Process()
        self._starter = os.getppid()
        self._memory: dict[str, int] = {}
        self.count = 0
        self.read: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()

    def note(self, reader: str, is_taken: bool) -> None:
        """Count one input; write all of it after the last one."""
        self.read[reader] += 1
        self.taken[reader] += is_taken
        self.count += 1
        if self.count % LOOK_EVERY == 0 and os.getppid() != self._starter:
            os._exit(1)  # nobody waits for what would be found
        if self.count == int(WARM_UP_SHARE * self._expected):
            self._measure("warm_bytes")
        if self.count == self._expected:
            self.write()

    def write(self, reader: str | None = None, error: str | None = None) -> None:
        """Leave it where the other process finds it, with what a reader raised and must not."""
        self._measure("end_bytes")
        told = {
            "runs": self.count,
            "memory": self._memory,
            "reader": reader,
            "error": error,
            "readers": {one: [n, self.taken[one]] for one, n in sorted(self.read.items())},
        }
        self._path.write_text(json.dumps(told, indent=2) + "\n")

    def _measure(self, when: str) -> None:
        self._memory[when] = self._process.memory_info().rss


def fuzz(folder: Path, *, runs: int, seed: int, module: str) -> None:
    """Fuzz the readers of a module. Never returns."""
    from tests.fuzz.guided.reader import (
        Reader,
        change_input,
        choose_reader,
        list_seeds,
        run_input,
    )

    readers: Sequence[Reader] = _load(module).READERS
    tally = Tally(folder, runs)

    def run(data: bytes) -> None:
        try:
            reader, is_taken = run_input(readers, data)
        except BaseException:
            tally.write(choose_reader(readers, data).name, traceback.format_exc())
            raise
        tally.note(reader.name, is_taken)

    def mutate(data: bytes, max_size: int, own_seed: int) -> bytes:
        changed = change_input(
            readers, data, Random(own_seed), lambda one: atheris.Mutate(one, len(one) + GROWN_BYTES)
        )
        return changed[:max_size]

    for number, one in enumerate(list_seeds(readers)):
        (folder / SEEDS / f"{number:04}").write_bytes(one)
    options = [f"-runs={runs}", f"-seed={seed}", f"-max_len={MAX_INPUT_BYTES}", *LIBFUZZER]
    options += [f"-artifact_prefix={folder}/", str(folder / CORPUS), str(folder / SEEDS)]
    atheris.Setup([sys.argv[0], *options], run, custom_mutator=mutate)
    atheris.Fuzz()


def _load(module: str) -> ModuleType:
    """Import the readers, and with them what they read by, so that it is traced."""
    logging.disable(logging.INFO)  # atheris names each module
    with atheris.instrument_imports(include=[*INSTRUMENTED, module]):
        found = importlib.import_module(module)
    logging.disable(logging.NOTSET)
    return found


if __name__ == "__main__":
    # What is wrong comes as an error; a log of each refusal would be all that it does.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    fuzz(Path(sys.argv[1]), runs=int(sys.argv[2]), seed=int(sys.argv[3]), module=sys.argv[4])
