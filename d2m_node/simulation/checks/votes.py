"""In which blocks a CONE node could have opened the votes that it did not open."""

from protocol.ballot import Ballot
from protocol.job import JobState
from protocol.types import JobId

BALLOTS_KEPT = 4
"""Per job: slashes are of one of the last two, and a reorganisation leaves others behind."""


class Votes:
    """The ballots of all jobs as they were last seen. The chain forgets those it gave up."""

    def __init__(self) -> None:
        self._seen: dict[JobId, dict[tuple[int, int], Ballot]] = {}

    def note(self, job: JobState) -> None:
        """See a job's open ballot."""
        if job.ballot is None:
            return
        seen = self._seen.setdefault(job.job_id, {})
        seen.pop(job.ballot.opened_at, None)
        seen[job.ballot.opened_at] = job.ballot
        if len(seen) > BALLOTS_KEPT:
            del seen[next(iter(seen))]

    def find_unopened(self, job_id: JobId, cone_index: int) -> list[range]:
        """Return the blocks from seed to deadline of each vote that a node has left unopened."""
        ballots = self._seen.get(job_id, {}).values()
        return [
            blocks
            for ballot in ballots
            if cone_index not in ballot.opened
            for blocks in _list_windows(ballot, cone_index)
        ]


def _list_windows(ballot: Ballot, cone_index: int) -> list[range]:
    committed = {
        batch.mini_round_index
        for batch in ballot.batches
        if any(index == cone_index for index, _ in batch.entries)
    }
    return [
        range(one.seed_block, one.open_end + 1)
        for one in ballot.mini_rounds
        if one.mini_round_index in committed
    ]
