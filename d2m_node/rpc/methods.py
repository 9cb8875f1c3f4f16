"""One function per method, and the table of them. They see ports and desks, no adapters.

A new method is a value in `d2m_node.client`, a function here, and its line in `ENDPOINTS`. One that
may move money has two functions: one that reads and checks what is asked, and one that acts on it
and may be called again under the same idempotency key.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec
import trio

from d2m_node import client as api
from d2m_node.errors import UserError
from d2m_node.lookup import each_past_job, find_job
from d2m_node.past_jobs import Tie
from d2m_node.ports import Ports
from d2m_node.request_file import RequestFile, parse_request, read_request
from d2m_node.role_control import RoleOptions, RoleState
from d2m_node.rpc.discovery import describe_methods
from d2m_node.rpc.earnings import view_earnings, view_gas
from d2m_node.rpc.explanations import view_explanation
from d2m_node.rpc.herald import Herald
from d2m_node.rpc.once import OnceDesk, PaidCall, hash_plan
from d2m_node.rpc.status import NodeFacts, view_node
from d2m_node.rpc.tokens import Tokens
from d2m_node.rpc.views import summarise_job, view_job, view_peer, view_refusal
from d2m_node.user_input import parse_wei
from protocol.job import JobState
from protocol.payout_explanation import explain_payouts
from protocol.types import JobId

P = TypeVar("P", bound=api.Params)
R = TypeVar("R")
Plan = TypeVar("Plan")

STATUS_REFUSALS: Final = 5
"""The latest ones, in the status of a node."""


class BuyerDesk(Protocol):
    """Takes the operator's requests."""

    async def submit(self, request: RequestFile, *, idempotency_key: str) -> JobId:
        """Open an auction for a request or join one; the same key never bids twice.

        Raises UserError, TransactionReverted, ChainUnavailable.
        """


class ModelDesk(Protocol):
    """Hands out the models of jobs."""

    async def delivered(self, job_id: JobId) -> bytes | None:
        """Return the model that a job delivered to us, as a safetensors file. Raises UserError."""

    async def fetch(self, job_id: JobId) -> bytes:
        """Return the model of any job whose request lets us have it, from the store or from peers.

        Raises UserError if there is none for us, PeerUnreachable if nobody has it any more.
        """


class RoleControl(Protocol):
    """Switches roles while the node runs."""

    def states(self) -> dict[str, RoleState]:
        """Return where every role stands."""

    def notes(self) -> dict[str, str]:
        """Say more of the roles that failed or are closing."""

    async def enable(self, name: str, options: RoleOptions) -> None:
        """Start a role, or undo its drain; return when it is ready. Raises UserError."""

    async def drain(self, name: str) -> None:
        """Let a role take nothing new, and be off when it has finished. Raises UserError."""

    async def disable(self, name: str, *, is_forced: bool = False) -> None:
        """Switch a role off when it owes nothing any more; at once if it is forced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcContext:
    """What methods may touch."""

    ports: Ports
    buyer: BuyerDesk
    models: ModelDesk
    roles: RoleControl
    stop: trio.Event
    once: OnceDesk
    herald: Herald
    facts: NodeFacts
    tokens: Tokens | None = None
    """Where the node listens on TCP."""
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often each method was called, by what came of it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method as the server runs it."""

    method: api.Method[Any, Any]
    call: Callable[[RpcContext, Any], Awaitable[object]]
    """From params to plain JSON values; raises what the method raises."""


async def list_methods(context: RpcContext, params: api.NoParams) -> list[api.MethodView]:  # noqa: ARG001
    """Name every method and its parameters."""
    methods = [endpoint.method for endpoint in ENDPOINTS.values()]
    return [
        api.MethodView(
            name=method.name,
            summary=method.summary,
            params=[field.name for field in msgspec.structs.fields(method.params)],
        )
        for method in methods
    ]


async def discover(context: RpcContext, params: api.NoParams) -> dict[str, object]:  # noqa: ARG001
    """Describe every method."""
    return describe_methods(endpoint.method for endpoint in ENDPOINTS.values())


async def node_status(context: RpcContext, params: api.NoParams) -> api.NodeStatus:  # noqa: ARG001
    """Summarise this node."""
    status = await view_node(context.ports, _name_states(context), context.facts)
    latest = await list_refusals(context, api.RefusalsParams(count=STATUS_REFUSALS))
    notes = context.roles.notes()
    return msgspec.structs.replace(status, refusals=latest, role_notes=notes)


async def node_peers(context: RpcContext, params: api.NoParams) -> list[api.PeerView]:  # noqa: ARG001
    """List the peers this node knows."""
    state = context.ports.chain.state
    return [view_peer(peer, state) for peer in context.ports.network.peers()]


async def list_jobs(context: RpcContext, params: api.NoParams) -> list[api.JobSummary]:  # noqa: ARG001
    """List the market's jobs, oldest first."""
    state = context.ports.chain.state
    past = each_past_job(state, context.ports.store, frozenset(Tie))
    summaries = [summarise_job(job) async for job in past]
    summaries += map(summarise_job, state.jobs.values())
    return sorted(summaries, key=lambda one: one.job)


async def get_job(context: RpcContext, params: api.JobParams) -> api.JobView:
    """Describe one job. Raises UserError."""
    view = view_job(await _find_job(context, params.job))
    refusals = await list_refusals(context, api.RefusalsParams(job=params.job))
    return msgspec.structs.replace(view, refusals=refusals)


async def explain_job_payouts(context: RpcContext, params: api.JobParams) -> api.ExplanationView:
    """Recompute the payouts of a settled job. Raises UserError and RuleViolation."""
    chain = context.ports.chain
    job = await _find_job(context, params.job)
    # The payees of a large job take longer than the event loop may.
    return view_explanation(await trio.to_thread.run_sync(explain_payouts, job, chain.params))


async def list_earnings(context: RpcContext, params: api.EarningsParams) -> api.EarningsView:
    """Describe this account's money in the market's jobs. Raises UserError."""
    job = None if params.job is None else await _find_job(context, params.job)
    return msgspec.structs.replace(
        await view_earnings(context.ports, job),
        gas=view_gas(await context.facts.read_fees(), None if job is None else job.job_id),
        refusals=await list_refusals(context, api.RefusalsParams(job=params.job)),
    )


async def list_roles(context: RpcContext, params: api.NoParams) -> list[api.RoleView]:  # noqa: ARG001
    """List the roles."""
    return _view_roles(context)


async def plan_role(context: RpcContext, params: api.EnableRoleParams) -> RoleOptions:  # noqa: ARG001
    """Check what a role is to be switched on with. Raises UserError."""
    if params.dataset is not None and params.role != "seller":
        raise UserError("dataset: only a seller has one")
    if params.stake_wei is not None and params.role != "cone":
        raise UserError("stake_wei: only a CONE node has one")
    if params.idempotency_key is None and params.role == "cone":
        raise UserError("idempotency_key: a CONE node stakes money; give a key, and never reuse it")
    return RoleOptions(
        dataset=None if params.dataset is None else _check_path("dataset", params.dataset),
        stake_wei=None if params.stake_wei is None else parse_wei(params.stake_wei),
        payment_key=params.idempotency_key,
    )


async def enable_role(
    context: RpcContext, params: api.EnableRoleParams, options: RoleOptions
) -> list[api.RoleView]:
    """Switch a role on. Raises UserError, and what starting the role raises."""
    await context.roles.enable(params.role, options)
    return _view_roles(context)


async def drain_role(context: RpcContext, params: api.RoleParams) -> list[api.RoleView]:
    """Let a role finish and be off then. Raises UserError if it is off."""
    await context.roles.drain(params.role)
    return _view_roles(context)


async def disable_role(context: RpcContext, params: api.DisableRoleParams) -> list[api.RoleView]:
    """Switch a role off."""
    await context.roles.disable(params.role, is_forced=params.now)
    return _view_roles(context)


async def plan_request(context: RpcContext, params: api.SubmitRequestParams) -> RequestFile:  # noqa: ARG001
    """Read a request. Raises UserError."""
    if (params.path is None) == (params.request is None):
        raise UserError("give either path or request")
    if params.request is not None:
        return parse_request(params.request, Path("/"))
    assert params.path is not None
    path = _check_path("path", params.path)
    return await trio.to_thread.run_sync(read_request, path)


async def submit_request(
    context: RpcContext, params: api.SubmitRequestParams, request: RequestFile
) -> api.SubmittedRequest:
    """Bid for a request. Raises UserError, and what the desk raises."""
    state = context.roles.states()["buyer"]
    if state is not RoleState.ON:
        raise UserError(f"the buyer role is {state.value}; run d2m-node role enable buyer")
    job_id = await context.buyer.submit(request, idempotency_key=params.idempotency_key)
    return api.SubmittedRequest(job=job_id)


async def job_model(context: RpcContext, params: api.JobParams) -> api.ModelFile:
    """Return a model. Raises what the desk raises."""
    data = await context.models.delivered(JobId(params.job))
    is_delivered = data is not None
    if data is None:
        data = await context.models.fetch(JobId(params.job))
    return api.ModelFile(job=params.job, safetensors=data, is_delivered=is_delivered)


async def rotate_tokens(context: RpcContext, params: api.RotateTokensParams) -> list[api.TokenView]:
    """Make new tokens. Raises UserError if there are none, or they cannot be written."""
    if context.tokens is None:
        raise UserError("rpc.tcp: not set, so that no token is in use")
    return context.tokens.rotate(params.scopes, revoke=params.revoke)


async def _find_job(context: RpcContext, number: int) -> JobState:
    job = await find_job(context.ports.chain, context.ports.store, JobId(number))
    if job is None:
        raise UserError(f"job {number}: the market has no such job")
    return job


def _view_roles(context: RpcContext) -> list[api.RoleView]:
    states, notes = _name_states(context), context.roles.notes()
    return [
        api.RoleView(role=name, state=states[name], note=notes.get(name)) for name in sorted(states)
    ]


def _name_states(context: RpcContext) -> dict[str, api.RoleStateName]:
    return {name: state.value for name, state in context.roles.states().items()}


async def list_refusals(context: RpcContext, params: api.RefusalsParams) -> list[api.RefusalView]:
    """List what was turned down, newest first."""
    job_id = None if params.job is None else JobId(params.job)
    found = await context.ports.store.refusals.latest(params.count, job_id)
    return [view_refusal(one) for one in found]


def _check_path(key: str, text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or "\0" in text:
        # The node's working directory is not the operator's.
        raise UserError(f"{key}: {text[:100]!r} is not an absolute path")
    return path


def _serve(method: api.Method[P, R], handle: Callable[[RpcContext, P], Awaitable[R]]) -> Endpoint:
    async def call(context: RpcContext, params: P) -> object:
        plain: object = msgspec.to_builtins(await handle(context, params))
        return plain

    return Endpoint(method, call)


def _serve_once(
    method: api.Method[P, R],
    plan: Callable[[RpcContext, P], Awaitable[Plan]],
    act: Callable[[RpcContext, P, Plan], Awaitable[R]],
) -> Endpoint:
    """Serve a method that may move money: with an idempotency key it acts once.

    A key stands for the method and its plan. It is taken only when the plan is made, so that a
    mistake in the params costs no key.
    """
    assert method.pays

    async def call(context: RpcContext, params: P) -> object:
        planned = await plan(context, params)
        key: str | None = params.idempotency_key  # type: ignore[attr-defined]

        async def work() -> R:
            return await act(context, params, planned)

        if key is None:
            result = await work()
        else:
            intent = PaidCall(key=key, method=method.name, plan_hash=hash_plan(planned))
            result = await context.once.run(intent, work, method.result)
        plain: object = msgspec.to_builtins(result)
        return plain

    return Endpoint(method, call)


ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    endpoint.method.name: endpoint
    for endpoint in (
        _serve(api.LIST_METHODS, list_methods),
        _serve(api.DISCOVER, discover),
        _serve(api.NODE_STATUS, node_status),
        _serve(api.NODE_PEERS, node_peers),
        # The server sets `stop` once the answer is on its way.
        _serve(api.NODE_STOP, node_status),
        _serve(api.LIST_JOBS, list_jobs),
        _serve(api.GET_JOB, get_job),
        _serve(api.EXPLAIN_PAYOUTS, explain_job_payouts),
        _serve(api.LIST_EARNINGS, list_earnings),
        _serve(api.LIST_ROLES, list_roles),
        _serve_once(api.ENABLE_ROLE, plan_role, enable_role),
        _serve(api.DRAIN_ROLE, drain_role),
        _serve(api.DISABLE_ROLE, disable_role),
        _serve(api.LIST_REFUSALS, list_refusals),
        _serve_once(api.SUBMIT_REQUEST, plan_request, submit_request),
        _serve(api.JOB_MODEL, job_model),
        _serve(api.ROTATE_TOKENS, rotate_tokens),
    )
}
