"""What accounts can pull, by currency; as the market folds it from settlements and appeals."""

from dataclasses import replace

from protocol.claims import Claim, Claims, claim_of, credit, withdraw
from protocol.events import (
    AppealOpened,
    AppealResolved,
    BondWithdrawn,
    Event,
    MoneySwept,
    PayoutClaimed,
    PayoutCredited,
    RecordedEvent,
)
from protocol.market import MarketState, apply_event
from protocol.types import NO_ACCOUNT, Address, BlockNumber, Wei
from tests.support.settled_job import CONES, JOB, SELLERS, make_job_state, make_settled_job

TOKEN, PAYEE, OTHER = Address(b"\x70" * 20), SELLERS[0], SELLERS[1]
BEFORE = MarketState(jobs={JOB: replace(make_job_state(make_settled_job()), currency=TOKEN)})


def fold(*events: Event, state: MarketState = BEFORE) -> MarketState:
    for event in events:
        recorded = RecordedEvent(
            block_number=BlockNumber(1), log_index=0, transaction_hash=bytes(32), event=event
        )
        state = apply_event(state, recorded)
    return state


def pay(payee: Address, amount_wei: int) -> PayoutCredited:
    return PayoutCredited(
        job=JOB, payee=payee, role=2, index=0, weight=1, amount_wei=Wei(amount_wei)
    )


def resolve(*beneficiaries: Address, is_overturned: bool = False) -> AppealResolved:
    return AppealResolved(
        job=JOB,
        is_overturned=is_overturned,
        bond_wei=Wei(9),
        reward_each_wei=Wei(0 if is_overturned else 4),
        burned_wei=Wei(0 if is_overturned else 1),
        beneficiaries=beneficiaries,
    )


def owed(claims: Claims, currency: Address, account: Address) -> int:
    return claim_of(claims, currency, account).owed_wei


def test_what_is_credited_is_owed_until_it_is_withdrawn() -> None:
    claims = credit(credit({}, TOKEN, PAYEE, Wei(5)), TOKEN, PAYEE, Wei(2))
    assert claim_of(claims, TOKEN, PAYEE) == Claim(Wei(7), Wei(0))
    assert owed(claims, NO_ACCOUNT, PAYEE) == owed(claims, TOKEN, OTHER) == 0
    left = withdraw(claims, TOKEN, PAYEE, Wei(7))
    assert claim_of(left, TOKEN, PAYEE) == Claim(Wei(7), Wei(7))
    assert owed(left, TOKEN, PAYEE) == 0


def test_payouts_are_owed_in_the_currency_of_their_job() -> None:
    state = fold(pay(PAYEE, 5), pay(OTHER, 3))
    assert (owed(state.payouts, TOKEN, PAYEE), owed(state.payouts, TOKEN, OTHER)) == (5, 3)
    claimed = PayoutClaimed(payee=PAYEE, currency=TOKEN, amount_wei=Wei(5))
    swept = MoneySwept(payee=OTHER, currency=TOKEN, amount_wei=Wei(3))
    state = fold(claimed, swept, state=state)
    assert (owed(state.payouts, TOKEN, PAYEE), owed(state.payouts, TOKEN, OTHER)) == (0, 0)


def test_a_bond_goes_back_to_who_appealed_if_the_decision_changed() -> None:
    opened = AppealOpened(job=JOB, appellant=PAYEE, bond_wei=Wei(9))
    state = fold(opened, resolve(is_overturned=True))
    assert owed(state.bonds, TOKEN, PAYEE) == 9
    withdrawn = BondWithdrawn(account=PAYEE, currency=TOKEN, amount_wei=Wei(9))
    assert owed(fold(withdrawn, state=state).bonds, TOKEN, PAYEE) == 0


def test_a_bond_is_shared_among_those_who_voted_if_the_decision_stands() -> None:
    opened = AppealOpened(job=JOB, appellant=PAYEE, bond_wei=Wei(9))
    state = fold(opened, resolve(*CONES[:2]))
    assert [owed(state.bonds, TOKEN, one) for one in (PAYEE, *CONES[:3])] == [0, 4, 4, 0]
