"""Places to be served at: whoever is slow gives way, and only to those who wait."""

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from d2m_node.errors import PeerUnreachable
from d2m_node.network.lanes import Lanes

TURN_SECONDS = 10.0
KNOWN = b"known"


def build_lanes(count: int, on_cut: Callable[[bytes], None] = lambda _: None) -> Lanes:
    return Lanes(
        count,
        per_peer=2,
        turn_seconds=TURN_SECONDS,
        is_known=lambda peer_id: peer_id.startswith(KNOWN),
        on_cut=on_cut,
    )


async def take_for_ever(
    lanes: Lanes, peer_id: bytes, bytes_per_second: int, cut: list[bytes]
) -> None:
    """Take a blob that has no end, and note when it is cut off."""
    try:
        async with lanes.enter(peer_id) as lane:
            lane.begin()
            while True:
                await trio.sleep(1.0)
                lane.sent_bytes += bytes_per_second
    except PeerUnreachable:
        cut.append(peer_id)


async def test_a_slow_peer_may_take_its_time_while_nobody_waits(autojump_clock: MockClock) -> None:
    lanes, cut = build_lanes(2), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_for_ever, lanes, b"slow", 1, cut)
        await trio.sleep(100 * TURN_SECONDS)
        async with lanes.enter(b"other"):
            pass
        assert cut == []
        nursery.cancel_scope.cancel()


async def test_the_slowest_gives_way_once_it_has_had_its_turn(autojump_clock: MockClock) -> None:
    lanes, cut = build_lanes(3), []
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for peer_id, speed in ((b"fast", 1000), (b"slow", 1), (b"middling", 10)):
            nursery.start_soon(take_for_ever, lanes, peer_id, speed, cut)
        await wait_all_tasks_blocked()
        async with lanes.enter(b"other"):
            assert cut == [b"slow"]
            assert trio.current_time() - began == pytest.approx(TURN_SECONDS)
        nursery.cancel_scope.cancel()


async def test_everybody_gets_a_turn_while_slow_peers_keep_coming(
    autojump_clock: MockClock,
) -> None:
    """Many more slow peers than places, each back at once: all who wait are let in."""
    lanes = build_lanes(4)
    turns = dict.fromkeys((b"slow %d" % number for number in range(20)), 0)

    async def come_back(peer_id: bytes) -> None:
        cut: list[bytes] = []
        while True:
            await take_for_ever(lanes, peer_id, 1, cut)
            turns[peer_id] += 1

    async with trio.open_nursery() as nursery:
        for peer_id in turns:
            nursery.start_soon(come_back, peer_id)
        await trio.sleep(20 * TURN_SECONDS)
        nursery.cancel_scope.cancel()
    assert min(turns.values()) >= 2


async def test_a_known_peer_is_let_in_before_strangers_that_came_first(
    autojump_clock: MockClock,
) -> None:
    lanes, order = build_lanes(1), []

    async def visit(peer_id: bytes) -> None:
        async with lanes.enter(peer_id):
            order.append(peer_id)

    async with trio.open_nursery() as nursery, lanes.enter(b"first"):
        for peer_id in (b"stranger 1", b"stranger 2", KNOWN):
            nursery.start_soon(visit, peer_id)
            await wait_all_tasks_blocked()
    assert order == [KNOWN, b"stranger 1", b"stranger 2"]


async def test_nobody_who_is_known_gives_way_to_a_stranger(autojump_clock: MockClock) -> None:
    lanes, cut = build_lanes(1), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_for_ever, lanes, KNOWN, 1, cut)
        await wait_all_tasks_blocked()
        with trio.move_on_after(10 * TURN_SECONDS) as patience:
            async with lanes.enter(b"stranger"):
                pass
        assert patience.cancelled_caught
        async with lanes.enter(KNOWN + b" too"):
            assert cut == [KNOWN]
        nursery.cancel_scope.cancel()


async def test_strangers_give_way_before_slower_peers_that_are_known(
    autojump_clock: MockClock,
) -> None:
    lanes, cut = build_lanes(2), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_for_ever, lanes, KNOWN, 1, cut)
        nursery.start_soon(take_for_ever, lanes, b"stranger", 1000, cut)
        await wait_all_tasks_blocked()
        async with lanes.enter(KNOWN + b" too"):
            assert cut == [b"stranger"]
        nursery.cancel_scope.cancel()


async def test_who_waits_for_us_has_not_had_its_turn(autojump_clock: MockClock) -> None:
    """Until the first byte is there to be sent, the peer is not the slow one."""
    lanes = build_lanes(1)
    async with lanes.enter(b"peer"):
        with trio.move_on_after(10 * TURN_SECONDS) as patience:
            async with lanes.enter(b"other"):
                pass
        assert patience.cancelled_caught


async def test_who_is_cancelled_while_it_waits_takes_no_place_along(
    autojump_clock: MockClock,
) -> None:
    lanes = build_lanes(1)
    async with lanes.enter(b"first"):
        with trio.move_on_after(1.0):
            async with lanes.enter(b"impatient"):
                pass
    async with lanes.enter(b"other"):
        pass


async def test_cuts_are_told(autojump_clock: MockClock) -> None:
    told: list[bytes] = []
    lanes = build_lanes(1, told.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_for_ever, lanes, b"slow", 1, [])
        await wait_all_tasks_blocked()
        async with lanes.enter(b"other"):
            pass
        nursery.cancel_scope.cancel()
    assert told == [b"slow"]
