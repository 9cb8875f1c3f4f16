"""Some hosts of a gossip mesh, in a process of their own: ``python -m tests.bench.mesh_side``.

Each host is the node's whole network adapter: its own identity, port, connections and queues. The
process is told what to do by lines on its standard input, and answers each with a line of JSON.
Times are of the system's monotonic clock, which all processes of a machine share.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psutil
import structlog
import trio

from d2m_node.network.adapter import Libp2pNetwork
from protocol.wire.messages import AvailabilityBitmap, GossipMessage
from tests.support.network import accept, build_bitmap, start_network

TOPIC = "d2m/1/31337/market/1/votes"
STEP_SECONDS = 0.05


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(run, arguments.folder, arguments.count)


async def run(folder: Path, count: int) -> None:
    """Open the hosts, and do what the input says until it ends."""
    before = psutil.Process().memory_info().rss
    async with AsyncExitStack() as stack:
        networks = []
        for number in range(count):
            identity = folder / f"identity-{number}"
            opened = start_network(identity, redial_seconds=0.5, dht=False, first_check_seconds=1e6)
            networks.append(await stack.enter_async_context(opened))
        say([[one.peer_id.hex(), one.listening[0]] for one in networks])
        hosts = await stack.enter_async_context(trio.open_nursery())
        side = Side(networks, before)
        for network in networks:
            hosts.start_soon(side.listen, network)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            order = json.loads(line)
            say(await getattr(side, order["do"])(*order["with"]))
        hosts.cancel_scope.cancel()


class Side:
    """The hosts of one process."""

    def __init__(self, networks: Sequence[Libp2pNetwork], bytes_before: int) -> None:
        self._networks = networks
        self._bytes_before = bytes_before
        self._heard: list[tuple[int, float]] = []

    async def listen(self, network: Libp2pNetwork) -> None:
        async with network.join_topic(TOPIC, accept) as messages:
            async for message in messages:
                self._heard.append((read_number(message), time.monotonic()))

    async def connect(self, books: Sequence[dict[str, str]], peers: Sequence[int]) -> None:
        """Dial, and wait until each host knows so many subscribers."""
        for network, book in zip(self._networks, books, strict=True):
            addresses = {bytes.fromhex(peer): address for peer, address in book.items()}
            network.set_address_book(addresses)
        for network, expected in zip(self._networks, peers, strict=True):
            while len(network.stack.pubsub.peer_topics.get(TOPIC, ())) < expected:  # noqa: ASYNC110
                await trio.sleep(STEP_SECONDS)

    async def publish(self, index: int, number: int) -> float:
        """Say something; return when."""
        now = time.monotonic()
        await self._networks[index].publish(TOPIC, build_bitmap(number))
        return now

    async def measure(self) -> dict[str, Any]:
        """Return all that was heard so far, and what it took."""
        return {
            "heard": self._heard,
            "cpu_seconds": time.process_time(),
            "grown_bytes": psutil.Process().memory_info().rss - self._bytes_before,
        }

    async def count(self) -> int:
        """Return how often a message was heard."""
        return len(self._heard)


def read_number(message: GossipMessage) -> int:
    assert isinstance(message, AvailabilityBitmap)
    return message.round_index


def say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
