"""Word to systemd: ready, alive, stopping, and what the node is at. The user of sdnotify.

Without `NOTIFY_SOCKET` nobody listens and nothing is sent. What cannot be sent is lost, as the
protocol has it: it must never hold the node up.
"""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NoReturn

import sdnotify
import trio

STATUS_SECONDS: Final = 10.0
"""Between two words on what the node is at; no longer between two to the watchdog."""


class Supervisor:
    """What systemd hears of this process."""

    def __init__(self, notifier: sdnotify.SystemdNotifier | None, period_seconds: float) -> None:
        self._notifier = notifier
        self._period_seconds = period_seconds

    def tell_ready(self) -> None:
        """Say that everything is started; the first time counts."""
        self._send("READY=1")

    def tell_stopping(self) -> None:
        """Say that the node is about to end by itself."""
        self._send("STOPPING=1")

    async def run(self, describe: Callable[[], Awaitable[str]]) -> None:
        """Say now and then that the event loop turns, and what the node is at, until cancelled."""
        if self._notifier is None:
            return
        async with trio.open_nursery() as nursery:
            # A description may have to wait for the disk; the watchdog does not.
            nursery.start_soon(self._run_watchdog)
            while True:
                self._send(f"STATUS={' '.join((await describe()).split())}")
                await trio.sleep(STATUS_SECONDS)

    async def _run_watchdog(self) -> NoReturn:
        while True:
            self._send("WATCHDOG=1")
            await trio.sleep(self._period_seconds)

    def _send(self, state: str) -> None:
        if self._notifier is not None:
            self._notifier.notify(state)


@asynccontextmanager
async def open_supervisor(
    environment: Mapping[str, str] = os.environ,
) -> AsyncGenerator[Supervisor, None]:
    """Hold a socket to systemd while the context is open, if systemd started this process."""
    notifier = _connect(environment.get("NOTIFY_SOCKET", ""))
    try:
        yield Supervisor(notifier, find_period(environment))
    finally:
        if notifier is not None:
            notifier.socket.close()


def _connect(address: str) -> sdnotify.SystemdNotifier | None:
    # Where it cannot connect, the library would leave an open socket behind.
    if not address.startswith("@") and not (address and Path(address).is_socket()):
        return None
    notifier = sdnotify.SystemdNotifier()
    if notifier.socket is None:
        return None
    notifier.socket.setblocking(False)
    return notifier


def find_period(environment: Mapping[str, str]) -> float:
    """Return how often to speak: twice within the watchdog's time, if it is meant for us."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    pid = environment.get("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdecimal() or pid != str(os.getpid()):
        return STATUS_SECONDS
    return min(int(microseconds) / 2_000_000, STATUS_SECONDS)
