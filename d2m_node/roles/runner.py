"""Roles switched on and off, and drained, while the node runs."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog
import trio

from d2m_node.errors import UserError
from d2m_node.logs import log_scope
from d2m_node.ports import HeraldPort, JournalPort
from d2m_node.role_control import RoleOptions, RoleState
from d2m_node.roles.shift import Shift
from d2m_node.roles.wishes import make_wish, recall_wish, remember_wish

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a role begins with."""

    options: RoleOptions
    shift: Shift


Starter = Callable[[Start, trio.TaskStatus[None]], Awaitable[None]]
"""Runs a role until it is cancelled, or has drained. Raises UserError before it is started."""


@dataclass(frozen=True, slots=True)
class _Running:
    """A role from its start to its end."""

    start: Start
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ready: trio.Event = field(default_factory=trio.Event)
    """Set when it has started, or failed to."""
    ended: trio.Event = field(default_factory=trio.Event)
    """Set when its work is done; only its end is to be written down."""
    over: trio.Event = field(default_factory=trio.Event)


class RoleRunner:
    """Runs each role in a task of its own. Commands last across restarts (see `wishes`)."""

    def __init__(
        self,
        starters: Mapping[str, Starter],
        configured: Mapping[str, bool],
        journal: JournalPort,
        herald: HeraldPort,
        nursery: trio.Nursery,
    ) -> None:
        self._starters = starters
        self._configured = configured
        self._journal = journal
        self._herald = herald
        self._nursery = nursery
        self._running: dict[str, _Running] = {}
        self._journaling = trio.Lock()  # first come, first written: the last command counts
        self._is_stopping = False

    async def stop(self) -> None:
        """Begin nothing any more; return when no role has anything left that others count on.

        A role that is still starting is cut off: it has said nothing yet.
        """
        self._is_stopping = True
        async with trio.open_nursery() as nursery:
            for running in self._running.values():
                if not running.ready.is_set():
                    running.scope.cancel()
                nursery.start_soon(running.start.shift.stop)

    def states(self) -> dict[str, RoleState]:
        """Return where every role stands."""
        return {name: self._state_of(name) for name in self._starters}

    def _state_of(self, name: str) -> RoleState:
        running = self._running.get(name)
        if running is None:
            return RoleState.OFF
        return RoleState.ON if running.start.shift.takes_jobs else RoleState.DRAINING

    async def restore(self) -> None:
        """Start the roles that the settings, or later commands, want on. Raises UserError."""
        for name in self._starters:
            if self._is_stopping:
                return
            wish = await recall_wish(self._journal, name)
            is_configured = self._configured[name]
            if wish is None or wish.is_configured != is_configured:
                if is_configured:
                    await self._start(name, RoleOptions())
            elif wish.state is not RoleState.OFF:
                await self._restart(name, wish.options, wish.state)
            elif is_configured:
                log.warning("role_stays_off", role=name, fix=f"d2m-node role enable {name}")

    async def _restart(self, name: str, options: RoleOptions, state: RoleState) -> None:
        """Go on with a role as it was; without it if what a command gave is gone."""
        is_draining = state is RoleState.DRAINING
        try:
            await self._start(name, options, is_draining=is_draining)
        except* UserError as failures:
            if options == RoleOptions():
                raise
            for failure in failures.exceptions:
                log.error("role_not_restored", role=name, reason=str(failure))

    async def enable(self, name: str, options: RoleOptions) -> None:
        """Start a role, or undo its drain; return when it is ready. Raises UserError."""
        if self._is_stopping:
            raise UserError("the node is stopping")
        running = await self._find_started(name)
        if running is None:
            await self._start(name, options)
        elif not _are_met(options, running.start.options):
            raise UserError(f"the {name} role is on; disable it to change its options")
        else:
            options = running.start.options
            was_draining = running.start.shift.is_draining
            running.start.shift.resume()
            if was_draining:
                await self._herald.tell("role.enabled", role=name)
        if self._state_of(name) is RoleState.ON:  # another command may have come meanwhile
            await self._remember(name, RoleState.ON, options)

    async def _find_started(self, name: str) -> _Running | None:
        """Return a role that is at work, or None once it is off: nothing is half way then."""
        while (running := self._running.get(name)) is not None:
            if running.ended.is_set():
                await running.over.wait()
            elif running.ready.is_set():
                return running
            else:
                await running.ready.wait()
        return None

    async def drain(self, name: str) -> None:
        """Let a role finish what it began, take nothing new, and be off then."""
        running = self._running.get(name)
        if running is None:
            raise UserError(f"the {name} role is off: it has nothing to drain")
        # Journaled first: who was told that a role drains finds it draining after a crash too.
        await self._remember(name, RoleState.DRAINING, running.start.options)
        running.start.shift.drain()
        await self._herald.tell("role.draining", role=name)

    async def disable(self, name: str) -> None:
        """Stop a role at once; its jobs go on when it is enabled again."""
        running = self._running.get(name)
        options = RoleOptions() if running is None else running.start.options
        await self._remember(name, RoleState.OFF, options)
        if running is not None:
            running.scope.cancel()
            await running.over.wait()
            log.info("role_disabled", role=name)
            await self._herald.tell("role.disabled", role=name)

    async def _start(self, name: str, options: RoleOptions, *, is_draining: bool = False) -> None:
        running = _Running(Start(options=options, shift=Shift(name, is_draining=is_draining)))
        self._running[name] = running
        try:
            await self._nursery.start(self._run, name, running)
        except RuntimeError as exc:
            if not running.scope.cancelled_caught:
                raise
            if self._is_stopping:
                return
            raise UserError(f"the {name} role was disabled while it started") from exc
        running.ready.set()
        log.info("role_enabled", role=name, state=self._state_of(name).value)
        await self._herald.tell("role.enabled", role=name)

    async def _run(
        self, name: str, running: _Running, *, task_status: trio.TaskStatus[None]
    ) -> None:
        try:
            with running.scope, log_scope(role=name, is_new_task=True):
                await self._starters[name](running.start, task_status)
                # Only a drained role comes to its end.
                running.ended.set()
                await self._remember(name, RoleState.OFF, running.start.options)
                log.info("role_drained", role=name)
                await self._herald.tell("role.drained", role=name)
        finally:
            del self._running[name]
            running.ready.set()
            running.over.set()

    async def _remember(self, name: str, state: RoleState, options: RoleOptions) -> None:
        wish = make_wish(state, options, is_configured=self._configured[name])
        async with self._journaling:
            await remember_wish(self._journal, name, wish)


def _are_met(wanted: RoleOptions, given: RoleOptions) -> bool:
    """Tell whether a role runs with all that a command names."""
    is_dataset_met = wanted.dataset in (None, given.dataset)
    return is_dataset_met and wanted.stake_wei in (None, given.stake_wei)
