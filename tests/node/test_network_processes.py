"""Peers in processes of their own that are stopped, continued and killed."""

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from d2m_node.errors import TransientError
from d2m_node.network.adapter import Libp2pNetwork
from protocol.hashing import keccak
from tests.support.network import PATIENCE_SECONDS, Shelf, Watch, start_network

BLOB = bytes(range(256)) * 40_000
PROGRAM = """
import sys
from pathlib import Path

import trio

from protocol.hashing import keccak
from tests.support.network import Shelf, start_network


async def serve() -> None:
    library = Shelf()
    blob = bytes(range(256)) * 40_000
    library.blobs[keccak(blob)] = blob
    async with start_network(Path(sys.argv[1]), library) as network:
        print(network.peer_id.hex(), network.listening[0], flush=True)
        await trio.sleep_forever()


trio.run(serve)
"""


@dataclass
class Server:
    process: trio.Process
    peer_id: bytes
    address: str


@asynccontextmanager
async def start_server(folder: Path) -> AsyncIterator[Server]:
    """Run a node's network in another process; it serves BLOB."""
    command = [sys.executable, "-c", PROGRAM, str(folder / "server")]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stdout=-1, check=False)
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        line = b""
        with trio.fail_after(2 * PATIENCE_SECONDS):
            while not line.endswith(b"\n"):
                line += await process.stdout.receive_some(500)
        peer_id, address = line.decode().split()
        try:
            yield Server(process, bytes.fromhex(peer_id), address)
        finally:
            process.kill()


async def fetch(asker: Libp2pNetwork, *sources: bytes) -> bytes:
    with trio.fail_after(PATIENCE_SECONDS):
        return await asker.fetch_blob(keccak(BLOB), sources=sources, max_bytes=len(BLOB))


async def test_a_stopped_peer_costs_one_timeout_and_serves_again_when_continued(
    tmp_path: Path,
) -> None:
    library = Shelf()
    library.blobs[keccak(BLOB)] = BLOB
    async with (
        start_server(tmp_path) as server,
        start_network(tmp_path / "asker", io_seconds=0.5, dial_seconds=0.5) as asker,
        start_network(tmp_path / "honest_cone", library) as honest_cone,
    ):
        asker.set_address_book(
            {server.peer_id: server.address, honest_cone.peer_id: honest_cone.listening[0]}
        )
        assert await fetch(asker, server.peer_id) == BLOB
        server.process.send_signal(signal.SIGSTOP)
        assert await fetch(asker, server.peer_id, honest_cone.peer_id) == BLOB
        server.process.send_signal(signal.SIGCONT)
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                with trio.move_on_after(1.0):
                    if await _try_fetch(asker, server.peer_id):
                        break


async def test_a_killed_peer_is_noticed_and_the_blob_comes_from_another(tmp_path: Path) -> None:
    library = Shelf()
    library.blobs[keccak(BLOB)] = BLOB
    async with (
        start_server(tmp_path) as server,
        start_network(tmp_path / "asker") as asker,
        start_network(tmp_path / "honest_cone", library) as honest_cone,
    ):
        asker.set_address_book(
            {server.peer_id: server.address, honest_cone.peer_id: honest_cone.listening[0]}
        )
        assert await fetch(asker, server.peer_id) == BLOB
        gone = Watch(asker, server.peer_id)
        server.process.kill()
        with trio.fail_after(PATIENCE_SECONDS):
            await gone.disconnected_event.wait()
        assert await fetch(asker, server.peer_id, honest_cone.peer_id) == BLOB
        (status,) = [one for one in asker.peers() if one.peer_id == server.peer_id]
        assert not status.connected


async def _try_fetch(asker: Libp2pNetwork, source: bytes) -> bool:
    try:
        return await fetch(asker, source) == BLOB
    except TransientError:
        await trio.sleep(0.05)
        return False
