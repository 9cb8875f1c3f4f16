"""This machine's clock, held against the chain's.

Deadlines are blocks and waits are monotonic, so that a wrong clock breaks no job. What it does
break are logs, tokens that expire, and certificates of endpoints; so it is worth a warning, and
never takes a node out of service. The log, `doctor`, `status`, `/readyz` and the metrics share
`ClockReading.find_fault`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

import structlog
import trio

from d2m_node.errors import ChainUnavailable
from d2m_node.ports import ChainPort
from protocol.block_header import read_timestamp
from protocol.types import BlockNumber

PERIOD_SECONDS: Final = 60.0
BEHIND_SECONDS: Final = 15
"""No block may be further in the future, by the rules of the chain."""
AHEAD_SECONDS: Final = 900
"""An older newest block says that the chain is silent, or that this clock is ahead."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFault:
    """What is wrong with a clock, and what to do."""

    reason: str
    fix: str
    is_certain: bool
    """False if the chain may be at fault instead."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.fix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReading:
    """What two clocks said at once, in seconds since 1970."""

    own_seconds: int
    block_number: BlockNumber
    block_seconds: int
    """Of the newest block followed."""

    @property
    def age_seconds(self) -> int:
        """Of the block, as this clock has it; negative if it is of the future."""
        return self.own_seconds - self.block_seconds

    def find_fault(self) -> ClockFault | None:
        """Say what is wrong, if anything is."""
        age = self.age_seconds
        if -age > BEHIND_SECONDS:
            return ClockFault(
                reason=f"this clock is at least {-age} s behind the chain",
                fix="set it, by NTP for instance",
                is_certain=True,
            )
        if age > AHEAD_SECONDS:
            return ClockFault(
                reason=f"block {self.block_number}, the newest, is {age} s old",
                fix="the endpoint is stuck, the chain is silent, or this clock is ahead; check NTP",
                is_certain=False,
            )
        return None


class Clock:
    """Compares the clocks every minute, and keeps the last comparison for whoever asks."""

    def __init__(self, chain: ChainPort, now: Callable[[], float] = time.time) -> None:
        self._chain = chain
        self._now = now
        self.latest: ClockReading | None = None

    async def read(self) -> ClockReading:
        """Compare now. Raises ChainUnavailable."""
        block_number = self._chain.state.block_number
        header = await self._chain.read_header(block_number)
        self.latest = ClockReading(
            own_seconds=int(self._now()),
            block_number=block_number,
            block_seconds=read_timestamp(header),
        )
        return self.latest

    def find_fault(self) -> ClockFault | None:
        """Say what was wrong at the last comparison; None before the first one."""
        return None if self.latest is None else self.latest.find_fault()

    async def watch(self) -> NoReturn:
        """Compare until cancelled; tell when a fault comes and when it goes."""
        told: ClockFault | None = None
        while True:
            try:
                fault = (await self.read()).find_fault()
            except ChainUnavailable:
                fault = told  # the follower tells of that
            if fault is not None and told is None:
                log.warning("clock_is_off", reason=str(fault))
            if fault is None and told is not None:
                log.info("clock_is_right")
            told = fault
            await trio.sleep(PERIOD_SECONDS)
