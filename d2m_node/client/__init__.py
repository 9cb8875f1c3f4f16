"""The typed client of a running node, and every method as a value.

    with RpcClient(Path("/var/lib/d2m-node/rpc.sock")) as node:
        job = node.call(GET_JOB, JobParams(job=1))

A method's value names it and says what it takes and gives; the server answers the same values.
Hex stands for bytes and begins with 0x; amounts are whole wei; a model's bytes are base64.
"""

from d2m_node.client.connection import (
    AsyncRpcClient,
    RpcClient,
)
from d2m_node.client.earnings import (
    LIST_EARNINGS,
    EarningsParams,
    EarningsView,
    EntryView,
    PositionView,
    SumView,
    ZeroView,
)
from d2m_node.client.events import (
    BLOCK_FOLLOWED,
    CHAIN_REORGANISED,
    START,
    STREAM_ENDED,
    STREAM_OPENED,
    Cursor,
    NodeEvent,
)
from d2m_node.client.jobs import (
    GET_JOB,
    JOB_MODEL,
    LIST_JOBS,
    BidView,
    DepositView,
    JobParams,
    JobSummary,
    JobView,
    ModelFile,
    PayoutView,
    RoundView,
    SlashView,
)
from d2m_node.client.method import (
    MAX_REQUEST_BYTES,
    ErrorCode,
    IdempotencyKey,
    JobNumber,
    Method,
    NoParams,
    P,
    Params,
    R,
    Result,
    Scope,
)
from d2m_node.client.node import (
    DISCOVER,
    LIST_METHODS,
    NODE_PEERS,
    NODE_STATUS,
    NODE_STOP,
    MethodView,
    NodeStatus,
    PeerView,
)
from d2m_node.client.payouts import (
    EXPLAIN_PAYOUTS,
    EventView,
    ExplainedPayoutView,
    ExplanationView,
    NumberView,
)
from d2m_node.client.places import (
    CallRefused,
    NodeUnreachable,
    TcpPlace,
)
from d2m_node.client.refusals import (
    LIST_REFUSALS,
    RefusalsParams,
    RefusalView,
)
from d2m_node.client.requests import (
    SUBMIT_REQUEST,
    SubmitRequestParams,
    SubmittedRequest,
)
from d2m_node.client.roles import (
    DISABLE_ROLE,
    DRAIN_ROLE,
    ENABLE_ROLE,
    LIST_ROLES,
    EnableRoleParams,
    Role,
    RoleParams,
    RoleStateName,
    RoleView,
)
from d2m_node.client.streams import (
    AsyncEventStream,
    EventStream,
)
from d2m_node.client.tokens import (
    ROTATE_TOKENS,
    RotateTokensParams,
    TokenView,
)

__all__ = [
    "BLOCK_FOLLOWED",
    "CHAIN_REORGANISED",
    "DISABLE_ROLE",
    "DISCOVER",
    "DRAIN_ROLE",
    "ENABLE_ROLE",
    "EXPLAIN_PAYOUTS",
    "GET_JOB",
    "JOB_MODEL",
    "LIST_EARNINGS",
    "LIST_JOBS",
    "LIST_METHODS",
    "LIST_REFUSALS",
    "LIST_ROLES",
    "MAX_REQUEST_BYTES",
    "NODE_PEERS",
    "NODE_STATUS",
    "NODE_STOP",
    "ROTATE_TOKENS",
    "START",
    "STREAM_ENDED",
    "STREAM_OPENED",
    "SUBMIT_REQUEST",
    "AsyncEventStream",
    "AsyncRpcClient",
    "BidView",
    "CallRefused",
    "Cursor",
    "DepositView",
    "EarningsParams",
    "EarningsView",
    "EnableRoleParams",
    "EntryView",
    "ErrorCode",
    "EventStream",
    "EventView",
    "ExplainedPayoutView",
    "ExplanationView",
    "IdempotencyKey",
    "JobNumber",
    "JobParams",
    "JobSummary",
    "JobView",
    "Method",
    "MethodView",
    "ModelFile",
    "NoParams",
    "NodeEvent",
    "NodeStatus",
    "NodeUnreachable",
    "NumberView",
    "P",
    "Params",
    "PayoutView",
    "PeerView",
    "PositionView",
    "R",
    "RefusalView",
    "RefusalsParams",
    "Result",
    "Role",
    "RoleParams",
    "RoleStateName",
    "RoleView",
    "RotateTokensParams",
    "RoundView",
    "RpcClient",
    "Scope",
    "SlashView",
    "SubmitRequestParams",
    "SubmittedRequest",
    "SumView",
    "TcpPlace",
    "TokenView",
    "ZeroView",
]
