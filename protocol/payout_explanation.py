"""Every payout of a settled job in words: its formula with the numbers put in, and for each number
the event of the chain that it comes from. Source: MECHANISM 14.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from protocol.bitmap import decode_bitmap
from protocol.consensus import select_voters
from protocol.digest import RoundHeader
from protocol.events import (
    AuctionClosed,
    BidRevealed,
    ConeEnrolled,
    CourseChanged,
    DecisionUpheld,
    Event,
    FinalDecided,
    JobSettled,
    PayoutCredited,
    RecordedEvent,
    RoundDecided,
    SellerEnrolled,
    SharesOpened,
    TrainingEnded,
)
from protocol.job import JobState
from protocol.params import BPS, ProtocolParams
from protocol.payment_audit import (
    AuditedPayment,
    PaymentAudit,
    SettledJob,
    audit_payments,
    collect_settled_job,
    list_paid_votes,
)
from protocol.settlement import (
    ACCESS_CAP_FACTOR,
    MIN_PAID_PROGRESS_BPS,
    Outcome,
    PayeeRole,
    SettlementInputs,
    compute_paid_bps,
    compute_progress_bps,
    compute_refund_cap,
)
from protocol.sortition import BallotKind
from protocol.types import Address, BlockNumber, JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSource:
    """Where the chain says a number."""

    event: str
    block_number: BlockNumber
    log_index: int
    transaction_hash: bytes


def locate(recorded: RecordedEvent) -> EventSource:
    """Name where an event was recorded."""
    return EventSource(
        event=type(recorded.event).__name__,
        block_number=recorded.block_number,
        log_index=recorded.log_index,
        transaction_hash=recorded.transaction_hash,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedNumber:
    """A number that more than one payout is computed from."""

    name: str
    value: int | str
    formula: str
    """Empty for a number that is recorded as it is."""
    sources: tuple[EventSource, ...]
    """Of the numbers in the formula that have no line of their own. None for a parameter of the
    deployment, which the contracts got when they were made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedPayment:
    """What one payee gets, and why."""

    payment: AuditedPayment
    formula: str
    sources: tuple[EventSource, ...]
    """Who the payee is, and what its weight was counted from."""
    credited_by: tuple[EventSource, ...]
    """Where the amount was credited; nothing for an amount of zero, or one not claimed yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutExplanation:
    """A settled job's payouts, each recomputed."""

    job_id: JobId
    currency: Address
    numbers: tuple[ExplainedNumber, ...]
    payments: tuple[ExplainedPayment, ...]
    audit: PaymentAudit


def explain_payouts(job: JobState, params: ProtocolParams) -> PayoutExplanation:
    """Recompute every payout of a job from the events of the chain alone.

    Raises
    ------
    RuleViolation
        If the job is not settled.
    InvalidMessage
        If the bytes behind a decided round are no header: then nothing can be computed.
    """
    settled = collect_settled_job(job, params)
    audit = audit_payments(settled)
    trail = _Trail(job.trail)
    return PayoutExplanation(
        job_id=job.job_id,
        currency=job.currency,
        numbers=tuple(_explain_numbers(job, audit, trail)),
        payments=tuple(_Explainer(job, settled, audit, trail).explain()),
        audit=audit,
    )


class _Trail:
    """The events that payouts come from, found by type and content."""

    def __init__(self, recorded: Sequence[RecordedEvent]) -> None:
        self._recorded = recorded

    def find(self, kind: type[Event], **fields: object) -> tuple[EventSource, ...]:
        """List where the events of a type with these fields were recorded."""
        return tuple(
            locate(one)
            for one in self._recorded
            if isinstance(one.event, kind)
            and all(getattr(one.event, name) == value for name, value in fields.items())
        )


def _explain_numbers(
    job: JobState, audit: PaymentAudit, trail: _Trail
) -> Iterator[ExplainedNumber]:
    inputs = audit.inputs
    closed = trail.find(AuctionClosed)
    terms = trail.find(BidRevealed, bidder=job.buyer)[-1:]
    ended = trail.find(TrainingEnded)
    rounds = tuple(
        source
        for one in job.decided_rounds
        for source in trail.find(RoundDecided, ballot_number=one.ballot_number)
    )
    for name in ("cone_bps", "floor_bps", "refund_cap_bps"):
        yield _number(name, getattr(inputs, name))
    yield _number("price", inputs.price_wei, closed)
    for name in ("rounds_max", "sellers_per_round", "target"):
        yield _number(name, getattr(inputs, name), terms)
    yield _number("outcome", inputs.outcome.name.lower(), ended)
    yield _number("rounds_done", inputs.rounds_done, rounds)
    yield from _explain_utilities(job, inputs, trail)
    yield from _explain_pools(audit, trail)


def _explain_utilities(
    job: JobState, inputs: SettlementInputs, trail: _Trail
) -> Iterator[ExplainedNumber]:
    """Name the final evaluation that both are of, or the first and the last round."""
    if not job.decided_rounds:
        return
    first, last = job.decided_rounds[0], job.decided_rounds[-1]
    finals = [one.decision for one in job.decided if isinstance(one.decision, FinalDecided)]
    if finals and finals[-1].round_index == last.round_index:
        both = trail.find(FinalDecided, ballot_number=finals[-1].ballot_number)
        sources = (both, both)
    else:
        sources = (
            trail.find(RoundDecided, ballot_number=first.ballot_number),
            trail.find(RoundDecided, ballot_number=last.ballot_number),
        )
    yield _number("initial_utility", inputs.initial_utility, sources[0])
    yield _number("last_utility", inputs.last_utility, sources[1])


def _explain_pools(audit: PaymentAudit, trail: _Trail) -> Iterator[ExplainedNumber]:
    inputs, settlement = audit.inputs, audit.settlement
    share = f"{inputs.price_wei} * {inputs.cone_bps} // {BPS}"
    rest = f"({inputs.price_wei} - {inputs.price_wei * inputs.cone_bps // BPS})"
    part = f"{inputs.rounds_done} // {inputs.rounds_max}"
    match inputs.outcome:
        case Outcome.UNSERVED:
            cones, sellers = f"{share} // {inputs.rounds_max}", "0"
        case _ if inputs.rounds_done == 0:
            cones, sellers = "0", "0"
        case Outcome.TARGET:
            cones, sellers = share, rest
        case _:
            yield _number("paid_bps", compute_paid_bps(inputs), formula=_tell_paid_bps(inputs))
            cones = f"{share} * {part}"
            sellers = f"{rest} * {compute_paid_bps(inputs)} // {BPS}"
    yield _number("cone_pool", settlement.cone_pool_wei, formula=cones)
    yield _number("seller_pool", settlement.seller_pool_wei, formula=sellers)
    cap = f"min({share} * {inputs.refund_cap_bps} // {BPS} * {part}, {settlement.cone_pool_wei})"
    cap_wei = compute_refund_cap(inputs, settlement.cone_pool_wei)
    yield _number("refund_cap", cap_wei, formula=cap)
    spent = trail.find(CourseChanged)
    yield _number("spent_on_batches", sum(inputs.spent_wei), spent)
    refunded = sum(settlement.batch_refunds_wei)
    yield _number("cone_shares", settlement.cone_pool_wei - refunded,
                  formula=f"{settlement.cone_pool_wei} - {refunded}")  # fmt: skip
    yield _number("cone_weights", sum(inputs.cone_weights), formula=_add(inputs.cone_weights))
    weights = inputs.contribution_weights
    yield _number("seller_weights", sum(weights), formula=_add(weights))
    accesses = f"{ACCESS_CAP_FACTOR} * {inputs.sellers_per_round} * {inputs.rounds_done}"
    yield _number("access_cap", inputs.access_cap, formula=f"ceil({accesses} / {len(weights)})")


def _tell_paid_bps(inputs: SettlementInputs) -> str:
    start, target = inputs.initial_utility, inputs.target
    if target <= start:
        return f"{BPS}: the target is not above the start"
    made = compute_progress_bps(target, start, inputs.last_utility)
    way = f"{BPS} * ({inputs.last_utility} - {start}) // ({target} - {start}) in [0, {BPS}]"
    if made < MIN_PAID_PROGRESS_BPS:
        return way
    return f"max({way}, {inputs.floor_bps} * {inputs.rounds_done} // {inputs.rounds_max})"


class _Explainer:
    """The payees of one job."""

    def __init__(
        self, job: JobState, settled: SettledJob, audit: PaymentAudit, trail: _Trail
    ) -> None:
        self._job = job
        self._audit = audit
        self._trail = trail
        self._counted: list[tuple[int, frozenset[int], frozenset[int]]] = []
        """Of each decided ballot: its number, CONE nodes paid for it, sellers accepted in it."""
        for decided, ballot in zip(job.decided, settled.ballots, strict=True):
            accepted = 0
            if ballot.kind is BallotKind.ROUND:
                accepted = RoundHeader.decode(ballot.header).accepted
            self._counted.append(
                (
                    decided.ballot.ballot_number,
                    frozenset(select_voters(list_paid_votes(ballot), ballot.digest)),
                    frozenset(decode_bitmap(accepted)),
                )
            )

    def explain(self) -> Iterator[ExplainedPayment]:
        for payment in self._audit.payments:
            yield ExplainedPayment(
                payment=payment,
                formula=self._tell(payment),
                sources=self._find_sources(payment),
                credited_by=self._trail.find(
                    PayoutCredited, role=payment.role.value, index=payment.index
                ),
            )

    def _tell(self, payment: AuditedPayment) -> str:
        inputs, settlement = self._audit.inputs, self._audit.settlement
        refunded = sum(settlement.batch_refunds_wei)
        match payment.role:
            case PayeeRole.CONE:
                shares = settlement.cone_pool_wei - refunded
                return _tell_share(shares, str(payment.weight), sum(inputs.cone_weights))
            case PayeeRole.SELLER:
                part = f"min({payment.weight}, {inputs.access_cap})"
                total = sum(inputs.contribution_weights)
                return _tell_share(settlement.seller_pool_wei, part, total)
            case PayeeRole.BATCHER:
                cap = compute_refund_cap(inputs, settlement.cone_pool_wei)
                spent = sum(inputs.spent_wei)
                if spent <= cap:
                    return str(payment.weight)
                return f"{cap} * {payment.weight} // {spent}"
            case PayeeRole.BUYER:
                cones, sellers = settlement.cone_payouts_wei, settlement.seller_payouts_wei
                return f"{inputs.price_wei} - {refunded} - {sum(cones)} - {sum(sellers)}"

    def _find_sources(self, payment: AuditedPayment) -> tuple[EventSource, ...]:
        find, payee = self._trail.find, payment.payee
        match payment.role:
            case PayeeRole.CONE:
                if self._audit.inputs.outcome is Outcome.UNSERVED:
                    return (*find(ConeEnrolled, node=payee), *find(TrainingEnded))
                numbers = [one for one, cones, _ in self._counted if payment.index in cones]
                return (*find(ConeEnrolled, node=payee), *self._find_decisions(numbers))
            case PayeeRole.SELLER:
                numbers = [one for one, _, sellers in self._counted if payment.index in sellers]
                return (*find(SellerEnrolled, seller=payee), *self._find_decisions(numbers))
            case PayeeRole.BATCHER:
                return (*find(ConeEnrolled, node=payee), *find(CourseChanged))
            case PayeeRole.BUYER:
                settlement = (*find(JobSettled), *find(SharesOpened))
                return (*find(AuctionClosed), *settlement)

    def _find_decisions(self, numbers: Sequence[int]) -> tuple[EventSource, ...]:
        """Name what decided some ballots, and what confirmed them."""
        kinds = (RoundDecided, FinalDecided, DecisionUpheld)
        return tuple(
            source
            for number in numbers
            for kind in kinds
            for source in self._trail.find(kind, ballot_number=number)
        )


def _number(
    name: str, value: int | str, sources: tuple[EventSource, ...] = (), *, formula: str = ""
) -> ExplainedNumber:
    return ExplainedNumber(name=name, value=value, formula=formula, sources=sources)


def _tell_share(pool_wei: int, part: str, total: int) -> str:
    return f"{pool_wei} * {part} // {total}" if total else "0: nobody has a weight"


def _add(weights: Sequence[int]) -> str:
    return " + ".join(map(str, weights)) or "0"
