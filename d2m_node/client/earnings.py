"""What the node's account earned and spent, job by job."""

from typing import Final

from d2m_node.client.method import JobNumber, Method, Params, Result, Scope
from d2m_node.client.payouts import EventView
from d2m_node.client.refusals import RefusalView


class EarningsParams(Params, frozen=True, kw_only=True):
    job: JobNumber | None = None
    """Only this job."""


class EntryView(Result, frozen=True, kw_only=True):
    kind: str
    """What the amount is for, like "CONE payout" or "stake slashed"."""
    effect: str
    """put up, returned, spent or earned."""
    amount_wei: int
    formula: str
    """How the contracts came to it; empty if somebody chose the amount."""
    event: EventView
    """Where the chain says so."""


class ZeroView(Result, frozen=True, kw_only=True):
    """Why something paid nothing."""

    code: str
    reason: str
    round: int | None
    """None for the job as a whole."""
    is_final: bool
    """Of a final evaluation, not of a round."""
    events: list[EventView]


class PositionView(Result, frozen=True, kw_only=True):
    """One job, in one role and one currency.

    held = put up - returned - spent, and net = earned - spent.
    """

    job: int
    phase: str
    role: str
    currency: str
    """ether, or the token's address."""
    put_up_wei: int
    """Bids, deposits, stake and bonds that went into contracts."""
    returned_wei: int
    spent_wei: int
    """Prices, forfeits, slashes, burned deposits, lost bonds."""
    earned_wei: int
    """Payouts, refunds, rewards; credited, whether they were pulled yet or not."""
    held_wei: int
    due_wei: int
    """A share that is set aside and not claimed yet, beside what was earned."""
    net_wei: int
    entries: list[EntryView]
    zeros: list[ZeroView]


class SumView(Result, frozen=True, kw_only=True):
    """All positions in one currency; what the account can pull now is not part of a sum."""

    currency: str
    put_up_wei: int
    returned_wei: int
    spent_wei: int
    earned_wei: int
    held_wei: int
    due_wei: int
    net_wei: int
    unclaimed_wei: int
    """Earned or returned, and still in a contract until it is pulled; the node pulls by itself."""


class GasView(Result, frozen=True, kw_only=True):
    """What transactions of one function cost, in ether."""

    job: int | None
    """None for calls of no job."""
    call: str
    transactions: int
    fee_wei: int


class EarningsView(Result, frozen=True, kw_only=True):
    account: str
    block_number: int
    """The block up to which the chain was followed."""
    positions: list[PositionView]
    sums: list[SumView]
    gas: list[GasView]
    """Sent from this data directory since it keeps count; part of no sum."""
    refusals: list[RefusalView]
    """Jobs that a role of this node turned down or could not go on with, the latest ones."""


LIST_EARNINGS: Final = Method(
    "earnings.list",
    EarningsParams,
    EarningsView,
    "what this account earned and spent, job by job, and why",
    scope=Scope.READ,
)
