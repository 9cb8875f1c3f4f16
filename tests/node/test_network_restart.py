"""A network whose libp2p stack fails: it comes back as the same peer, and its users go on."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from libp2p.custom_types import TProtocol

from d2m_node.address_store import KeptBan
from d2m_node.errors import PeerUnreachable
from d2m_node.network.adapter import Libp2pNetwork
from d2m_node.storage.database import Store, open_store
from protocol.hashing import keccak
from protocol.wire.topics import BLOB_PROTOCOL
from tests.support.network import (
    PATIENCE_SECONDS,
    Notebook,
    Shelf,
    accept,
    build_bitmap,
    connect,
    start_network,
    start_networks,
    wait_gossiping,
    wait_subscribed,
)

TOPIC = "d2m/1/31337/market/1/votes"


async def crash() -> None:
    raise KeyError("a bug inside the library")


def fail() -> None:
    raise KeyError("a bug inside the library")


async def break_stack(network: Libp2pNetwork) -> None:
    """Fail inside the stack as a task of the library does, and wait for the next one."""
    broken = network.stack
    broken.tasks.start_soon(crash)
    await wait_restarted(network, broken)


async def wait_restarted(network: Libp2pNetwork, broken: object) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while True:
            try:
                if network.stack is not broken:
                    return
            except PeerUnreachable:
                pass
            await trio.sleep(0.01)


async def wait_broken(network: Libp2pNetwork) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while network._stack is not None:  # noqa: ASYNC110 - nobody else waits for this
            await trio.sleep(0.001)


async def test_a_network_that_fails_comes_back_as_the_same_peer_at_the_same_address(
    tmp_path: Path,
) -> None:
    async with start_networks(tmp_path, ["node", "peer"], restart_seconds=0.01) as (node, peer):
        before = node.peer_id, node.listening
        await break_stack(node)
        assert (node.peer_id, node.listening) == before
        assert node.measure().restarts == 1
        await wait_gossiping(node, peer)
        await wait_gossiping(peer, node)


async def test_a_heartbeat_that_fails_does_not_end_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start_networks(
        tmp_path, ["node", "peer"], restart_seconds=0.01, heartbeat_seconds=0.05
    ) as (node, peer):
        broken = node.stack
        monkeypatch.setattr(broken.router, "mesh_heartbeat", fail)
        await wait_restarted(node, broken)
        await wait_gossiping(peer, node)


async def test_subscriptions_are_joined_again_after_a_restart(tmp_path: Path) -> None:
    async with (
        start_networks(tmp_path, ["node", "peer"], restart_seconds=0.01) as (node, peer),
        node.join_topic(TOPIC, accept) as heard,
    ):
        await wait_subscribed(peer, node, TOPIC)
        await break_stack(node)
        await wait_gossiping(peer, node)
        await wait_gossiping(node, peer)
        await wait_subscribed(peer, node, TOPIC)
        await peer.publish(TOPIC, build_bitmap(1))
        with trio.fail_after(PATIENCE_SECONDS):
            assert await heard.receive() == build_bitmap(1)


async def test_a_topic_may_be_joined_and_left_while_there_is_no_stack(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["node", "peer"], restart_seconds=0.2) as (node, peer):
        broken = node.stack
        broken.tasks.start_soon(crash)
        await wait_broken(node)
        async with node.join_topic("left at once", accept):
            pass
        async with node.join_topic(TOPIC, accept):
            assert not any(status.connected for status in node.peers())
            await wait_restarted(node, broken)
            await wait_gossiping(peer, node)
            await wait_subscribed(peer, node, TOPIC)


async def test_what_is_being_fetched_when_the_network_fails_is_unreachable(tmp_path: Path) -> None:
    asked = trio.Event()

    async def stall(_stream: object) -> None:
        asked.set()
        await trio.sleep_forever()

    async with start_networks(tmp_path, ["node", "peer"], restart_seconds=0.01) as (node, peer):
        peer.stack.host.set_stream_handler(TProtocol(BLOB_PROTOCOL), stall)
        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_fetch_in_vain, node, peer)
                await asked.wait()
                await break_stack(node)


async def _fetch_in_vain(node: Libp2pNetwork, peer: Libp2pNetwork) -> None:
    with pytest.raises(PeerUnreachable):
        await node.fetch_blob(keccak(b"x"), sources=[peer.peer_id], max_bytes=1)


async def test_blobs_are_fetched_from_a_network_that_has_failed(tmp_path: Path) -> None:
    library = Shelf()
    blob = b"weights"
    library.blobs[keccak(blob)] = blob
    async with (
        start_network(tmp_path / "asker") as asker,
        start_network(tmp_path / "cone", library, restart_seconds=0.01) as cone,
    ):
        await connect(asker, cone)
        await break_stack(cone)
        await wait_gossiping(asker, cone)
        with trio.fail_after(PATIENCE_SECONDS):
            got = await asker.fetch_blob(keccak(blob), sources=[cone.peer_id], max_bytes=100)
        assert got == blob


async def test_sequence_numbers_of_gossip_go_on_after_a_restart(tmp_path: Path) -> None:
    async with start_networks(
        tmp_path, ["node", "peer"], restart_seconds=0.01, first_sequence=2**61
    ) as (node, _):
        await node.stack.pubsub.publish(TOPIC, b"x")
        await break_stack(node)
        assert node.stack.pubsub.counter == 2**61 + 1


async def test_bans_outlive_a_restart(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["node", "peer"], restart_seconds=0.01) as (node, peer):
        node.conduct.ban(peer.peer_id, "test")
        await break_stack(node)
        with pytest.raises(PeerUnreachable, match=r"banned for another .* s: test"):
            await node.stack.peers.reach(peer.peer_id)


async def test_bans_outlive_the_process_until_they_end(tmp_path: Path) -> None:
    async with start_network(tmp_path / "peer") as peer:
        async with (
            open_store(tmp_path / "store") as store,
            start_network(tmp_path / "node", addresses=store.addresses) as node,
        ):
            node.conduct.ban(peer.peer_id, "test")
        async with (
            open_store(tmp_path / "store") as store,
            start_network(tmp_path / "node", addresses=store.addresses) as node,
        ):
            node.set_address_book({peer.peer_id: peer.listening[0]})
            with pytest.raises(PeerUnreachable, match=r"banned for another .* s: test"):
                await node.stack.peers.reach(peer.peer_id)
            (status,) = node.peers()
            assert not status.connected
            await end_bans(store)
        async with (
            open_store(tmp_path / "store") as store,
            start_network(tmp_path / "node", addresses=store.addresses) as node,
        ):
            assert not node.conduct.is_banned(peer.peer_id)
            await connect(node, peer)


async def end_bans(store: Store) -> None:
    """Let all bans have ended a second ago."""
    (ban,) = await store.addresses.load_bans()
    await store.addresses.save_bans([replace(ban, ends_at=int(time.time()) - 1)])


async def test_penalties_outlive_the_process(tmp_path: Path) -> None:
    """With a half-life of ages, so that none of it has faded meanwhile."""
    limits = {"penalty_half_life_seconds": 1e9, "max_penalty": 4.0}

    def blame(node: Libp2pNetwork, times: int) -> None:
        for _ in range(times):
            node.conduct.blame(b"peer", "test")

    async with (
        open_store(tmp_path / "store") as store,
        start_network(tmp_path / "node", addresses=store.addresses, **limits) as node,
    ):
        blame(node, 3)
    async with (
        open_store(tmp_path / "store") as store,
        start_network(tmp_path / "node", addresses=store.addresses, **limits) as node,
    ):
        (status,) = node.peers()
        assert (status.peer_id, status.banned_seconds) == (b"peer", None)
        assert status.penalty == pytest.approx(3.0, rel=1e-3)
        blame(node, 2)
        assert node.conduct.is_banned(b"peer")
    async with open_store(tmp_path / "store") as store:
        assert await store.addresses.load_penalties() == []
        assert [one.peer_id for one in await store.addresses.load_bans()] == [b"peer"]


async def test_a_clock_that_was_set_back_makes_no_ban_longer(tmp_path: Path) -> None:
    notebook = Notebook()
    ahead = int(time.time()) + 10**9
    await notebook.save_bans([KeptBan(peer_id=b"peer", reason="test", ends_at=ahead)])
    async with start_network(tmp_path / "node", addresses=notebook, ban_seconds=5.0) as node:
        assert node.conduct.explain_ban(b"peer") == "banned for another 5 s: test"


async def test_a_port_that_another_took_meanwhile_is_waited_for(tmp_path: Path) -> None:
    async with start_network(tmp_path / "node", restart_seconds=0.3) as node:
        broken = node.stack
        port = int(node.listening[0].rpartition("/")[2])
        broken.tasks.start_soon(crash)
        await wait_broken(node)
        with trio.fail_after(PATIENCE_SECONDS):
            (other,) = await _take_port(port)
            while node.measure().restarts < 2:  # noqa: ASYNC110 - a count has no event
                await trio.sleep(0.01)
        await other.aclose()
        await wait_restarted(node, broken)
        assert int(node.listening[0].rpartition("/")[2]) == port


async def _take_port(port: int) -> list[trio.SocketListener]:
    while True:
        try:
            return await trio.open_tcp_listeners(port, host="127.0.0.1")
        except OSError:  # the broken stack has not let go yet
            await trio.sleep(0.001)
