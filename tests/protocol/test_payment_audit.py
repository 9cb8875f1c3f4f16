"""Payments of a settled job, computed again from what led to them."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import InvalidMessage, RuleViolation
from protocol.events import PayoutCredited, SharesOpened
from protocol.hashing import keccak
from protocol.payment_audit import (
    PaymentAudit,
    SettledJob,
    audit_payments,
    collect_settled_job,
)
from protocol.settlement import Outcome, PayeeRole
from protocol.types import NO_DIGEST, Address, Digest, UtilityQ20, Wei
from tests.support.params import PARAMS
from tests.support.settled_job import (
    BUYER,
    CONES,
    JOB,
    PRICE,
    SELLERS,
    make_final,
    make_header,
    make_job_state,
    make_settled_job,
    pay,
    vote,
)

JOB_BY_HAND = make_settled_job()


def find(audit: PaymentAudit) -> dict[str, tuple[int | str, int | str]]:
    """Every difference: what, and (computed, recorded)."""
    wrong = {
        f"{one.role.name} {one.index}": (one.computed_wei, one.credited_wei)
        for one in audit.payments
        if not one.matches
    }
    return wrong | {one.what: (one.computed, one.recorded) for one in audit.differences}


def test_a_settlement_by_hand_is_found_exact() -> None:
    audit = audit_payments(JOB_BY_HAND)
    assert find(audit) == {}
    assert audit.is_exact
    assert not audit.shared_equally
    assert sum(one.computed_wei for one in audit.payments) == PRICE
    assert [one.weight for one in audit.payments] == [3, 3, 3, 2, 0, 2, 1, 1, 0, 0]
    assert [one.computed_wei for one in audit.payments[-2:]] == [0, 10_007 - 1499 - 3501]


@given(st.integers(0, 7), st.integers(-272, 10**6).filter(bool))
def test_one_wei_more_or_less_is_found(position: int, error: int) -> None:
    payouts = list(JOB_BY_HAND.payouts)
    right = payouts[position]
    payouts[position] = replace(right, amount_wei=Wei(right.amount_wei + error))
    audit = audit_payments(replace(JOB_BY_HAND, payouts=tuple(payouts)))
    name = f"{PayeeRole(right.role).name} {right.index}"
    assert find(audit) == {
        name: (right.amount_wei, right.amount_wei + error),
        "sum of all payments": (PRICE, PRICE + error),
    }
    assert not audit.is_exact


def test_a_payment_that_is_missing_or_doubled_is_found() -> None:
    missing = audit_payments(replace(JOB_BY_HAND, payouts=JOB_BY_HAND.payouts[:-1]))
    assert find(missing)["BUYER 0"] == (5007, 0)
    doubled = audit_payments(
        replace(JOB_BY_HAND, payouts=(*JOB_BY_HAND.payouts, JOB_BY_HAND.payouts[0]))
    )
    assert find(doubled)["CONE 0"] == (409, 818)


@pytest.mark.parametrize(
    ("payout", "name"),
    [
        (pay(PayeeRole.CONE, 4, SELLERS[0], 0, 1), "payee 4 of role 1"),
        (pay(PayeeRole.SELLER, 9, SELLERS[0], 0, 1), "payee 9 of role 2"),
        (pay(8, 0, BUYER, 0, 1), "payee 0 of role 8"),
    ],
)
def test_a_payment_to_a_place_that_is_not_the_payees_is_found(
    payout: PayoutCredited, name: str
) -> None:
    audit = audit_payments(replace(JOB_BY_HAND, payouts=(*JOB_BY_HAND.payouts, payout)))
    assert name in find(audit)


def test_weights_come_from_headers_and_not_from_the_credits_paid_by() -> None:
    lies = tuple(replace(one, weight=one.weight + 5) for one in JOB_BY_HAND.payouts)
    assert audit_payments(replace(JOB_BY_HAND, payouts=lies)).is_exact


def with_ballot(position: int, **changes: Any) -> SettledJob:
    ballots = list(JOB_BY_HAND.ballots)
    ballots[position] = replace(ballots[position], **changes)
    return replace(JOB_BY_HAND, ballots=tuple(ballots))


def test_a_copier_that_was_counted_is_found() -> None:
    found = find(audit_payments(with_ballot(0, voters=0b1111)))
    assert found == {"voters of round 0": ("0x7", "0xf")}


def test_a_digest_that_the_votes_do_not_decide_is_found() -> None:
    votes = JOB_BY_HAND.ballots[1].openings[:2]
    found = find(audit_payments(with_ballot(1, openings=votes)))
    assert found["digest of round 1"][0] == bytes(32).hex()


def call_pool(*others: Digest) -> SettledJob:
    """The second round, checked by the whole pool: three nodes had voted, then these votes came."""
    before = JOB_BY_HAND.ballots[1].openings[:3]
    asked = [
        replace(vote(node, digest), mini_round_index=1) for node, digest in enumerate(others, 3)
    ]
    return with_ballot(1, openings=(*before, *asked), pool_mini_round=1)


def test_a_decision_that_the_pool_confirms_is_paid_to_the_pool() -> None:
    digest = JOB_BY_HAND.ballots[1].digest
    assert find(audit_payments(call_pool(digest, keccak(b"wrong")))) == {}


def test_who_comes_for_an_appeal_that_fails_is_not_paid_for_the_round() -> None:
    checked = call_pool(JOB_BY_HAND.ballots[1].digest)
    ballots = list(checked.ballots)
    ballots[1] = replace(ballots[1], pays_newcomers=False)
    unpaid = replace(checked, ballots=tuple(ballots))
    found = find(audit_payments(unpaid))
    assert found["voters of round 1"] == ("0x7", "0xf")


def test_a_decision_stands_unless_most_of_the_pool_says_otherwise() -> None:
    digest, other = JOB_BY_HAND.ballots[1].digest, keccak(b"other")
    votes = [*JOB_BY_HAND.ballots[1].openings[:2], vote(2, digest)]
    stands = with_ballot(1, openings=tuple(votes), pool_mini_round=1, voters=0b111)
    assert "digest of round 1" not in find(audit_payments(stands))
    against = [replace(vote(node, other), mini_round_index=1) for node in (2, 3, 4)]
    overturned = with_ballot(1, openings=(*votes[:2], *against), pool_mini_round=1)
    found = find(audit_payments(overturned))
    assert found["digest of round 1"] == (other.hex(), digest.hex())


def test_a_header_that_is_not_behind_its_digest_is_found() -> None:
    forged = make_header(1, [3], (1, 1, 0, 1), JOB_BY_HAND.ballots[0].digest).encode()
    found = find(audit_payments(with_ballot(1, header=forged)))
    assert "header of round 1" in found
    assert found["SELLER 3"][0] > 0
    assert "credit root" in found


def test_bytes_that_are_no_header_are_named() -> None:
    with pytest.raises(InvalidMessage, match="round 1: "):
        audit_payments(with_ballot(1, header=b"no header"))


def test_a_header_that_names_strangers_differs_in_its_root() -> None:
    strange = make_header(1, [0, 9], (2, 1, 0, 0), JOB_BY_HAND.ballots[0].digest).encode()
    found = find(audit_payments(with_ballot(1, header=strange, digest=keccak(strange))))
    assert "credit root" in found


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("rounds_done", 3, "rounds done"),
        ("initial_utility", 0, "first utility"),
        ("last_utility", 1, "last utility"),
        ("credit_root", NO_DIGEST, "credit root"),
        ("credit_sum", 5, "credit sum"),
        ("model_digest", NO_DIGEST, "model"),
    ],
)
def test_an_end_that_the_ballots_do_not_lead_to_is_found(
    field: str, value: object, name: str
) -> None:
    ended = replace(JOB_BY_HAND.ended, **{field: value})
    assert list(find(audit_payments(replace(JOB_BY_HAND, ended=ended)))) == [name]


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("price_wei", "price"),
        ("cone_pool_wei", "CONE nodes' pool"),
        ("seller_pool_wei", "sellers' pool"),
        ("refund_wei", "refund"),
    ],
)
def test_a_pool_that_was_reported_wrongly_is_found(field: str, name: str) -> None:
    settled = replace(JOB_BY_HAND.settled, **{field: 1})
    assert list(find(audit_payments(replace(JOB_BY_HAND, settled=settled)))) == [name]


def test_utilities_are_of_the_rounds_without_a_final_of_the_last_one() -> None:
    rounds_only = replace(JOB_BY_HAND, ballots=JOB_BY_HAND.ballots[:2])
    assert audit_payments(rounds_only).inputs.last_utility == 400_000
    older = replace(JOB_BY_HAND.ballots[2], round_index=0)
    earlier = replace(JOB_BY_HAND, ballots=(*JOB_BY_HAND.ballots[:2], older))
    assert audit_payments(earlier).inputs.last_utility == 400_000


def claim(outcome: Outcome, utility: int, receipts: int = 0b11111) -> bool:
    """Tell whether an outcome is found to be wrong."""
    job = replace(
        JOB_BY_HAND,
        ballots=(*JOB_BY_HAND.ballots[:2], make_final(UtilityQ20(utility))),
        ended=replace(JOB_BY_HAND.ended, outcome=outcome),
        final_receipts=receipts,
    )
    return "target" in find(audit_payments(job))


def test_a_target_that_was_not_reached_is_found_unless_the_buyer_kept_its_data_back() -> None:
    assert claim(Outcome.TARGET, 999_999)
    assert not claim(Outcome.TARGET, 1_000_000)
    assert claim(Outcome.ENDED, 1_000_000)
    assert claim(Outcome.TARGET, 999_999, receipts=0b00111)
    assert not claim(Outcome.TARGET, 999_999, receipts=0b00011)


def test_an_even_split_for_an_unknown_root_is_told_from_other_mistakes() -> None:
    even = [pay(PayeeRole.SELLER, i, SELLERS[i], 1, 3502 // 4) for i in range(4)]
    others = [one for one in JOB_BY_HAND.payouts if one.role == PayeeRole.CONE]
    buyer = pay(PayeeRole.BUYER, 0, BUYER, 0, 10_007 - 1499 - 4 * (3502 // 4))
    audit = audit_payments(replace(JOB_BY_HAND, payouts=(*others, *even, buyer)))
    assert audit.shared_equally
    assert not audit.is_exact
    uneven = replace(even[3], amount_wei=Wei(1))
    assert not audit_payments(
        replace(JOB_BY_HAND, payouts=(*others, *even[:3], uneven, buyer))
    ).shared_equally


def test_an_unserved_job_pays_one_round_to_its_pool() -> None:
    share = 3002 // 4 // 5
    job = replace(
        JOB_BY_HAND,
        ballots=(),
        final_receipts=0,
        ended=replace(JOB_BY_HAND.ended, outcome=Outcome.UNSERVED, rounds_done=0),
        settled=replace(
            JOB_BY_HAND.settled,
            cone_pool_wei=Wei(3002 // 4),
            seller_pool_wei=Wei(0),
            refund_wei=Wei(PRICE - 5 * share),
        ),
        payouts=(
            *(pay(PayeeRole.CONE, i, CONES[i], 1, share) for i in range(5)),
            pay(PayeeRole.BUYER, 0, BUYER, 0, PRICE - 5 * share),
        ),
    )
    assert find(audit_payments(job)) == {}


def test_refunds_of_batches_are_checked_like_any_payment() -> None:
    # The cap is 3002 * 2000 // 10000 * 2 // 4 = 300 of the 1501.
    job = replace(JOB_BY_HAND, spent_wei=tuple(map(Wei, (200, 0, 100, 0, 300))))
    refunds = (100, 0, 50, 0, 150)
    shares = [1201 * count // 11 for count in (3, 3, 3, 2, 0)]
    paid = [
        *(pay(PayeeRole.BATCHER, i, CONES[i], 0, one) for i, one in enumerate(refunds) if one),
        *(pay(PayeeRole.CONE, i, CONES[i], 3, one) for i, one in enumerate(shares) if one),
        *(one for one in JOB_BY_HAND.payouts if one.role == PayeeRole.SELLER),
    ]
    refund = PRICE - sum(one.amount_wei for one in paid)
    buyer = pay(PayeeRole.BUYER, 0, BUYER, 0, refund)
    settled = replace(JOB_BY_HAND.settled, refund_wei=Wei(refund))
    exact = replace(job, payouts=(*paid, buyer), settled=settled)
    audit = audit_payments(exact)
    assert find(audit) == {}
    batchers = [one for one in audit.payments if one.role is PayeeRole.BATCHER]
    assert [(one.index, one.weight, one.computed_wei) for one in batchers] == [
        (0, 200, 100),
        (2, 100, 50),
        (4, 300, 150),
    ]
    unpaid = replace(exact, payouts=tuple(one for one in exact.payouts if one.role != 4))
    assert find(audit_payments(unpaid))["BATCHER 4"] == (150, 0)
    stranger = pay(PayeeRole.BATCHER, 1, CONES[1], 0, 7)
    found = find(audit_payments(replace(exact, payouts=(*exact.payouts, stranger))))
    assert found["BATCHER 1"] == (0, 7)


def claimed(*payouts: PayoutCredited, **changes: Any) -> SettledJob:
    """The job if each payee claimed its share: only these did."""
    shares = SharesOpened(
        job=JOB,
        cone_pool_wei=Wei(1501),
        seller_pool_wei=Wei(3502),
        credit_root=JOB_BY_HAND.ended.credit_root,
    )
    buyer = JOB_BY_HAND.payouts[-1]
    return replace(JOB_BY_HAND, shares=replace(shares, **changes), payouts=(buyer, *payouts))


def test_shares_that_nobody_claimed_are_no_difference() -> None:
    assert audit_payments(claimed()).is_exact
    audit = audit_payments(claimed(*JOB_BY_HAND.payouts[:3]))
    assert audit.is_exact
    assert [one.is_claimed for one in audit.payments[:5]] == [True, True, True, False, False]
    assert audit.payments[-1].is_claimed


def test_a_share_that_was_claimed_wrongly_is_found() -> None:
    more = replace(JOB_BY_HAND.payouts[0], amount_wei=Wei(410))
    assert find(audit_payments(claimed(more))) == {
        "CONE 0": (409, 410),
        "sum of all payments": (PRICE, PRICE + 1),
    }


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"cone_pool_wei": Wei(1500)}, "CONE nodes' shares"),
        ({"seller_pool_wei": Wei(3503)}, "sellers' shares"),
        ({"credit_root": keccak(b"other")}, "root of the shares"),
    ],
)
def test_shares_of_other_pools_are_found(changes: dict[str, Any], name: str) -> None:
    audit = audit_payments(claimed(**changes))
    assert list(find(audit)) == [name]
    assert not audit.shared_equally


def test_shares_without_a_root_are_equal_ones() -> None:
    audit = audit_payments(claimed(credit_root=NO_DIGEST))
    assert audit.shared_equally
    assert not audit.is_exact


def test_a_job_in_the_token_refunds_no_batches() -> None:
    spent = replace(JOB_BY_HAND, spent_wei=tuple(map(Wei, (10**10, 0, 0, 0, 2 * 10**10))))
    state = make_job_state(spent)
    assert collect_settled_job(state, PARAMS).spent_wei == spent.spent_wei
    in_token = replace(state, currency=Address(b"\x70" * 20))
    assert collect_settled_job(in_token, PARAMS).spent_wei == (0,) * 5


def test_a_record_of_a_job_survives_its_encoding() -> None:
    data = msgspec.msgpack.encode(JOB_BY_HAND)
    assert msgspec.msgpack.decode(data, type=SettledJob) == JOB_BY_HAND


def test_what_an_audit_needs_is_taken_from_the_fold_of_the_chain() -> None:
    assert collect_settled_job(make_job_state(JOB_BY_HAND), PARAMS) == JOB_BY_HAND


def test_a_job_that_is_not_settled_has_no_payments() -> None:
    with pytest.raises(RuleViolation, match="job 7 is not settled"):
        collect_settled_job(replace(make_job_state(JOB_BY_HAND), settled=None), PARAMS)
