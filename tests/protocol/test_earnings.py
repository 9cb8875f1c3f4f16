"""One account's money in a market's jobs: entries, sums, and why somebody got nothing."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from protocol.ballot import CommitBatch
from protocol.bitmap import encode_bitmap
from protocol.commitment import NO_TRACE
from protocol.digest import RoundHeader
from protocol.earnings import Effect, Entry, Kind, Position, Role, list_positions, sum_by_currency
from protocol.events import (
    AppealOpened,
    AppealResolved,
    BidCommitted,
    BidReclaimed,
    DepositForfeited,
    DepositReturned,
    EscrowReclaimed,
    Event,
    RecordedEvent,
    SellerDeposited,
    SharesOpened,
    SlashShared,
    StakeLocked,
    StakeReleased,
    StakeSlashed,
)
from protocol.job import Bid, JobPhase, JobState
from protocol.settlement import Outcome
from protocol.types import NO_ACCOUNT, NO_DIGEST, Address, BlockNumber, Wei
from protocol.zero_pay import Why, ZeroPay, explain_zero_pay
from tests.support.params import PARAMS
from tests.support.settled_job import (
    BUYER,
    CONES,
    JOB,
    PRICE,
    SELLERS,
    make_job_state,
    make_settled_job,
)

TOKEN = Address(b"\x77" * 20)
SETTLED = make_job_state(make_settled_job())
EMPTY = replace(SETTLED, trail=(), phase=JobPhase.AUCTION, payouts=(), settled=None)


def record(*events: Event) -> tuple[RecordedEvent, ...]:
    return tuple(
        RecordedEvent(
            block_number=BlockNumber(number),
            log_index=0,
            transaction_hash=bytes(32),
            event=event,
        )
        for number, event in enumerate(events)
    )


def positions(job: JobState, account: Address) -> tuple[Position, ...]:
    return list_positions([job], account, PARAMS)


def position(job: JobState, account: Address, role: Role) -> Position:
    (found,) = [one for one in positions(job, account) if one.role is role]
    return found


def told(entries: Sequence[Entry]) -> list[tuple[str, int]]:
    return [(one.kind.value, one.amount_wei) for one in entries]


def compute(formula: str) -> int:
    """Formulas are Python, but for words behind a comma."""
    return int(eval(formula.partition(",")[0]))


def bid(amount_wei: int, bidder: Address = BUYER) -> BidCommitted:
    return BidCommitted(
        auction=JOB, bidder=bidder, commitment=NO_DIGEST, deposit_wei=Wei(amount_wei)
    )


def reclaim(amount_wei: int, forfeited_wei: int = 0) -> BidReclaimed:
    return BidReclaimed(
        auction=JOB, bidder=BUYER, amount_wei=Wei(amount_wei), forfeited_wei=Wei(forfeited_wei)
    )


def test_a_buyer_spends_the_price_and_earns_the_refund() -> None:
    trail = (*record(bid(PRICE + 5), reclaim(5)), *SETTLED.trail)
    found = position(replace(SETTLED, trail=trail), BUYER, Role.BUYER)
    assert sorted(told(found.entries)) == [
        ("bid", PRICE + 5),
        ("bid returned", 5),
        ("price", PRICE),
        ("refund", 10_007 - 1499 - 3501),
    ]
    assert (found.held_wei, found.net_wei) == (0, -(1499 + 3501))


def test_a_raised_bid_counts_by_the_difference() -> None:
    job = replace(EMPTY, trail=record(bid(100), bid(130), reclaim(130), bid(150)))
    found = position(job, BUYER, Role.BUYER)
    assert [one.amount_wei for one in found.entries] == [100, 30, 130, 150]
    assert (found.held_wei, found.net_wei) == (150, 0)


def test_a_bid_that_was_not_revealed_loses_its_forfeit() -> None:
    lost = 1000 * PARAMS.bid_forfeit_bps // 10_000
    job = replace(EMPTY, trail=record(bid(1000), reclaim(1000 - lost, lost)))
    found = position(job, BUYER, Role.BUYER)
    forfeit = found.entries[-1]
    assert (forfeit.kind, forfeit.amount_wei) == (Kind.BID_FORFEITED, compute(forfeit.formula))
    assert (found.held_wei, found.net_wei) == (0, -lost)


def test_a_cancelled_job_costs_its_buyer_nothing() -> None:
    back = EscrowReclaimed(job=JOB, buyer=BUYER, amount_wei=PRICE)
    found = position(replace(EMPTY, trail=record(bid(PRICE), back)), BUYER, Role.BUYER)
    assert (found.held_wei, found.net_wei) == (0, 0)


@pytest.mark.parametrize(
    ("end", "held", "net"), [(None, 7, 0), (DepositReturned, 0, 0), (DepositForfeited, 0, -7)]
)
def test_a_deposit_is_held_returned_or_burned(
    end: type[DepositReturned] | type[DepositForfeited] | None, held: int, net: int
) -> None:
    events: list[Event] = [SellerDeposited(job=JOB, seller=SELLERS[0], amount_wei=Wei(7))]
    if end is not None:
        events.append(end(job=JOB, seller=SELLERS[0], amount_wei=Wei(7)))
    found = position(replace(EMPTY, trail=record(*events)), SELLERS[0], Role.SELLER)
    assert (found.held_wei, found.net_wei) == (held, net)


def test_stake_and_its_slashes_are_ether_in_a_job_paid_with_a_token() -> None:
    me, other = CONES[0], CONES[1]
    slashed = 1000 * PARAMS.slash_wrong_bps // 10_000
    job = replace(
        SETTLED,
        currency=TOKEN,
        trail=(
            *record(
                StakeLocked(job=JOB, account=me, amount_wei=Wei(1000)),
                StakeSlashed(job=JOB, account=me, amount_wei=Wei(slashed), reason=1),
                SlashShared(
                    job=JOB, burned_wei=Wei(6), reward_each_wei=Wei(3), beneficiaries=(other, me)
                ),
                StakeReleased(job=JOB, account=me, amount_wei=Wei(1000 - slashed)),
            ),
            *SETTLED.trail,
        ),
    )
    stake, pay = positions(job, me)
    assert (stake.currency, pay.currency) == (NO_ACCOUNT, TOKEN)
    assert [compute(one.formula) for one in stake.entries if one.formula] == [slashed, 3]
    assert (stake.held_wei, stake.net_wei) == (0, 3 - slashed)
    assert told(pay.entries) == [("CONE payout", 409)]
    assert sum_by_currency((stake, pay))[TOKEN][Effect.EARNED] == 409


@pytest.mark.parametrize(
    ("is_overturned", "net"), [(True, (0, 0)), (False, (-10, 3))], ids=["overturned", "upheld"]
)
def test_a_bond_comes_back_or_is_shared(is_overturned: bool, net: tuple[int, int]) -> None:
    beneficiaries = () if is_overturned else tuple(CONES[1:4])
    opened = AppealOpened(job=JOB, appellant=CONES[0], bond_wei=Wei(10))
    resolved = AppealResolved(
        job=JOB,
        is_overturned=is_overturned,
        bond_wei=Wei(10),
        reward_each_wei=Wei(0 if is_overturned else 3),
        burned_wei=Wei(0 if is_overturned else 1),
        beneficiaries=beneficiaries,
    )
    job = replace(EMPTY, trail=record(opened, resolved))
    assert position(job, CONES[0], Role.CONE).net_wei == net[0]
    found = [one for one in positions(job, CONES[1]) if one.entries]
    assert sum(one.net_wei for one in found) == net[1]
    held = position(replace(EMPTY, trail=record(opened)), CONES[0], Role.CONE)
    assert (held.held_wei, held.net_wei) == (10, 0)


def test_a_share_that_is_not_claimed_is_due_and_not_earned() -> None:
    settled = make_settled_job()
    shares = SharesOpened(
        job=JOB,
        cone_pool_wei=Wei(1501),
        seller_pool_wei=Wei(3502),
        credit_root=settled.ended.credit_root,
    )
    job = make_job_state(replace(settled, shares=shares, payouts=()))
    found = position(job, SELLERS[0], Role.SELLER)
    assert (found.due_wei, found.net_wei) == (1751, 0)


def test_a_stranger_has_no_positions() -> None:
    assert positions(SETTLED, Address(b"\x99" * 20)) == ()
    assert explain_zero_pay(SETTLED, Address(b"\x99" * 20)) == ()


def applied(job: JobState = SETTLED) -> JobState:
    return replace(job, seller_applications=job.sellers, cone_applications=job.cones)


def reasons(job: JobState, account: Address) -> list[tuple[Why, int | None, bool]]:
    return [(one.why, one.round_index, one.is_final) for one in explain_zero_pay(job, account)]


def test_who_was_paid_for_everything_has_nothing_to_explain() -> None:
    assert reasons(applied(), CONES[0]) == []
    assert reasons(applied(), SELLERS[0]) == []


def test_a_vote_for_another_digest_and_a_silent_final_are_told_apart() -> None:
    assert reasons(applied(), CONES[4]) == [
        (Why.WRONG_DIGEST, 0, False),
        (Why.WRONG_DIGEST, 1, False),
        (Why.NO_VOTE, 1, True),
    ]


def test_a_copied_digest_is_explained_by_its_trace() -> None:
    assert reasons(applied(), CONES[3]) == [(Why.FEWER_TRACES, 0, False)]


def first_ballot(job: JobState, **changes: object) -> JobState:
    """Change the ballot of round 0."""
    first, *others = job.decided
    changed = replace(first, ballot=replace(first.ballot, **changes))
    return replace(job, decided=(changed, *others))


def test_no_data_and_unopened_votes_are_told_apart() -> None:
    openings = SETTLED.decided[0].ballot.openings
    lacking = replace(openings[0], trace=NO_TRACE)
    job = first_ballot(applied(), openings=(lacking, *openings[1:]))
    assert reasons(job, CONES[0]) == [(Why.NO_DATA, 0, False)]
    batch = CommitBatch(
        mini_round_index=0, batch_index=0, members=encode_bitmap([0]), entries=((0, NO_DIGEST),)
    )
    job = first_ballot(applied(), openings=openings[1:], batches=(batch,))
    assert reasons(job, CONES[0]) == [(Why.NOT_OPENED, 0, False)]


def test_who_came_for_a_failed_appeal_is_paid_by_its_bond() -> None:
    first, *others = applied().decided
    late = replace(first.ballot.openings[0], mini_round_index=1)
    minis = (*first.ballot.mini_rounds, replace(first.ballot.mini_rounds[0], mini_round_index=1))
    ballot = replace(
        first.ballot,
        openings=(*first.ballot.openings[1:], late),
        mini_rounds=minis,
        is_pool_called=True,
    )
    job = replace(applied(), decided=(replace(first, ballot=ballot, is_upheld=True), *others))
    assert reasons(job, CONES[0]) == [(Why.PAID_BY_BOND, 0, False)]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sampled": 0b0111, "utilities": 3}, Why.NOT_SAMPLED),
        ({"available": 0b0111}, Why.NO_UPDATE),
        ({}, Why.NOT_ACCEPTED),
    ],
)
def test_a_seller_learns_what_kept_its_update_out(changes: dict[str, int], why: Why) -> None:
    first, *others = applied().decided
    header = RoundHeader.decode(first.decision.header)
    if "utilities" in changes:
        changes = changes | {"utilities": header.utilities[:3]}
    header = replace(header, accepted=0b0011, **changes)
    decision = replace(first.decision, header=header.encode())
    job = replace(applied(), decided=(replace(first, decision=decision), *others))
    assert reasons(job, SELLERS[3])[0] == (why, 0, False)


def test_who_was_left_out_of_the_draw_learns_it() -> None:
    job = replace(applied(), sellers=SETTLED.sellers[:3], cones=SETTLED.cones[:4])
    assert reasons(job, SELLERS[3]) == [(Why.LEFT_OUT, None, False)]
    assert reasons(job, CONES[4]) == [(Why.LEFT_OUT, None, False)]


@pytest.mark.parametrize(
    ("outcome", "pool", "rounds", "why"),
    [
        (Outcome.UNSERVED, 0, False, Why.UNSERVED),
        (Outcome.ABORTED, 0, False, Why.NO_ROUND),
        (Outcome.ENDED, 0, True, Why.NO_PROGRESS),
    ],
)
def test_the_end_of_a_job_explains_an_empty_pool(
    outcome: Outcome, pool: int, rounds: bool, why: Why
) -> None:
    assert SETTLED.ended is not None
    assert SETTLED.settled is not None
    job = replace(
        applied(),
        ended=replace(SETTLED.ended, outcome=outcome),
        settled=replace(SETTLED.settled, seller_pool_wei=Wei(pool)),
        decided=SETTLED.decided if rounds else (),
    )
    assert reasons(job, SELLERS[0])[0] == (why, None, False)


def test_a_job_that_goes_on_and_one_that_was_cancelled_say_so() -> None:
    going = replace(applied(), phase=JobPhase.TRAINING, settled=None, decided=())
    assert reasons(going, SELLERS[0]) == [(Why.NOT_OVER, None, False)]
    cancelled = replace(going, phase=JobPhase.CANCELLED)
    assert reasons(cancelled, CONES[0]) == [(Why.CANCELLED, None, False)]


def test_bids_that_won_nothing_say_why() -> None:
    loser, shy = Address(b"\x61" * 20), Address(b"\x62" * 20)
    bids = {
        one: Bid(bidder=one, commitment=NO_DIGEST, deposit_wei=Wei(1), amount_wei=amount)
        for one, amount in ((loser, Wei(1)), (shy, None))
    }
    job = replace(applied(), bids=bids)
    assert reasons(job, loser) == [(Why.OUTBID, None, False)]
    assert reasons(job, shy) == [(Why.NOT_REVEALED, None, False)]


def test_a_reason_names_the_event_behind_it() -> None:
    (reason,) = explain_zero_pay(applied(), CONES[3])
    assert isinstance(reason, ZeroPay)
    assert [one.event for one in reason.sources] == ["RoundDecided"]
