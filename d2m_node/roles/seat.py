"""A CONE node's seat in one job: what every step of its work needs."""

from collections.abc import Container
from dataclasses import dataclass

from d2m_node.ports import Ports
from d2m_node.roles.executor import Executor
from d2m_node.roles.jobs import check_place, job_in, terms_of
from d2m_node.roles.room import Room
from d2m_node.roles.shift import Shift
from d2m_node.roles.sources import round_rules
from protocol.aggregation import RoundRules
from protocol.ballot import Ballot
from protocol.course import Course
from protocol.deposits import DepositStatus
from protocol.hashing import Domain
from protocol.job import JobPhase, JobState
from protocol.request import RequestBody
from protocol.sortition import TicketChain, compute_set_sizes
from protocol.terms import JobTerms
from protocol.types import Address, BlockNumber, ConeIndex, JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One node in one job's pool."""

    ports: Ports
    room: Room
    job_id: JobId
    body: RequestBody
    index: ConeIndex
    tickets: TicketChain
    executor: Executor
    shift: Shift
    lag_blocks: int
    """How far behind the chain's tip this node acts: its confirmations."""

    @property
    def job(self) -> JobState:
        """The job as the chain tells it now.

        Raises JobFailed, or TransientError if only this seat is gone.
        """
        job = job_in(self.ports.chain.state, self.job_id)
        is_mine = job.cone_index(self.ports.signer.address) == self.index
        return check_place(job, is_held=is_mine)

    @property
    def domain(self) -> Domain:
        """The market the job belongs to."""
        return self.ports.chain.domain

    @property
    def head(self) -> BlockNumber:
        """The last block followed."""
        return self.ports.chain.state.block_number

    def call_end(self, deadline: BlockNumber) -> BlockNumber:
        """Return the followed block by which this node must have sent what is due by a deadline.

        By the time it follows the deadline itself, the chain is past it.
        """
        return BlockNumber(deadline - self.lag_blocks)

    @property
    def terms(self) -> JobTerms:
        """The job's terms."""
        return terms_of(self.job)

    @property
    def rules(self) -> RoundRules:
        """What the job fixes for all its rounds."""
        return round_rules(self.job, self.body)

    @property
    def pool(self) -> tuple[Address, ...]:
        """The accounts of the pool, by CONE index."""
        return tuple(cone.account for cone in self.job.cones)

    @property
    def equivocators(self) -> frozenset[int]:
        """Sellers that signed two commitments for a round: heard here, or proved on the chain."""
        proved = {
            account
            for account, deposit in self.job.deposits.items()
            if deposit.status is DepositStatus.EQUIVOCATED
        }
        sellers = enumerate(self.job.sellers)
        on_chain = (index for index, seller in sellers if seller.account in proved)
        return frozenset(on_chain) | self.room.equivocations.keys()

    @property
    def set_sizes(self) -> tuple[int, ...]:
        """The cumulative sizes of the execution sets."""
        terms = self.terms
        return compute_set_sizes(
            len(self.pool),
            terms.first_set_size,
            terms.growth_numerator,
            terms.growth_denominator,
        )

    def rank(self, salt: int) -> int:
        """Return this node's place in the order of the pool, which turns with ``salt``."""
        return self.rank_of(self.index, salt)

    def rank_of(self, index: int, salt: int) -> int:
        """Return the place of the node with a CONE index in that order."""
        return (index - self.job_id - salt) % len(self.pool)

    def others(self, heard: Container[int] = ()) -> list[Address]:
        """Return the other nodes of the pool that are not ``heard``, each node in another order."""
        size = len(self.pool)
        order = [(self.index + step) % size for step in range(1, size)]
        return [self.pool[index] for index in order if index not in heard]

    def is_current(self, ballot: Ballot) -> bool:
        """Tell whether this ballot is still the one that is open."""
        job = self.job
        return (
            job.phase is JobPhase.TRAINING
            and job.ballot is not None
            and job.ballot.opened_at == ballot.opened_at
        )

    def ballot(self, former: Ballot) -> Ballot:
        """Return the newest view of a ballot that is still current."""
        ballot = self.job.ballot
        is_current = ballot is not None and ballot.opened_at == former.opened_at
        return ballot if ballot is not None and is_current else former

    @property
    def course(self) -> Course:
        """What calls of Rounds bring along."""
        course = self.job.course
        assert course is not None, "a job with a pool has a course"
        return course
