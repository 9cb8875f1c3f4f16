"""What the chain says about one account, added up. It survives restarts: the chain remembers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from d2m_node.past_jobs import OWN, PastJobs
from d2m_node.watch.metrics import MAX_JOBS
from protocol.ballot import DecidedBallot
from protocol.claims import Claims
from protocol.deposits import DepositStatus
from protocol.digest import RoundHeader
from protocol.events import FinalDecided
from protocol.job import OVER, JobState
from protocol.market import MarketState
from protocol.sortition import BallotKind
from protocol.stakes import Stake
from protocol.types import NO_ACCOUNT, Address, JobId

ONE_Q20 = 1 << 20
SLASH_REASONS = {1: "wrong_digest", 2: "not_opened"}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFigures:
    """One job, as far as an account is concerned."""

    phase: str
    roles: frozenset[str]
    """Empty if the account takes no part."""
    utility: float | None = None
    target: float | None = None
    rounds: int = 0
    finals: int = 0
    void: int = 0
    undecided: int = 0
    votes: Mapping[str, int] = field(default_factory=dict)
    slashes: Mapping[str, int] = field(default_factory=dict)
    slashed_wei: int = 0
    held_wei: int = 0
    """A deposit in ether that the job holds."""
    forfeited: int = 0

    @property
    def is_open(self) -> bool:
        """Whether the job is not over, and this account's."""
        return bool(self.roles) and self.phase not in {one.value for one in OVER}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountFigures:
    """All jobs and all money of an account."""

    phases: Mapping[str, int]
    own_jobs: Mapping[tuple[str, str], int]
    """By role and phase."""
    open_jobs: Mapping[JobId, JobFigures]
    """The newest ones, at most `MAX_JOBS`."""
    totals: JobFigures
    """Sums over the own jobs; its phase and roles mean nothing."""
    free_wei: int
    locked_wei: int
    unbonding_wei: int
    claimable_wei: Mapping[str, int]
    claimable_token: Mapping[str, int]
    earned_wei: int


class Bookkeeper:
    """Adds up what an account does; jobs that have not changed are not looked at again."""

    def __init__(self, account: Address, past: PastJobs) -> None:
        self._account = account
        self._past = past
        self._known: dict[JobId, tuple[JobState, JobFigures]] = {}
        self._left: dict[JobId, JobFigures] = {}
        """Own jobs that have left the state; the rest of them is on the disk."""
        self._place, self._generation = 0, past.generation

    async def add_up(self, state: MarketState) -> AccountFigures:
        """Return the figures of a state. Raises FatalError.

        The first time takes a while: own jobs that are past are read one by one.
        """
        await self._read_past()
        left = {one: found for one, found in self._left.items() if state.is_past(one)}
        jobs = {job_id: self._look_at(job) for job_id, job in state.jobs.items()}
        self._known = {job_id: (state.jobs[job_id], found) for job_id, found in jobs.items()}
        own = [found for found in (*left.values(), *jobs.values()) if found.roles]
        phases = Counter(found.phase for found in jobs.values())
        phases.update({phase.value: count for phase, count in state.past.items()})
        newest = sorted((one for one in jobs if jobs[one].is_open), reverse=True)[:MAX_JOBS]
        stake = state.stakes.get(self._account, Stake())
        return AccountFigures(
            phases=phases,
            own_jobs=Counter((role, found.phase) for found in own for role in found.roles),
            open_jobs={job_id: jobs[job_id] for job_id in sorted(newest)},
            totals=_sum(own),
            free_wei=stake.free_wei,
            locked_wei=sum(stake.locked_wei.values()),
            unbonding_wei=stake.unbonding_wei,
            claimable_wei={
                "payouts": self._owed(state.payouts, is_ether=True),
                "bonds": self._owed(state.bonds, is_ether=True),
                "stake": stake.withdrawable_wei(state.block_number),
            },
            claimable_token={
                "payouts": self._owed(state.payouts, is_ether=False),
                "bonds": self._owed(state.bonds, is_ether=False),
            },
            earned_wei=sum(
                claim.credited_wei
                for (currency, payee), claim in state.payouts.items()
                if payee == self._account and currency == NO_ACCOUNT
            ),
        )

    async def _read_past(self) -> None:
        """Look at the own jobs that were let go of since this was last done."""
        if self._past.generation != self._generation:
            self._left, self._place, self._generation = {}, 0, self._past.generation
        newest = self._past.newest
        if newest == self._place:
            return
        for kept in await self._past.list_kept(after=self._place, ties=OWN):
            job = await self._past.find(kept.job_id)
            if job is not None:
                self._left[kept.job_id] = look_at(job, self._account)
            self._place = kept.place
        self._place = newest

    def _look_at(self, job: JobState) -> JobFigures:
        known = self._known.get(job.job_id)
        if known is not None and known[0] is job:
            return known[1]
        return look_at(job, self._account)

    def _owed(self, claims: Claims, *, is_ether: bool) -> int:
        return sum(
            claim.owed_wei
            for (currency, account), claim in claims.items()
            if account == self._account and (currency == NO_ACCOUNT) is is_ether
        )


def look_at(job: JobState, account: Address) -> JobFigures:
    """Add up one job for an account."""
    roles = frozenset(_roles_in(job, account))
    if not roles:
        return JobFigures(phase=job.phase.value, roles=roles)
    rounds = [one for one in job.decided if one.ballot.kind is BallotKind.ROUND]
    deposit = job.deposits.get(account)
    slashes = [one for one in job.slashes if one.account == account]
    is_held = deposit is not None and deposit.status is DepositStatus.HELD
    is_lost = deposit is not None and deposit.status in (
        DepositStatus.FORFEITED,
        DepositStatus.EQUIVOCATED,
    )
    return JobFigures(
        phase=job.phase.value,
        roles=roles,
        utility=_utility_of(job.decided[-1]) if job.decided else None,
        target=None if job.terms is None else job.terms.target / ONE_Q20,
        rounds=len(rounds),
        finals=len(job.decided) - len(rounds),
        void=len(job.voided),
        undecided=len(job.undecided),
        votes=_count_votes(job, account),
        slashes=Counter(SLASH_REASONS[one.reason] for one in slashes),
        slashed_wei=sum(one.amount_wei for one in slashes),
        held_wei=deposit.amount_wei if deposit and is_held and job.currency == NO_ACCOUNT else 0,
        forfeited=int(is_lost),
    )


def _roles_in(job: JobState, account: Address) -> set[str]:
    """Name the roles of an account in a job: those that it applied for count until the draw."""
    roles = set()
    if job.buyer == account or (job.buyer is None and account in job.bids):
        roles.add("buyer")
    if job.has_seller_applied(account) and not job.is_seller_left_out(account):
        roles.add("seller")
    if job.has_cone_applied(account) and not job.is_cone_left_out(account):
        roles.add("cone")
    return roles


def _count_votes(job: JobState, account: Address) -> Mapping[str, int]:
    index = job.cone_index(account)
    votes: Counter[str] = Counter()
    if index is None:
        return votes
    for decided in job.decided:
        opened = [one for one in decided.ballot.openings if one.cone_index == index]
        if opened:
            is_with = any(one.digest == decided.decision.digest for one in opened)
            votes["with_decision" if is_with else "against_decision"] += 1
        elif index in decided.ballot.committed:
            votes["not_opened"] += 1
    return votes


def _utility_of(decided: DecidedBallot) -> float:
    decision = decided.decision
    if isinstance(decision, FinalDecided):
        return decision.utility / ONE_Q20
    return RoundHeader.decode(decision.header).utility_after / ONE_Q20


def _sum(jobs: list[JobFigures]) -> JobFigures:
    votes: Counter[str] = Counter()
    slashes: Counter[str] = Counter()
    for job in jobs:
        votes.update(job.votes)
        slashes.update(job.slashes)
    return JobFigures(
        phase="",
        roles=frozenset(),
        rounds=sum(job.rounds for job in jobs),
        finals=sum(job.finals for job in jobs),
        void=sum(job.void for job in jobs),
        undecided=sum(job.undecided for job in jobs),
        votes=votes,
        slashes=slashes,
        slashed_wei=sum(job.slashed_wei for job in jobs),
        held_wei=sum(job.held_wei for job in jobs),
        forfeited=sum(job.forfeited for job in jobs),
    )
