"""The rooms of all jobs that a node takes part in, shared by its roles."""

from functools import partial

import structlog
import trio

from d2m_node.ports import Ports
from d2m_node.roles.room import Room
from protocol.job import JobPhase
from protocol.market import MarketState
from protocol.types import JobId

log = structlog.get_logger(__name__)

OVER = (JobPhase.SETTLED, JobPhase.CANCELLED)


class Rooms:
    """Opens a job's room once, and closes it when the job is over."""

    def __init__(self, ports: Ports, open_rooms: dict[JobId, Room], nursery: trio.Nursery) -> None:
        self._ports = ports
        self._rooms = open_rooms
        self._nursery = nursery
        self._lock = trio.Lock()

    async def enter(self, job_id: JobId) -> Room:
        """Return the room of a job, listening."""
        async with self._lock:
            if job_id not in self._rooms:
                room = Room(self._ports, job_id)
                await self._nursery.start(self._run, room, job_id)
                self._rooms[job_id] = room
            return self._rooms[job_id]

    async def _run(self, room: Room, job_id: JobId, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(room.run)
            task_status.started()
            await self._ports.chain.wait_for(partial(_is_gone_or_over, job_id))
            nursery.cancel_scope.cancel()
        del self._rooms[job_id]


def _is_gone_or_over(job_id: JobId, state: MarketState) -> bool | None:
    """Tell when to close a job's room; a reorganisation may take the job itself."""
    job = state.jobs.get(job_id)
    return True if job is None or job.phase in OVER else None
