"""The rooms of all jobs that a node takes part in, shared by its roles."""

import structlog
import trio

from d2m_node.ports import Ports
from d2m_node.roles.room import Room
from protocol.job import JobPhase
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
            await self._ports.chain.wait_for(
                lambda state: True if state.jobs[job_id].phase in OVER else None
            )
            nursery.cancel_scope.cancel()
        del self._rooms[job_id]
