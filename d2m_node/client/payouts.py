"""Methods that explain who was paid what."""

from typing import Final

from d2m_node.client.jobs import JobParams
from d2m_node.client.method import Method, Result, Scope


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


EXPLAIN_PAYOUTS: Final = Method(
    "payouts.explain",
    JobParams,
    ExplanationView,
    "every payout of a settled job, recomputed",
    scope=Scope.READ,
)
