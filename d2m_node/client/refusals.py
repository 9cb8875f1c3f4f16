"""What this node's roles turned down, and why."""

from typing import Annotated, Final

from msgspec import Meta

from d2m_node.client.method import JobNumber, Method, Params, Result, Scope


class RefusalView(Result, frozen=True, kw_only=True):
    job: int
    role: str
    code: str
    """Names the rule: price, windows, busy, stake, model, tags, privacy, room, failed, ...."""
    reason: str
    block: int
    """The last block followed when it was noted first."""


class RefusalsParams(Params, frozen=True, kw_only=True):
    job: JobNumber | None = None
    """Of one job; else of all."""
    count: Annotated[int, Meta(ge=1, le=1000)] = 100
    """At most so many, the latest ones."""


LIST_REFUSALS: Final = Method(
    "refusals.list",
    RefusalsParams,
    list[RefusalView],
    "jobs that this node turned down or could not go on with, and why, newest first",
    scope=Scope.READ,
)
