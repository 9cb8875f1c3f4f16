"""What every method shares: its value, the roots of params and results, scopes, errors' codes."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Annotated, Final, Generic, TypeVar

from msgspec import Meta, Struct

MAX_JOB: Final = (1 << 63) - 1
JobNumber = Annotated[int, Meta(ge=1, le=MAX_JOB)]
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
    UNAUTHORISED = -32007
    """No token, or none that counts."""
    FORBIDDEN = -32008
    """The token's scope, or where the request comes from, does not allow it."""
    KEY_REUSED = -32009
    """The idempotency key was used for something else."""
    BUSY = -32010
    """Too many calls at once; try again."""
    EVENTS_GONE = -32011
    """The events after the cursor are no longer kept."""


class Scope(StrEnum):
    """What a caller may do. Whoever calls on the unix socket may do all."""

    READ = "read"
    """Look."""
    BUY = "buy"
    """Look, switch the buyer role, spend on requests, fetch what was bought."""
    SELL = "sell"
    """Look, and switch the seller role."""
    ADMIN = "admin"
    """Everything: the CONE role with its stake, stopping the node, tokens."""

    def covers(self, needed: "Scope") -> bool:
        """Tell whether who has this scope may do what needs another."""
        return needed in (self, Scope.READ) or self is Scope.ADMIN


class Params(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Named parameters."""


class NoParams(Params, frozen=True):
    """The method takes none."""


class Result(Struct, frozen=True, kw_only=True):
    """What a method gives."""


P = TypeVar("P", bound=Params)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Method(Generic[P, R]):
    """One remote procedure."""

    name: str
    params: type[P]
    result: type[R]
    summary: str
    scope: Scope | Mapping[str, Scope] = Scope.ADMIN
    """What a caller needs; by the parameter ``role`` where that decides."""
    pays: bool = False
    """It may move money: the same ``idempotency_key`` among its params never does so twice."""

    def scope_of(self, params: P) -> Scope:
        """Return the scope that a call with these params needs."""
        return self.scope if isinstance(self.scope, Scope) else self.scope[params.role]  # type: ignore[attr-defined]
