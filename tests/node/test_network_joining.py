"""How a node finds its way into the network: from the list, the chain, and its own memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.peer.id import ID

from d2m_node.address_store import ReachedAddress
from d2m_node.errors import PeerUnreachable
from d2m_node.network import book as book_module
from d2m_node.network.adapter import Libp2pNetwork
from d2m_node.network.addresses import Source
from d2m_node.network.book import MAX_FOUND, AddressBook
from d2m_node.network.peers import Peers
from d2m_node.ports import PeerStatus
from d2m_node.storage.database import open_store
from tests.support.network import (
    LOCAL,
    PATIENCE_SECONDS,
    Notebook,
    build_settings,
    start_network,
    wait_gossiping,
)

NOBODY = "/ip4/127.0.0.1/tcp/9"
ED25519 = bytes.fromhex("002408011220")


def make_peer_id(number: int) -> bytes:
    return ED25519 + number.to_bytes(32, "big")


def name(network: Libp2pNetwork) -> str:
    """Write a node's address as a bootstrap list does."""
    return f"{network.listening[0]}/p2p/{ID(network.peer_id)}"


def find(network: Libp2pNetwork, peer_id: bytes) -> PeerStatus:
    (status,) = [one for one in network.peers() if one.peer_id == peer_id]
    return status


async def wait_until(is_so: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110 - statuses have no event
            await trio.sleep(0.01)


# --- the cache


async def test_a_node_whose_bootstrap_peers_are_gone_joins_again_from_its_cache(
    tmp_path: Path,
) -> None:
    async with start_network(tmp_path / "friend") as friend:
        async with (
            open_store(tmp_path / "store") as store,
            start_network(tmp_path / "first") as first,
            start_network(
                tmp_path / "node", addresses=store.addresses, bootstrap=(name(first),)
            ) as node,
        ):
            bootstrap = name(first)
            await wait_gossiping(node, first)
            node.set_address_book({friend.peer_id: friend.listening[0]})
            await wait_until(lambda: node.measure().dials.get("reached") == 2)
        async with (
            open_store(tmp_path / "store") as store,
            start_network(
                tmp_path / "node", addresses=store.addresses, bootstrap=(bootstrap,)
            ) as node,
        ):
            await wait_gossiping(node, friend)
            await wait_until(lambda: bool(find(node, first.peer_id).failures))
            assert not find(node, first.peer_id).connected


async def test_only_an_address_at_which_the_peer_proved_itself_is_kept(tmp_path: Path) -> None:
    notebook = Notebook()
    async with (
        start_network(tmp_path / "honest") as honest,
        start_network(tmp_path / "node", addresses=notebook) as node,
    ):
        impostor = make_peer_id(1)
        node.set_address_book({honest.peer_id: honest.listening[0], impostor: honest.listening[0]})
        await wait_until(lambda: node.measure().dials.get("reached") == 1)
        await wait_until(lambda: bool(find(node, impostor).failures))
    (kept,) = notebook.kept.values()
    assert (kept.peer_id, kept.multiaddr) == (honest.peer_id, honest.listening[0])


async def test_what_the_cache_holds_is_dialled_as_a_strangers_word(tmp_path: Path) -> None:
    notebook = Notebook()
    kept = ReachedAddress(peer_id=make_peer_id(1), multiaddr=NOBODY, reached_at=1)
    damaged = ReachedAddress(peer_id=make_peer_id(2), multiaddr="nonsense", reached_at=2)
    await notebook.save([kept, damaged])
    async with start_network(tmp_path / "node", addresses=notebook, dial_private=False) as node:
        await wait_until(lambda: bool(find(node, kept.peer_id).failures))
        (failure,) = find(node, kept.peer_id).failures
        assert failure.source == "cache"
        assert "127.0.0.1 is this machine" in failure.reason
        assert [one.peer_id for one in node.peers()] == [kept.peer_id]


# --- addresses of strangers


async def test_a_private_address_of_the_registry_is_not_dialled_on_a_public_network(
    tmp_path: Path,
) -> None:
    knocks = []

    async def count(stream: trio.SocketStream) -> None:
        knocks.append(stream)

    async with (
        trio.open_nursery() as nursery,
        start_network(tmp_path / "node", dial_private=False) as node,
    ):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, count, [listener])
        port = listener.socket.getsockname()[1]
        for address in (f"/ip4/127.0.0.1/tcp/{port}", f"/dns4/localhost/tcp/{port}"):
            node.set_address_book({make_peer_id(1): address})
            with pytest.raises(PeerUnreachable, match=r"not dialled: .* network\.dial_private"):
                await node.stack.peers.reach(make_peer_id(1))
        assert not knocks
        nursery.cancel_scope.cancel()


async def test_the_operators_own_list_may_name_this_machine(tmp_path: Path) -> None:
    async with (
        start_network(tmp_path / "first") as first,
        start_network(tmp_path / "node", bootstrap=(name(first),), dial_private=False) as node,
    ):
        await wait_gossiping(node, first)


async def test_a_registry_full_of_lies_costs_few_dials(tmp_path: Path) -> None:
    lies = {make_peer_id(number): NOBODY for number in range(2000)}
    async with (
        start_network(tmp_path / "honest") as honest,
        start_network(tmp_path / "node", peers_target=5, max_idle_redial_seconds=60.0) as node,
    ):
        node.set_address_book(lies | {honest.peer_id: honest.listening[0]}, {honest.peer_id})
        await wait_gossiping(node, honest)
        await wait_until(lambda: node.measure().dials.get("failed", 0) >= 50)
        waiting = [one for one in node.peers() if one.next_dial_seconds is not None]
        assert len(waiting) <= 5


async def test_a_peer_is_found_though_the_first_account_that_names_it_lies(tmp_path: Path) -> None:
    async with (
        start_network(tmp_path / "honest") as honest,
        start_network(tmp_path / "node", dht=False) as node,
    ):
        book = {honest.peer_id: NOBODY}
        node.set_address_book(book, {honest.peer_id}, {honest.peer_id: (honest.listening[0],)})
        await wait_gossiping(node, honest)


async def test_what_is_no_peer_id_is_left_out(tmp_path: Path) -> None:
    async with start_network(tmp_path / "node") as node:
        node.set_address_book({b"": NOBODY, b"\x00" * 64: NOBODY, node.peer_id: NOBODY})
        assert node.peers() == []


def test_names_that_one_source_makes_up_push_out_each_other_alone(tmp_path: Path) -> None:
    book = AddressBook(make_peer_id(0), build_settings(tmp_path))
    cached, registered = make_peer_id(1), make_peer_id(2)

    async def fill() -> None:
        book.add(Source.CACHE, cached, NOBODY)
        book.replace(Source.REGISTRY, {registered: NOBODY})
        for number in range(10, 10 + 2 * MAX_FOUND):
            book.add(Source.LAN, make_peer_id(number), NOBODY)

    trio.run(fill)
    assert len(list(book)) == MAX_FOUND + 2
    assert book.find(cached) is not None
    assert book.find(registered) is not None


# --- whom to dial


async def test_peers_that_jobs_need_are_connected_beyond_the_target(tmp_path: Path) -> None:
    async with (
        start_network(tmp_path / "any") as one,
        start_network(tmp_path / "partner") as partner,
        start_network(tmp_path / "node", peers_target=1) as node,
    ):
        node.set_address_book({one.peer_id: one.listening[0]})
        await wait_gossiping(node, one)
        everybody = {peer.peer_id: peer.listening[0] for peer in (one, partner)}
        node.set_address_book(everybody)
        assert find(node, partner.peer_id).next_dial_seconds is None
        assert not find(node, partner.peer_id).connected
        node.set_address_book(everybody, {partner.peer_id})
        await wait_gossiping(node, partner)


async def test_a_peer_beyond_the_target_is_dialled_when_it_is_needed(tmp_path: Path) -> None:
    async with (
        start_network(tmp_path / "any") as one,
        start_network(tmp_path / "other") as other,
        start_network(tmp_path / "node", peers_target=1) as node,
    ):
        node.set_address_book({one.peer_id: one.listening[0]})
        await wait_gossiping(node, one)
        node.set_address_book({peer.peer_id: peer.listening[0] for peer in (one, other)})
        await node.stack.peers.reach(other.peer_id)
        assert find(node, other.peer_id).connected


async def test_another_peer_takes_the_place_of_one_that_left(tmp_path: Path) -> None:
    async with (
        start_network(tmp_path / "stays") as stays,
        start_network(tmp_path / "node", peers_target=1) as node,
    ):
        async with start_network(tmp_path / "leaves") as leaves:
            node.set_address_book({leaves.peer_id: leaves.listening[0]})
            await wait_gossiping(node, leaves)
            node.set_address_book({peer.peer_id: peer.listening[0] for peer in (stays, leaves)})
        await wait_gossiping(node, stays)


# --- no peer at all


async def test_a_node_that_reaches_nobody_stays_up_and_says_which_dials_failed_and_why(
    tmp_path: Path,
) -> None:
    first, registered = make_peer_id(1), make_peer_id(2)
    async with start_network(
        tmp_path / "node", bootstrap=(f"{NOBODY}/p2p/{ID(first)}",), redial_seconds=0.01
    ) as node:
        node.set_address_book({registered: "/ip4/127.0.0.1/tcp/9", first: "/ip4/0.0.0.0/tcp/9"})
        await wait_until(lambda: node.measure().dials.get("failed", 0) >= 6)
        failures = find(node, first).failures
        assert [(one.source, one.multiaddr) for one in failures] == [
            ("bootstrap", NOBODY),
            ("registry", "/ip4/0.0.0.0/tcp/9"),
        ]
        assert "no address of a machine" in failures[1].reason
        status = find(node, registered)
        assert status.last_error is not None
        assert "/ip4/127.0.0.1/tcp/9" in status.last_error
        await wait_until(lambda: find(node, registered).next_dial_seconds is not None)


async def test_many_dead_addresses_take_little_longer_than_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    peer_id = make_peer_id(1)
    async with start_network(tmp_path / "node", dial_seconds=8.0, peers_target=1) as node:
        stock = Peers._dial

        async def watch(self: Peers, *arguments: Any) -> None:
            asked.append(arguments[-1])
            await stock(self, *arguments)

        monkeypatch.setattr(Peers, "_dial", watch)
        found = [(Source.DHT, f"/ip4/127.0.0.1/tcp/{port}") for port in (7, 8, 9, 10)]
        assert not await node.stack.peers._try_each(peer_id, found, [])
        assert not await node.stack.peers._try_each(peer_id, found[:1], [])
    assert asked == [2.0, 2.0, 2.0, 2.0, 8.0]


async def test_a_peer_that_comes_up_late_is_found(tmp_path: Path) -> None:
    async with start_network(tmp_path / "late") as late:
        address, entry = late.listening[0], name(late)
    async with start_network(tmp_path / "node", bootstrap=(entry,)) as node:
        await wait_until(lambda: node.measure().dials.get("failed", 0) >= 3)
        async with start_network(tmp_path / "late", listen=address) as late:
            await wait_gossiping(node, late)
            assert find(node, late.peer_id).failures == ()


def test_pauses_grow_to_their_limit_and_differ(tmp_path: Path) -> None:
    settings = build_settings(
        tmp_path, redial_seconds=1.0, max_redial_seconds=30.0, max_idle_redial_seconds=600.0
    )
    book = AddressBook(make_peer_id(0), settings)

    def list_pauses(source: Source) -> list[float]:
        pauses = []

        async def fail_often() -> None:
            book.add(source, make_peer_id(1), NOBODY)
            known = book.find(make_peer_id(1))
            assert known is not None
            for _ in range(40):
                book.put_off(make_peer_id(1), known)
                pauses.append(known.next_dial_at - trio.current_time())
            book.forget(source, make_peer_id(1))

        trio.run(fail_often)
        return pauses

    for source, longest in ((Source.BOOTSTRAP, 30.0), (Source.REGISTRY, 600.0)):
        pauses = list_pauses(source)
        assert 0.7 < pauses[0] < 1.3
        assert all(0.7 * longest < one < 1.3 * longest for one in pauses[-10:])
        assert len({round(one, 3) for one in pauses[-10:]}) > 1


async def test_a_banned_peer_is_not_dialled_without_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_off = []
    stock = book_module.AddressBook.put_off

    def count(self: AddressBook, peer_id: bytes, known: book_module.KnownPeer) -> None:
        put_off.append(peer_id)
        stock(self, peer_id, known)

    monkeypatch.setattr(book_module.AddressBook, "put_off", count)
    async with start_network(tmp_path / "node", redial_seconds=30.0, listen=LOCAL) as node:
        banned = make_peer_id(1)
        node.conduct.ban(banned, "test")
        node.set_address_book({banned: NOBODY})
        known = node.stack.peers._book.find(banned)
        assert known is not None
        known.next_dial_at = 0.0
        node.stack.peers._book.wake()
        await wait_until(lambda: put_off == [banned])
        assert known.next_dial_at > trio.current_time()
