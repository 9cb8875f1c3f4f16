"""The jobs of a role: found, weighed, and served side by side, until it is cancelled or drained."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import trio

from d2m_node.roles.post import Post
from d2m_node.roles.refusals import Objection
from protocol.job import JobState
from protocol.market import MarketState
from protocol.types import JobId


class Interest(Protocol):
    """What a role wants of the market's jobs."""

    def is_bound(self, state: MarketState, job: JobState) -> bool:
        """Tell whether the account is in the job already, and has something left to do there."""

    def is_offered(self, state: MarketState, job: JobState) -> bool:
        """Tell whether the role could join the job now, if it wants to."""

    def find_objection(
        self, state: MarketState, job: JobState, at_work: Collection[JobId]
    ) -> Objection | None:
        """Say why the role does not want a job that is offered; ``at_work`` are those it serves."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A job to serve."""

    job_id: JobId


@dataclass(frozen=True, slots=True)
class _Turned:
    """A job that is offered and not wanted."""

    job_id: JobId
    objection: Objection


class _Left:
    """There is nothing left to do for a role that drains."""


class _Service:
    """The jobs that a role serves, has served, and has turned down."""

    def __init__(self, post: Post, interest: Interest, is_idle: Callable[[], bool]) -> None:
        self._post = post
        self._interest = interest
        self._is_idle = is_idle
        self._taken: set[JobId] = set()
        self._at_work: set[JobId] = set()
        self._turned: set[tuple[JobId, str]] = set()

    def find_next(self, state: MarketState) -> _Job | _Turned | _Left | None:
        """Return a job to serve, one to turn down, the end of a drained role, or None to wait.

        What the account is bound to comes first: it counts among the jobs at work.
        """
        new = [job for job in state.jobs.values() if job.job_id not in self._taken]
        for job in new:
            if self._interest.is_bound(state, job):
                return _Job(job.job_id)
        if self._post.shift.is_draining:
            return _Left() if not self._at_work and self._is_idle() else None
        for job in new if self._post.shift.takes_jobs else ():
            if self._interest.is_offered(state, job):
                objection = self._interest.find_objection(state, job, self._at_work)
                if objection is None:
                    return _Job(job.job_id)
                if (job.job_id, objection.code) not in self._turned:
                    return _Turned(job.job_id, objection)
        return None

    def begin(self, job_id: JobId) -> None:
        jobs = self._post.ports.chain.state.jobs
        self._taken = {one for one in self._taken if one in jobs or one in self._at_work}
        self._taken.add(job_id)
        self._at_work.add(job_id)

    def end(self, job_id: JobId) -> None:
        """Note that a job is served. It is served again if it comes back after a reorganisation,
        or if it was left only because the role took no job at that moment.
        """
        self._at_work.discard(job_id)
        state = self._post.ports.chain.state
        job = state.jobs.get(job_id)
        is_left = not self._post.shift.takes_jobs and job is not None
        if job is None or (is_left and not self._interest.is_bound(state, job)):
            self._taken.discard(job_id)

    async def turn_down(self, turned: _Turned) -> None:
        state = self._post.ports.chain.state
        self._turned = {(one, code) for one, code in self._turned if one in state.jobs}
        self._turned.add((turned.job_id, turned.objection.code))
        block = state.block_number
        await self._post.refusals.note(turned.job_id, turned.objection, block)


def _never_busy() -> bool:
    return True


async def serve_jobs(
    post: Post,
    interest: Interest,
    serve: Callable[[JobId], Awaitable[None]],
    *,
    is_idle: Callable[[], bool] = _never_busy,
) -> None:
    """Serve every job that a role is in or wants, each once, until cancelled or drained.

    A job that is gone when its service ends is served again if it comes back. A role that drains
    takes no new job; this returns when the last one is served and the role ``is_idle`` otherwise.
    """
    service = _Service(post, interest, is_idle)

    async def serve_one(job_id: JobId) -> None:
        await serve(job_id)
        service.end(job_id)

    async with trio.open_nursery() as jobs:
        while True:
            found: _Job | _Turned | _Left = await post.ports.chain.wait_for(service.find_next)
            match found:
                case _Left():
                    return
                case _Turned():
                    await service.turn_down(found)
                case _Job(job_id):
                    service.begin(job_id)
                    jobs.start_soon(serve_one, job_id, name=f"job {job_id}")
