"""Takes jobs that are long over out of the state, and puts those back that the chain speaks of.

A job is let go of once all blocks that speak of it are deeper than any that the follower may have
to go back to. Whatever branch the chain turns to, what was kept of the job holds there too; and the
states to go back to still have the job, if they are of a time when it was there. A chain that turns
deeper than that is followed from the beginning, and then everything is dropped first.

Roles look for their jobs in the state. While they run, a job of this account stays there until
they have seen it over for `QUIET_BLOCKS` blocks, however many of them came at once; and longer, if
it still holds money of the account.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from d2m_node.past_jobs import PastJobs, Tie, find_tie
from protocol.events import RecordedEvent
from protocol.exits import holds_anything
from protocol.job import OVER, JobState
from protocol.market import MarketState
from protocol.past import bring_back, let_go, list_late, list_quiet
from protocol.types import Address, BlockNumber, JobId

QUIET_BLOCKS: Final = 300
"""So long nothing is said of a job before it is let go of: an hour on most chains. Whoever gets
money out of it has done so by then, and is not to bring it back."""


class Archivist:
    """Between a follower and the past jobs of its market."""

    def __init__(self, past: PastJobs, account: Address) -> None:
        self._past = past
        self._account = account
        self._is_watched = False
        self._shown = 0
        self._seen_over: dict[JobId, int] = {}
        """Own jobs, and when they were first shown to be over."""

    async def drop_all(self) -> None:
        """Begin with nothing kept. Raises FatalError."""
        await self._past.drop_all()

    def watch(self) -> None:
        """Mind from now on that roles look at the states that are shown."""
        self._is_watched = True

    def note_shown(self, state: MarketState) -> None:
        """Note what those who wait can see."""
        if not self._is_watched:
            return
        self._shown += 1
        over = [job for job in state.jobs.values() if job.phase in OVER]
        self._seen_over = {
            job.job_id: self._seen_over.get(job.job_id, self._shown)
            for job in over
            if find_tie(job, self._account) is not Tie.NONE
        }

    async def bring_back_late(
        self, state: MarketState, events: Iterable[RecordedEvent]
    ) -> MarketState:
        """Put every job back that was let go of and that events speak of. Raises FatalError."""
        for job_id in list_late(state, events):
            job = await self._past.find(job_id)
            if job is not None:  # else the events fit no state, and the follower begins again
                state = bring_back(state, job)
        return state

    async def let_go_of_past(self, state: MarketState, deepest: BlockNumber) -> MarketState:
        """Keep the record of jobs that are long over, then take them out. Raises FatalError.

        ``deepest`` is the lowest block that the follower may have to go back to.
        """
        quiet = list_quiet(state, BlockNumber(deepest - QUIET_BLOCKS))
        gone = [
            (job, tie)
            for job, tie in ((one, find_tie(one, self._account)) for one in quiet)
            if tie is Tie.NONE or not self._is_needed(state, job)
        ]
        if not gone:
            return state
        await self._past.keep(gone)
        return let_go(state, _jobs_of(gone))

    def _is_needed(self, state: MarketState, job: JobState) -> bool:
        if holds_anything(state, job, self._account):
            return True
        if not self._is_watched:
            return False
        return self._shown - self._seen_over.get(job.job_id, self._shown) < QUIET_BLOCKS


def _jobs_of(gone: Sequence[tuple[JobState, Tie]]) -> list[JobState]:
    return [job for job, _ in gone]
