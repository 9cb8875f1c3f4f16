"""Every method as a value: its name, what it takes, what it gives. Server and client share them.

Hex stands for bytes and begins with 0x; amounts are whole wei; a model's bytes are base64.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final, Generic, Literal, TypeVar

from msgspec import Meta, Struct

Role = Literal["buyer", "seller", "cone"]
JobNumber = Annotated[int, Meta(ge=1)]
IdempotencyKey = Annotated[str, Meta(min_length=1, max_length=128)]

MAX_REQUEST_BYTES: Final = 1 << 20


class ErrorCode(IntEnum):
    """Codes of JSON-RPC 2.0, then our own. They are never renumbered."""

    NO_JSON = -32700
    NO_REQUEST = -32600
    UNKNOWN_METHOD = -32601
    WRONG_PARAMS = -32602
    INTERNAL = -32603
    USER_ERROR = -32001
    """What was asked cannot be done; the message says why."""
    UNAVAILABLE = -32002
    """The chain or a peer does not answer; try again."""
    REVERTED = -32003
    """A contract refused."""
    JOB_FAILED = -32004
    RULE_BROKEN = -32005
    """The protocol's rules do not allow it."""
    FATAL = -32006
    """The node stops."""


class Params(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Named parameters."""


P = TypeVar("P", bound=Params)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Method(Generic[P, R]):
    """One remote procedure."""

    name: str
    params: type[P]
    result: type[R]
    summary: str


class NoParams(Params, frozen=True):
    """The method takes none."""


class JobParams(Params, frozen=True, kw_only=True):
    job: JobNumber


class RoleParams(Params, frozen=True, kw_only=True):
    role: Role


class EnableRoleParams(Params, frozen=True, kw_only=True):
    role: Role
    dataset: str | None = None
    """For a seller: the absolute path of a dataset.toml, in place of the setting's."""
    stake_wei: int | str | None = None
    """For a CONE node: what it keeps staked, in place of the setting's; "5ether" is read too."""


class SubmitRequestParams(Params, frozen=True, kw_only=True):
    """A request as the absolute path of its file, or as the file's content."""

    idempotency_key: IdempotencyKey
    """The same key never bids twice."""
    path: str | None = None
    request: dict[str, object] | None = None


class Result(Struct, frozen=True, kw_only=True):
    """What a method gives."""


class MethodView(Result, frozen=True, kw_only=True):
    name: str
    summary: str
    params: list[str]


class NodeStatus(Result, frozen=True, kw_only=True):
    account: str
    peer_id: str
    chain_id: int
    market: str
    block_number: int
    peers_connected: int
    peers_known: int
    roles: dict[str, bool]
    jobs: dict[str, int]
    """How many jobs are in each phase."""


class PeerView(Result, frozen=True, kw_only=True):
    peer_id: str
    multiaddr: str
    connected: bool
    last_error: str | None
    accounts: list[str]
    """Chain accounts that name this peer."""


class RoleView(Result, frozen=True, kw_only=True):
    role: str
    enabled: bool


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


class EventView(Result, frozen=True, kw_only=True):
    event: str
    block: int
    log_index: int
    transaction: str


class NumberView(Result, frozen=True, kw_only=True):
    name: str
    value: int | str
    formula: str
    """Empty for a number that an event or the deployment says as it is."""
    events: list[EventView]


class ExplainedPayoutView(Result, frozen=True, kw_only=True):
    role: str
    index: int
    account: str
    weight: int
    amount_wei: int
    """What comes out of the formula."""
    credited_wei: int
    is_claimed: bool
    """False for a share that is set aside for the account."""
    formula: str
    events: list[EventView]
    """What account and weight come from."""
    credited_by: list[EventView]


class ExplanationView(Result, frozen=True, kw_only=True):
    job: int
    currency: str
    """ether, or the token's address."""
    numbers: list[NumberView]
    payouts: list[ExplainedPayoutView]
    differences: list[str]
    """What does not come out; empty if everything was paid and recorded as it must be."""


class SubmittedRequest(Result, frozen=True, kw_only=True):
    job: int
    """Number of the auction, and of the job if the bid wins."""


class ModelFile(Result, frozen=True, kw_only=True):
    job: int
    safetensors: bytes


LIST_METHODS: Final = Method("rpc.methods", NoParams, list[MethodView], "every method there is")
NODE_STATUS: Final = Method("node.status", NoParams, NodeStatus, "who and where this node is")
NODE_PEERS: Final = Method("node.peers", NoParams, list[PeerView], "every peer it knows")
NODE_STOP: Final = Method("node.stop", NoParams, NodeStatus, "stop the node in order")
LIST_JOBS: Final = Method("jobs.list", NoParams, list[JobSummary], "every job of the market")
GET_JOB: Final = Method("jobs.get", JobParams, JobView, "all that the chain says about a job")
EXPLAIN_PAYOUTS: Final = Method(
    "payouts.explain", JobParams, ExplanationView, "every payout of a settled job, recomputed"
)
LIST_ROLES: Final = Method("roles.list", NoParams, list[RoleView], "roles, on or off")
ENABLE_ROLE: Final = Method("roles.enable", EnableRoleParams, list[RoleView], "switch a role on")
DISABLE_ROLE: Final = Method("roles.disable", RoleParams, list[RoleView], "switch a role off")
SUBMIT_REQUEST: Final = Method(
    "request.submit", SubmitRequestParams, SubmittedRequest, "open or join an auction"
)
JOB_MODEL: Final = Method("job.model", JobParams, ModelFile, "the model a job delivered to us")
