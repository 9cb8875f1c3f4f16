"""The node's watch: opened with the store, told of the other parts as they open."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from d2m_node.measures import MeasuredStore
from d2m_node.ports import TrainerPort
from d2m_node.settings import Device, WatchSettings
from d2m_node.watch.exposition import Exposition
from d2m_node.watch.health import Health, Startup
from d2m_node.watch.loop import LoopMonitor
from d2m_node.watch.reading import Reader
from d2m_node.watch.server import serve_watch
from d2m_node.watch.sources import Sources
from d2m_node.watch.systemd import Supervisor, open_supervisor
from d2m_node.watch.timed import TimedTrainer

OpenTrainer = Callable[[Device], AbstractAsyncContextManager[TrainerPort]]


class Watch:
    """What the node tells those who watch it."""

    def __init__(self, store: MeasuredStore, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._startup = Startup()
        self._loop = LoopMonitor()
        self.exposition = Exposition()
        self.health = Health(store, self._loop, self._startup)
        self.reader = Reader(self.health)

    def note_step(self, step: str) -> None:
        """Say what the node is at while it starts."""
        self._startup.step = step

    def attach(self, sources: Sources) -> None:
        """Name the parts, once they are open."""
        self.health.attach(sources)
        self.reader.attach(sources)

    def note_started(self) -> None:
        """Say that everything that the settings name has been started."""
        self._startup.is_complete = True
        self._supervisor.tell_ready()

    def note_stopping(self) -> None:
        """Say that the node is about to end."""
        self._startup.is_stopping = True
        self._supervisor.tell_stopping()

    def time_trainings(self, open_trainer: OpenTrainer) -> OpenTrainer:
        """Return a way to open trainers whose trainings are timed."""

        @asynccontextmanager
        async def open_timed(device: Device) -> AsyncGenerator[TrainerPort, None]:
            async with open_trainer(device) as trainer:
                yield TimedTrainer(trainer, self.exposition.observe_training)

        return open_timed

    async def run_monitor(self) -> None:
        """Note how late the event loop is, until cancelled."""
        await self._loop.run(self.exposition.observe_lag)

    async def run_supervisor(self) -> None:
        """Tell systemd, if it listens, that the event loop turns and what the node is at."""
        await self._supervisor.run(self._describe)

    async def _describe(self) -> str:
        checks = await self.health.check_readiness()
        bad = [
            f"{check.name}: {check.detail}"
            for check in checks
            if not check.is_ok and check.is_needed
        ]
        good = [check.detail for check in checks if check.name in ("chain", "network", "roles")]
        return "not ready; " + "; ".join(bad) if bad else "; ".join(good)


@asynccontextmanager
async def open_watch(settings: WatchSettings, store: MeasuredStore) -> AsyncGenerator[Watch, None]:
    """Watch, and answer those who ask, while the context is open.

    Raises UserError if the address of the listener is not to be had.
    """
    async with open_supervisor() as supervisor, trio.open_nursery() as nursery:
        watch = Watch(store, supervisor)
        nursery.start_soon(watch.run_monitor)
        nursery.start_soon(watch.run_supervisor)
        if settings.listen is not None:
            await nursery.start(serve_watch, settings, watch.health, watch.reader, watch.exposition)
        yield watch
        nursery.cancel_scope.cancel()
