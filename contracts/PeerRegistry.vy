#pragma version 0.4.3
#pragma nonreentrancy on
"""
@title Peer registry
@license Apache-2.0
@notice Binds an account to the network identity that speaks for it. The latest entry wins.
"""

from interfaces import IPeerRegistry

implements: IPeerRegistry

peers: HashMap[address, IPeerRegistry.Peer]


@external
def bind_peer(peer_id: Bytes[64], multiaddr: Bytes[256]):
    """
    @notice Say under which network identity and address the caller can be reached.
    @param peer_id Identity of the caller's node.
    @param multiaddr Address to dial; may be empty if the node is found otherwise.
    """
    assert len(peer_id) > 0, "peers: no peer id"

    self.peers[msg.sender] = IPeerRegistry.Peer(peer_id=peer_id, multiaddr=multiaddr)
    log IPeerRegistry.PeerBound(account=msg.sender, peer_id=peer_id, multiaddr=multiaddr)


@external
@view
def peer_of(account: address) -> IPeerRegistry.Peer:
    """
    @notice Where an account's node can be reached.
    @param account Account that may have bound a peer.
    @return The latest binding; empty if there is none.
    """
    return self.peers[account]
