"""Where the jobs of a market go that are over: out of the node's memory, and to be read on demand.

The chain adapter fills it, roles and RPC read it, the storage adapter implements it. It holds
nothing that the chain does not say: each start of a node follows the chain from the beginning, and
begins with nothing kept.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from protocol.job import JobState
from protocol.types import Address, JobId


class Tie(Enum):
    """What the node's account had to do with a job; the first that holds."""

    BUYER = "buyer"
    """It won the auction."""
    BIDDER = "bidder"
    MEMBER = "member"
    """It took part as a seller or a CONE node, or applied for that."""
    NONE = "none"


OWN: frozenset[Tie] = frozenset({Tie.BUYER, Tie.BIDDER, Tie.MEMBER})


def find_tie(job: JobState, account: Address) -> Tie:
    """Say what an account has to do with a job."""
    if job.buyer == account:
        return Tie.BUYER
    if account in job.bids:
        return Tie.BIDDER
    has_applied = job.has_seller_applied(account) or job.has_cone_applied(account)
    return Tie.MEMBER if has_applied else Tie.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptJob:
    """One job that is kept."""

    place: int
    """Ascending in the order in which jobs were kept; a job that is kept again gets a new one."""
    job_id: JobId
    tie: Tie


class PastJobs(Protocol):
    """The records of jobs that were let go of (`protocol.past`). Methods raise FatalError."""

    @property
    def generation(self) -> int:
        """Goes up when everything is dropped."""

    @property
    def newest(self) -> int:
        """The place of the job that was kept last, 0 before the first."""

    async def keep(self, jobs: Sequence[tuple[JobState, Tie]]) -> None:
        """Keep jobs, in the place of what is kept of the same ones."""

    async def find(self, job_id: JobId) -> JobState | None:
        """Return a job, or None if it is not kept."""

    async def list_kept(
        self, *, after: int = 0, ties: Collection[Tie] = frozenset(Tie)
    ) -> Sequence[KeptJob]:
        """List the jobs of these ties, those with a place ``after`` a number, by place."""

    async def drop_all(self) -> None:
        """Forget everything: the chain is followed from the beginning."""
