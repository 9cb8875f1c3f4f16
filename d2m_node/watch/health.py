"""Is the process well, and is the node of use? Each answer says why.

*Alive* is what a supervisor restarts for: the event loop turns and the store can be written.
*Ready* is what an operator waits for: the chain is followed to its tip, there are peers, and the
roles that the settings name are on. A clock that is off is told, and breaks no job: the node stays
ready.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import trio

from d2m_node.errors import FatalError
from d2m_node.measures import MeasuredStore
from d2m_node.role_control import RoleState
from d2m_node.watch.loop import LoopMonitor
from d2m_node.watch.sources import Sources

SILENT_SECONDS: Final = 60.0
"""A chain that no endpoint has told of for so long is not followed."""
LAG_BLOCKS: Final = 5
"""So many blocks behind what counts is still at the tip."""
STORE_SECONDS: Final = 5.0
"""A disk on which a small write takes longer is as good as none. The write itself cannot be
cancelled: on a disk that hangs, nobody is answered."""
FRESH_SECONDS: Final = 1.0
"""So long the last word on the store holds: asking more often must not wear the disk."""
STALL_SECONDS: Final = 10.0
"""A task that is so late now was starved: the loop does not turn well."""


@dataclass(frozen=True, slots=True)
class Check:
    """One condition, and why it holds or not."""

    name: str
    is_ok: bool
    detail: str
    is_needed: bool = True
    """Whether a node is unwell without it; else it is only told."""


@dataclass(slots=True)
class Startup:
    """How far the node has come; whoever starts it writes it down."""

    step: str = "following the chain, joining the network"
    """What the node is at, as long as it is starting."""
    is_complete: bool = False
    """Everything that the settings name has been started."""
    is_stopping: bool = False


class Health:
    """Asks the parts; before they are there it says what the node is at."""

    def __init__(self, store: MeasuredStore, loop: LoopMonitor, startup: Startup) -> None:
        self._store = store
        self._loop = loop
        self._startup = startup
        self._sources: Sources | None = None
        self._lock = trio.Lock()
        self._last: Check | None = None
        self._asked_at = 0.0

    def attach(self, sources: Sources) -> None:
        """Name the parts, once they are open."""
        self._sources = sources

    async def check_liveness(self) -> Sequence[Check]:
        """Check what a restart may mend."""
        return [self._check_loop(), await self._check_store()]

    async def check_readiness(self) -> Sequence[Check]:
        """Check everything."""
        checks = [*await self.check_liveness(), self._check_roles()]
        if self._sources is None:
            return checks
        return [
            *checks,
            check_chain(self._sources),
            check_network(self._sources),
            check_clock(self._sources),
        ]

    def _check_loop(self) -> Check:
        late = self._loop.late_seconds()
        worst = max(self._loop.worst_seconds(), late)
        return Check("loop", late < STALL_SECONDS, f"at most {worst:.3f} s late in the last minute")

    async def _check_store(self) -> Check:
        async with self._lock:
            now = trio.current_time()
            if self._last is None or now - self._asked_at > FRESH_SECONDS:
                self._last = await self._try_to_write()
                self._asked_at = trio.current_time()
            return self._last

    async def _try_to_write(self) -> Check:
        started_at = trio.current_time()
        try:
            await self._store.check_writable()
        except FatalError as exc:
            return Check("store", is_ok=False, detail=str(exc))
        took = trio.current_time() - started_at
        if took > STORE_SECONDS:
            return Check("store", is_ok=False, detail=f"a write took {took:.1f} s")
        return Check("store", is_ok=True, detail="writable")

    def _check_roles(self) -> Check:
        if self._startup.is_stopping:
            return Check("roles", is_ok=False, detail="the node is stopping")
        if not self._startup.is_complete or self._sources is None:
            return Check("roles", is_ok=False, detail=f"starting: {self._startup.step}")
        told = [
            name if state is RoleState.ON else f"{name} ({state.value})"
            for name, state in sorted(self._sources.roles().items())
            if state is not RoleState.OFF
        ]
        detail = ", ".join(told) or "none: the node observes"
        is_any_failed = RoleState.FAILED in self._sources.roles().values()
        return Check("roles", is_ok=not is_any_failed, detail=detail)


def check_chain(sources: Sources) -> Check:
    """Check that the chain answers, and is followed to its tip."""
    reading, followed = sources.chain.measure(), sources.chain.state.block_number
    if reading.silent_seconds > SILENT_SECONDS:
        seconds = f"{reading.silent_seconds:.0f} s"
        return Check("chain", is_ok=False, detail=f"no endpoint has answered for {seconds}")
    lag = max(reading.target_number - followed, 0)
    return Check("chain", lag <= LAG_BLOCKS, f"block {followed}, {lag} behind what counts")


def check_clock(sources: Sources) -> Check:
    """Tell whether this machine's clock agrees with the chain's."""
    fault = sources.clock_fault()
    detail = "agrees with the chain's" if fault is None else str(fault)
    return Check("clock", fault is None, detail, is_needed=False)


def check_network(sources: Sources) -> Check:
    """Check that there is a peer, if any other node is known."""
    peers = sources.network.peers()
    connected = sum(peer.connected for peer in peers)
    if not peers:
        return Check("network", is_ok=True, detail="no other node is known yet")
    if connected:
        return Check("network", is_ok=True, detail=f"{connected} of {len(peers)} peers")
    errors = [peer.last_error for peer in peers if peer.last_error]
    detail = f"none of {len(peers)} peers is connected: {errors[0] if errors else 'dialling'}"
    return Check("network", is_ok=False, detail=detail)
