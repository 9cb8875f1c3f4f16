"""Nodes behind NAT: real processes in network namespaces, behind routers that let nobody in."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.peer.id import ID

from d2m_node.network.identity import load_or_create_identity
from tests.support.internet import Internet, Machine, Nat, explain_why_not, open_internet

WHY_NOT = explain_why_not()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.skipif(WHY_NOT is not None, reason=f"no network namespaces: {WHY_NOT}"),
]

PORT = 9393
RELAY, PUBLIC = "11.0.0.1", "14.0.0.1"
PATIENCE_SECONDS = 60.0
PROGRAM = """
import json, sys
from pathlib import Path

import structlog
import trio
from libp2p.peer.id import ID

from d2m_node.errors import TransientError
from d2m_node.relay_settings import RelaySettings
from protocol.hashing import keccak
from tests.support.network import Shelf, start_network

BLOB = bytes(range(256)) * 4000
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


async def answer(node, question):
    peers = node.stack.peers
    match question["ask"]:
        case "book":
            book = {bytes.fromhex(one): where for one, where in question["book"].items()}
            node.set_address_book(book, book)
        case "circuits":
            return list(node.stack.reservations.list_addresses())
        case "way":
            one = bytes.fromhex(question["peer"])
            return "direct" if peers.is_direct(one) else "relay" if peers.is_relayed(one) else None
        case "fetch":
            try:
                with trio.fail_after(40):
                    blob = await node.fetch_blob(
                        keccak(BLOB), sources=[bytes.fromhex(question["peer"])], max_bytes=len(BLOB)
                    )
            except (TransientError, trio.TooSlowError) as error:
                return str(error)
            return blob == BLOB


async def main():
    options = json.loads(sys.argv[2])
    shelf = Shelf()
    shelf.blobs[keccak(BLOB)] = BLOB
    relay = RelaySettings(**{**options.pop("relay"), "through": tuple(options.pop("through"))})
    async with start_network(
        Path(sys.argv[1]), shelf, listen="/ip4/0.0.0.0/tcp/9393", dial_private=False,
        relay=relay, first_search_seconds=1.0, **options,
    ) as node:
        print(json.dumps([node.peer_id.hex(), str(ID(node.peer_id))]), flush=True)
        stdin = trio.lowlevel.FdStream(0)
        line = b""
        while received := await stdin.receive_some(1):
            line += received
            if line.endswith(b"\\n"):
                print(json.dumps(await answer(node, json.loads(line))), flush=True)
                line = b""


trio.run(main)
"""


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    async with open_internet() as found:
        yield found


class Node:
    """A node on a machine of that internet."""

    def __init__(self, machine: Machine, peer_id: str, name: str) -> None:
        self.machine = machine
        self.peer_id = peer_id
        self.name = name

    async def ask(self, ask: str, **more: Any) -> Any:
        return await self.machine.ask(ask=ask, **more)

    async def wait(self, ask: str, wanted: Any, **more: Any) -> None:
        with trio.fail_after(PATIENCE_SECONDS):
            while await self.ask(ask, **more) != wanted:  # noqa: ASYNC110 - another process
                await trio.sleep(0.1)


async def start(
    internet: Internet, folder: Path, address: str, nat: Nat | None = None, **options: Any
) -> Node:
    options = {"relay": {"use": "never"}, "through": [], **options}
    machine = await internet.start(
        PROGRAM, str(folder / address), json.dumps(options), address=address, nat=nat
    )
    peer_id, name = await machine.read()
    return Node(machine, peer_id, name)


async def start_relay(internet: Internet, folder: Path) -> Node:
    return await start(
        internet,
        folder,
        RELAY,
        announce=f"/ip4/{RELAY}/tcp/{PORT}",
        relay={"serve": True, "use": "never"},
    )


def make_identity(path: Path) -> str:
    """Make a node's key before it starts, so that its id can be registered."""
    return ID.from_pubkey(load_or_create_identity(path).public_key).to_bytes().hex()


def hide(relay: Node, **relay_options: Any) -> dict[str, Any]:
    entry = f"/ip4/{RELAY}/tcp/{PORT}/p2p/{relay.name}"
    return {"relay": {"use": "always", **relay_options}, "through": [entry]}


async def test_a_node_behind_nat_is_reached_through_a_relay_alone(
    tmp_path: Path, internet: Internet
) -> None:
    relay = await start_relay(internet, tmp_path)
    nat = Nat("12.0.0.1")
    await relay.ask("book", book={make_identity(tmp_path / "10.0.0.2"): ""})
    hidden = await start(internet, tmp_path, "10.0.0.2", nat, **hide(relay, punch=False))
    public = await start(internet, tmp_path, PUBLIC, dial_seconds=3.0)
    circuit = f"/ip4/{RELAY}/tcp/{PORT}/p2p/{relay.name}/p2p-circuit"
    await hidden.wait("circuits", [circuit])
    await public.ask("book", book={hidden.peer_id: f"/ip4/12.0.0.1/tcp/{PORT}"})
    assert "does not answer" in await public.ask("fetch", peer=hidden.peer_id)
    assert nat.dropped > 0, "the router lets nobody in"
    await public.ask("book", book={hidden.peer_id: circuit})
    assert await public.ask("fetch", peer=hidden.peer_id) is True
    assert await public.ask("way", peer=hidden.peer_id) == "relay"


async def test_two_nodes_behind_nats_of_their_own_get_a_direct_connection(
    tmp_path: Path, internet: Internet
) -> None:
    relay = await start_relay(internet, tmp_path)
    inner = "10.0.0.2", "10.0.0.3"
    await relay.ask("book", book={make_identity(tmp_path / one): "" for one in inner})
    first = await start(internet, tmp_path, inner[0], Nat("12.0.0.1"), **hide(relay))
    second = await start(internet, tmp_path, inner[1], Nat("13.0.0.1"), **hide(relay))
    circuit = f"/ip4/{RELAY}/tcp/{PORT}/p2p/{relay.name}/p2p-circuit"
    for one in (first, second):
        await one.wait("circuits", [circuit])
    await second.ask("book", book={first.peer_id: circuit})
    await second.wait("way", "direct", peer=first.peer_id)
    await first.wait("way", "direct", peer=second.peer_id)
    before = internet.carried.get(("12.0.0.1", "13.0.0.1"), 0)
    assert await second.ask("fetch", peer=first.peer_id) is True
    assert internet.carried[("12.0.0.1", "13.0.0.1")] - before > 1_000_000
