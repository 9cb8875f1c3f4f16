"""Nodes that ask their peers whether they can be reached."""

from pathlib import Path

import pytest
import trio
import trio.testing

from d2m_node.measures import Reach
from d2m_node.network import reach
from d2m_node.network.adapter import Libp2pNetwork
from protocol.wire.topics import DIAL_BACK_PROTOCOL
from tests.support.network import PATIENCE_SECONDS, open_raw_stream, start_networks

NOBODY = "/ip4/127.0.0.1/tcp/9"


async def check(node: Libp2pNetwork, peer: Libp2pNetwork, address: str) -> None:
    """Let the peer know an address of the node, and the node ask."""
    peer.set_address_book({node.peer_id: address})
    with trio.fail_after(PATIENCE_SECONDS):
        await node.stack.reach.check()


async def test_a_node_is_reachable_if_a_peer_reaches_it(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["node", "peer"]) as (node, peer):
        assert node.reachability().reach is Reach.UNKNOWN
        await check(node, peer, node.listening[0])
        assert node.reachability().reach is Reach.REACHABLE
        assert node.reachability().advice is None


async def test_a_node_that_nobody_reaches_is_told_what_to_do(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["node", "peer"]) as (node, peer):
        await check(node, peer, NOBODY)
        result = node.reachability()
        assert result.reach is Reach.UNREACHABLE
        assert result.advice is not None
        assert node.listening[0] in result.advice
        fixes = ("open TCP port", "forward it on the router", "network.announce")
        for fix in (*fixes, "network.relay.through"):
            assert fix in result.advice


async def test_another_service_at_the_address_is_not_the_node(tmp_path: Path) -> None:
    async def say_hello(stream: trio.SocketStream) -> None:
        await stream.send_all(b"SSH-2.0-OpenSSH_9.6 and more\r\n")

    async with (
        start_networks(tmp_path, ["node", "peer"]) as (node, peer),
        trio.open_nursery() as nursery,
    ):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, say_hello, [listener])
        port = listener.socket.getsockname()[1]
        await check(node, peer, f"/ip4/127.0.0.1/tcp/{port}")
        assert node.reachability().reach is Reach.UNREACHABLE
        nursery.cancel_scope.cancel()


async def test_a_node_of_no_known_address_is_not_dialled(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["node", "peer"]) as (node, _):
        await node.stack.reach.check()
        assert node.reachability().reach is Reach.UNKNOWN


async def test_a_lie_about_a_nodes_address_does_not_make_it_unreachable(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["node", "peer"]) as (node, peer):
        peer.set_address_book({node.peer_id: NOBODY}, (), {node.peer_id: (node.listening[0],)})
        with trio.fail_after(PATIENCE_SECONDS):
            await node.stack.reach.check()
        assert node.reachability().reach is Reach.REACHABLE


async def test_one_peer_is_dialled_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start_networks(tmp_path, ["node", "peer"]) as (node, peer):
        await check(node, peer, NOBODY)
        await check(node, peer, node.listening[0])
        assert node.reachability().reach is Reach.UNREACHABLE, "it was too soon to ask again"
        monkeypatch.setattr(reach, "MIN_PAUSE_SECONDS", 0.0)
        await check(node, peer, node.listening[0])
        assert node.reachability().reach is Reach.REACHABLE


async def test_a_wrong_answer_is_blamed(tmp_path: Path) -> None:
    async def answer(stream: object) -> None:
        await stream.write(b"\x00\x00\x00\x01\xc1")  # type: ignore[attr-defined]

    async with start_networks(tmp_path, ["node", "peer"]) as (node, peer):
        peer.stack.host.set_stream_handler(DIAL_BACK_PROTOCOL, answer)  # type: ignore[arg-type]
        await node.stack.reach.check()
        assert peer.peer_id in node.conduct._penalties
        assert node.reachability().reach is Reach.UNKNOWN


async def test_a_request_of_another_kind_is_blamed(tmp_path: Path) -> None:
    async with start_networks(tmp_path, ["node", "peer"]) as (node, peer):
        stream = await open_raw_stream(node, peer.peer_id, DIAL_BACK_PROTOCOL)
        await stream.write(b"\x00\x00\x00\x02\x92\xff")
        with trio.fail_after(PATIENCE_SECONDS):
            while node.peer_id not in peer.conduct._penalties:  # noqa: ASYNC110 - no event
                await trio.sleep(0.01)
