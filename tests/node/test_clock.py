"""A wrong clock is told from the blocks' time, when it goes wrong and when it is right again."""

from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from d2m_node.clock import AHEAD_SECONDS, BEHIND_SECONDS, PERIOD_SECONDS, Clock, ClockReading
from d2m_node.errors import ChainUnavailable
from protocol.block_header import FIRST_NUMBER_AT
from protocol.market import MarketState
from protocol.types import BlockNumber

NOW = 1_800_000_000


class Chain:
    """Only what a clock asks of a chain: the newest block's header."""

    state = MarketState(block_number=BlockNumber(7))
    seconds = NOW
    is_up = True

    async def read_header(self, number: BlockNumber) -> bytes:
        assert number == 7
        if not self.is_up:
            raise ChainUnavailable("down")
        field = b"\x84" + self.seconds.to_bytes(4, "big")
        return bytes(FIRST_NUMBER_AT) + b"\x80\x07\x01\x01" + field + b"\x80"


def make_clock(chain: Chain) -> Clock:
    port: Any = chain
    return Clock(port, now=lambda: NOW + 0.9)


@pytest.mark.parametrize(
    ("age", "fault"),
    [
        (0, None),
        (AHEAD_SECONDS, None),
        (-BEHIND_SECONDS, None),
        (-BEHIND_SECONDS - 1, "this clock is at least 16 s behind the chain"),
        (AHEAD_SECONDS + 1, "block 7, the newest, is 901 s old"),
    ],
)
async def test_a_clock_is_held_against_the_newest_block(age: int, fault: str | None) -> None:
    chain = Chain()
    chain.seconds = NOW - age
    reading = await make_clock(chain).read()
    assert reading == ClockReading(
        own_seconds=NOW, block_number=BlockNumber(7), block_seconds=NOW - age
    )
    found = reading.find_fault()
    assert found is None if fault is None else str(found).startswith(fault)


async def test_a_fault_is_told_when_it_comes_and_when_it_goes(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    chain = Chain()
    clock = make_clock(chain)
    with capture_logs() as logs:
        assert clock.find_fault() is None, "nothing is known yet"
        nursery.start_soon(clock.watch)
        for seconds, is_up in ((NOW, True), (NOW + 99, True), (NOW + 99, False), (NOW, True)):
            chain.seconds, chain.is_up = seconds, is_up
            await trio.sleep(2 * PERIOD_SECONDS)
    assert [one["event"] for one in logs] == ["clock_is_off", "clock_is_right"]
    assert clock.latest is not None
    assert clock.find_fault() is None
