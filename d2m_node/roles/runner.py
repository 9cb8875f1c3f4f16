"""Roles switched on and off, and drained, while the node runs."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog
import trio

from d2m_node.errors import (
    JobFailed,
    PrivacyBudgetSpent,
    TransactionReverted,
    TransientError,
    UserError,
)
from d2m_node.logs import log_scope
from d2m_node.ports import HeraldPort, JournalPort
from d2m_node.role_control import RoleOptions, RoleState
from d2m_node.roles.shift import Shift
from d2m_node.roles.wishes import make_wish, recall_wish, remember_wish
from protocol.errors import ProtocolError
from protocol.types import BlockNumber

RETRY_SECONDS: Final = 60.0
"""Between two starts of a role, if the first one failed by what may pass."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a role begins with."""

    options: RoleOptions
    shift: Shift


Starter = Callable[[Start, trio.TaskStatus[None]], Awaitable[None]]
"""Runs a role until it is cancelled, or has drained. Before it is started it may raise what is in
`START_FAILURES`; anything else ends the node."""

START_FAILURES: Final = (
    UserError,
    TransientError,
    TransactionReverted,
    PrivacyBudgetSpent,
    JobFailed,
    ProtocolError,
)


class Promises(Protocol):
    """What roles have signed, and must open yet."""

    async def find_end(self, role: str) -> BlockNumber | None:
        """Return the last block in which a role has something to open; None without anything."""

    async def wait_next(self) -> None:
        """Return when it may have changed."""


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


class _Disabled(UserError):
    """Not the role failed: a command came before it had started."""


class RoleRunner:
    """Runs each role in a task of its own. Commands last across restarts (see `wishes`)."""

    def __init__(
        self,
        starters: Mapping[str, Starter],
        configured: Mapping[str, bool],
        memory: tuple[JournalPort, HeraldPort],
        promises: Promises,
        nursery: trio.Nursery,
    ) -> None:
        self._starters = starters
        self._configured = configured
        self._journal, self._herald = memory
        self._promises = promises
        self._nursery = nursery
        self._running: dict[str, _Running] = {}
        self._failures: dict[str, str] = {}
        """Why roles that are to be on could not start."""
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
            return RoleState.FAILED if name in self._failures else RoleState.OFF
        shift = running.start.shift
        if shift.is_closing:
            return RoleState.CLOSING
        return RoleState.ON if shift.takes_jobs else RoleState.DRAINING

    def notes(self) -> dict[str, str]:
        """Say more of the roles of which there is more to say: failed or closing ones."""
        notes = dict(self._failures)
        for name, running in self._running.items():
            if running.start.shift.is_closing:
                notes[name] = "opens what it has committed to, then it is off"
        return notes

    async def restore(self) -> None:
        """Start the roles that the settings, or later commands, want on, side by side.

        One that cannot start is told in the log and in `notes`, and the others go on.
        """
        async with trio.open_nursery() as nursery:
            for name in self._starters:
                nursery.start_soon(self._restore, name)

    async def _restore(self, name: str) -> None:
        wish = await recall_wish(self._journal, name)
        is_configured = self._configured[name]
        if wish is None or wish.is_configured != is_configured:
            if is_configured:
                await self._begin(name, RoleOptions(), RoleState.ON)
        elif wish.state is RoleState.CLOSING and await self._promises.find_end(name) is None:
            await self._remember(name, RoleState.OFF, wish.options)
        elif wish.state is not RoleState.OFF:
            await self._begin(name, wish.options, wish.state)
        elif is_configured:
            log.warning("role_stays_off", role=name, fix=f"d2m-node role enable {name}")

    async def _begin(self, name: str, options: RoleOptions, state: RoleState) -> None:
        """Go on with a role as it was, or note why that cannot be."""
        if self._is_stopping:
            return
        try:
            await self._start(name, options, state)
        except* _Disabled:
            log.info("role_not_started", role=name)
        except* START_FAILURES as failures:
            reason = "; ".join(_list_reasons(failures))
            is_known = self._failures.get(name) == reason
            self._failures[name] = reason
            if not is_known:
                fix = f"mend it, then d2m-node role enable {name}"
                log.error("role_failed", role=name, reason=reason, fix=fix)
                await self._herald.tell("role.failed", role=name, reason=reason)
            if failures.subgroup(TransientError) is not None:
                self._nursery.start_soon(self._begin_again, name, options, state)

    async def _begin_again(self, name: str, options: RoleOptions, state: RoleState) -> None:
        """Try once more after a while, unless a command came in between."""
        await trio.sleep(RETRY_SECONDS)
        if self._state_of(name) is RoleState.FAILED:
            await self._begin(name, options, state)

    async def enable(self, name: str, options: RoleOptions) -> None:
        """Start a role, or let one go on that was to leave; return when it is ready.

        Raises UserError, and what else keeps a role from starting.
        """
        if self._is_stopping:
            raise UserError("the node is stopping")
        running = await self._find_started(name)
        if running is None:
            await self._start_now(name, options)
        elif not _are_met(options, running.start.options):
            raise UserError(f"the {name} role is on; disable it to change its options")
        else:
            options = running.start.options
            was_leaving = self._state_of(name) is not RoleState.ON
            running.start.shift.resume()
            if was_leaving:
                await self._herald.tell("role.enabled", role=name)
        if self._state_of(name) is RoleState.ON:  # another command may have come meanwhile
            await self._remember(name, RoleState.ON, options)

    async def _start_now(self, name: str, options: RoleOptions) -> None:
        """Start a role by a command, which hears why if that cannot be."""
        try:
            await self._start(name, options, RoleState.ON)
        except START_FAILURES as failure:
            if name in self._failures:
                self._failures[name] = str(failure)
            raise

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
        if running.start.shift.is_closing:
            raise UserError(f"the {name} role is closing: enable it first to let it drain")
        # Journaled first: who was told that a role drains finds it draining after a crash too.
        await self._remember(name, RoleState.DRAINING, running.start.options)
        running.start.shift.drain()
        await self._herald.tell("role.draining", role=name)

    async def disable(self, name: str, *, is_forced: bool = False) -> None:
        """Switch a role off; its jobs go on when it is enabled again.

        It begins nothing from now on, and is off at once if it owes nothing. Else it first opens
        what it has committed to, unless it is forced: what is not opened costs stake, or a deposit.
        """
        running = self._running.get(name)
        self._failures.pop(name, None)
        if running is None:
            await self._remember(name, RoleState.OFF, RoleOptions())
            return
        was_closing = running.start.shift.is_closing
        running.start.shift.close()
        if is_forced or not running.ready.is_set() or await self._owes_nothing(name, running):
            await self._switch_off(name, running)
        elif not was_closing:
            # Journaled: who dies meanwhile still has to open it.
            await self._remember(name, RoleState.CLOSING, running.start.options)
            await self._herald.tell("role.closing", role=name)
            self._nursery.start_soon(self._close, name, running)

    async def _close(self, name: str, running: _Running) -> None:
        """Switch a role off when it owes nothing any more, unless it was told to go on."""
        while running.start.shift.is_closing and not running.ended.is_set():
            if await self._owes_nothing(name, running) and running.start.shift.is_closing:
                await self._switch_off(name, running)
                return
            await self._promises.wait_next()

    async def _owes_nothing(self, name: str, running: _Running) -> bool:
        end = await self._promises.find_end(name)
        return end is None and not running.start.shift.is_busy

    async def _switch_off(self, name: str, running: _Running) -> None:
        if not running.ended.is_set():
            running.ended.set()  # who enables it now waits for its end
            await self._remember(name, RoleState.OFF, running.start.options)
            running.scope.cancel()
        await running.over.wait()
        log.info("role_disabled", role=name)
        await self._herald.tell("role.disabled", role=name)

    async def _start(self, name: str, options: RoleOptions, state: RoleState) -> None:
        shift = Shift(
            name,
            is_draining=state is RoleState.DRAINING,
            is_closing=state is RoleState.CLOSING,
        )
        running = _Running(Start(options=options, shift=shift))
        self._running[name] = running
        try:
            await self._nursery.start(self._run, name, running)
        except RuntimeError as exc:
            if not running.scope.cancelled_caught:
                raise
            if self._is_stopping:
                return
            raise _Disabled(f"the {name} role was disabled while it started") from exc
        running.ready.set()
        self._failures.pop(name, None)
        if shift.is_closing:
            self._nursery.start_soon(self._close, name, running)
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


def _list_reasons(failures: BaseExceptionGroup[BaseException]) -> list[str]:
    """Return the words of all failures, each once."""
    reasons: list[str] = []
    for failure in failures.exceptions:
        if isinstance(failure, BaseExceptionGroup):
            found = _list_reasons(failure)
        else:
            found = [str(failure)]
        reasons += [one for one in found if one not in reasons]
    return reasons
