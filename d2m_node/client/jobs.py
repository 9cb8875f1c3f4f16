"""Methods about the market's jobs."""

from typing import Final

from msgspec import field

from d2m_node.client.method import JobNumber, Method, NoParams, Params, Result, Scope
from d2m_node.client.refusals import RefusalView


class JobParams(Params, frozen=True, kw_only=True):
    job: JobNumber


class JobSummary(Result, frozen=True, kw_only=True):
    job: int
    phase: str
    buyer: str | None
    mode: str
    """Of the auction: sealed, second-price or open."""
    currency: str
    """ether, or the address of the token; amounts but stakes are in its smallest unit."""
    price_wei: int
    sellers: int
    """Members; while it is enrolling, those that applied. Likewise the CONE nodes."""
    cones: int
    rounds_done: int
    utility: float | None
    """Of the last decided round, in the job's metric."""


class BidView(Result, frozen=True, kw_only=True):
    bidder: str
    deposit_wei: int
    amount_wei: int | None
    """None until it is revealed."""
    reclaimed: bool


class RoundView(Result, frozen=True, kw_only=True):
    kind: str
    round: int
    attempt: int
    mini_rounds: int
    digest: str
    votes: int
    votes_cast: int
    utility: float
    wrong: list[int]
    """CONE nodes, by index, that voted for another digest."""
    unopened: list[int]


class PayoutView(Result, frozen=True, kw_only=True):
    to: str
    role: str
    amount_wei: int


class SlashView(Result, frozen=True, kw_only=True):
    account: str
    amount_wei: int
    reason: str


class DepositView(Result, frozen=True, kw_only=True):
    account: str
    amount_wei: int
    status: str
    """held, returned, forfeited or equivocated; the last two are burned."""


class JobView(Result, frozen=True, kw_only=True):
    summary: JobSummary
    tags: list[str]
    """Hashes, ascending."""
    target: float | None
    outcome: str | None
    model_digest: str | None
    bids: list[BidView]
    sellers: list[str]
    """Members by index; while it is enrolling, those that applied. Likewise the CONE nodes."""
    deposits: list[DepositView]
    """Of the sellers that applied."""
    cones: list[str]
    left_out: list[str]
    """Accounts that applied and were not drawn."""
    rounds: list[RoundView]
    rounds_void: list[int]
    payouts: list[PayoutView]
    refund_wei: int | None
    slashes: list[SlashView]
    refusals: list[RefusalView] = field(default_factory=list)
    """Why roles of this node turned it down, or could not go on with it."""


class ModelFile(Result, frozen=True, kw_only=True):
    job: int
    safetensors: bytes
    is_delivered: bool = False
    """The copy of the buyer that paid for it. Any other was fetched for this call."""


LIST_JOBS: Final = Method(
    "jobs.list", NoParams, list[JobSummary], "every job of the market", scope=Scope.READ
)
GET_JOB: Final = Method(
    "jobs.get", JobParams, JobView, "all that the chain says about a job", scope=Scope.READ
)
JOB_MODEL: Final = Method(
    "job.model",
    JobParams,
    ModelFile,
    "the model of a job: what was delivered to us, or what its request lets us fetch from peers",
    scope=Scope.BUY,
)
