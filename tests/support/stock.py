"""py-libp2p as it comes, without our patches and settings: what the patches are held against."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.peer.peerinfo import PeerInfo
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from d2m_node.network import hardening
from tests.support.network import LOCAL, PATIENCE_SECONDS

_MISSING: Final = object()

# Read when tests are collected, before any host is built.
STOCK: Final = {
    (target, name): getattr(target, name, _MISSING) for target, name, _ in hardening.PATCHES
}
STOCK_LOG_PROPAGATES: Final = logging.getLogger("libp2p").propagate


class Unpatched:
    """Undoes patches until the end of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def restore(self, *names: str) -> None:
        """Put what stock has, or has not, in the place of some patches."""
        kept = [patch for patch in hardening.PATCHES if patch[1] not in names]
        for target, name, replacement in hardening.PATCHES:
            if name not in names:
                continue
            setattr(target, name, replacement)  # what the end of the test puts back
            stock = STOCK[target, name]
            if stock is _MISSING:
                self._monkeypatch.delattr(target, name)
            else:
                self._monkeypatch.setattr(target, name, stock)
        self._monkeypatch.setattr(hardening, "PATCHES", kept)

    def restore_all(self) -> None:
        """Leave no patch in place."""
        self.restore(*(name for _, name in STOCK))


def build_stock_host(**options: Any) -> BasicHost:
    host = new_host(key_pair=create_new_key_pair(), **options)
    assert isinstance(host, BasicHost)
    return host


@asynccontextmanager
async def run_stock_hosts(*hosts: BasicHost) -> AsyncIterator[None]:
    """Let hosts listen, each of the later ones connected with the first."""
    if not hosts:
        yield
        return
    first, *others = hosts
    async with first.run([Multiaddr(LOCAL)]), _run_all(others):
        for other in others:
            await other.connect(PeerInfo(first.get_id(), first.get_transport_addrs()))
        yield


@asynccontextmanager
async def _run_all(hosts: list[BasicHost]) -> AsyncIterator[None]:
    if not hosts:
        yield
        return
    async with hosts[0].run([Multiaddr(LOCAL)]), _run_all(hosts[1:]):
        yield


@dataclass(frozen=True, slots=True)
class StockGossip:
    """A host and what it gossips with."""

    host: BasicHost
    pubsub: Pubsub


@asynccontextmanager
async def run_stock_gossip(**router_options: Any) -> AsyncIterator[StockGossip]:
    """Listen and gossip with stock's defaults, but for a heartbeat of a second."""
    host = build_stock_host()
    router = GossipSub(
        [hardening.GOSSIP_PROTOCOL], 6, 4, 12, heartbeat_interval=1, **router_options
    )
    pubsub = Pubsub(host, router)
    async with (
        host.run([Multiaddr(LOCAL)]),
        background_trio_service(pubsub),
        background_trio_service(router),
    ):
        await pubsub.wait_until_ready()
        yield StockGossip(host, pubsub)


async def connect_subscribed(speaker: StockGossip, listener: StockGossip, topic: str) -> None:
    """Connect, and wait until the speaker knows that the listener wants the topic."""
    target = PeerInfo(listener.host.get_id(), listener.host.get_transport_addrs())
    await speaker.host.connect(target)
    await speaker.pubsub.wait_for_subscription(listener.host.get_id(), topic, PATIENCE_SECONDS)
