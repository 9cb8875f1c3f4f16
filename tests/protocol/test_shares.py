"""Shares of a job with many payees: what each member can claim, and by which proof."""

from dataclasses import replace

import pytest

from protocol.course import Course
from protocol.digest import compute_credit_leaf
from protocol.events import SharesOpened
from protocol.hashing import keccak
from protocol.job import JobState
from protocol.merkle import is_proven
from protocol.payment_audit import audit_payments, collect_settled_job
from protocol.settlement import Outcome, PayeeRole
from protocol.shares import Share, find_cone_share, find_seller_share, list_credits
from protocol.types import NO_DIGEST, Wei
from tests.support.params import PARAMS
from tests.support.settled_job import (
    BUYER,
    CONES,
    JOB,
    SELLERS,
    make_course,
    make_job_state,
    make_settled_job,
    pay,
)

JOB_BY_HAND = make_settled_job()
COUNTS = (3, 3, 3, 2, 0)
COURSE: Course = replace(
    make_course(JOB_BY_HAND.spent_wei),
    participation=(sum(count << 16 * index for index, count in enumerate(COUNTS)), 0, 0, 0),
)


def settled(**changes: object) -> JobState:
    """The job by hand, if each payee claimed; nobody but the buyer has yet."""
    shares = SharesOpened(
        job=JOB,
        cone_pool_wei=Wei(1501),
        seller_pool_wei=Wei(3502),
        credit_root=JOB_BY_HAND.ended.credit_root,
    )
    job = replace(JOB_BY_HAND, shares=shares, payouts=JOB_BY_HAND.payouts[-1:])
    return replace(make_job_state(job), course=COURSE, **changes)  # type: ignore[arg-type]


def test_shares_are_what_the_settlement_computes() -> None:
    job = settled()
    audit = audit_payments(collect_settled_job(job, PARAMS))
    assert audit.is_exact
    for one in audit.payments:
        if one.role is PayeeRole.CONE:
            share = find_cone_share(job, one.payee)
        elif one.role is PayeeRole.SELLER:
            share = find_seller_share(job, one.payee)
        else:
            continue
        amount_wei = 0 if share is None else share.amount_wei
        assert amount_wei == one.computed_wei


def test_a_seller_has_the_proof_of_its_weight() -> None:
    job = settled()
    for index, (seller, v) in enumerate(list_credits(job)):
        share = find_seller_share(job, seller)
        if v == 0:
            assert share is None
            continue
        assert share is not None
        leaf = compute_credit_leaf(index, seller, share.weight)
        root = JOB_BY_HAND.ended.credit_root
        assert is_proven(leaf, index, len(SELLERS), share.proof, root)


def test_what_was_paid_or_swept_is_not_claimed_again() -> None:
    paid = settled(payouts=(pay(1, 0, CONES[0], 3, 409), pay(2, 0, SELLERS[0], 2, 1751)))
    assert find_cone_share(paid, CONES[0]) is None
    assert find_seller_share(paid, SELLERS[0]) is None
    assert find_cone_share(paid, CONES[1]) is not None
    assert find_seller_share(paid, SELLERS[1]) is not None
    swept = settled(shares_swept=True)
    assert find_cone_share(swept, CONES[0]) is None
    assert find_seller_share(swept, SELLERS[0]) is None


def test_who_is_no_member_and_jobs_without_shares_have_none() -> None:
    assert find_cone_share(settled(), BUYER) is None
    assert find_seller_share(settled(), BUYER) is None
    credited = settled(shares=None)
    assert find_cone_share(credited, CONES[0]) is None
    assert find_seller_share(credited, SELLERS[0]) is None


def test_without_a_root_the_sellers_share_equally() -> None:
    job = settled()
    assert job.shares is not None
    equal = replace(job, shares=replace(job.shares, credit_root=NO_DIGEST))
    expected = [Share(index=i, weight=1, proof=(), amount_wei=Wei(3502 // 4)) for i in range(4)]
    assert [find_seller_share(equal, seller) for seller in SELLERS] == expected


def test_nobody_can_prove_credits_that_are_not_behind_the_root() -> None:
    job = settled()
    assert job.shares is not None
    other = replace(job, shares=replace(job.shares, credit_root=keccak(b"other")))
    assert find_seller_share(other, SELLERS[0]) is None


@pytest.mark.parametrize("index", range(5))
def test_nodes_share_equally_if_the_buyer_served_nothing(index: int) -> None:
    job = settled(ended=replace(JOB_BY_HAND.ended, outcome=Outcome.UNSERVED))
    share = find_cone_share(job, CONES[index])
    assert share == Share(index=index, weight=1, proof=(), amount_wei=Wei(1501 // 5))
