"""PeerRegistry: which network identity speaks for which account."""

import boa

from tests.contracts.world import World, make_actor


def test_the_latest_binding_of_an_account_wins(world: World) -> None:
    node, other = make_actor("node").address, make_actor("other node").address
    world.peers.bind_peer(b"first", b"/ip4/127.0.0.1/tcp/1", sender=node)
    world.peers.bind_peer(b"other", b"", sender=other)
    world.peers.bind_peer(b"second", b"/ip4/127.0.0.1/tcp/2", sender=node)

    bound = world.peers.peer_of(node)
    assert (bound.peer_id, bound.multiaddr) == (b"second", b"/ip4/127.0.0.1/tcp/2")
    assert world.peers.peer_of(other).peer_id == b"other"


def test_a_binding_is_logged_with_all_it_holds(world: World) -> None:
    node = make_actor("node").address
    world.peers.bind_peer(b"peer", b"/dns/node/tcp/1", sender=node)
    (event,) = world.peers.get_logs()
    assert (event.account, event.peer_id, event.multiaddr) == (node, b"peer", b"/dns/node/tcp/1")


def test_a_binding_without_a_peer_is_refused(world: World) -> None:
    with boa.reverts("peers: no peer id"):
        world.peers.bind_peer(b"", b"/ip4/127.0.0.1/tcp/1")
