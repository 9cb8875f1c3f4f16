"""Methods about the node itself."""

from typing import Final

from msgspec import field

from d2m_node.client.method import Method, NoParams, Result, Scope
from d2m_node.client.refusals import RefusalView
from d2m_node.client.roles import RoleStateName


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
    roles: dict[str, RoleStateName]
    jobs: dict[str, int]
    """How many jobs are in each phase."""
    refusals: list[RefusalView] = field(default_factory=list)
    """The latest jobs that a role turned down or could not go on with."""


class PeerView(Result, frozen=True, kw_only=True):
    peer_id: str
    multiaddr: str
    connected: bool
    last_error: str | None
    accounts: list[str]
    """Chain accounts that name this peer."""


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
