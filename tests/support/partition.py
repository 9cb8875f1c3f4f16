"""Four nodes on two bridges with a trunk between: cut it, and mend it.

Runs as root of namespaces of its own: ``unshare --user --map-root-user --net --mount --fork
python -m tests.support.partition FOLDER``. Ends with status 0 if all went as it should.
"""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio

NODES = range(4)
SIDES = ({0, 1}, {2, 3})
PATIENCE_SECONDS = 90.0


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def build_net() -> None:
    """Make two bridges, a trunk, and a namespace for each node."""
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    ip("link", "add", "trunk0", "type", "veth", "peer", "name", "trunk1")
    for side, members in enumerate(SIDES):
        ip("link", "add", f"br{side}", "type", "bridge")
        ip("link", "set", f"br{side}", "up")
        ip("link", "set", f"trunk{side}", "master", f"br{side}", "up")
        for number in members:
            ip("netns", "add", f"n{number}")
            ip("link", "add", f"v{number}", "type", "veth", "peer", "eth0", "netns", f"n{number}")
            ip("link", "set", f"v{number}", "master", f"br{side}", "up")
            inside = ("-n", f"n{number}")
            ip(*inside, "addr", "add", f"10.77.0.{number + 1}/24", "dev", "eth0")
            ip(*inside, "link", "set", "eth0", "up")
            ip(*inside, "link", "set", "lo", "up")


class Node:
    """A node's process, and what it said last."""

    def __init__(self, number: int, process: trio.Process) -> None:
        self.number = number
        self._process = process
        self._left = b""
        self.said: Any = None

    async def read(self) -> Any:
        assert self._process.stdout is not None
        while b"\n" not in self._left:
            data = await self._process.stdout.receive_some()
            assert data, f"node {self.number} has ended"
            self._left += data
        line, _, self._left = self._left.partition(b"\n")
        return json.loads(line)

    async def follow(self) -> None:
        while True:
            self.said = await self.read()

    async def introduce(self, peer_ids: list[str]) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(peer_ids).encode() + b"\n")

    def reaches(self, others: set[int]) -> bool:
        """Tell whether it is connected with exactly those, hears them, and has their blobs."""
        if self.said is None:
            return False
        wanted = sorted(others - {self.number})
        return all(self.said[what] == wanted for what in ("connected", "heard", "got"))


async def run(folder: Path) -> None:
    build_net()
    async with trio.open_nursery() as nursery:
        nodes = [await start(nursery, number, folder) for number in NODES]
        peer_ids = [await node.read() for node in nodes]
        for node in nodes:
            await node.introduce(peer_ids)
            nursery.start_soon(node.follow)
        await wait("all are together", nodes, [set(NODES)] * 4)
        ip("link", "set", "trunk0", "down")
        await wait("each side is alone", nodes, [SIDES[number // 2] for number in NODES])
        ip("link", "set", "trunk0", "up")
        await wait("all are together again", nodes, [set(NODES)] * 4)
        assert not any(node.said["restarts"] for node in nodes)
        nursery.cancel_scope.cancel()


async def start(nursery: trio.Nursery, number: int, folder: Path) -> Node:
    command = ["ip", "netns", "exec", f"n{number}", sys.executable]
    command += ["-m", "tests.support.partition_node", str(number), str(folder / f"node_{number}")]
    process = await nursery.start(partial(trio.run_process, command, stdin=-1, stdout=-1))
    return Node(number, process)


async def wait(what: str, nodes: list[Node], reached: list[set[int]]) -> None:
    with trio.move_on_after(PATIENCE_SECONDS) as patience:
        while not all(node.reaches(reached[node.number]) for node in nodes):  # noqa: ASYNC110
            await trio.sleep(0.05)
    if patience.cancelled_caught:
        raise AssertionError(f"{what}: {[node.said for node in nodes]}")


if __name__ == "__main__":
    trio.run(run, Path(sys.argv[1]))
