"""JSON-RPC 2.0: bytes to a call, a call to its method, what comes of it to an answer."""

from typing import Final, Literal

import msgspec
import structlog
import trio
from msgspec import UNSET, Struct, UnsetType

from d2m_node.client import ErrorCode, Scope
from d2m_node.errors import (
    FatalError,
    JobFailed,
    NodeError,
    TransactionReverted,
    TransientError,
    UserError,
)
from d2m_node.rpc.gates import Refused
from d2m_node.rpc.methods import ENDPOINTS, Endpoint, RpcContext
from d2m_node.rpc.once import KeyReused
from d2m_node.user_input import explain_mismatch, explain_unknown_key
from protocol.errors import ProtocolError

log = structlog.get_logger(__name__)

MAX_BRACKETS: Final = 1000

_CODES: Final = (
    (KeyReused, ErrorCode.KEY_REUSED),
    (UserError, ErrorCode.USER_ERROR),
    (TransientError, ErrorCode.UNAVAILABLE),
    (TransactionReverted, ErrorCode.REVERTED),
    (JobFailed, ErrorCode.JOB_FAILED),
    (ProtocolError, ErrorCode.RULE_BROKEN),
    (FatalError, ErrorCode.FATAL),
)

Outcome = dict[str, object]
"""The part of an answer that says what came of a call: a result, or an error."""


class Call(Struct, frozen=True, kw_only=True):
    """The envelope of a request; without an id it is a notification, and not answered."""

    jsonrpc: Literal["2.0"]
    method: str
    params: dict[str, object] = {}
    id: int | str | UnsetType | None = UNSET


class Dispatcher:
    """Runs calls; remembers the error that must end the node."""

    def __init__(self, context: RpcContext) -> None:
        self._context = context
        self.failed = trio.Event()
        self.failure: FatalError | None = None

    async def run(self, call: Call, held: Scope) -> Outcome:
        """Call a method for someone who has a scope, and count it."""
        outcome = await self._answer(call, held)
        method = call.method if call.method in ENDPOINTS else "unknown"
        self._context.calls[method, _name_result(outcome)] += 1
        return outcome

    async def _answer(self, call: Call, held: Scope) -> Outcome:
        endpoint = ENDPOINTS.get(call.method)
        if endpoint is None:
            message = explain_unknown_key(call.method[:100], ENDPOINTS)
            return describe_error(ErrorCode.UNKNOWN_METHOD, message)
        try:
            params = msgspec.convert(call.params, endpoint.method.params)
        except msgspec.ValidationError as exc:
            return describe_error(ErrorCode.WRONG_PARAMS, explain_mismatch(exc))
        needed = endpoint.method.scope_of(params)
        if not held.covers(needed):
            message = f"{call.method}: needs the scope {needed}; the token's is {held}"
            return describe_error(ErrorCode.FORBIDDEN, message)
        return await self._run(endpoint, params)

    async def _run(self, endpoint: Endpoint, params: object) -> Outcome:
        try:
            return {"result": await endpoint.call(self._context, params)}
        except (NodeError, ProtocolError, ExceptionGroup) as exc:
            error = _find_only_error(exc)
        code = next((code for kind, code in _CODES if isinstance(error, kind)), None)
        if code is None:
            raise error
        log.info("rpc_refused", method=endpoint.method.name, reason=str(error))
        if isinstance(error, FatalError):
            self.failure = error
        return describe_error(code, str(error))


def decode_call(body: bytes) -> Call:
    """Read a call. Raises Refused."""
    # Some libraries raise the recursion limit beyond what the stack of C holds.
    if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
        raise Refused(ErrorCode.NO_REQUEST, f"a request has at most {MAX_BRACKETS} brackets")
    try:
        return msgspec.json.decode(body, type=Call)
    except msgspec.ValidationError as exc:
        raise Refused(ErrorCode.NO_REQUEST, explain_mismatch(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise Refused(ErrorCode.NO_JSON, "the body is no JSON") from exc


def describe_error(code: ErrorCode, message: str) -> Outcome:
    """Return the outcome of a call that failed: one line."""
    return {"error": {"code": code.value, "message": " ".join(message.split())}}


def _name_result(outcome: Outcome) -> str:
    """Return "ok", or the name of the error's code."""
    error = outcome.get("error")
    if not isinstance(error, dict):
        return "ok"
    return ErrorCode(error["code"]).name.lower()


def make_answer(call_id: int | str | None, outcome: Outcome) -> dict[str, object]:
    """Return the envelope of an answer."""
    return {"jsonrpc": "2.0", "id": call_id, **outcome}


def _find_only_error(error: Exception) -> NodeError | ProtocolError:
    """Return the one error of ours that a nursery may have wrapped; raise anything else."""
    found = error
    while isinstance(found, ExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    if not isinstance(found, NodeError | ProtocolError):
        raise error
    return found
