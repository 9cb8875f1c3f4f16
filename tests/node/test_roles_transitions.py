"""Who has money in a job closes and settles it when the pool does not."""

from collections.abc import Sequence
from functools import partial

import pytest
import trio

from d2m_node.calls import CloseEnrolment, ContractCall, SettleJob
from d2m_node.roles.rooms import Rooms
from d2m_node.roles.seller import SellerPolicy, run_seller
from d2m_node.roles.transitions import close_enrolment_in_turn, settle_in_turn, turn_after_pool
from d2m_node.roles.turns import Turn
from protocol.events import SellerDeposited, SellerEnrolled, TrainingEnded
from protocol.job import JobPhase, JobState
from protocol.types import NO_DIGEST, Address, BlockNumber
from tests.support.job import CONES, DEPOSIT_WEI, JOB, SELLERS, Cast
from tests.support.market import Node
from tests.support.params import PARAMS

FINAL_BLOCK = BlockNumber(4)
LEAVES = ((Address(b"\x22" * 20), 3),)


def job_of(cast: Cast) -> JobState:
    return cast.market.state.jobs[JOB]


def enrol_sellers(cast: Cast, nodes: Sequence[Node]) -> None:
    for index, node in enumerate(nodes):
        account = node.signer.address
        cast.market.apply(
            SellerEnrolled(job=JOB, index=index, seller=account, dataset_id=index),
            SellerDeposited(job=JOB, seller=account, amount_wei=DEPOSIT_WEI),
        )


def end_training(cast: Cast) -> None:
    cast.market.apply(
        TrainingEnded(
            job=JOB, outcome=0, rounds_done=0, initial_utility=0, last_utility=0,
            model_digest=NO_DIGEST, credit_root=NO_DIGEST, credit_sum=0, final_block=FINAL_BLOCK,
        )
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
    rooms = Rooms(node.ports, node.rooms, nursery)
    policy = SellerPolicy(dataset_path="dataset.toml")
    nursery.start_soon(run_seller, node.ports, rooms, policy, None)
    await cast.market.mine_to(job_of(cast).enrolment_end + 3)
    assert len(cast.market.sent(CloseEnrolment)) == 1
    assert job_of(cast).phase is JobPhase.CANCELLED


def turn_of(cast: Cast, account: Address, first_block: int) -> Turn:
    return turn_after_pool(job_of(cast), account, first_block)


async def test_the_buyer_closes_before_the_sellers_and_nobody_after_it(
    nursery: trio.Nursery,
) -> None:
    cast = Cast()
    cast.open_enrolment()
    enrol_sellers(cast, cast.sellers)
    for node in (cast.buyer, *cast.sellers):
        nursery.start_soon(
            close_enrolment_in_turn,
            node.chain,
            partial(job_of, cast),
            partial(turn_of, cast, node.signer.address),
        )
    await cast.market.mine_to(job_of(cast).enrolment_end + 8)
    assert [sender for sender, _ in cast.market.calls] == [cast.buyer.signer.address]


async def test_the_buyer_settles_when_the_pool_is_silent(nursery: trio.Nursery) -> None:
    cast = Cast()
    cast.start()
    settle(cast, cast.buyer, nursery)
    await cast.market.mine(2)
    end_training(cast)
    await cast.market.mine_to(FINAL_BLOCK + CONES)
    assert cast.market.calls == []
    await cast.market.mine()
    assert len(cast.market.sent(SettleJob)) == 1
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
