"""Flower's simulation as a contender: started once, then asked for a round at a time."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import numpy as np

from d2m_node.ports import Samples

ROOT = Path(__file__).resolve().parents[2]


class Flower:
    """A running simulation."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def run_round(self) -> None:
        """Let all clients train and the server average."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "done\n":
            end = self._log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"Flower's simulation ended; start with scripts/bench\n{end}")


@contextmanager
def open_flower(
    model: Mapping[str, int], clients: int, samples: Sequence[Samples] = ()
) -> Iterator[Flower]:
    """Start Flower with so many clients; with ``samples`` each trains on its own.

    One round is over then: the first one starts Ray's processes, which takes half a minute.
    ``model`` is what `flower_rounds` reads: ``parameters`` and no ``epochs``, or a network.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.json").write_text(json.dumps(model))
        for index, own in enumerate(samples):
            np.savez(folder / f"client-{index}.npz", inputs=own.inputs, labels=own.labels)
        with (folder / "log.txt").open("w") as log, start(folder, clients, log) as process:
            try:
                flower = Flower(process, folder / "log.txt")
                flower.run_round()
                yield flower
            finally:
                # Ray starts a dozen processes, all of this group.
                os.killpg(process.pid, signal.SIGTERM)


def start(folder: Path, clients: int, log: IO[str]) -> subprocess.Popen[str]:
    # Ray's processes import the program: as a main module they would not find it.
    code = "from tests.bench.flower_rounds import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(clients)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    )
