"""Nodes in processes of their own that are stopped, continued, killed, and besieged."""

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import trio

from d2m_node.errors import TransientError
from d2m_node.network.adapter import Libp2pNetwork
from protocol.hashing import keccak
from tests.support.network import PATIENCE_SECONDS, Shelf, Watch, start_network

BLOB = bytes(range(256)) * 40_000
MAX_GROWTH_BYTES = 64 * 2**20
"""What four peers that take the blob, and stop, may cost its server beside the blob itself."""
COMMON = """
import sys
from pathlib import Path

import trio

from d2m_node.errors import TransientError
from protocol.hashing import keccak
from tests.support.network import Shelf, start_network


blob = bytes(range(256)) * 40_000


async def serve() -> None:
    library = Shelf()
    library.blobs[keccak(blob)] = blob
    async with start_network(Path(sys.argv[1]), library, serving_turn_seconds=0.5) as network:
        print(network.peer_id.hex(), network.listening[0], flush=True)
        await trio.sleep_forever()


async def ask() -> None:
    async with start_network(Path(sys.argv[1]), redial_seconds=0.1) as network:
        network.set_address_book({bytes.fromhex(sys.argv[2]): sys.argv[3]})
        while True:
            try:
                await network.fetch_blob(
                    keccak(blob), sources=[bytes.fromhex(sys.argv[2])], max_bytes=len(blob)
                )
            except TransientError:
                await trio.sleep(0.1)
            else:
                print("got it", flush=True)
"""
SERVE = COMMON + "\n\ntrio.run(serve)\n"
ASK = COMMON + "\n\ntrio.run(ask)\n"


@dataclass
class Server:
    process: trio.Process
    peer_id: bytes
    address: str


@asynccontextmanager
async def start_server(folder: Path) -> AsyncIterator[Server]:
    """Run a node's network in another process; it serves BLOB."""
    async with start_program(SERVE, str(folder / "server")) as process:
        peer_id, address = (await read_line(process)).split()
        yield Server(process, bytes.fromhex(peer_id), address)


@asynccontextmanager
async def start_program(program: str, *arguments: str) -> AsyncIterator[trio.Process]:
    """Run Python code in a process of its own, killed at the end."""
    async with trio.open_nursery() as nursery:
        run = partial(
            trio.run_process, [sys.executable, "-c", program, *arguments], stdout=-1, check=False
        )
        process: trio.Process = await nursery.start(run)
        try:
            yield process
        finally:
            process.kill()


async def read_line(process: trio.Process) -> str:
    """Return the next line that a process prints."""
    assert process.stdout is not None
    line = b""
    with trio.fail_after(2 * PATIENCE_SECONDS):
        while not line.endswith(b"\n"):
            line += await process.stdout.receive_some(1)
    return line.decode().strip()


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


def measure_rss(process: trio.Process) -> int:
    return int(psutil.Process(process.pid).memory_info().rss)


async def test_peers_that_are_stopped_while_they_take_a_blob_keep_nobody_from_it(
    tmp_path: Path,
) -> None:
    """Nothing moves at their end any more; once they are continued, they get it as well."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(start_server(tmp_path))
        asker = await stack.enter_async_context(start_network(tmp_path / "asker"))
        asker.set_address_book({server.peer_id: server.address})
        assert await fetch(asker, server.peer_id) == BLOB
        before = measure_rss(server.process)
        target = (server.peer_id.hex(), server.address)
        stopped = [
            await stack.enter_async_context(
                start_program(ASK, str(tmp_path / f"stopped_{number}"), *target)
            )
            for number in range(4)
        ]
        for process in stopped:
            while await read_line(process) != "got it":
                pass
            process.send_signal(signal.SIGSTOP)  # it asks again and again, so it is at it
        for _ in range(3):
            assert await fetch(asker, server.peer_id) == BLOB
        assert measure_rss(server.process) - before < MAX_GROWTH_BYTES
        for process in stopped:
            process.send_signal(signal.SIGCONT)
        for process in stopped:
            with trio.fail_after(2 * PATIENCE_SECONDS):
                while await read_line(process) != "got it":
                    pass
