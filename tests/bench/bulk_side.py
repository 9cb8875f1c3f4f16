"""One end of a bulk transfer, in a process of its own: ``python -m tests.bench.bulk_side``.

It is told what to do by lines on its standard input and answers each with a line of JSON. Both ends
of a transfer run this module: one gives blobs, the other takes them.

| way | bytes travel over |
|---|---|
| ``d2m`` | the network adapter: Noise and Yamux over TCP, asked for by hash, checked by hash |
| ``tls`` | TLS 1.3 by the standard library, blocking sockets, one buffer at the taker |
| ``tcp`` | the same without TLS |

A taker that ``stores`` writes what it took durably to its disk; a giver reads from its disk then.
"""

import argparse
import json
import os
import socket
import ssl
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, cast

import structlog
import trio
from libp2p.peer.id import ID

from d2m_node.network.adapter import Libp2pNetwork, open_network
from d2m_node.ports import ChainPort, Library, Purpose, Reference, StorePort
from d2m_node.roles.library import NodeLibrary
from d2m_node.storage.database import open_store
from protocol.hashing import Domain, keccak
from protocol.market import MarketState
from protocol.types import Address, Digest, JobId
from tests.support.network import PATIENCE_SECONDS, Notebook, Shelf, build_settings

PIECE_BYTES = 1024 * 1024
KEPT_FOR = Reference(Purpose.REQUEST, JobId(1))
"""Anybody may have a request; the access check asks the store and the chain all the same."""


class Taker(Protocol):
    """Takes a blob, and checks, stores or only holds it."""

    async def take(self, name: str, *, stores: bool, checks: bool) -> int:
        """Return how many bytes there were."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["give", "take"])
    parser.add_argument("way", choices=["d2m", "tls", "tcp"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--at", default="", help="where the giver listens")
    parser.add_argument("--keeps", action="store_true", help="blobs are in memory on both sides")
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    side = {"give": give, "take": take}[arguments.side]
    trio.run(side, arguments)


async def give(arguments: argparse.Namespace) -> None:
    """Offer the folder's blobs until the input ends."""
    if arguments.way != "d2m":
        listener = socket.create_server(("127.0.0.1", 0))
        context = make_server_context(arguments.folder) if arguments.way == "tls" else None
        serve = partial(serve_sockets, listener, context, arguments.folder, arguments.keeps)
        threading.Thread(target=serve, daemon=True).start()
        await obey({"at": listener.getsockname()[1]}, None)
        return
    async with open_store(arguments.folder / "giver") as store:
        shelf = Shelf()
        for path in sorted(arguments.folder.glob("*.blob")):
            data = path.read_bytes()
            if arguments.keeps:
                shelf.blobs[keccak(data)] = data
            else:
                await store.blobs.put(data, KEPT_FOR)
            del data
        domain = Domain(1, Address(bytes(20)))
        chain = cast(ChainPort, SimpleNamespace(state=MarketState(), domain=domain))
        library: Library = NodeLibrary(cast(StorePort, store), chain, {})
        if arguments.keeps:
            library = shelf
        # A blob from the disk does not linger: every transfer begins there.
        lingering = {} if arguments.keeps else {"max_open_blob_bytes": 1}
        identity = arguments.folder / "giver" / "identity"
        settings = build_settings(identity, **lingering)
        async with open_network(settings, library, Notebook()) as network:
            at = f"{network.listening[0]} {network.peer_id.hex()}"
            await obey({"at": at}, None)


async def take(arguments: argparse.Namespace) -> None:
    """Connect with the giver, and take what the input names until it ends."""
    digests = json.loads((arguments.folder / "digests.json").read_text())
    folder = arguments.folder / f"taker-{arguments.way}"
    if arguments.way != "d2m":
        folder.mkdir(exist_ok=True)
        connection = socket.create_connection(("127.0.0.1", int(arguments.at)))
        if arguments.way == "tls":
            context = make_client_context(arguments.folder)
            connection = context.wrap_socket(connection, server_hostname="localhost")
        await obey({}, SocketTaker(connection, folder, digests))
        return
    address, peer_id = arguments.at.split()
    # A node keeps parts on its disk, in case it ends before a blob is whole.
    partials = {} if arguments.keeps else {"partial_folder": folder / "partials"}
    settings = build_settings(folder / "identity", **partials)
    async with open_store(folder) as store, open_network(settings, Shelf(), Notebook()) as network:
        network.set_address_book({bytes.fromhex(peer_id): address})
        await network.stack.pubsub.wait_for_peer(ID(bytes.fromhex(peer_id)), PATIENCE_SECONDS)
        await obey({}, NodeTaker(network, bytes.fromhex(peer_id), store, digests))


async def obey(greeting: dict[str, Any], taker: Taker | None) -> None:
    """Say that all is ready; then take blobs, or say what was used so far."""
    say(greeting)
    while line := await trio.to_thread.run_sync(sys.stdin.readline):
        order = json.loads(line)
        if "take" in order:
            assert taker is not None
            start = time.perf_counter()
            size = await taker.take(order["take"], stores=order["stores"], checks=order["checks"])
            say({"seconds": time.perf_counter() - start, "bytes": size})
        else:
            say({"cpu_seconds": time.process_time(), **read_memory()})


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def read_memory() -> dict[str, int]:
    """Return resident memory, and its largest since the last call; begin anew (Linux)."""
    status = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in status if "kB" in line}
    Path("/proc/self/clear_refs").write_text("5")
    return {"resident_bytes": sizes["VmRSS:"], "peak_bytes": sizes["VmHWM:"]}


class NodeTaker:
    """Takes blobs as a role does: from the network port, then into the store."""

    def __init__(
        self, network: Libp2pNetwork, giver: bytes, store: Any, digests: dict[str, str]
    ) -> None:
        self._network = network
        self._giver = giver
        self._store = store
        self._digests = digests

    async def take(self, name: str, *, stores: bool, checks: bool) -> int:
        digest = Digest(bytes.fromhex(self._digests[name]))
        blob = await self._network.fetch_blob(digest, sources=[self._giver], max_bytes=1 << 30)
        if stores:
            await self._store.blobs.put(blob, KEPT_FOR, digest=digest)
            await self._store.blobs.delete_files([digest])
        return len(blob)


class SocketTaker:
    """Takes blobs from a socket, in the simplest way that is fast."""

    def __init__(self, connection: socket.socket, folder: Path, digests: dict[str, str]) -> None:
        self._connection = connection
        self._folder = folder
        self._digests = digests

    async def take(self, name: str, *, stores: bool, checks: bool) -> int:
        self._connection.sendall(name.ljust(32).encode())
        size = int.from_bytes(read_exactly(self._connection, 8))
        blob = read_exactly(self._connection, size)
        if checks and keccak(bytes(blob)).hex() != self._digests[name]:
            raise ValueError("wrong bytes")
        if stores:
            path = self._folder / "taken"
            with path.open("wb") as file:
                file.write(blob)
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
        return size


def read_exactly(connection: socket.socket, size: int) -> bytearray:
    buffer = bytearray(size)
    view = memoryview(buffer)
    filled = 0
    while filled < size:
        count = connection.recv_into(view[filled : filled + PIECE_BYTES])
        if not count:
            raise EOFError
        filled += count
    return buffer


def serve_sockets(
    listener: socket.socket, context: ssl.SSLContext | None, folder: Path, keeps: bool
) -> None:
    """Answer names with blobs, on one connection after another."""
    kept = {path.stem: path.read_bytes() for path in folder.glob("*.blob")} if keeps else {}
    while True:
        connection, _ = listener.accept()
        if context is not None:
            connection = context.wrap_socket(connection, server_side=True)
        with connection:
            while name := connection.recv(32).decode().strip():
                data = kept.get(name) or (folder / f"{name}.blob").read_bytes()
                connection.sendall(len(data).to_bytes(8))
                view = memoryview(data)
                for start in range(0, len(data), PIECE_BYTES):
                    connection.sendall(view[start : start + PIECE_BYTES])


def make_server_context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


def make_client_context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(folder / "certificate.pem")
    return context


if __name__ == "__main__":
    main()
