"""A node's network in a network namespace of its own, which says whom it hears.

``python -m tests.support.partition_node NUMBER FOLDER``: prints its peer id, reads everybody's from
standard input, and then prints every moment with whom it is connected, whom it has heard of late,
and whether it got the blob that it was told to fetch.
"""

import json
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path

import structlog
import trio

from d2m_node.errors import TransientError
from d2m_node.network import muxing
from d2m_node.network.adapter import Libp2pNetwork
from protocol.hashing import keccak
from protocol.types import Digest
from protocol.wire.messages import AvailabilityBitmap
from tests.support.network import Shelf, accept, start_network

TOPIC = "d2m/1/31337/market/1/votes"
MOMENT_SECONDS = 0.2
RECENT_SECONDS = 2.0


def name_address(number: int) -> str:
    return f"/ip4/10.77.0.{number + 1}/tcp/4001"


def make_blob(number: int) -> bytes:
    """Every node serves a blob of its own."""
    return bytes([number]) * 1_000_000


async def run(number: int, folder: Path) -> None:
    # What is cut off is to be noticed in a test's time.
    muxing.KEEPALIVE_SECONDS = muxing.PONG_SECONDS = 2.0  # type: ignore[misc]
    shelf = Shelf()
    shelf.blobs[keccak(make_blob(number))] = make_blob(number)
    async with start_network(
        folder / "identity",
        shelf,
        listen=name_address(number),
        redial_seconds=0.2,
        max_redial_seconds=1.0,
        dial_seconds=2.0,
        io_seconds=2.0,
    ) as network:
        tell(network.peer_id.hex())
        peer_ids = [bytes.fromhex(one) for one in json.loads(sys.stdin.readline())]
        addresses = {one: name_address(other) for other, one in enumerate(peer_ids)}
        del addresses[network.peer_id]
        network.set_address_book(addresses, needed=addresses)
        heard: dict[int, float] = {}
        got: set[int] = set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak, network, number)
            nursery.start_soon(listen, network, heard)
            for other, peer_id in enumerate(peer_ids):
                if other != number:
                    nursery.start_soon(fetch_for_ever, network, other, peer_id, got)
            while True:
                await trio.sleep(MOMENT_SECONDS)
                now = trio.current_time()
                connected = {one.peer_id for one in network.peers() if one.connected}
                tell(
                    {
                        "connected": [i for i, one in enumerate(peer_ids) if one in connected],
                        "heard": sorted(i for i, at in heard.items() if now - at < RECENT_SECONDS),
                        "got": sorted(got),
                        "restarts": network.measure().restarts,
                    }
                )


async def speak(network: Libp2pNetwork, number: int) -> None:
    for moment in count():
        bitmap = AvailabilityBitmap(
            job_id=1,
            round_index=moment,
            attempt=0,
            cone_index=number,
            bitmap=bytes(32),
            signature=bytes(65),
        )
        await network.publish(TOPIC, bitmap)
        await trio.sleep(MOMENT_SECONDS)


async def listen(network: Libp2pNetwork, heard: dict[int, float]) -> None:
    async with network.join_topic(TOPIC, accept) as channel:
        async for message in channel:
            assert isinstance(message, AvailabilityBitmap)
            heard[message.cone_index] = trio.current_time()


async def fetch_for_ever(network: Libp2pNetwork, other: int, peer_id: bytes, got: set[int]) -> None:
    """Keep in ``got`` whose blob could be fetched at the last try."""
    digest = Digest(keccak(make_blob(other)))
    while True:
        arrived = False
        with suppress(TransientError):
            await network.fetch_blob(digest, sources=[peer_id], max_bytes=1_000_000)
            arrived = True
        (got.add if arrived else got.discard)(other)
        await trio.sleep(MOMENT_SECONDS)


def tell(what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201 - the other end of the pipe reads it


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(run, int(sys.argv[1]), Path(sys.argv[2]))
