"""A message is offered to who may lack it, and not again and again."""

from pathlib import Path
from typing import Any

import trio
from libp2p.peer.id import ID

from d2m_node.network.hardening import HardenedGossipSub
from d2m_node.network.offers import MAX_OFFERS, Offers
from tests.support.network import (
    PATIENCE_SECONDS,
    accept,
    build_bitmap,
    start_networks,
    wait_subscribed,
)

CONE, SELLER = ID(b"cone"), ID(b"seller")
TOPIC = "d2m/2/31337/market/1/votes"


def test_a_message_is_offered_to_each_peer_so_often_and_no_more() -> None:
    offers = Offers(lambda _message: True)
    for _ in range(MAX_OFFERS):
        assert offers.choose(CONE, [b"a", b"b"]) == [b"a", b"b"]
    assert offers.choose(CONE, [b"a", b"b", b"c"]) == [b"c"]
    assert offers.choose(SELLER, [b"a"]) == [b"a"]


def test_who_has_a_message_is_not_offered_it() -> None:
    offers = Offers(lambda _message: True)
    offers.note_has(CONE, [b"a"])
    assert offers.choose(CONE, [b"a", b"b"]) == [b"b"]
    assert offers.choose(SELLER, [b"a"]) == [b"a"]


def test_what_a_peer_offers_takes_no_memory_unless_we_have_it() -> None:
    kept = {b"a"}
    offers = Offers(kept.__contains__)
    offers.note_has(CONE, [b"a", *(b"%d" % number for number in range(1000))])
    assert set(offers._offered) == kept
    kept.clear()
    offers.forget_old()
    assert not offers._offered


async def test_neighbours_outside_the_mesh_are_offered_a_message_twice_at_most(
    tmp_path: Path, monkeypatch: Any
) -> None:
    heartbeats, offered = [], []
    beat, emit = HardenedGossipSub.gossip_heartbeat, HardenedGossipSub._emit_control_msgs

    def count_beats(self: HardenedGossipSub) -> Any:
        self.mesh.get(TOPIC, set()).clear()
        heartbeats.append(self)
        return beat(self)

    async def count_offers(self: HardenedGossipSub, graft: Any, prune: Any, gossip: Any) -> None:
        offered.extend(gossip)
        await emit(self, graft, prune, gossip)

    monkeypatch.setattr(HardenedGossipSub, "gossip_heartbeat", count_beats)
    monkeypatch.setattr(HardenedGossipSub, "_emit_control_msgs", count_offers)
    async with (
        start_networks(tmp_path, ["one", "other"], heartbeat_seconds=0.02) as (one, other),
        one.join_topic(TOPIC, accept),
        other.join_topic(TOPIC, accept) as heard,
    ):
        await wait_subscribed(one, other, TOPIC)
        await wait_subscribed(other, one, TOPIC)
        await one.publish(TOPIC, build_bitmap(1))
        with trio.fail_after(PATIENCE_SECONDS):
            await heard.receive()
            said = len(heartbeats)
            while len(heartbeats) < said + 40:  # noqa: ASYNC110 - heartbeats have no event
                await trio.sleep(0.01)
    # The one who sent it is known to have it; stock offers it five times, both ways.
    assert 1 <= len(offered) <= MAX_OFFERS
