"""What nodes see of the simulated chain: the same blocks, each group after its own delay.

Everything is kept once and shared: a screen only says how far it has got.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import trio

from d2m_node.simulation.chain_blocks import MinedBlock
from protocol.market import MarketState


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tip:
    """The chain as of one newest block."""

    block: MinedBlock
    state: MarketState
    history_end: int
    """How many entries of the history led to it."""
    seconds: float
    """Virtual time at which it was mined."""


class Screen:
    """Shows each tip some time after it was mined."""

    def __init__(self, tip: Tip, delay_seconds: float) -> None:
        """Show a tip at once, and later ones ``delay_seconds`` after their time."""
        self._delay_seconds = delay_seconds
        self._tip = tip
        self._coming: list[Tip] = []
        self._noted = trio.Event()
        self._advanced = trio.Event()

    @property
    def delay_seconds(self) -> float:
        """How much later than the chain it is."""
        return self._delay_seconds

    @property
    def tip(self) -> Tip:
        """What is shown."""
        return self._tip

    @property
    def advanced(self) -> trio.Event:
        """Set when something else is shown."""
        return self._advanced

    def note(self, tip: Tip) -> None:
        """Take a tip to show, now or when its time has come."""
        if self._delay_seconds == 0:
            self._show(tip)
        else:
            self._coming.append(tip)
            self._noted.set()

    async def run(self) -> NoReturn:
        """Show tips as their time comes."""
        while True:
            await self._noted.wait()
            await trio.sleep_until(self._coming[0].seconds + self._delay_seconds)
            tip = self._coming.pop(0)
            if not self._coming:
                self._noted = trio.Event()
            self._show(tip)

    def _show(self, tip: Tip) -> None:
        self._tip = tip
        self._advanced.set()
        self._advanced = trio.Event()


@dataclass(frozen=True, slots=True, eq=False)
class Outage:
    """The time in which one account does not reach the chain."""

    tips: Mapping[Screen, Tip]
    """What each screen showed when it began."""
    over: trio.Event = field(default_factory=trio.Event)
