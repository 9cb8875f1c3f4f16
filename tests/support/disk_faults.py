"""A store on a disk that fails, or in a process that dies, at a chosen system call.

One process is started with `disk_faults.c` before libc. It forks for each run, so that a run costs
milliseconds, and a run that is killed is a process that is killed.
"""

import errno
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_suffix(".c")
KILLED = -9

Step = Sequence[Any]
"""Name and arguments of one operation; see `tests.support.store_steps`."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong; nothing by default. Calls are counted from 1."""

    die: int = -1
    torn: bool = False
    """Half of the write that the process dies in is done."""
    fail: int = -1
    """This call and all after it fail."""
    error: int = errno.EIO
    bytes: int = -1
    """So many bytes more fit on the disk."""
    no_locks: bool = False
    read_only: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    done: list[Any]
    """Results of the steps that returned, in order."""
    error: list[str] | None
    """Class and text of the error that ended the run."""
    calls: int
    """How often the disk was called; 0 if the process was killed."""
    status: int
    """0, or minus the signal that ended the process."""


class FaultyDisk:
    """Runs steps in processes of their own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, folder: Path, steps: Sequence[Step], fault: Fault = Fault()) -> Outcome:
        """Open the store in ``folder``, do the steps, close it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        command = {"folder": str(folder), "steps": steps, "fault": asdict(fault)}
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))


@contextmanager
def open_faulty_disk(folder: Path) -> Iterator[FaultyDisk]:
    """Build the library in ``folder`` and start the process."""
    library = folder / "disk_faults.so"
    build = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(build, check=True)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.store_steps", str(library)],
        env={"PYTHONPATH": str(SOURCE.parents[2]), "LD_PRELOAD": str(library)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield FaultyDisk(process)
        assert process.stdin is not None
        process.stdin.close()
