"""Peers that find each other on the local network, over real multicast on loopback."""

import sys
from functools import partial
from pathlib import Path

import pytest
import trio
from libp2p.peer.id import ID

from d2m_node.network import lan as lan_module
from d2m_node.network.addresses import Source
from d2m_node.network.book import MAX_FOUND, AddressBook
from d2m_node.network.lan import Lan
from tests.support.network import PATIENCE_SECONDS, build_settings, start_network, wait_gossiping

LOOPBACK = ("127.0.0.1",)
ED25519 = bytes.fromhex("002408011220")
PROGRAM = """
import sys
from pathlib import Path

import trio

from tests.support.network import start_network


async def serve() -> None:
    async with start_network(Path(sys.argv[1]), lan=True, lan_interfaces=("127.0.0.1",)) as node:
        print(node.peer_id.hex(), flush=True)
        await trio.sleep_forever()


trio.run(serve)
"""


def make_peer_id(number: int) -> bytes:
    return ED25519 + number.to_bytes(32, "big")


def name(peer_id: bytes) -> bytes:
    return str(ID(peer_id)).encode()


@pytest.fixture
def book(tmp_path: Path) -> AddressBook:
    return AddressBook(make_peer_id(0), build_settings(tmp_path))


@pytest.fixture
def lan(tmp_path: Path, book: AddressBook) -> Lan:
    return Lan("me", build_settings(tmp_path), book, list)


async def test_two_processes_find_each_other_with_nothing_but_the_lan(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "other")]
        run = partial(trio.run_process, command, stdout=-1, check=False)
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        line = b""
        with trio.fail_after(2 * PATIENCE_SECONDS):
            while not line.endswith(b"\n"):
                line += await process.stdout.receive_some(500)
        other = bytes.fromhex(line.decode().strip())
        async with start_network(tmp_path / "node", lan=True, lan_interfaces=LOOPBACK) as node:
            await node.stack.pubsub.wait_for_peer(ID(other), PATIENCE_SECONDS)
        process.kill()


async def test_a_node_that_is_not_told_to_does_not_speak_to_the_lan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(lan_module, "Zeroconf")
    async with start_network(tmp_path / "node") as node:
        assert node.peers() == []


async def test_a_network_without_multicast_does_not_end_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = []

    def fail(_interfaces: object) -> None:
        failures.append(1)
        raise OSError("no multicast here")

    monkeypatch.setattr(lan_module, "Zeroconf", fail)
    monkeypatch.setattr(lan_module, "RETRY_SECONDS", 0.001)
    async with (
        start_network(tmp_path / "node", lan=True) as node,
        start_network(tmp_path / "peer") as peer,
    ):
        with trio.fail_after(PATIENCE_SECONDS):
            while len(failures) < 3:  # noqa: ASYNC110 - a count has no event
                await trio.sleep(0.01)
        node.set_address_book({peer.peer_id: peer.listening[0]})
        await wait_gossiping(node, peer)


async def test_what_a_record_says_is_an_address_to_try(lan: Lan, book: AddressBook) -> None:
    peer_id = make_peer_id(1)
    entry = b"/ip4/10.0.0.7/tcp/9393/p2p/" + name(peer_id)
    lan.hear("a", {b"dnsaddr": entry, b"dnsaddr1": entry.replace(b"10.0.0.7", b"10.1.0.7")})
    known = book.find(peer_id)
    assert known is not None
    assert known.list_addresses() == [
        (Source.LAN, "/ip4/10.0.0.7/tcp/9393"),
        (Source.LAN, "/ip4/10.1.0.7/tcp/9393"),
    ]
    lan.forget("a")
    assert book.find(peer_id) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff\xfe",
        b"/ip4/10.0.0.7/tcp/9393",
        b"/ip4/10.0.0.7/udp/9393/p2p/" + name(make_peer_id(1)),
        b"/ip4/10.0.0.7/tcp/9393/p2p/nonsense",
        b"/ip4/10.0.0.7/tcp/9393/p2p/",
        b"/dns4/" + b"a" * 300 + b"/tcp/1/p2p/" + name(make_peer_id(1)),
    ],
)
async def test_a_record_that_is_no_address_is_nothing(
    lan: Lan, book: AddressBook, value: bytes | None
) -> None:
    lan.hear("a", {b"dnsaddr": value})
    lan.forget("a")
    assert list(book) == []


async def test_a_record_of_several_peers_is_nothing(lan: Lan, book: AddressBook) -> None:
    entries = (b"/ip4/10.0.0.7/tcp/1/p2p/" + name(make_peer_id(number)) for number in (1, 2))
    lan.hear("a", {b"dnsaddr%d" % number: entry for number, entry in enumerate(entries)})
    assert list(book) == []


async def test_a_flood_of_records_is_bounded(lan: Lan, book: AddressBook) -> None:
    for number in range(1, 2 * MAX_FOUND):
        peer_id = make_peer_id(number)
        lan.hear(f"{number}", {b"dnsaddr": b"/ip4/10.0.0.7/tcp/1/p2p/" + name(peer_id)})
    assert len(list(book)) == MAX_FOUND


async def test_a_node_on_all_interfaces_tells_the_address_of_each(
    tmp_path: Path, book: AddressBook
) -> None:
    settings = build_settings(tmp_path, lan_interfaces=("10.0.0.5", "10.1.0.5"))
    lan = Lan("me", settings, book, lambda: ["/ip4/0.0.0.0/tcp/9393"])
    texts = lan._describe().properties
    assert set(texts.values()) == {
        b"/ip4/10.0.0.5/tcp/9393/p2p/me",
        b"/ip4/10.1.0.5/tcp/9393/p2p/me",
    }
