"""The node under attack: its network in a process of its own, with nothing switched off.

It blames, but bans nobody and takes any rate, or few of the frames would come in.
"""

import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import structlog
import trio

from tests.fuzz.frames import BLOB, DIGEST, TOPIC
from tests.support.network import Shelf, accept, build_bitmap, start_network

START_SECONDS = 60.0
LIMITS = {"max_penalty": 1e12, "messages_per_second": 1e9, "io_seconds": 2.0}


async def serve(folder: Path) -> None:
    """Serve a blob and listen to a topic; print what is measured every second."""
    library = Shelf()
    library.blobs[DIGEST] = BLOB
    library.messages = [build_bitmap(0)]
    async with (
        start_network(folder / "identity", library, **LIMITS) as network,
        network.join_topic(TOPIC, accept),
    ):
        protocols = sorted(map(str, network.stack.host.get_mux().get_protocols()))
        print(  # noqa: T201 - the other end of the pipe reads it
            json.dumps([network.peer_id.hex(), network.listening[0], protocols]), flush=True
        )
        while True:
            await trio.sleep(1.0)
            reading = network.measure()
            told = {"restarts": reading.restarts, "faults": reading.faults}
            print(json.dumps(told), flush=True)  # noqa: T201


@dataclass
class Target:
    """What the attackers know of it, and what it said last."""

    process: trio.Process
    peer_id: bytes
    address: str
    protocols: list[str]
    told: dict[str, int] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return int(self.address.rpartition("/")[2])


@asynccontextmanager
async def start_target(folder: Path) -> AsyncIterator[Target]:
    """Run a node's network in another process, killed at the end."""
    command = [sys.executable, "-m", "tests.fuzz.target", str(folder)]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stdout=-1, check=False)
        process: trio.Process = await nursery.start(run)
        lines = _read_lines(process)
        with trio.fail_after(START_SECONDS):
            peer_id, address, protocols = await anext(lines)
        target = Target(process, bytes.fromhex(peer_id), address, protocols)
        nursery.start_soon(_listen, target, lines)
        try:
            yield target
        finally:
            process.kill()


async def _listen(target: Target, lines: AsyncIterator[Any]) -> None:
    async for line in lines:
        target.told = line


async def _read_lines(process: trio.Process) -> AsyncIterator[Any]:
    assert process.stdout is not None
    left = b""
    async for data in process.stdout:
        *lines, left = (left + data).split(b"\n")
        for line in lines:
            yield json.loads(line)


def log_errors(file: TextIO) -> None:
    """Log what is worse than a peer's fault, apart from what is printed."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(file),
    )


if __name__ == "__main__":
    log_errors(sys.stderr)
    trio.run(serve, Path(sys.argv[1]))
