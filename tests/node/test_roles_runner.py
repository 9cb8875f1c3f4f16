"""Roles switched on and off and drained while the node runs, and what a restart makes of it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from d2m_node.errors import ChainUnavailable, StoreCorrupted, UserError
from d2m_node.role_control import RoleOptions, RoleState
from d2m_node.roles import runner as runner_module
from d2m_node.roles.runner import RoleRunner, Start
from d2m_node.rpc.herald import Herald
from d2m_node.storage.database import open_store
from protocol.types import BlockNumber, Wei

NOTHING = RoleOptions()
OPTIONS = RoleOptions(dataset=Path("/data/dataset.toml"), stake_wei=Wei(5 * 10**18))
ON, DRAINING, OFF = RoleState.ON, RoleState.DRAINING, RoleState.OFF
CLOSING, FAILED = RoleState.CLOSING, RoleState.FAILED


class Owed:
    """Says until when a role has something to open."""

    def __init__(self) -> None:
        self.end: BlockNumber | None = None
        self._changed = trio.Event()

    async def find_end(self, role: str) -> BlockNumber | None:
        assert role == "cone"
        await trio.lowlevel.checkpoint()
        return self.end

    async def wait_next(self) -> None:
        await self._changed.wait()

    def change(self, end: int | None) -> None:
        self.end = None if end is None else BlockNumber(end)
        self._changed.set()
        self._changed = trio.Event()


class Crew:
    """Roles that do what a test says, in a node that can be restarted."""

    def __init__(self, folder: Path, configured: bool = False) -> None:
        self.folder = folder
        self.configured = configured
        self.started: list[Start] = []
        self.done = trio.Event()
        self.may_start = trio.Event()
        self.may_start.set()
        self.failure: Exception | None = None
        self.told: list[str] = []
        self.promises = Owed()

    async def _work(self, start: Start, task_status: trio.TaskStatus[None]) -> None:
        await self.may_start.wait()
        if self.failure is not None:
            raise self.failure
        self.started.append(start)
        task_status.started()
        await self.done.wait()

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[RoleRunner, None]:
        """Run the roles as a node does; leaving is a crash, or a stop."""
        self.started.clear()
        with trio.fail_after(30):
            async with open_store(self.folder) as store, trio.open_nursery() as nursery:
                herald = await Herald.open(store.facts)
                runner = RoleRunner(
                    {"cone": self._work},
                    {"cone": self.configured},
                    (store.journal, herald),
                    self.promises,
                    nursery,
                )
                await runner.restore()
                yield runner
                self.told = [herald.read(one).kind for one in range(herald.first, herald.end)]
                nursery.cancel_scope.cancel()


def state(runner: RoleRunner) -> RoleState:
    return runner.states()["cone"]


async def test_a_role_is_on_from_the_start_if_the_settings_say_so(tmp_path: Path) -> None:
    for configured, expected in ((True, ON), (False, OFF)):
        async with Crew(tmp_path, configured).run() as runner:
            assert state(runner) is expected


async def test_a_role_is_enabled_drained_resumed_and_disabled(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    async with crew.run() as runner:
        await runner.enable("cone", OPTIONS)
        assert state(runner) is ON
        assert crew.started[0].options == OPTIONS
        await runner.drain("cone")
        assert state(runner) is DRAINING
        assert crew.started[0].shift.is_draining
        await runner.enable("cone", NOTHING)
        assert state(runner) is ON
        assert len(crew.started) == 1, "the role went on; it was not started anew"
        await runner.disable("cone")
        assert state(runner) is OFF
    kinds = ["role.enabled", "role.draining", "role.enabled", "role.disabled"]
    assert crew.told == kinds, "and subscribers hear of it"


async def test_a_role_that_has_drained_is_off(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    async with crew.run() as runner:
        await runner.enable("cone", NOTHING)
        await runner.drain("cone")
        crew.done.set()
        while state(runner) is not OFF:
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("configured", [False, True])
@pytest.mark.parametrize("command", [ON, DRAINING, OFF])
async def test_a_command_lasts_across_restarts(
    tmp_path: Path, configured: bool, command: RoleState
) -> None:
    crew = Crew(tmp_path, configured)
    async with crew.run() as runner:
        if not configured:
            await runner.enable("cone", OPTIONS)
        if command is DRAINING:
            await runner.drain("cone")
        elif command is OFF:
            await runner.disable("cone")
    for _ in range(2):
        async with crew.run() as runner:
            assert state(runner) is command
            options = NOTHING if configured else OPTIONS
            assert [one.options for one in crew.started] == [options] * (command is not OFF)


async def test_a_role_that_drained_to_its_end_stays_off_whatever_is_configured(
    tmp_path: Path,
) -> None:
    crew = Crew(tmp_path, configured=True)
    async with crew.run() as runner:
        await runner.drain("cone")
        crew.done.set()
        while state(runner) is not OFF:
            await trio.lowlevel.checkpoint()
    async with crew.run() as runner:
        assert state(runner) is OFF
        await runner.enable("cone", NOTHING)
    crew.done = trio.Event()
    async with crew.run() as runner:
        assert state(runner) is ON


@pytest.mark.parametrize("configured", [False, True])
async def test_a_changed_setting_is_the_newer_word(tmp_path: Path, configured: bool) -> None:
    async with Crew(tmp_path, configured).run() as runner:
        if configured:
            await runner.disable("cone")
        else:
            await runner.enable("cone", NOTHING)
    async with Crew(tmp_path, not configured).run() as runner:
        assert state(runner) is (OFF if configured else ON)


async def test_a_role_that_is_restored_pays_by_its_own_rule_not_under_the_commands_key(
    tmp_path: Path,
) -> None:
    crew = Crew(tmp_path)
    async with crew.run() as runner:
        await runner.enable("cone", replace(OPTIONS, payment_key="a command"))
        assert crew.started[0].options.payment_key == "a command"
    async with crew.run():
        assert [start.options for start in crew.started] == [OPTIONS]


async def test_what_is_off_cannot_drain(tmp_path: Path) -> None:
    async with Crew(tmp_path).run() as runner:
        with pytest.raises(UserError, match="the cone role is off"):
            await runner.drain("cone")


async def test_a_role_at_work_takes_no_other_options(tmp_path: Path) -> None:
    async with Crew(tmp_path).run() as runner:
        await runner.enable("cone", OPTIONS)
        await runner.enable("cone", OPTIONS)
        with pytest.raises(UserError, match="disable it to change its options"):
            await runner.enable("cone", RoleOptions(stake_wei=Wei(1)))


async def test_a_role_can_be_enabled_right_after_it_was_disabled(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    async with crew.run() as runner:
        await runner.enable("cone", NOTHING)
        await runner.disable("cone")
        await runner.enable("cone", OPTIONS)
        assert state(runner) is ON
        assert [one.options for one in crew.started] == [NOTHING, OPTIONS]


async def test_a_role_that_is_disabled_while_it_starts_says_so(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    crew = Crew(tmp_path)
    crew.may_start = trio.Event()
    failures: list[str] = []

    async with crew.run() as runner:

        async def enable() -> None:
            try:
                await runner.enable("cone", NOTHING)
            except UserError as exc:
                failures.append(str(exc))

        nursery.start_soon(enable)
        await wait_all_tasks_blocked()
        await runner.disable("cone")
        await wait_all_tasks_blocked()
        assert failures == ["the cone role was disabled while it started"]
        assert state(runner) is OFF


@pytest.mark.parametrize("configured", [False, True])
async def test_a_role_that_cannot_start_is_told_once_and_leaves_the_node_running(
    tmp_path: Path, configured: bool
) -> None:
    crew = Crew(tmp_path, configured)
    async with crew.run() as runner:
        await runner.enable("cone", NOTHING)
    crew.failure = UserError("dataset.toml: no such file")
    with capture_logs() as logs:
        async with crew.run() as runner:
            assert state(runner) is FAILED
            assert runner.notes() == {"cone": "dataset.toml: no such file"}
    failed = [one for one in logs if one["event"] == "role_failed"]
    assert [(one["role"], one["reason"]) for one in failed] == [
        ("cone", "dataset.toml: no such file")
    ]
    assert "d2m-node role enable cone" in failed[0]["fix"]
    assert crew.told[-1] == "role.failed"


async def test_a_failed_role_starts_when_it_is_enabled_or_the_node_restarts(tmp_path: Path) -> None:
    crew = Crew(tmp_path, configured=True)
    crew.failure = UserError("roles.seller.dataset: not set")
    async with crew.run() as runner:
        crew.failure = UserError("still not")
        with pytest.raises(UserError, match="still not"):
            await runner.enable("cone", NOTHING)
        assert state(runner) is FAILED
        assert runner.notes() == {"cone": "still not"}
        crew.failure = None
        await runner.enable("cone", NOTHING)
        assert state(runner) is ON
        assert runner.notes() == {}
    crew.failure = UserError("again")
    async with crew.run() as runner:
        assert state(runner) is FAILED
    crew.failure = None
    async with crew.run() as runner:
        assert state(runner) is ON


async def test_a_failed_role_can_be_disabled(tmp_path: Path) -> None:
    crew = Crew(tmp_path, configured=True)
    crew.failure = UserError("not set")
    async with crew.run() as runner:
        await runner.disable("cone")
        assert state(runner) is OFF
        assert runner.notes() == {}
    crew.failure = None
    async with crew.run() as runner:
        assert state(runner) is OFF


async def test_a_role_that_the_chain_kept_from_starting_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = Crew(tmp_path, configured=True)
    crew.failure = ChainUnavailable("no endpoint answers")
    monkeypatch.setattr(runner_module, "RETRY_SECONDS", 0.0)
    with capture_logs() as logs:
        async with crew.run() as runner:
            assert state(runner) is FAILED
            crew.failure = None
            while state(runner) is not ON:
                await trio.lowlevel.checkpoint()
    assert sum(one["event"] == "role_failed" for one in logs) == 1


async def test_what_no_role_may_raise_ends_the_node(tmp_path: Path) -> None:
    crew = Crew(tmp_path, configured=True)
    crew.failure = StoreCorrupted("store.sqlite: torn")
    with pytest.raises(ExceptionGroup) as caught:
        async with crew.run():
            pass
    assert caught.group_contains(StoreCorrupted, match="torn")


async def test_other_roles_start_although_one_cannot(tmp_path: Path) -> None:
    started = trio.Event()

    async def fail(_: Start, task_status: trio.TaskStatus[None]) -> None:
        raise ExceptionGroup("trainer", [UserError("no data"), UserError("no data")])
        task_status.started()

    async def work(_: Start, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        started.set()
        await trio.sleep_forever()

    with trio.fail_after(30):
        async with open_store(tmp_path) as store, trio.open_nursery() as nursery:
            memory = (store.journal, await Herald.open(store.facts))
            starters = {"buyer": work, "seller": fail, "cone": work}
            runner = RoleRunner(starters, dict.fromkeys(starters, True), memory, Owed(), nursery)
            await runner.restore()
            assert runner.states() == {"buyer": ON, "seller": FAILED, "cone": ON}
            assert runner.notes() == {"seller": "no data"}
            nursery.cancel_scope.cancel()


# --- disabled while it owes something


async def test_a_role_that_owes_an_opening_closes_first(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    async with crew.run() as runner:
        await runner.enable("cone", NOTHING)
        crew.promises.change(100)
        await runner.disable("cone")
        assert state(runner) is CLOSING
        assert "committed" in runner.notes()["cone"]
        assert crew.started[0].shift.is_stopping, "it begins nothing"
        assert not crew.started[0].shift.takes_jobs
        crew.promises.change(101)
        await wait_all_tasks_blocked()
        assert state(runner) is CLOSING
        crew.promises.change(None)
        while state(runner) is not OFF:
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked(0.05)  # subscribers are told last
    assert crew.told == ["role.enabled", "role.closing", "role.disabled"]
    async with crew.run() as runner:
        assert state(runner) is OFF


async def test_a_role_that_is_at_work_on_an_opening_closes_first(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    async with crew.run() as runner:
        await runner.enable("cone", NOTHING)
        with crew.started[0].shift.finishing():
            await runner.disable("cone")
            assert state(runner) is CLOSING
        crew.promises.change(None)
        while state(runner) is not OFF:
            await trio.lowlevel.checkpoint()


async def test_a_closing_role_is_switched_off_at_once_by_force(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    async with crew.run() as runner:
        await runner.enable("cone", NOTHING)
        crew.promises.change(100)
        await runner.disable("cone")
        await runner.disable("cone")  # asking again changes nothing
        assert state(runner) is CLOSING
        with pytest.raises(UserError, match="closing"):
            await runner.drain("cone")
        await runner.disable("cone", is_forced=True)
        assert state(runner) is OFF
        crew.promises.change(None)
        await wait_all_tasks_blocked()
    assert crew.told == ["role.enabled", "role.closing", "role.disabled"]
    async with crew.run() as runner:
        assert state(runner) is OFF


async def test_a_closing_role_goes_on_when_it_is_enabled(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    async with crew.run() as runner:
        await runner.enable("cone", NOTHING)
        crew.promises.change(100)
        await runner.disable("cone")
        await runner.enable("cone", NOTHING)
        assert state(runner) is ON
        crew.promises.change(None)
        await wait_all_tasks_blocked()
        assert state(runner) is ON
        assert len(crew.started) == 1
        assert crew.started[0].shift.takes_jobs
    async with crew.run() as runner:
        assert state(runner) is ON


async def test_a_role_that_was_closing_goes_on_with_it_after_a_crash(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    async with crew.run() as runner:
        await runner.enable("cone", OPTIONS)
        crew.promises.change(100)
        await runner.disable("cone")
    async with crew.run() as runner:
        assert state(runner) is CLOSING
        assert crew.started[0].options == OPTIONS
        crew.promises.change(None)
        while state(runner) is not OFF:
            await trio.lowlevel.checkpoint()
    crew.promises.change(100)
    async with crew.run() as runner:
        assert state(runner) is OFF


async def test_a_role_whose_openings_are_too_late_after_a_crash_is_not_started(
    tmp_path: Path,
) -> None:
    crew = Crew(tmp_path)
    async with crew.run() as runner:
        await runner.enable("cone", OPTIONS)
        crew.promises.change(100)
        await runner.disable("cone")
    crew.promises.change(None)
    async with crew.run() as runner:
        assert state(runner) is OFF
        assert crew.started == []


async def test_a_role_that_is_about_to_end_is_enabled_anew(tmp_path: Path) -> None:
    """Between its last step and its end there is no drain left to undo."""
    crew = Crew(tmp_path)
    async with crew.run() as runner:
        await runner.enable("cone", NOTHING)
        await runner.drain("cone")
        crew.done.set()
        await wait_all_tasks_blocked()  # the role writes down that it is off
        crew.done = trio.Event()
        await runner.enable("cone", NOTHING)
        assert state(runner) is ON
        assert len(crew.started) == 2
    async with crew.run() as runner:
        assert state(runner) is ON, "and a restart knows"


async def test_who_enables_a_role_that_is_starting_hears_that_it_fails(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    crew.may_start = trio.Event()
    heard: list[str] = []

    async def enable(runner: RoleRunner) -> None:
        with pytest.raises(UserError, match="no such file") as caught:
            await runner.enable("cone", NOTHING)
        heard.append(str(caught.value))

    async with crew.run() as runner:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(enable, runner)
                await wait_all_tasks_blocked()
            assert heard == []
            crew.failure = UserError("no such file")
            crew.may_start.set()
        assert len(heard) == 2
    crew.failure = None
    async with crew.run() as runner:
        assert state(runner) is OFF, "a command that failed is no wish"


async def test_commands_that_come_at_once_are_all_written_down(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    async with crew.run() as runner:
        await runner.enable("cone", NOTHING)
        async with trio.open_nursery() as nursery:
            for command in (runner.drain, runner.disable):
                nursery.start_soon(command, "cone")
                await trio.lowlevel.checkpoint()  # in this order, and none waits for the other
        assert state(runner) is OFF
    async with crew.run() as runner:
        assert state(runner) is OFF
