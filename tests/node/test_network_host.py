"""One host's life: listening, the address book, and what a person got wrong."""

from pathlib import Path

import pytest
import structlog
import trio
from libp2p.peer.id import ID
from structlog.testing import capture_logs

from d2m_node.errors import PeerUnreachable, UserError
from d2m_node.logs import log_scope
from d2m_node.relay_settings import RelaySettings
from protocol.hashing import keccak
from tests.support.network import (
    PATIENCE_SECONDS,
    Watch,
    connect,
    start_network,
    start_networks,
    wait_gossiping,
)

NOBODY = "/ip4/127.0.0.1/tcp/9"
"""The discard port: nothing listens there."""


async def test_the_real_port_is_told(tmp_path: Path) -> None:
    async with start_network(tmp_path / "node") as node:
        (address,) = node.listening
        assert address.startswith("/ip4/127.0.0.1/tcp/")
        assert not address.endswith("/0")


async def test_peers_of_the_address_book_are_connected_and_listed(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["buyer", "cone"]) as (buyer, cone):
        (status,) = buyer.peers()
        assert (status.peer_id, status.connected) == (cone.peer_id, True)
        assert status.multiaddr == cone.listening[0]
        (status,) = cone.peers()
        assert (status.peer_id, status.connected) == (buyer.peer_id, True)


async def test_two_that_know_each_other_keep_one_connection(tmp_path: Path) -> None:
    async with start_network(tmp_path / "a") as a, start_network(tmp_path / "b") as b:
        a.set_address_book({b.peer_id: b.listening[0]})
        b.set_address_book({a.peer_id: a.listening[0]})
        await wait_gossiping(a, b)
        await wait_gossiping(b, a)
        assert len(a.stack.host.get_network().get_connections()) == 1


async def test_peers_of_the_bootstrap_list_are_connected(tmp_path: Path) -> None:
    async with start_network(tmp_path / "first") as first:
        entry = f"{first.listening[0]}/p2p/{ID(first.peer_id)}"
        async with start_network(tmp_path / "second", bootstrap=(entry,)) as second:
            await wait_gossiping(second, first)
            # An address book without it does not take a bootstrap peer away.
            second.set_address_book({})
            assert [status.peer_id for status in second.peers()] == [first.peer_id]


@pytest.mark.parametrize("restarted", ["dialer", "listener"])
async def test_a_peer_that_restarts_is_connected_again(tmp_path: Path, restarted: str) -> None:
    async with start_network(tmp_path / "node") as node:
        async with start_network(tmp_path / "peer") as peer:
            if restarted == "listener":
                await connect(node, peer)
            else:
                await connect(peer, node)
            address, gone = peer.listening[0], Watch(node, peer.peer_id)
        with trio.fail_after(PATIENCE_SECONDS):
            await gone.disconnected_event.wait()
        back = Watch(node, peer.peer_id)
        async with start_network(tmp_path / "peer", listen=address) as peer:
            if restarted == "dialer":
                peer.set_address_book({node.peer_id: node.listening[0]})
            with trio.fail_after(PATIENCE_SECONDS):
                await back.connected_event.wait()
            await wait_gossiping(node, peer)


async def test_a_peer_with_a_new_address_is_found_there(tmp_path: Path) -> None:
    async with start_network(tmp_path / "node") as node, start_network(tmp_path / "peer") as peer:
        node.set_address_book({peer.peer_id: NOBODY})
        node.set_address_book({peer.peer_id: peer.listening[0]})
        await wait_gossiping(node, peer)


async def test_a_peer_that_cannot_be_reached_is_reported_and_harms_nobody(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["node", "peer"]) as (node, peer):
        stranger = bytes.fromhex("0024080112") + b"\x20" + bytes(32)
        node.set_address_book({stranger: NOBODY, peer.peer_id: peer.listening[0]})
        with pytest.raises(PeerUnreachable, match="tcp/9"):
            await node.fetch_blob(keccak(b""), sources=[stranger], max_bytes=1)
        statuses = {status.peer_id: status for status in node.peers()}
        assert not statuses[stranger].connected
        assert statuses[peer.peer_id].connected


async def test_what_is_logged_about_a_peer_names_it(tmp_path: Path) -> None:
    stranger = bytes.fromhex("0024080112") + b"\x20" + bytes(32)
    async with start_network(tmp_path / "node") as node:
        with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
            with log_scope(role="cone", job=3):
                node.set_address_book({stranger: NOBODY})
            with trio.fail_after(PATIENCE_SECONDS):
                while not logs:
                    await trio.lowlevel.checkpoint()
    assert (logs[0]["event"], logs[0]["peer"]) == ("peer_unreachable", stranger)
    assert "job" not in logs[0], "to stay connected is nobody's job"


@pytest.mark.parametrize(
    "listen", ["", "localhost:80", "/ip4/127.0.0.1", "/ip4/127.0.0.1/udp/80", "/ip4/1.2.3.4/tcp/80"]
)
async def test_an_address_we_cannot_listen_on_is_one_clear_line(
    tmp_path: Path, listen: str
) -> None:
    with pytest.raises(UserError, match=r"network\.listen"):
        async with start_network(tmp_path / "node", listen=listen):
            pytest.fail("listens on nonsense")


@pytest.mark.parametrize(
    "entry", ["nonsense", "/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1/p2p/x"]
)
async def test_a_wrong_bootstrap_entry_is_one_clear_line(tmp_path: Path, entry: str) -> None:
    with pytest.raises(UserError, match=r"network\.bootstrap"):
        async with start_network(tmp_path / "node", bootstrap=(entry,)):
            pytest.fail("bootstraps from nonsense")


async def test_a_wrong_relay_is_one_clear_line(tmp_path: Path) -> None:
    relay = RelaySettings(through=("/ip4/1.2.3.4/tcp/1",))
    with pytest.raises(UserError, match=r"network\.relay\.through: .* lacks /p2p/"):
        async with start_network(tmp_path / "node", relay=relay):
            pytest.fail("is reached through nonsense")


async def test_a_wrong_peer_id_to_deny_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"network\.deny: 'x!' is no peer id"):
        async with start_network(tmp_path / "node", deny=("x!",)):
            pytest.fail("denies nonsense")


async def test_a_denied_peer_is_turned_away(tmp_path: Path) -> None:
    async with start_network(tmp_path / "peer") as peer:
        denied = str(ID(peer.peer_id))
        async with start_network(tmp_path / "node", deny=(denied,)) as node:
            with pytest.raises(PeerUnreachable, match=r"denied by network\.deny"):
                await node.stack.peers.reach(peer.peer_id)
            gone = Watch(peer, node.peer_id)
            peer.set_address_book({node.peer_id: node.listening[0]})
            with trio.fail_after(PATIENCE_SECONDS):
                await gone.disconnected_event.wait()


async def test_a_banned_peer_is_listed_with_the_reason_until_the_ban_ends(tmp_path: Path) -> None:
    async with start_network(tmp_path / "node", ban_seconds=100.0) as node:
        node.conduct.ban(b"peer", "malformed gossip")
        (status,) = node.peers()
        assert status.peer_id == b"peer"
        assert status.last_error == "banned for another 100 s: malformed gossip"
    async with start_network(tmp_path / "node", ban_seconds=0.0) as node:
        node.conduct.ban(b"peer", "malformed gossip")
        assert node.peers() == []
