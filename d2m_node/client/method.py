"""What every method shares: its value, the roots of params and results, and the errors' codes."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final, Generic, TypeVar

from msgspec import Meta, Struct

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
