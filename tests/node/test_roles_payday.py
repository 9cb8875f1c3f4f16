"""Payday: whatever an account is owed comes back by itself."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio

from d2m_node.calls import (
    ClaimConeShare,
    ClaimPayout,
    ClaimSellerShare,
    ContractCall,
    ReclaimBid,
    ReclaimDeposit,
    ReclaimEscrow,
    ReleaseStake,
    WithdrawBond,
    WithdrawStake,
)
from d2m_node.roles.payday import PAUSE_BLOCKS, run_payday
from protocol.auction import AuctionMode
from protocol.claims import claim_of
from protocol.deposits import DepositStatus
from protocol.digest import RoundHeader, compute_credit_root
from protocol.events import (
    AppealOpened,
    AppealResolved,
    BidCommitted,
    BidRevealed,
    CourseChanged,
    DepositForfeited,
    Event,
    JobCancelled,
    JobSettled,
    MoneySwept,
    PayoutClaimed,
    PayoutCredited,
    RoundDecided,
    SellerDeposited,
    SellerEnrolled,
    SharesOpened,
    SharesSwept,
    SlashShared,
    StakeDeposited,
    StakeLocked,
    TrainingEnded,
    UnbondingStarted,
)
from protocol.job import JobPhase, JobState
from protocol.settlement import Outcome
from protocol.types import (
    NO_ACCOUNT,
    NO_DIGEST,
    Address,
    BlockNumber,
    Digest,
    JobId,
    RoundIndex,
    UtilityQ20,
    Wei,
)
from tests.support.job import DEPOSIT_WEI, JOB, OPENED, TERMS, Cast
from tests.support.market import DOMAIN, Node
from tests.support.settled_job import make_course

SELLER = 1
TOKEN = Address(b"\x70" * 20)


@pytest.fixture
def cast() -> Cast:
    started = Cast()
    started.start()
    return started


def account_of(node: Node) -> Address:
    return node.signer.address


def job_of(cast: Cast) -> JobState:
    return cast.market.state.jobs[JOB]


def change_job(cast: Cast, **changes: object) -> None:
    """Let the chain say something else of the job."""
    jobs = {JOB: replace(job_of(cast), **changes)}  # type: ignore[arg-type]
    cast.market.state = replace(cast.market.state, jobs=jobs)


def credit(node: Node, amount_wei: int, role: int = 2, index: int = 0) -> PayoutCredited:
    return PayoutCredited(
        job=JOB,
        payee=account_of(node),
        role=role,
        index=index,
        weight=1,
        amount_wei=Wei(amount_wei),
    )


def cancel() -> JobCancelled:
    return JobCancelled(job=JOB, refund_wei=Wei(30))


def status(cast: Cast) -> DepositStatus:
    return job_of(cast).deposits[account_of(cast.sellers[SELLER])].status


async def test_a_deposit_is_pulled_back_once_its_job_is_over(
    cast: Cast, nursery: trio.Nursery
) -> None:
    nursery.start_soon(run_payday, cast.sellers[SELLER].ports)
    await cast.market.mine(3)
    assert cast.market.calls == []
    cast.market.apply(cancel())
    await cast.market.mine(5)
    assert cast.market.sent(ReclaimDeposit) == [ReclaimDeposit(job=JOB)]
    assert status(cast) is DepositStatus.RETURNED


async def test_a_deposit_that_was_burned_is_not_asked_for(
    cast: Cast, nursery: trio.Nursery
) -> None:
    account = account_of(cast.sellers[SELLER])
    cast.market.apply(
        DepositForfeited(job=JOB, seller=account, amount_wei=DEPOSIT_WEI),
        cancel(),
    )
    nursery.start_soon(run_payday, cast.sellers[SELLER].ports)
    await cast.market.mine(5)
    assert cast.market.calls == []
    assert status(cast) is DepositStatus.FORFEITED


async def test_who_was_left_out_by_the_draw_does_not_wait_for_the_end(
    cast: Cast, nursery: trio.Nursery
) -> None:
    seller, cone = cast.sellers[SELLER], cast.cones[2]
    change_job(
        cast,
        sellers=tuple(one for one in job_of(cast).sellers if one.account != account_of(seller)),
        cones=tuple(one for one in job_of(cast).cones if one.account != account_of(cone)),
    )
    stake, others = stake_of(cone, locked=5), stake_of(cast.cones[3], locked=5)
    cast.market.apply(*stake, *others)
    for node in (seller, cone, cast.cones[3], cast.sellers[0]):
        nursery.start_soon(run_payday, node.ports)
    await cast.market.mine(5)
    assert sorted(map(str, cast.market.calls)) == sorted(
        map(
            str,
            [
                (account_of(seller), ReclaimDeposit(job=JOB)),
                (account_of(cone), ReleaseStake(job=JOB, account=account_of(cone))),
            ],
        )
    )


def stake_of(node: Node, *, locked: int = 0, free: int = 10) -> list[Event]:
    account = account_of(node)
    deposited = StakeDeposited(
        account=account, amount_wei=Wei(free), free_wei=Wei(free), since_block=BlockNumber(0)
    )
    lock = StakeLocked(job=JOB, account=account, amount_wei=Wei(locked))
    return [deposited, lock] if locked else [deposited]


async def test_stake_is_released_when_its_job_is_over(cast: Cast, nursery: trio.Nursery) -> None:
    cone = cast.cones[0]
    cast.market.apply(*stake_of(cone, locked=5))
    nursery.start_soon(run_payday, cone.ports)
    await cast.market.mine(3)
    assert cast.market.calls == []
    cast.market.apply(cancel())
    await cast.market.mine(3)
    assert cast.market.sent(ReleaseStake) == [ReleaseStake(job=JOB, account=account_of(cone))]
    assert cast.market.state.stakes[account_of(cone)].free_wei == 10


async def test_rewards_come_at_once_and_unbonded_stake_when_its_time_is_over(
    cast: Cast, nursery: trio.Nursery
) -> None:
    cone, other = cast.cones[0], cast.cones[1]
    account = account_of(cone)
    cast.market.apply(
        *stake_of(cone),
        UnbondingStarted(account=account, amount_wei=Wei(4), release_block=BlockNumber(6)),
        SlashShared(
            job=JOB,
            burned_wei=Wei(3),
            reward_each_wei=Wei(1),
            beneficiaries=(account_of(other), account),
        ),
    )
    nursery.start_soon(run_payday, cone.ports)
    await cast.market.mine(4)
    assert len(cast.market.sent(WithdrawStake)) == 1
    stake = cast.market.state.stakes[account]
    assert (stake.reward_wei, stake.unbonding_wei, stake.withdrawn_wei) == (0, 4, 1)
    assert cast.market.state.stakes[account_of(other)].reward_wei == 1
    await cast.market.mine(2)
    assert len(cast.market.sent(WithdrawStake)) == 1
    await cast.market.mine(3)
    assert len(cast.market.sent(WithdrawStake)) == 2
    stake = cast.market.state.stakes[account]
    assert (stake.free_wei, stake.unbonding_wei, stake.withdrawn_wei) == (6, 0, 5)


async def test_payouts_are_claimed_by_currency_and_each_once(
    cast: Cast, nursery: trio.Nursery
) -> None:
    node = cast.sellers[0]
    nursery.start_soon(run_payday, node.ports)
    cast.market.apply(credit(node, 7))
    await cast.market.mine(3)
    change_job(cast, currency=TOKEN)
    cast.market.apply(credit(node, 5), credit(node, 4, role=4))
    await cast.market.mine(5)
    assert cast.market.sent(ClaimPayout) == [
        ClaimPayout(currency=NO_ACCOUNT),
        ClaimPayout(currency=TOKEN),
    ]
    payouts = cast.market.state.payouts
    assert claim_of(payouts, NO_ACCOUNT, account_of(node)).withdrawn_wei == 7
    assert claim_of(payouts, TOKEN, account_of(node)).withdrawn_wei == 9


async def test_money_that_was_swept_is_not_asked_for(cast: Cast, nursery: trio.Nursery) -> None:
    node = cast.sellers[0]
    swept = MoneySwept(payee=account_of(node), currency=NO_ACCOUNT, amount_wei=Wei(7))
    cast.market.apply(credit(node, 7), swept)
    nursery.start_soon(run_payday, node.ports)
    await cast.market.mine(3)
    assert cast.market.calls == []
    cast.market.apply(credit(node, 2))
    await cast.market.mine(3)
    assert len(cast.market.sent(ClaimPayout)) == 1


async def test_what_others_are_owed_is_left_to_them(cast: Cast, nursery: trio.Nursery) -> None:
    cast.market.apply(credit(cast.sellers[0], 7), cancel())
    nursery.start_soon(run_payday, cast.cones[0].ports)
    await cast.market.mine(5)
    assert cast.market.calls == []


@pytest.mark.parametrize("is_overturned", [True, False])
async def test_a_bond_goes_to_who_it_belongs_to_after_the_appeal(
    cast: Cast, nursery: trio.Nursery, is_overturned: bool
) -> None:
    appellant, voters = cast.sellers[0], cast.cones[:2]
    for node in (appellant, *voters):
        nursery.start_soon(run_payday, node.ports)
    cast.market.apply(AppealOpened(job=JOB, appellant=account_of(appellant), bond_wei=Wei(9)))
    await cast.market.mine(3)
    assert cast.market.calls == []
    cast.market.apply(
        AppealResolved(
            job=JOB,
            is_overturned=is_overturned,
            bond_wei=Wei(9),
            reward_each_wei=Wei(0 if is_overturned else 4),
            burned_wei=Wei(0 if is_overturned else 1),
            beneficiaries=() if is_overturned else tuple(map(account_of, voters)),
        )
    )
    await cast.market.mine(3)
    expected = [appellant] if is_overturned else voters
    call = WithdrawBond(currency=NO_ACCOUNT)
    assert sorted(cast.market.calls, key=str) == sorted(
        ((account_of(node), call) for node in expected), key=str
    )


async def test_the_price_of_a_cancelled_job_is_pulled_back(
    cast: Cast, nursery: trio.Nursery
) -> None:
    cast.market.apply(cancel())
    nursery.start_soon(run_payday, cast.buyer.ports)
    await cast.market.mine(5)
    assert cast.market.sent(ReclaimEscrow) == [ReclaimEscrow(job=JOB)]
    assert job_of(cast).escrow_reclaimed


def bid(node: Node, amount_wei: int) -> list[Event]:
    """A bid in the clear."""
    bidder = account_of(node)
    return [
        BidCommitted(auction=JOB, bidder=bidder, commitment=NO_DIGEST, deposit_wei=Wei(amount_wei)),
        BidRevealed(
            auction=JOB,
            bidder=bidder,
            amount_wei=Wei(amount_wei),
            terms=TERMS,
            body_hash=NO_DIGEST,
        ),
    ]


async def test_an_outbid_bid_comes_back_when_nobody_can_bid_any_more(
    cast: Cast, nursery: trio.Nursery
) -> None:
    best, outbid = cast.sellers[0], cast.sellers[1]
    change_job(
        cast, phase=JobPhase.AUCTION, mode=AuctionMode.OPEN, commit_end=BlockNumber(4), bids={}
    )
    cast.market.apply(*bid(outbid, 40), *bid(best, 50))
    for node in (best, outbid):
        nursery.start_soon(run_payday, node.ports)
    await cast.market.mine_to(4)
    assert cast.market.calls == []
    await cast.market.mine(3)
    assert cast.market.calls == [(account_of(outbid), ReclaimBid(auction=JOB))]
    await cast.market.mine(PAUSE_BLOCKS)
    assert len(cast.market.calls) == 1


def settle_by_claims(cast: Cast, credits: Sequence[int], **changes: object) -> None:
    """Settle the job with shares: the ballot's voters are CONE nodes 0 and 1."""
    accounts = [seller.account for seller in job_of(cast).sellers]
    root = compute_credit_root(accounts, credits)
    header = RoundHeader(
        job=JOB,
        round_index=RoundIndex(0),
        model_digest=NO_DIGEST,
        sampler_digest=NO_DIGEST,
        sampled=0b111,
        available=0b111,
        accepted=sum(1 << index for index, v in enumerate(credits) if v),
        utility_before=UtilityQ20(0),
        utility_after=UtilityQ20(1),
        utilities=(UtilityQ20(0),) * 3,
        domain=DOMAIN,
        previous_digest=NO_DIGEST,
        credit_root=root,
        credit_sum=sum(credits),
    ).encode()
    shares = SharesOpened(
        job=JOB, cone_pool_wei=Wei(100), seller_pool_wei=Wei(90), credit_root=root
    )
    course = replace(make_course(()), participation=(0b1 | 0b1 << 16, 0, 0, 0))
    cast.market.apply(
        RoundDecided(
            job=JOB,
            round_index=0,
            ballot_number=OPENED.ballot_number,
            digest=NO_DIGEST,
            votes=2,
            voters=0b11,
            wrong=0,
            unopened=0,
            appeal_end=BlockNumber(1),
            header=header,
        ),
        CourseChanged(job=JOB, course=course),
        TrainingEnded(
            job=JOB,
            outcome=Outcome.TARGET,
            rounds_done=1,
            initial_utility=0,
            last_utility=1,
            model_digest=NO_DIGEST,
            credit_root=root,
            credit_sum=sum(credits),
            final_block=BlockNumber(1),
        ),
        replace(shares, **changes),  # type: ignore[arg-type]
        settled_for(account_of(cast.buyer)),
    )


def settled_for(buyer: Address) -> JobSettled:
    return JobSettled(
        job=JOB,
        buyer=buyer,
        price_wei=Wei(200),
        cone_pool_wei=Wei(100),
        seller_pool_wei=Wei(90),
        refund_wei=Wei(10),
        rounds_done=1,
        initial_utility=0,
        last_utility=1,
        model_digest=NO_DIGEST,
    )


async def test_each_member_claims_its_own_share_with_its_proof_and_once(
    cast: Cast, nursery: trio.Nursery
) -> None:
    settle_by_claims(cast, (1, 0, 1, 0))
    for node in (*cast.cones, *cast.sellers):
        nursery.start_soon(run_payday, node.ports)
    await cast.market.mine(PAUSE_BLOCKS + 3)
    cones = sorted(call.index for call in cast.market.sent(ClaimConeShare))
    sellers = sorted(call.index for call in cast.market.sent(ClaimSellerShare))
    assert (cones, sellers) == ([0, 1], [0, 2])
    assert [call.v for call in cast.market.sent(ClaimSellerShare)] == [1, 1]
    # The market in memory pays only by the right proof.
    paid = {(one.role, one.index): one.amount_wei for one in job_of(cast).payouts}
    assert paid == {(1, 0): 50, (1, 1): 50, (2, 0): 45, (2, 2): 45}
    assert cast.market.sent(ClaimPayout) == []


async def test_equal_shares_need_no_proof(cast: Cast, nursery: trio.Nursery) -> None:
    settle_by_claims(cast, (1, 0, 1, 0), credit_root=NO_DIGEST)
    nursery.start_soon(run_payday, cast.sellers[3].ports)
    await cast.market.mine(3)
    assert cast.market.sent(ClaimSellerShare) == [ClaimSellerShare(job=JOB, index=3, v=1, proof=())]
    assert job_of(cast).payouts[-1].amount_wei == 22


async def test_shares_that_cannot_be_proven_or_were_swept_are_not_claimed(
    cast: Cast, nursery: trio.Nursery
) -> None:
    settle_by_claims(cast, (1, 0, 1, 0), credit_root=Digest(b"\x01" * 32))
    for node in (cast.sellers[0], cast.cones[0]):
        nursery.start_soon(run_payday, node.ports)
    await cast.market.mine()
    cast.market.apply(SharesSwept(job=JOB, amount_wei=Wei(190)))
    await cast.market.mine(3)
    assert cast.market.sent(ClaimSellerShare) == []
    nursery.start_soon(run_payday, cast.cones[1].ports)
    await cast.market.mine(3)
    assert [call.index for call in cast.market.sent(ClaimConeShare)] == [0]


async def test_a_restart_does_not_ask_again(cast: Cast) -> None:
    node = cast.sellers[0]
    cast.market.apply(credit(node, 7))
    for _ in range(2):
        async with trio.open_nursery() as life:
            life.start_soon(run_payday, node.ports)
            await cast.market.mine(PAUSE_BLOCKS + 1)
            life.cancel_scope.cancel()
    assert len(cast.market.sent(ClaimPayout)) == 1


async def test_two_nodes_of_one_account_do_not_hinder_each_other(
    cast: Cast, nursery: trio.Nursery
) -> None:
    node = cast.sellers[0]
    twin = Node(cast.market, node.name)
    assert account_of(twin) == account_of(node)
    cast.market.apply(credit(node, 7))
    for one in (node, twin):
        nursery.start_soon(run_payday, one.ports)
    await cast.market.mine(PAUSE_BLOCKS + 3)
    # Both were on their way; the chain takes one, and none is sent after it.
    assert len(cast.market.sent(ClaimPayout)) == 2
    assert claim_of(cast.market.state.payouts, NO_ACCOUNT, account_of(node)).withdrawn_wei == 7
    cast.market.apply(credit(node, 3))
    await cast.market.mine(PAUSE_BLOCKS + 3)
    assert claim_of(cast.market.state.payouts, NO_ACCOUNT, account_of(node)).withdrawn_wei == 10


async def test_a_claim_that_a_reorganisation_takes_back_is_not_sent_under_another_key(
    cast: Cast, nursery: trio.Nursery
) -> None:
    node = cast.sellers[0]
    cast.market.apply(credit(node, 7))
    before = cast.market.state.payouts
    nursery.start_soon(run_payday, node.ports)
    await cast.market.mine(2)
    cast.market.state = replace(cast.market.state, payouts=before)
    await cast.market.mine(2 * PAUSE_BLOCKS)
    # The chain port sends the same transaction again: that is its part.
    assert len(cast.market.sent(ClaimPayout)) == 1
    claimed = PayoutClaimed(payee=account_of(node), currency=NO_ACCOUNT, amount_wei=Wei(7))
    cast.market.apply(claimed, credit(node, 3))
    await cast.market.mine(PAUSE_BLOCKS + 1)
    assert len(cast.market.sent(ClaimPayout)) == 2


async def test_a_refused_exit_is_tried_again_later_and_holds_up_no_other(
    cast: Cast, nursery: trio.Nursery
) -> None:
    node = cast.sellers[SELLER]
    asked = 0

    def refuse(call: ContractCall) -> bool:
        nonlocal asked
        asked += isinstance(call, ClaimPayout)
        return isinstance(call, ClaimPayout)

    cast.market.refuses = refuse
    cast.market.apply(credit(node, 7), cancel())
    nursery.start_soon(run_payday, node.ports)
    await cast.market.mine(5)
    assert asked == 1
    assert cast.market.sent(ReclaimDeposit) == [ReclaimDeposit(job=JOB)]
    await cast.market.mine(PAUSE_BLOCKS)
    assert asked == 2


async def test_several_jobs_are_taken_one_after_the_other(
    cast: Cast, nursery: trio.Nursery
) -> None:
    node = cast.sellers[SELLER]
    account = account_of(node)
    second = JobId(2)
    cast.market.state = replace(
        cast.market.state,
        jobs={**cast.market.state.jobs, second: replace(job_of(cast), job_id=second)},
    )
    cast.market.apply(
        SellerEnrolled(job=second, index=4, seller=account, dataset_id=1),
        SellerDeposited(job=second, seller=account, amount_wei=Wei(3)),
        cancel(),
        JobCancelled(job=second, refund_wei=Wei(1)),
    )
    nursery.start_soon(run_payday, node.ports)
    await cast.market.mine(5)
    assert cast.market.sent(ReclaimDeposit) == [ReclaimDeposit(job=JOB), ReclaimDeposit(job=second)]
