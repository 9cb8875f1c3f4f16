"""Who has money in a job closes and settles it when the pool does not."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio

from d2m_node.calls import (
    CloseEnrolment,
    ContractCall,
    ExpireBallot,
    SettleJob,
    StartTraining,
)
from d2m_node.ports import Int32Array
from d2m_node.roles.cone import run_cone
from d2m_node.roles.executor import HonestExecutor
from d2m_node.roles.policies import ConePolicy, SellerPolicy
from d2m_node.roles.seller import run_seller
from d2m_node.roles.transitions import (
    close_enrolment_in_turn,
    is_drawn,
    settle_in_turn,
    stand_in_for_pool,
    turn_after_pool,
)
from d2m_node.roles.turns import Turn
from protocol.enrolment import GIVE_UP_BLOCKS, HEADER_REACH_BLOCKS
from protocol.events import (
    ConeEnrolled,
    CourseChanged,
    SellerDeposited,
    SellerEnrolled,
    TrainingEnded,
)
from protocol.hashing import keccak
from protocol.job import JobPhase, JobState
from protocol.market import advance
from protocol.settlement import Outcome
from protocol.stakes import Stake
from protocol.types import NO_DIGEST, Address, BlockNumber, Digest, Wei
from tests.support.job import (
    CONES,
    DEPOSIT_WEI,
    JOB,
    OPENED,
    SELLERS,
    TERMS,
    Cast,
    retried,
)
from tests.support.market import Node
from tests.support.params import PARAMS
from tests.support.settled_job import make_course

FINAL_BLOCK = BlockNumber(4)
LEAVES = ((Address(b"\x22" * 20), 3),)
COURSE = make_course(())


def job_of(cast: Cast) -> JobState:
    return cast.market.state.jobs[JOB]


def enrol_sellers(cast: Cast, nodes: Sequence[Node]) -> None:
    for index, node in enumerate(nodes):
        account = node.signer.address
        cast.market.apply(
            SellerEnrolled(job=JOB, index=index, seller=account, dataset_id=index),
            SellerDeposited(job=JOB, seller=account, amount_wei=DEPOSIT_WEI),
        )


def enrol_cones(cast: Cast, nodes: Sequence[Node]) -> tuple[tuple[Address, Digest], ...]:
    """Let nodes apply; return the applications as a call brings them."""
    applications = tuple((node.signer.address, keccak(node.peer_id)) for node in nodes)
    for index, (account, root) in enumerate(applications):
        cast.market.apply(ConeEnrolled(job=JOB, index=index, node=account, ticket_root=root))
    return applications


def stake(cast: Cast, node: Node) -> None:
    """Stake before the auction, as far as the chain in memory tells."""
    staked = Stake(free_wei=Wei(10), since_block=BlockNumber(-1))
    state = cast.market.state
    cast.market.state = replace(state, stakes={**state.stakes, node.signer.address: staked})


def end_training(cast: Cast) -> None:
    cast.market.apply(
        CourseChanged(job=JOB, course=COURSE),
        TrainingEnded(
            job=JOB, outcome=0, rounds_done=0, initial_utility=0, last_utility=0,
            model_digest=NO_DIGEST, credit_root=NO_DIGEST, credit_sum=0, final_block=FINAL_BLOCK,
        ),
    )  # fmt: skip


def settle(cast: Cast, node: Node, nursery: trio.Nursery) -> None:
    account = node.signer.address
    nursery.start_soon(
        settle_in_turn,
        node.chain,
        partial(job_of, cast),
        lambda block: turn_after_pool(job_of(cast), account, block),
    )


def test_the_buyer_comes_after_the_pool_and_the_sellers_after_the_buyer() -> None:
    cast = Cast()
    cast.start()
    nodes = [cast.buyer, *cast.sellers]
    turns = [turn_after_pool(job_of(cast), node.signer.address, 7) for node in nodes]
    assert [turn.rank for turn in turns] == list(range(CONES, CONES + 1 + SELLERS))
    assert {(turn.first_block, turn.ranks) for turn in turns} == {(7, CONES + 1 + SELLERS)}


async def test_a_seller_closes_an_enrolment_that_nobody_else_closes(nursery: trio.Nursery) -> None:
    cast = Cast()
    cast.open_enrolment()
    enrol_sellers(cast, cast.sellers[:1])
    node = cast.sellers[0]
    policy = SellerPolicy(dataset_path="dataset.toml")
    nursery.start_soon(run_seller, node.post("seller", nursery), policy, None)
    await cast.market.mine_to(job_of(cast).enrolment_end + 3)
    assert len(cast.market.sent(CloseEnrolment)) == 1
    assert job_of(cast).phase is JobPhase.CANCELLED


def turn_of(cast: Cast, account: Address, first_block: int) -> Turn:
    return turn_after_pool(job_of(cast), account, first_block)


def close(cast: Cast, node: Node, nursery: trio.Nursery) -> None:
    nursery.start_soon(
        close_enrolment_in_turn,
        node.chain,
        partial(job_of, cast),
        partial(turn_of, cast, node.signer.address),
    )


async def test_the_buyer_closes_before_the_sellers_and_nobody_after_it(
    nursery: trio.Nursery,
) -> None:
    cast = Cast()
    cast.open_enrolment()
    enrol_sellers(cast, cast.sellers)
    for node in (cast.buyer, *cast.sellers):
        close(cast, node, nursery)
    await cast.market.mine_to(job_of(cast).enrolment_end + 8)
    assert [sender for sender, _ in cast.market.calls] == [cast.buyer.signer.address]


async def test_who_closes_brings_all_applications_and_no_header_without_a_draw(
    nursery: trio.Nursery,
) -> None:
    cast = Cast()
    cast.open_enrolment()
    enrol_sellers(cast, cast.sellers)
    roots = enrol_cones(cast, cast.cones)
    close(cast, cast.buyer, nursery)
    await cast.market.mine_to(job_of(cast).enrolment_end + CONES + 1)
    (call,) = cast.market.sent(CloseEnrolment)
    assert call.sellers == tuple(node.signer.address for node in cast.sellers)
    assert call.cones == roots
    assert call.header == b""
    assert job_of(cast).phase is JobPhase.VALIDATION
    assert not any(job_of(cast).is_seller_left_out(account) for account in call.sellers)


async def test_who_closes_waits_for_the_seed_of_a_draw_and_brings_its_header(
    nursery: trio.Nursery,
) -> None:
    cast = Cast()
    cast.open_enrolment()
    crowd = [*cast.sellers, *(Node(cast.market, f"further seller {i}") for i in range(3))]
    enrol_sellers(cast, crowd)
    enrol_cones(cast, cast.cones)
    assert is_drawn(job_of(cast))
    close(cast, cast.buyer, nursery)
    seed_block = job_of(cast).enrolment_end + PARAMS.seed_delay_blocks
    await cast.market.mine_to(seed_block + CONES)
    assert cast.market.calls == []
    await cast.market.mine()
    (call,) = cast.market.sent(CloseEnrolment)
    assert call.header == await cast.buyer.chain.read_header(BlockNumber(seed_block))
    job = job_of(cast)
    assert (len(job.sellers), len(job.seller_applications), len(job.cones)) == (4, 7, 5)
    assert len([one for one in crowd if job.is_seller_left_out(one.signer.address)]) == 3


async def test_the_header_of_a_draw_out_of_reach_is_a_later_one(nursery: trio.Nursery) -> None:
    cast = Cast()
    cast.open_enrolment()
    enrol_sellers(cast, [*cast.sellers, Node(cast.market, "further seller")])
    enrol_cones(cast, cast.cones)
    seed_block = job_of(cast).enrolment_end + PARAMS.seed_delay_blocks
    cast.market.state = advance(cast.market.state, BlockNumber(seed_block + HEADER_REACH_BLOCKS))
    close(cast, cast.buyer, nursery)
    await cast.market.mine()
    (call,) = cast.market.sent(CloseEnrolment)
    moved_on = BlockNumber(seed_block + HEADER_REACH_BLOCKS)
    assert call.header == await cast.buyer.chain.read_header(moved_on)


@pytest.mark.parametrize("is_overdue", [False, True])
async def test_a_draw_that_the_contract_refuses_is_given_up_only_very_late(
    nursery: trio.Nursery, is_overdue: bool
) -> None:
    cast = Cast()
    cast.open_enrolment()
    enrol_sellers(cast, [*cast.sellers, Node(cast.market, "further seller")])
    enrol_cones(cast, cast.cones)
    cast.market.refuses = lambda call: isinstance(call, CloseEnrolment) and call.header != b""
    last_block = job_of(cast).enrolment_end + PARAMS.seed_delay_blocks + GIVE_UP_BLOCKS
    head = BlockNumber(last_block + is_overdue)
    cast.market.state = advance(cast.market.state, head)
    close(cast, cast.buyer, nursery)
    await cast.market.mine()
    assert [call.header for call in cast.market.sent(CloseEnrolment)] == [b""] * is_overdue


async def test_a_crowd_that_cannot_start_the_job_is_not_drawn(nursery: trio.Nursery) -> None:
    cast = Cast()
    cast.open_enrolment()
    enrol_sellers(cast, [*cast.sellers, Node(cast.market, "further seller")])
    assert not is_drawn(job_of(cast))
    close(cast, cast.buyer, nursery)
    await cast.market.mine_to(job_of(cast).enrolment_end + 1)
    assert job_of(cast).phase is JobPhase.CANCELLED


async def run_role(node: Node, role: str) -> None:
    """Run one role as a node does, until cancelled."""
    async with trio.open_nursery() as nursery:
        post = node.post(role, nursery)
        if role == "cone":
            await run_cone(post, ConePolicy(stake_wei=Wei(1)), HonestExecutor())
        else:
            await run_seller(post, SellerPolicy(dataset_path="dataset.toml"), IdleTrainer())


class IdleTrainer:
    """Never has an update."""

    async def train(self, *_arguments: object, **_options: object) -> Int32Array:
        await trio.sleep_forever()
        raise AssertionError


@pytest.mark.parametrize("role", ["seller", "cone"])
async def test_who_is_left_out_leaves_the_job_quietly_and_the_members_stay(
    nursery: trio.Nursery, role: str
) -> None:
    cast = Cast()
    cast.open_enrolment()
    own = cast.cones if role == "cone" else cast.sellers
    further = Node(cast.market, f"further {role}")
    cast.introduce(further)
    cast.register(further, SELLERS)
    crowd = [further, *own]
    if role == "cone":
        enrol_sellers(cast, cast.sellers)
        for node in crowd:
            stake(cast, node)
    else:
        enrol_cones(cast, cast.cones)
    for node in crowd:
        nursery.start_soon(run_role, node, role)
    await cast.market.mine()
    assert all(JOB in node.rooms for node in crowd)
    while job_of(cast).phase is JobPhase.ENROLMENT:
        await cast.market.mine()
    await cast.market.mine()

    job = job_of(cast)
    assert job.phase is JobPhase.VALIDATION
    is_left_out = job.is_cone_left_out if role == "cone" else job.is_seller_left_out
    left_out = [node for node in crowd if is_left_out(node.signer.address)]
    assert len(left_out) == 1
    assert [JOB in node.rooms for node in crowd] == [node not in left_out for node in crowd]
    assert len(cast.market.sent(CloseEnrolment)) == 1
    sent = len(cast.market.calls)
    await cast.market.mine(3)
    assert left_out[0].signer.address not in [sender for sender, _ in cast.market.calls[sent:]]


async def test_the_buyer_settles_when_the_pool_is_silent(nursery: trio.Nursery) -> None:
    cast = Cast()
    cast.start()
    settle(cast, cast.buyer, nursery)
    await cast.market.mine(2)
    end_training(cast)
    await cast.market.mine_to(FINAL_BLOCK + CONES)
    assert cast.market.calls == []
    await cast.market.mine()
    assert [call.course for call in cast.market.sent(SettleJob)] == [COURSE]
    assert job_of(cast).phase is JobPhase.SETTLED


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("opens_root", [False, True])
async def test_known_leaves_come_first_and_none_only_when_they_are_refused_for_long(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, is_late: bool, opens_root: bool
) -> None:
    cast = Cast()
    cast.start()
    monkeypatch.setattr("d2m_node.roles.transitions.list_credits", lambda _: LEAVES)
    asked = []

    def refuse(call: ContractCall) -> bool:
        assert isinstance(call, SettleJob)
        asked.append(call.leaves)
        return call.leaves == LEAVES and not opens_root

    cast.market.refuses = refuse
    end_training(cast)
    blocks_late = PARAMS.max_window_blocks + 1 if is_late else CONES
    await cast.market.mine_to(FINAL_BLOCK + blocks_late)
    settle(cast, cast.buyer, nursery)
    await cast.market.mine()
    settled = [call.leaves for call in cast.market.sent(SettleJob)]
    assert asked[0] == LEAVES
    assert settled == ([LEAVES] if opens_root else [()] if is_late else [])


# --- who stands in for a silent pool

VALIDATION_END = BlockNumber(3)


def stand_in(cast: Cast, node: Node, nursery: trio.Nursery) -> None:
    account = node.signer.address
    nursery.start_soon(
        stand_in_for_pool,
        node.chain,
        partial(job_of, cast),
        lambda block: turn_after_pool(job_of(cast), account, block),
    )


def change_job(cast: Cast, **fields: Any) -> None:
    job = replace(job_of(cast), course=COURSE, **fields)
    cast.market.state = replace(cast.market.state, jobs={JOB: job})


async def test_the_buyer_starts_training_when_the_pool_is_silent(nursery: trio.Nursery) -> None:
    cast = Cast()
    cast.start()
    change_job(cast, phase=JobPhase.VALIDATION, ballot=None, validation_end=VALIDATION_END)
    for node in (cast.buyer, *cast.sellers):
        stand_in(cast, node, nursery)
    await cast.market.mine_to(VALIDATION_END + CONES)
    assert cast.market.calls == []
    await cast.market.mine(5)
    ((sender, call),) = cast.market.calls
    assert sender == cast.buyer.signer.address
    assert isinstance(call, StartTraining)
    ended = job_of(cast).ended
    assert ended is not None
    assert ended.outcome == Outcome.UNSERVED


async def test_a_seller_gives_up_a_ballot_that_buyer_and_pool_leave_undecided(
    nursery: trio.Nursery,
) -> None:
    cast = Cast()
    cast.start()
    change_job(cast)
    stand_in(cast, cast.sellers[0], nursery)
    deadline = OPENED.open_end + TERMS.header_blocks
    await cast.market.mine_to(deadline + CONES + 1)
    assert cast.market.calls == []
    await cast.market.mine()
    assert cast.market.sent(ExpireBallot) == [ExpireBallot(job=JOB, terms=TERMS, course=COURSE)]


async def test_nobody_stands_in_for_a_pool_that_goes_on(nursery: trio.Nursery) -> None:
    cast = Cast()
    cast.start()
    change_job(cast)
    stand_in(cast, cast.buyer, nursery)
    await cast.market.mine_to(OPENED.open_end + TERMS.header_blocks)
    cast.market.apply(
        replace(retried(), availability_end=BlockNumber(60), open_end=BlockNumber(80))
    )
    await cast.market.mine(CONES + 2)
    assert cast.market.calls == []
    end_training(cast)
    await cast.market.mine(CONES + 2)
    assert cast.market.sent(ExpireBallot) == []
