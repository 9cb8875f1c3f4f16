"""What the account earned and spent, as the operator reads it."""

from collections.abc import Iterable, Mapping, Sequence

import trio

from d2m_node.client import (
    EarningsView,
    EntryView,
    EventView,
    GasView,
    PositionView,
    SumView,
    ZeroView,
)
from d2m_node.lookup import each_past_job
from d2m_node.measures import FeeTotal
from d2m_node.ports import Ports
from d2m_node.rpc.explanations import view_events
from d2m_node.rpc.views import to_hex
from protocol.claims import Claims, claim_of
from protocol.earnings import Effect, Entry, Position, list_positions
from protocol.errors import InvalidMessage
from protocol.job import JobState
from protocol.market import MarketState
from protocol.params import ProtocolParams
from protocol.payout_explanation import EventSource, explain_payouts
from protocol.stakes import Stake
from protocol.types import NO_ACCOUNT, Address, JobId
from protocol.zero_pay import ZeroPay, explain_zero_pay

ETHER = "ether"


async def view_earnings(ports: Ports, job: JobState | None) -> EarningsView:
    """Describe the account's money in all of its jobs or in one; gas and refusals are left out.

    Raises FatalError. Past jobs may be many, so they come and go one by one.
    """
    state, account, params = ports.chain.state, ports.signer.address, ports.chain.params
    positions: list[PositionView] = []

    async def look_at(one: JobState) -> None:
        # Jobs with many payees take longer than the event loop may.
        positions.extend(await trio.to_thread.run_sync(view_positions, one, account, params))

    if job is not None:
        await look_at(job)
    else:
        async for past in each_past_job(state, ports.store):
            await look_at(past)
        for one in state.jobs.values():
            await look_at(one)
    positions.sort(key=lambda one: one.job)
    return EarningsView(
        account=to_hex(account),
        block_number=state.block_number,
        positions=positions,
        sums=_view_sums(positions, state, account, is_all=job is None),
        gas=[],
        refusals=[],
    )


def view_positions(job: JobState, account: Address, params: ProtocolParams) -> list[PositionView]:
    """Describe the account's money in one job."""
    positions = list_positions([job], account, params)
    formulas = _find_formulas(job, account, params) if positions else {}
    return [_view_position(one, job, account, formulas) for one in positions]


def view_gas(fees: Iterable[FeeTotal], job_id: JobId | None) -> list[GasView]:
    """Describe what gas cost, in all jobs or in one."""
    return [
        GasView(job=one.job_id, call=one.call, transactions=one.count, fee_wei=one.fees_wei)
        for one in fees
        if job_id is None or one.job_id == job_id
    ]


def _view_position(
    position: Position, job: JobState, account: Address, formulas: Mapping[EventSource, str]
) -> PositionView:
    zeros = explain_zero_pay(job, account)
    return PositionView(
        job=position.job_id,
        phase=job.phase.value,
        role=position.role.value,
        currency=_name_currency(position.currency),
        put_up_wei=position.sum(Effect.PUT_UP),
        returned_wei=position.sum(Effect.RETURNED),
        spent_wei=position.sum(Effect.SPENT),
        earned_wei=position.sum(Effect.EARNED),
        held_wei=position.held_wei,
        due_wei=position.due_wei,
        net_wei=position.net_wei,
        entries=[_view_entry(one, formulas) for one in position.entries],
        zeros=[_view_zero(one) for one in zeros if _belongs(one, position, job)],
    )


def _belongs(zero: ZeroPay, position: Position, job: JobState) -> bool:
    """Tell whether a reason is of this position: a role's pay is in the job's own currency."""
    return zero.role is position.role and position.currency == job.currency


def _find_formulas(
    job: JobState, account: Address, params: ProtocolParams
) -> dict[EventSource, str]:
    """Return the formula of each payout to the account, by the event that credited it."""
    if job.settled is None:
        return {}
    try:
        explanation = explain_payouts(job, params)
    except InvalidMessage:  # a decided header that nobody can read: nothing can be recomputed
        return {}
    return {
        source: one.formula
        for one in explanation.payments
        if one.payment.payee == account
        for source in one.credited_by
    }


def _view_entry(entry: Entry, formulas: Mapping[EventSource, str]) -> EntryView:
    (event,) = view_events([entry.source])
    return EntryView(
        kind=entry.kind.value,
        effect=entry.effect.value,
        amount_wei=entry.amount_wei,
        formula=entry.formula or formulas.get(entry.source, ""),
        event=event,
    )


def _view_zero(zero: ZeroPay) -> ZeroView:
    events: list[EventView] = view_events(zero.sources)
    return ZeroView(
        code=zero.why.name.lower(),
        reason=zero.why.value,
        round=zero.round_index,
        is_final=zero.is_final,
        events=events,
    )


def _view_sums(
    positions: Sequence[PositionView], state: MarketState, account: Address, *, is_all: bool
) -> list[SumView]:
    """Add up by currency, ether first."""
    currencies = sorted({one.currency for one in positions}, key=lambda name: (name != ETHER, name))
    return [
        _add_up(
            [one for one in positions if one.currency == name],
            name,
            _find_unclaimed(state, account, name) if is_all else 0,
        )
        for name in currencies
    ]


def _add_up(positions: Sequence[PositionView], currency: str, unclaimed_wei: int) -> SumView:
    return SumView(
        currency=currency,
        put_up_wei=sum(one.put_up_wei for one in positions),
        returned_wei=sum(one.returned_wei for one in positions),
        spent_wei=sum(one.spent_wei for one in positions),
        earned_wei=sum(one.earned_wei for one in positions),
        held_wei=sum(one.held_wei for one in positions),
        due_wei=sum(one.due_wei for one in positions),
        net_wei=sum(one.net_wei for one in positions),
        unclaimed_wei=unclaimed_wei,
    )


def _find_unclaimed(state: MarketState, account: Address, name: str) -> int:
    is_ether = name == ETHER
    currency = NO_ACCOUNT if is_ether else Address(bytes.fromhex(name.removeprefix("0x")))
    books: Iterable[Claims] = (state.payouts, state.bonds)
    owed: int = sum(claim_of(book, currency, account).owed_wei for book in books)
    if is_ether:
        owed += state.stakes.get(account, Stake()).reward_wei
    return owed


def _name_currency(currency: Address) -> str:
    return ETHER if currency == NO_ACCOUNT else to_hex(currency)
