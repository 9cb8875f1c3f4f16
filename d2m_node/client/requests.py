"""Methods that ask the market for a model."""

from typing import Final

from d2m_node.client.method import IdempotencyKey, Method, Params, Result, Scope


class SubmitRequestParams(Params, frozen=True, kw_only=True):
    """A request as the absolute path of its file, or as the file's content."""

    idempotency_key: IdempotencyKey
    """The same key never bids twice."""
    path: str | None = None
    request: dict[str, object] | None = None


class SubmittedRequest(Result, frozen=True, kw_only=True):
    job: int
    """Number of the auction, and of the job if the bid wins."""


SUBMIT_REQUEST: Final = Method(
    "request.submit",
    SubmitRequestParams,
    SubmittedRequest,
    "open or join an auction",
    scope=Scope.BUY,
    pays=True,
)
