"""How gossip fares among real hosts: delivery, delay, processor time and memory.

Each host is the node's whole network adapter over loopback TCP, with five or six connections to
hosts drawn at random. Half of the hosts share a process; what that needs once is counted apart.
All of them take one topic; judging is left out but for decoding, as it is the roles' part.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import IO, Any

from tests.bench.rows import Plan, Row, Timing

SIZES = {10: 10.0, 50: 5.0, 100: 1.0, 250: 0.25}
"""Hosts, and messages a second, all hosts together."""

PROCESSES = 2
DIALS = 3
"""Others that each host dials; as many dial it."""

MESSAGES = 40
SECONDS = 40.0
"""At most so many messages, for at most so long."""

PATIENCE_SECONDS = 15.0
"""For the last message to arrive everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a number of messages."""

    hosts: int
    expected: int
    delays: Sequence[float]
    """From saying to hearing, for each delivery, ascending."""
    cpu_seconds: float
    idle_cpu_share: float
    """Part of a core that a host takes while nobody says anything."""
    bytes_per_host: float

    def describe(self) -> str:
        """Put it into one line."""
        cuts = quantiles(self.delays, n=100) if len(self.delays) > 1 else [0.0] * 99
        return (
            f"{self.hosts} hosts: {len(self.delays)} of {self.expected} deliveries,"
            f" p50 {1000 * cuts[49]:.0f} ms, p99 {1000 * cuts[98]:.0f} ms,"
            f" CPU {1000 * self.cpu_seconds / max(1, len(self.delays)):.2f} ms a delivery,"
            f" idle {100 * self.idle_cpu_share:.2f} % of a core,"
            f" {self.bytes_per_host / 10**6:.2f} MB a host"
        )


class Process:
    """Hosts that share a process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders: IO[str] = process.stdin
        self._answers: IO[str] = process.stdout
        self.addresses: list[tuple[str, str]] = self.answer()

    def order(self, what: str, *arguments: object) -> None:
        self._orders.write(json.dumps({"do": what, "with": arguments}) + "\n")
        self._orders.flush()

    def answer(self) -> Any:
        line = self._answers.readline()
        if not line:
            raise ChildProcessError("one process of the mesh has ended")
        return json.loads(line)

    def ask(self, what: str, *arguments: object) -> Any:
        self.order(what, *arguments)
        return self.answer()


def run(plan: Plan) -> list[Row]:
    """Gossip in meshes of all sizes; ``max_values`` limits the hosts."""
    rows = []
    for hosts, rate in SIZES.items():
        if plan.max_values is not None and hosts > plan.max_values:
            continue
        outcome = gossip(hosts, rate)
        rows.append(
            Row(
                case=outcome.describe(),
                ours=Timing("delay of a delivery", tuple(outcome.delays)),
                others=(),
            )
        )
    return rows


def gossip(hosts: int, rate: float) -> Outcome:
    """Let hosts that are drawn say something, one after the other."""
    draw = random.Random(hosts)
    with tempfile.TemporaryDirectory(prefix="d2m-mesh-") as folder, ExitStack() as stack:
        count = hosts // PROCESSES
        processes = [
            stack.enter_context(open_process(Path(folder) / str(number), count))
            for number in range(PROCESSES)
        ]
        connect(processes, draw)
        time.sleep(5)  # two heartbeats and a half, in which meshes form
        idle_from = measure(processes)
        time.sleep(5)
        before = measure(processes)
        said = publish(processes, rate, draw)
        wait_heard(processes, len(said) * (hosts - 1) + len(before["heard"]))
        after = measure(processes)
    return Outcome(
        hosts=hosts,
        expected=len(said) * (hosts - 1),
        delays=sorted(at - said[number] for number, at in after["heard"]),
        cpu_seconds=after["cpu_seconds"] - before["cpu_seconds"],
        idle_cpu_share=(before["cpu_seconds"] - idle_from["cpu_seconds"]) / 5 / hosts,
        bytes_per_host=after["grown_bytes"] / hosts,
    )


def connect(processes: Sequence[Process], draw: random.Random) -> None:
    """Let each host dial the next one of a ring and others that are drawn."""
    addresses = [address for process in processes for address in process.addresses]
    draw.shuffle(addresses)
    books: dict[str, dict[str, str]] = {peer: {} for peer, _ in addresses}
    neighbours: dict[str, set[str]] = {peer: set() for peer, _ in addresses}
    for number, (peer, _) in enumerate(addresses):
        ring = addresses[(number + 1) % len(addresses)]
        for other, address in [ring, *draw.sample(addresses, DIALS - 1)]:
            if other != peer and peer not in books[other]:
                books[peer][other] = address
                neighbours[peer].add(other)
                neighbours[other].add(peer)
    for process in processes:
        own = [peer for peer, _ in process.addresses]
        process.order(
            "connect", [books[peer] for peer in own], [len(neighbours[peer]) for peer in own]
        )
    for process in processes:
        process.answer()


def publish(processes: Sequence[Process], rate: float, draw: random.Random) -> dict[int, float]:
    """Say numbers at a steady pace; return when each was said."""
    said = {}
    start = time.monotonic()
    for number in range(min(MESSAGES, int(rate * SECONDS))):
        time.sleep(max(0.0, start + number / rate - time.monotonic()))
        process = draw.choice(processes)
        said[number] = process.ask("publish", draw.randrange(len(process.addresses)), number)
    return said


def wait_heard(processes: Sequence[Process], expected: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if sum(process.ask("count") for process in processes) >= expected:
            return
        time.sleep(0.2)


def measure(processes: Sequence[Process]) -> dict[str, Any]:
    """Add up what the processes report."""
    reports = [process.ask("measure") for process in processes]
    return {
        "heard": [one for report in reports for one in report["heard"]],
        "cpu_seconds": sum(report["cpu_seconds"] for report in reports),
        "grown_bytes": sum(report["grown_bytes"] for report in reports),
    }


@contextmanager
def open_process(folder: Path, count: int) -> Iterator[Process]:
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.mesh_side", str(folder), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("D2M_BENCH_LOG") else subprocess.DEVNULL,
        text=True,
    )
    try:
        yield Process(process)
    finally:
        process.kill()
        process.communicate()
