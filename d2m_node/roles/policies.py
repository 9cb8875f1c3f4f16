"""What this node takes on: its operator's limits, held against a job's terms and its request.

Each check says why a job is not taken, or nothing. Those of the terms are asked with every block;
those of the request once it is here.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from d2m_node.privacy_ledger import PrivacyPolicy
from d2m_node.request_file import METRICS
from d2m_node.roles.jobs import terms_of
from d2m_node.roles.refusals import Objection
from protocol.errors import InvalidParams
from protocol.job import JobPhase, JobState
from protocol.market import Dataset, MarketState
from protocol.model import count_parameters
from protocol.params import ProtocolParams
from protocol.request import RequestBody
from protocol.stakes import Stake
from protocol.terms import JobTerms, Metric
from protocol.types import NO_ACCOUNT, Address, BlockNumber, Digest, JobId, Wei
from protocol.windows import validate_windows

ONE_ETHER: Final = 10**18


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """What holds for every job of a role; None is no limit."""

    jobs_max: int | None = None
    """Jobs at once."""
    min_price_wei: Wei = Wei(0)
    """Least price of a job in ether."""
    min_price_token: Wei = Wei(0)
    """The same for a job in the deployment's token."""
    least_window_blocks: int = 0
    """Wanted of every window besides what it takes to be heard."""
    lag_blocks: int = 0
    """How far behind the chain's tip this node acts."""

    def find_objection(
        self, job: JobState, params: ProtocolParams, at_work: Collection[JobId]
    ) -> Objection | None:
        """Weigh a job's price and windows, and how many jobs there are already."""
        terms = terms_of(job)
        min_price_wei = self.min_price_wei if job.currency == NO_ACCOUNT else self.min_price_token
        if job.price_wei < min_price_wei:
            return Objection("price", f"pays {job.price_wei}, less than {min_price_wei}")
        try:
            validate_windows(
                terms,
                params.seed_delay_blocks,
                lag_blocks=self.lag_blocks,
                least_blocks=self.least_window_blocks,
            )
        except InvalidParams as unsafe:
            return Objection("windows", f"its terms are not safe: {unsafe}")
        if self.jobs_max is not None and len(at_work) >= self.jobs_max:
            return Objection("busy", f"{len(at_work)} jobs at once are the limit")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SellerPolicy:
    """What this node sells, under which tags, for what, and for how much at least."""

    dataset_path: str
    tags: tuple[str, ...] = ()
    """Of the data set's tags, those it is sold under; none: all of them."""
    metrics: frozenset[Metric] = frozenset(Metric)
    privacy: PrivacyPolicy | None = None
    """Trainings keep differential privacy, within a budget."""
    limits: JobLimits = JobLimits()

    def find_objection(
        self,
        job: JobState,
        dataset: Dataset,
        params: ProtocolParams,
        at_work: Collection[JobId],
    ) -> Objection | None:
        """Say why this seller does not want a job whose tags its data carry."""
        if not set(job.tags) <= set(dataset.tags):
            return Objection("tags", "asks for a tag that the data set is not sold under")
        metric = Metric(terms_of(job).metric)
        if metric not in self.metrics:
            name = next(name for name, one in METRICS.items() if one is metric)
            return Objection("metric", f"its metric is {name}, which this node does not sell for")
        return self.limits.find_objection(job, params, at_work)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConePolicy:
    """What this node stakes, in all and in one job, and how much work it takes on."""

    stake_wei: Wei
    job_stake_min_wei: Wei = Wei(0)
    """Jobs that ask for less have voters with little to lose."""
    job_stake_max_wei: Wei | None = None
    model_parameters_max: int | None = None
    validation_samples_max: int | None = None
    limits: JobLimits = JobLimits()

    def find_objection(
        self,
        state: MarketState,
        job: JobState,
        account: Address,
        params: ProtocolParams,
        at_work: Collection[JobId],
    ) -> Objection | None:
        """Say why this node does not want a job, or cannot put up the stake for it."""
        return (
            self._weigh_stake(terms_of(job))
            or self.limits.find_objection(job, params, at_work)
            or _find_lack_of_stake(state, job, account, at_work)
        )

    def _weigh_stake(self, terms: JobTerms) -> Objection | None:
        asked, most_wei = format_ether(terms.stake_wei), self.job_stake_max_wei
        if terms.stake_wei < self.job_stake_min_wei:
            least = format_ether(self.job_stake_min_wei)
            return Objection("stake", f"asks for {asked}, less than {least}")
        if most_wei is not None and terms.stake_wei > most_wei:
            return Objection("stake", f"asks for {asked}, more than {format_ether(most_wei)}")
        return None

    def weigh_request(self, body: RequestBody) -> Objection | None:
        """Say why this node does not want what a job's request asks it to compute."""
        size, most = count_parameters(body.model), self.model_parameters_max
        if most is not None and size > most:
            return Objection("model", f"its model has {size} parameters, more than {most}")
        samples, most = body.validation.sample_count, self.validation_samples_max
        if most is not None and samples > most:
            return Objection("validation", f"it has {samples} validation samples, more than {most}")
        return None


def _find_lack_of_stake(
    state: MarketState, job: JobState, account: Address, at_work: Collection[JobId]
) -> Objection | None:
    """Say what this account's stake lacks. What it is about to pledge elsewhere is not free."""
    stake = state.stakes.get(account, Stake())
    pledged_wei = sum(
        terms_of(other).stake_wei
        for other in (state.jobs[one] for one in at_work if one in state.jobs)
        if other.phase is JobPhase.ENROLMENT and not other.has_cone_applied(account)
    )
    free_wei, asked_wei = stake.free_wei - pledged_wei, terms_of(job).stake_wei
    if free_wei < asked_wei:
        free = format_ether(max(free_wei, 0))
        return Objection("free stake", f"asks for {format_ether(asked_wei)}, and {free} is free")
    if stake.since_block >= job.opened_block:
        return Objection("young stake", "the stake was not there before its auction opened")
    return None


def is_enrolling(state: MarketState, job: JobState) -> bool:
    """Tell whether one can apply for a job now."""
    return (
        job.phase is JobPhase.ENROLMENT
        and job.terms is not None
        and state.block_number < BlockNumber(job.enrolment_end)
    )


def carries_tags(job: JobState, tags: Collection[Digest]) -> bool:
    """Tell whether data with these tags are what a job asks for."""
    return set(job.tags) <= set(tags)


def format_ether(amount_wei: int) -> str:
    """Write an amount in ether, without losing a digit."""
    whole, rest = divmod(amount_wei, ONE_ETHER)
    return f"{whole}.{rest:018d}".rstrip("0").rstrip(".") + " ether"
