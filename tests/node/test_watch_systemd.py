"""What systemd hears, over a real datagram socket."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from d2m_node.watch.service import Watch
from d2m_node.watch.systemd import find_period, open_supervisor
from tests.support.watch import WatchedNode


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket at which systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def hear(listener: socket.socket) -> list[str]:
    heard = []
    while True:
        try:
            heard.append(listener.recv(4096).decode())
        except BlockingIOError:
            return heard


async def run_a_while(watch: Watch, seconds: float) -> None:
    """Let the watch speak for so long, by the clock of the test."""
    with trio.move_on_after(seconds):
        await watch.run_supervisor()


async def test_a_node_says_that_it_is_ready_and_that_it_stops(systemd: socket.socket) -> None:
    async with open_supervisor() as supervisor:
        watch = WatchedNode().watch(supervisor)
        watch.attach(WatchedNode().sources())
        assert hear(systemd) == []
        watch.note_started()
        assert hear(systemd) == ["READY=1"]
        watch.note_stopping()
        assert hear(systemd) == ["STOPPING=1"]


async def test_the_watchdog_hears_of_the_loop_twice_within_its_time(
    systemd: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    environment = dict(os.environ) | {"WATCHDOG_USEC": "4000000"}
    async with open_supervisor(environment) as supervisor:
        await run_a_while(WatchedNode().started_watch(supervisor), 7.0)
    heard = hear(systemd)
    assert heard.count("WATCHDOG=1") == 4, "at 0, 2, 4 and 6 seconds"
    assert "STATUS=cone; block 102, 0 behind what counts; 1 of 2 peers" in heard


async def test_a_disk_that_hangs_does_not_bring_the_watchdog_down(
    systemd: socket.socket, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = WatchedNode()
    monkeypatch.setattr(node.store, "check_writable", trio.sleep_forever)
    environment = dict(os.environ) | {"WATCHDOG_USEC": "4000000"}
    async with open_supervisor(environment) as supervisor:
        await run_a_while(node.started_watch(supervisor), 7.0)
    assert hear(systemd) == ["READY=1", *["WATCHDOG=1"] * 4]


async def test_the_status_says_what_is_wrong_in_one_line(
    systemd: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    node = WatchedNode()
    async with open_supervisor() as supervisor:
        watch = node.started_watch(supervisor)
        node.network.known = ()
        await run_a_while(watch, 1.0)
        watch.note_stopping()
        watch.note_step("two\nlines")
        await run_a_while(watch, 1.0)
    statuses = [one for one in hear(systemd) if one.startswith("STATUS=")]
    assert statuses[0].endswith("no other node is known yet")
    assert statuses[1] == "STATUS=not ready; roles: the node is stopping"


async def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    async with open_supervisor() as supervisor:
        watch = WatchedNode().started_watch(supervisor)
        await watch.run_supervisor()
        watch.note_stopping()


async def test_a_socket_that_is_gone_or_full_does_not_hold_the_node_up(
    systemd: socket.socket, tmp_path: Path
) -> None:
    async with open_supervisor() as supervisor:
        for _ in range(5000):
            supervisor.tell_ready()
        systemd.close()
        (tmp_path / "notify").unlink()
        supervisor.tell_stopping()
    async with open_supervisor() as supervisor:
        supervisor.tell_ready()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 10.0),
        ({"WATCHDOG_USEC": "30000000"}, 10.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 10.0),
        ({"WATCHDOG_USEC": "soon"}, 10.0),
    ],
)
def test_the_period_is_half_of_the_watchdogs_time(
    environment: dict[str, str], seconds: float
) -> None:
    assert find_period(environment) == seconds
