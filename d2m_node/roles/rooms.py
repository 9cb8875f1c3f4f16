"""The rooms of all jobs that a node takes part in, shared by its roles.

A node enters when it applies, so that it is well connected when the job starts. If the draw leaves
it out, it leaves.
"""

from functools import partial

import structlog
import trio

from d2m_node.logs import log_scope
from d2m_node.ports import Ports
from d2m_node.roles.access import Standing, find_standings
from d2m_node.roles.room import Room
from protocol.job import JobPhase
from protocol.market import MarketState
from protocol.types import Address, JobId

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
        me = self._ports.signer.address
        # A room is of all roles, not of the one that came first.
        with log_scope(job=job_id, is_new_task=True):
            async with trio.open_nursery() as nursery:
                await nursery.start(room.run)
                task_status.started()
                await self._ports.chain.wait_for(partial(_is_left, job_id, me))
                nursery.cancel_scope.cancel()
        del self._rooms[job_id]


def _is_left(job_id: JobId, account: Address, state: MarketState) -> bool | None:
    """Tell when an account leaves a job's room; a reorganisation may take the job itself."""
    job = state.jobs.get(job_id)
    if job is None or job.phase in OVER:
        return True
    is_left_out = bool(job.cones) and find_standings(job, (account,)) == {Standing.ANYBODY}
    return True if is_left_out else None
