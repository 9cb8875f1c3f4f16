"""What nodes see of the simulated chain: the same blocks, each group after its own delay.

Everything is kept once and shared: a screen only says how far it has got.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import NoReturn

import trio

from d2m_node.simulation.chain.blocks import MinedBlock
from protocol.market import MarketState


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tip:
    """The chain as of one newest block."""

    block: MinedBlock
    state: MarketState
    history_end: int
    """How many entries of the history led to it."""


class Screen:
    """Shows the chain some time after it is mined."""

    def __init__(self, tip: Tip, delay_seconds: float) -> None:
        """Show a tip at once; later ones are for `Screens` to bring."""
        self._delay_seconds = delay_seconds
        self._tip = tip
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

    def show(self, tip: Tip) -> None:
        """Show a tip, and wake all who wait for one."""
        self._tip = tip
        self._advanced.set()
        self._advanced = trio.Event()


class Screens:
    """One screen per delay and confirmations, and the tips that are on their way to them."""

    def __init__(self, make_tip: Callable[[int], Tip]) -> None:
        """Take what makes the tip that so many newer blocks confirm."""
        self._make_tip = make_tip
        self._by_place: dict[tuple[float, int], Screen] = {}
        self._coming: list[tuple[float, int, Screen, Tip]] = []
        """A heap by the virtual time at which each is to be shown."""
        self._order = count()
        self._noted = trio.Event()

    def find(self, delay_seconds: float = 0.0, confirmations: int = 0) -> Screen:
        """Return the screen of a delay; a new one begins with the newest tip."""
        place = (delay_seconds, confirmations)
        screen = self._by_place.get(place)
        if screen is None:
            tip = self._make_tip(confirmations)
            screen = self._by_place[place] = Screen(tip, delay_seconds)
        return screen

    def read_all(self) -> Mapping[Screen, Tip]:
        """Return what every screen shows."""
        return {screen: screen.tip for screen in self._by_place.values()}

    def publish(self) -> None:
        """Show the newest tips on all screens, now or when their time has come."""
        now = trio.current_time()
        tips: dict[int, Tip] = {}
        for (delay_seconds, confirmations), screen in self._by_place.items():
            if confirmations not in tips:
                tips[confirmations] = self._make_tip(confirmations)
            tip = tips[confirmations]
            if delay_seconds == 0:
                screen.show(tip)
            else:
                heappush(self._coming, (now + delay_seconds, next(self._order), screen, tip))
        self._noted.set()

    async def run(self) -> NoReturn:
        """Show tips as their time comes."""
        while True:
            with trio.move_on_at(self._coming[0][0] if self._coming else inf):
                await self._noted.wait()
            if self._noted.is_set():
                self._noted = trio.Event()
            now = trio.current_time()
            while self._coming and self._coming[0][0] <= now:
                *_, screen, tip = heappop(self._coming)
                screen.show(tip)


@dataclass(frozen=True, slots=True, eq=False)
class Outage:
    """The time in which one account does not reach the chain."""

    tips: Mapping[Screen, Tip]
    """What each screen showed when it began."""
    over: trio.Event = field(default_factory=trio.Event)
