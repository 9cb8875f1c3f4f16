"""Faults fade, whether the node runs or not, and nobody gets rid of its own by making up others."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from d2m_node.network.conduct import MAX_REMEMBERED, Conduct
from d2m_node.network.counts import NetworkCounts
from tests.support.network import build_settings

PEER = b"peer"


def make_conduct() -> Conduct:
    """Ten faults ban, and half of them are forgotten after a minute."""
    settings = build_settings(
        Path("unused"), max_penalty=10.0, penalty_half_life_seconds=60.0, ban_seconds=300.0
    )
    return Conduct(settings, NetworkCounts())


async def test_penalties_fade_while_the_node_runs(autojump_clock: MockClock) -> None:
    conduct = make_conduct()
    for _ in range(4):
        conduct.blame(PEER, "test")
    await trio.sleep(120)
    assert conduct.penalties()[PEER] == pytest.approx(1.0)
    await trio.sleep(3600)
    assert PEER not in conduct.penalties(), "what weighs nothing is not shown"


@pytest.mark.parametrize(("seconds_ago", "left"), [(0.0, 8.0), (60.0, 4.0), (180.0, 1.0)])
async def test_penalties_fade_while_the_node_is_down(seconds_ago: float, left: float) -> None:
    conduct = make_conduct()
    conduct.resume_penalty(PEER, 8.0, seconds_ago)
    assert conduct.penalties()[PEER] == pytest.approx(left, rel=1e-3)


async def test_a_penalty_of_long_ago_is_forgotten() -> None:
    conduct = make_conduct()
    conduct.resume_penalty(PEER, 9.0, 3600.0)
    assert conduct.penalties() == {}


async def test_the_next_fault_counts_on_top_of_what_was_kept(autojump_clock: MockClock) -> None:
    conduct = make_conduct()
    conduct.resume_penalty(PEER, 9.5, 0.0)
    assert not conduct.is_banned(PEER)
    conduct.blame(PEER, "one too many")
    assert conduct.is_banned(PEER)


@pytest.mark.parametrize("kept", [10.0, 1e300, float("inf")])
async def test_what_is_kept_bans_nobody_by_itself_and_no_clock_makes_it_more(kept: float) -> None:
    conduct = make_conduct()
    conduct.resume_penalty(PEER, kept, -(10.0**9))
    assert not conduct.is_banned(PEER)
    assert conduct.penalties()[PEER] < 10.0


async def test_what_is_kept_follows_each_fault_and_goes_with_a_ban(
    autojump_clock: MockClock,
) -> None:
    conduct, kept = make_conduct(), []
    conduct.keep_penalty = lambda peer_id, penalty: kept.append((peer_id, penalty))
    for _ in range(10):
        conduct.blame(PEER, "test")
    assert [penalty for _, penalty in kept] == pytest.approx([*range(1, 10), 0])
    assert conduct.penalties() == {}
    assert conduct.ban_seconds(PEER) == pytest.approx(300.0)


async def test_made_up_identities_push_out_the_smallest_penalties_only(
    autojump_clock: MockClock,
) -> None:
    conduct = make_conduct()
    for _ in range(9):
        conduct.blame(PEER, "test")
    for number in range(2 * MAX_REMEMBERED):
        conduct.blame(number.to_bytes(4, "big"), "test")
    found = conduct.penalties()
    assert len(found) == MAX_REMEMBERED
    assert found[PEER] == pytest.approx(9.0)
