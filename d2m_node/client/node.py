"""Methods about the node itself."""

from typing import Final, Literal

from msgspec import field

from d2m_node.client.method import Method, NoParams, Result, Scope
from d2m_node.client.refusals import RefusalView
from d2m_node.client.roles import RoleStateName


class MethodView(Result, frozen=True, kw_only=True):
    name: str
    summary: str
    params: list[str]


class StakeView(Result, frozen=True, kw_only=True):
    free_wei: int
    locked_wei: int
    """In all jobs together."""
    unbonding_wei: int
    reward_wei: int
    """Earned by slashes of others, and not pulled yet."""


class SyncView(Result, frozen=True, kw_only=True):
    head_number: int
    """The newest block that an endpoint named."""
    lag_blocks: int
    """Blocks that count, and were not followed yet."""
    is_synced: bool
    silent_seconds: float
    """Since an endpoint last answered."""


class OpenJobView(Result, frozen=True, kw_only=True):
    job: int
    phase: str
    roles: list[str]
    """As what this account takes part."""
    doing: str
    """What the job waits for now, and until which block."""


class PendingView(Result, frozen=True, kw_only=True):
    transactions: int
    """Signed and not mined yet."""
    oldest_blocks: int
    """Blocks since the oldest of them was first sent."""


ReachName = Literal["unknown", "reachable", "unreachable", "relayed"]


class ReachView(Result, frozen=True, kw_only=True):
    state: ReachName
    """Whether peers, when asked, could connect to this node."""
    advice: str | None
    """What to do if they could not."""


class TransferView(Result, frozen=True, kw_only=True):
    digest: str
    """Of what is being fetched: its Keccak-256."""
    received_bytes: int
    size_bytes: int | None
    """None until a peer has said it."""
    sources: int
    """Peers that are asked for it."""


class DiskView(Result, frozen=True, kw_only=True):
    blob_bytes: int
    quota_bytes: int
    free_bytes: int


class DatasetPrivacyView(Result, frozen=True, kw_only=True):
    dataset: str
    """SHA-256 of its samples, in any order."""
    epsilon: float
    """Spent so far, by all trainings together; what jobs may still use is not in it."""
    delta: float
    """For which the epsilon was computed."""
    trainings: int
    jobs: int


class PrivacyView(Result, frozen=True, kw_only=True):
    epsilon_budget: float
    """What may be spent on each dataset."""
    datasets: list[DatasetPrivacyView]
    """Those that something was spent on, the dearest first."""


class TurnedAwayView(Result, frozen=True, kw_only=True):
    """How often this node turned somebody away, since it started: each at a limit of its own."""

    handshakes: int = 0
    """Connections that did not say who they are before others that came later. Of no peer."""
    strangers: int = 0
    """Peers that came by themselves and had to go, because others did too."""
    streams: int = 0
    """Streams beyond those that one peer may have open."""
    slow: int = 0
    """Answers cut off, because the peer took them slowly and others waited."""
    flood: int = 0
    """Messages beyond those that a peer may send in a second."""
    outside: int = 0
    """Messages of peers that have no place in the job they are about."""
    denied: int = 0
    """Requests for blobs that are not here, or not for the peer: it cannot tell which."""


class DialFailureView(Result, frozen=True, kw_only=True):
    multiaddr: str
    source: str
    """Who told this address: bootstrap, registry, lan, dht, or cache: reached there before."""
    reason: str


class PeerView(Result, frozen=True, kw_only=True):
    peer_id: str
    multiaddr: str
    connected: bool
    last_error: str | None
    failures: list[DialFailureView]
    """Each address that was dialled in vain last time."""
    next_dial_seconds: float | None
    """Until it is dialled again; None if it is connected, or dialled only when it is needed."""
    accounts: list[str]
    """Chain accounts that name this peer."""
    penalty: float = 0.0
    """Its faults, weighted by age: half as much each minute. With 10 it is banned."""
    banned_seconds: float | None = None
    """Until it is talked to again; None if it is not banned, or denied by network.deny."""
    turned_away: TurnedAwayView = TurnedAwayView()


class NodeStatus(Result, frozen=True, kw_only=True):
    version: str
    uptime_seconds: float
    account: str
    balance_wei: int | None
    """Of ether; None while no endpoint answers."""
    stake: StakeView
    is_backed_up: bool
    """The operator has a copy of the key, or it guards nothing."""
    peer_id: str
    chain_id: int
    market: str
    block_number: int
    """Up to which the chain was followed."""
    sync: SyncView
    clock_fault: str | None
    """What is wrong with the machine's clock, held against the chain's, and what to do."""
    peers_connected: int
    peers_known: int
    peers_missed: list[PeerView]
    """Peers that it dials in vain, those first that are dialled next; at most 8."""
    reach: ReachView
    transfers: list[TransferView]
    """Updates, models and data that are being fetched."""
    turned_away: TurnedAwayView = TurnedAwayView()
    peers_banned: int = 0
    """Peers that are banned for a while; why is in `peers`."""
    roles: dict[str, RoleStateName]
    role_notes: dict[str, str] = field(default_factory=dict)
    """Of roles that failed: why. Of those that close: what they wait for."""
    jobs: dict[str, int]
    """How many jobs of the market are in each phase."""
    open_jobs: list[OpenJobView]
    """This account's own."""
    pending: PendingView
    disk: DiskView
    privacy: PrivacyView | None
    """None without a budget: then trainings are not private."""
    refusals: list[RefusalView] = field(default_factory=list)
    """The latest jobs that a role turned down or could not go on with."""


LIST_METHODS: Final = Method(
    "rpc.methods", NoParams, list[MethodView], "every method there is", scope=Scope.READ
)
DISCOVER: Final = Method(
    "rpc.discover",
    NoParams,
    dict[str, object],
    "every method with its schemas, as an OpenRPC document",
    scope=Scope.READ,
)
NODE_STATUS: Final = Method(
    "node.status", NoParams, NodeStatus, "who and where this node is", scope=Scope.READ
)
NODE_PEERS: Final = Method(
    "node.peers", NoParams, list[PeerView], "every peer it knows", scope=Scope.READ
)
NODE_STOP: Final = Method(
    "node.stop", NoParams, NodeStatus, "stop the node in order", scope=Scope.ADMIN
)
