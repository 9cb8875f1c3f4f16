"""Peers, gossip and streams over libp2p: the only package that imports it."""
