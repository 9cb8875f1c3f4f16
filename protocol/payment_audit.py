"""Every payout of a settled job once more, from what the chain recorded before it was settled.

Who voted comes from the openings, contribution weights from the headers behind the decided
digests, utilities from headers and final evaluations, what batches cost from the last course. What
the settlement credited is only compared. In a job with many payees each claims its share: what
nobody has claimed yet is set aside, and no difference. Source: MECHANISM 14.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from protocol.ballot import DecidedBallot
from protocol.bitmap import encode_bitmap
from protocol.consensus import (
    Decided,
    OpenedVote,
    decide,
    find_majority,
    select_voters,
    tally,
)
from protocol.course import list_spending
from protocol.digest import RoundHeader, add_credits, compute_credit_root
from protocol.errors import InvalidMessage, RuleViolation
from protocol.events import (
    JobSettled,
    PayoutCredited,
    RoundDecided,
    SharesOpened,
    TrainingEnded,
)
from protocol.hashing import keccak
from protocol.job import JobState
from protocol.params import ProtocolParams
from protocol.settlement import Outcome, PayeeRole, Settlement, SettlementInputs, compute_settlement
from protocol.sortition import BallotKind
from protocol.types import NO_ACCOUNT, NO_DIGEST, Address, Digest, UtilityQ20, Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedBallot:
    """A decided ballot as the chain recorded it."""

    kind: BallotKind
    round_index: int
    digest: Digest
    voters: int
    """Bitmap of the nodes that the contract counted for pay."""
    openings: tuple[OpenedVote, ...]
    pool_mini_round: int | None
    """The mini-round in which the whole pool was asked, if it was."""
    pays_newcomers: bool
    """Whether those who came when the whole pool was asked are paid: not for an appeal that
    failed, because its bond pays them."""
    header: bytes
    """Behind the digest of a round; empty for a final evaluation."""
    initial_utility: UtilityQ20
    """Of a final evaluation; zero for a round."""
    utility: UtilityQ20


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledJob:
    """All that an audit of payments reads, from the chain and from nowhere else."""

    cone_bps: int
    floor_bps: int
    refund_cap_bps: int
    rounds_max: int
    sellers_per_round: int
    target: UtilityQ20
    lead: int
    price_wei: Wei
    buyer: Address
    sellers: tuple[Address, ...]
    cones: tuple[Address, ...]
    final_receipts: int
    """Bitmap of the nodes that held V_fin."""
    ballots: tuple[CountedBallot, ...]
    ended: TrainingEnded
    settled: JobSettled
    payouts: tuple[PayoutCredited, ...]
    spent_wei: tuple[Wei, ...]
    """Per CONE node: what it spent on batches; zero in a job that is not in ether."""
    shares: SharesOpened | None
    """If each payee claims its share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedPayment:
    """What one payee should get, and what it was credited."""

    role: PayeeRole
    index: int
    payee: Address
    weight: int
    """Ballots decided with its vote, or rounds in which it was accepted, or what it spent on
    batches; 0 for the buyer."""
    computed_wei: Wei
    credited_wei: Wei
    is_claimed: bool
    """False for a share that is set aside, and that nobody has claimed yet."""

    @property
    def matches(self) -> bool:
        """Tell whether the two are the same, to the wei; what is set aside cannot differ yet."""
        return not self.is_claimed or self.computed_wei == self.credited_wei


@dataclass(frozen=True, slots=True)
class Difference:
    """Something else that was recorded otherwise than it comes out."""

    what: str
    computed: int | str
    recorded: int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentAudit:
    """The result of an audit of payments."""

    inputs: SettlementInputs
    settlement: Settlement
    payments: tuple[AuditedPayment, ...]
    """CONE nodes, sellers, the buyer, senders of batches; by index. Those who get nothing are there
    too, but for those who sent no batch."""
    differences: tuple[Difference, ...]
    shared_equally: bool
    """The sellers' pool was split evenly against the headers: the contract's way out if nobody
    brings the credits behind an accepted root for the deployment's longest window."""

    @property
    def is_exact(self) -> bool:
        """Tell whether everything was paid and recorded as it comes out."""
        return not self.differences and all(payment.matches for payment in self.payments)


def collect_settled_job(job: JobState, params: ProtocolParams) -> SettledJob:
    """Take from a job's history what an audit needs.

    Raises
    ------
    RuleViolation
        If the job is not settled.
    """
    if job.terms is None or job.buyer is None or job.ended is None or job.settled is None:
        raise RuleViolation(f"job {job.job_id} is not settled: nothing was paid yet")
    return SettledJob(
        cone_bps=params.cone_bps,
        floor_bps=params.floor_bps,
        refund_cap_bps=params.refund_cap_bps,
        rounds_max=job.terms.rounds_max,
        sellers_per_round=job.terms.sellers_per_round,
        target=UtilityQ20(job.terms.target),
        lead=job.terms.lead,
        price_wei=job.price_wei,
        buyer=job.buyer,
        sellers=tuple(seller.account for seller in job.sellers),
        cones=tuple(cone.account for cone in job.cones),
        final_receipts=job.receipts.get(1, 0),
        ballots=tuple(count_ballot(decided) for decided in job.decided),
        ended=job.ended,
        settled=job.settled,
        payouts=job.payouts,
        spent_wei=_list_spending(job),
        shares=job.shares,
    )


def describe_differences(audit: PaymentAudit) -> tuple[str, ...]:
    """Name everything that does not come out, with both numbers."""
    parts = [
        f"{payment.role.name.lower()} {payment.index} was credited {payment.credited_wei} wei, "
        f"and {payment.computed_wei} wei come out"
        for payment in audit.payments
        if not payment.matches
    ]
    parts += [
        f"{one.what}: {one.recorded} is recorded, and {one.computed} comes out"
        for one in audit.differences
    ]
    if audit.shared_equally:
        parts.append("the sellers' pool was shared equally, as if nobody had known the credits")
    return tuple(parts)


def _list_spending(job: JobState) -> tuple[Wei, ...]:
    """Find what each node is refunded for: gas is paid in ether, so only a job in ether does."""
    if job.currency != NO_ACCOUNT or job.course is None:
        return (Wei(0),) * len(job.cones)
    return list_spending(job.course, len(job.cones))


def audit_payments(job: SettledJob) -> PaymentAudit:
    """Recompute every payout and the refund, and list what differs.

    Raises
    ------
    InvalidMessage
        If the bytes behind a decided round are no header: then nothing can be computed.
    """
    headers = [_decode(ballot) for ballot in job.ballots if ballot.kind is BallotKind.ROUND]
    inputs = derive_settlement_inputs(job, headers)
    settlement = compute_settlement(inputs)
    payments = tuple(_list_payments(job, inputs, settlement))
    return PaymentAudit(
        inputs=inputs,
        settlement=settlement,
        payments=payments,
        differences=(
            *_check_ballots(job),
            *_check_end(job, inputs, headers),
            *_check_settlement(job, settlement, payments),
            *_check_shares(job, settlement),
            *_check_payees(job),
        ),
        shared_equally=_is_shared_equally(job, inputs, payments),
    )


def derive_settlement_inputs(job: SettledJob, headers: Sequence[RoundHeader]) -> SettlementInputs:
    """Derive what a settlement depends on from the decided ballots.

    The outcome is the recorded one: voids and deadlines led to it. Whether it fits the final
    evaluations is checked apart.
    """
    participation = [0] * len(job.cones)
    for ballot in job.ballots:
        for node in select_voters(list_paid_votes(ballot), ballot.digest):
            participation[node] += 1
    initial_utility, last_utility = _find_utilities(job, headers)
    return SettlementInputs(
        price_wei=job.price_wei,
        outcome=Outcome(job.ended.outcome),
        cone_bps=job.cone_bps,
        floor_bps=job.floor_bps,
        refund_cap_bps=job.refund_cap_bps,
        rounds_max=job.rounds_max,
        rounds_done=len(headers),
        sellers_per_round=job.sellers_per_round,
        target=job.target,
        initial_utility=initial_utility,
        last_utility=last_utility,
        participation_counts=tuple(participation),
        contribution_weights=_add_weights(job, headers),
        spent_wei=job.spent_wei,
    )


def count_ballot(decided: DecidedBallot) -> CountedBallot:
    """Take from a decided ballot what its payments depend on."""
    decision = decided.decision
    header, initial_utility, utility = b"", 0, 0
    if isinstance(decision, RoundDecided):
        header = decision.header
    else:
        initial_utility, utility = decision.initial_utility, decision.utility
    ballot = decided.ballot
    return CountedBallot(
        kind=ballot.kind,
        round_index=decision.round_index,
        digest=decision.digest,
        voters=decision.voters,
        openings=tuple(
            OpenedVote(
                node_index=opening.cone_index,
                mini_round_index=opening.mini_round_index,
                digest=opening.digest,
                trace=opening.trace,
            )
            for opening in ballot.openings
        ),
        pool_mini_round=ballot.current.mini_round_index if ballot.is_pool_called else None,
        pays_newcomers=ballot.is_audited or not decided.is_upheld,
        header=header,
        initial_utility=UtilityQ20(initial_utility),
        utility=UtilityQ20(utility),
    )


def _decode(ballot: CountedBallot) -> RoundHeader:
    try:
        return RoundHeader.decode(ballot.header)
    except InvalidMessage as exc:
        raise InvalidMessage(f"round {ballot.round_index}: {exc}") from exc


def _add_weights(job: SettledJob, headers: Sequence[RoundHeader]) -> tuple[int, ...]:
    weights: tuple[int, ...] = (0,) * len(job.sellers)
    for header in headers:
        # A decided header may name sellers that there are not; its credit root then differs.
        weights = add_credits(weights, header.accepted & ((1 << len(weights)) - 1))
    return weights


def _find_utilities(
    job: SettledJob, headers: Sequence[RoundHeader]
) -> tuple[UtilityQ20, UtilityQ20]:
    """Find U_0 and U_T: those of the final evaluation of the last decided model, if there is one.

    Else the best evidence on chain: the rounds' own, on their samples of V_sel.
    """
    if not headers:
        return UtilityQ20(0), UtilityQ20(0)
    final = _last_final(job)
    if final is not None and final.round_index == headers[-1].round_index:
        return final.initial_utility, final.utility
    return headers[0].utility_before, headers[-1].utility_after


def _last_final(job: SettledJob) -> CountedBallot | None:
    finals = [ballot for ballot in job.ballots if ballot.kind is BallotKind.FINAL]
    return finals[-1] if finals else None


def _list_payments(
    job: SettledJob, inputs: SettlementInputs, settlement: Settlement
) -> Iterator[AuditedPayment]:
    credited: dict[tuple[int, int], int] = {}
    for payout in job.payouts:
        place = (payout.role, payout.index)
        credited[place] = credited.get(place, 0) + payout.amount_wei
    groups = (
        (PayeeRole.CONE, job.cones, inputs.cone_weights, settlement.cone_payouts_wei),
        (PayeeRole.SELLER, job.sellers, inputs.contribution_weights, settlement.seller_payouts_wei),
        (PayeeRole.BUYER, (job.buyer,), (0,), (settlement.refund_wei,)),
        (PayeeRole.BATCHER, job.cones, inputs.spent_wei, settlement.batch_refunds_wei),
    )
    for role, payees, weights, amounts in groups:
        rows = zip(payees, weights, amounts, strict=True)
        for index, (payee, weight, amount_wei) in enumerate(rows):
            place = (role, index)
            if role is PayeeRole.BATCHER and not weight and place not in credited:
                continue
            yield AuditedPayment(
                role=role,
                index=index,
                payee=payee,
                weight=weight,
                computed_wei=amount_wei,
                credited_wei=Wei(credited.get(place, 0)),
                is_claimed=place in credited or not _is_claimed_apart(job, role),
            )


def _is_claimed_apart(job: SettledJob, role: PayeeRole) -> bool:
    """Tell whether those of a role are paid when they claim, not when the job is settled."""
    return job.shares is not None and role in (PayeeRole.CONE, PayeeRole.SELLER)


def _check_ballots(job: SettledJob) -> Iterator[Difference]:
    """Check each decision against its votes, and each header against its digest."""
    for ballot in job.ballots:
        name = f"{ballot.kind.name.lower()} {ballot.round_index}"
        decided = _decide(ballot, job.lead, len(job.cones))
        yield from _compare(f"digest of {name}", decided.hex(), ballot.digest.hex())
        voters = encode_bitmap(select_voters(list_paid_votes(ballot), ballot.digest))
        yield from _compare(f"voters of {name}", f"{voters:#x}", f"{ballot.voters:#x}")
        if ballot.kind is BallotKind.ROUND:
            digest = keccak(ballot.header)
            yield from _compare(f"header of {name}", digest.hex(), ballot.digest.hex())


def list_paid_votes(ballot: CountedBallot) -> tuple[OpenedVote, ...]:
    """List the votes that earn pay if they are for the accepted digest."""
    if ballot.pool_mini_round is None or ballot.pays_newcomers:
        return ballot.openings
    return _list_before_call(ballot, ballot.pool_mini_round)


def _list_before_call(ballot: CountedBallot, pool_mini_round: int) -> tuple[OpenedVote, ...]:
    return tuple(one for one in ballot.openings if one.mini_round_index < pool_mini_round)


def _decide(ballot: CountedBallot, lead: int, pool_size: int) -> Digest:
    """Decide on a ballot; if the whole pool was asked, its majority or what stood before."""
    openings = ballot.openings
    if ballot.pool_mini_round is not None:
        majority = find_majority(tally(openings), pool_size)
        if majority is not None:
            return majority
        openings = _list_before_call(ballot, ballot.pool_mini_round)
    decision = decide(tally(openings), lead=lead, pool_size=pool_size, set_size=pool_size)
    return decision.digest if isinstance(decision, Decided) else NO_DIGEST


def _check_end(
    job: SettledJob, inputs: SettlementInputs, headers: Sequence[RoundHeader]
) -> Iterator[Difference]:
    """Check what the contract kept of the training against the decided ballots."""
    ended = job.ended
    yield from _compare("rounds done", inputs.rounds_done, ended.rounds_done)
    if headers:
        yield from _compare("first utility", inputs.initial_utility, ended.initial_utility)
        yield from _compare("last utility", inputs.last_utility, ended.last_utility)
        root = compute_credit_root(job.sellers, inputs.contribution_weights)
        yield from _compare("credit root", root.hex(), ended.credit_root.hex())
        yield from _compare("credit sum", sum(inputs.contribution_weights), ended.credit_sum)
        model = headers[-1].model_digest
        yield from _compare("model", model.hex(), ended.model_digest.hex())
    final = _last_final(job)
    is_reached = final is not None and final.utility >= job.target
    # A buyer that keeps V_fin back cannot gain by it: the target then counts as reached.
    is_served = 2 * job.final_receipts.bit_count() > len(job.cones)
    claims_target = inputs.outcome is Outcome.TARGET
    if is_reached != claims_target and (is_reached or is_served):
        yield Difference("target", _tell_reached(is_reached), _tell_reached(claims_target))


def _check_settlement(
    job: SettledJob, settlement: Settlement, payments: Sequence[AuditedPayment]
) -> Iterator[Difference]:
    settled = job.settled
    yield from _compare("price", job.price_wei, settled.price_wei)
    yield from _compare("CONE nodes' pool", settlement.cone_pool_wei, settled.cone_pool_wei)
    yield from _compare("sellers' pool", settlement.seller_pool_wei, settled.seller_pool_wei)
    yield from _compare("refund", settlement.refund_wei, settled.refund_wei)
    aside = sum(one.computed_wei for one in payments if not one.is_claimed)
    total = sum(payout.amount_wei for payout in job.payouts) + aside
    yield from _compare("sum of all payments", job.price_wei, total)


def _check_shares(job: SettledJob, settlement: Settlement) -> Iterator[Difference]:
    """Check what the shares of a job with many payees are claimed by."""
    if job.shares is None:
        return
    cone_pool = settlement.cone_pool_wei - sum(settlement.batch_refunds_wei)
    yield from _compare("CONE nodes' shares", cone_pool, job.shares.cone_pool_wei)
    yield from _compare("sellers' shares", settlement.seller_pool_wei, job.shares.seller_pool_wei)
    root = job.ended.credit_root
    yield from _compare("root of the shares", root.hex(), job.shares.credit_root.hex())


def _check_payees(job: SettledJob) -> Iterator[Difference]:
    """Check that every credit went to the account of its place, and that there is such a place."""
    payees: Mapping[int, tuple[Address, ...]] = {
        PayeeRole.CONE: job.cones,
        PayeeRole.SELLER: job.sellers,
        PayeeRole.BUYER: (job.buyer,),
        PayeeRole.BATCHER: job.cones,
    }
    for payout in job.payouts:
        accounts = payees.get(payout.role, ())
        account = accounts[payout.index] if payout.index < len(accounts) else b""
        place = f"payee {payout.index} of role {payout.role}"
        yield from _compare(place, account.hex(), payout.payee.hex())


def _is_shared_equally(
    job: SettledJob, inputs: SettlementInputs, payments: Sequence[AuditedPayment]
) -> bool:
    if job.shares is not None:
        return job.shares.credit_root == NO_DIGEST != job.ended.credit_root
    equal = compute_settlement(replace(inputs, contribution_weights=(1,) * len(job.sellers)))
    sellers = [one for one in payments if one.role is PayeeRole.SELLER]
    return any(not one.matches for one in sellers) and all(
        one.credited_wei == equal.seller_payouts_wei[one.index] for one in sellers
    )


def _compare(what: str, computed: int | str, recorded: int | str) -> Iterator[Difference]:
    if computed != recorded:
        yield Difference(what, computed, recorded)


def _tell_reached(is_reached: bool) -> str:
    return "reached" if is_reached else "not reached"
