"""A CONE node that is down while a job is settled has the record of it all the same."""

from dataclasses import replace

import msgspec
import trio

from d2m_node.roles.cone import run_cone
from d2m_node.roles.executor import HonestExecutor
from d2m_node.roles.policies import ConePolicy
from d2m_node.roles.records import SETTLEMENT_KIND, TICKET_KIND
from protocol.events import JobSettled, TrainingEnded
from protocol.payment_audit import SettledJob
from protocol.settlement import Outcome
from protocol.types import NO_DIGEST, BlockNumber, Wei
from tests.support.job import JOB, PRICE_WEI, Cast
from tests.support.market import wait_idle


def settle(cast: Cast) -> None:
    """Let the job end unserved, and be settled."""
    cast.market.apply(
        TrainingEnded(
            job=JOB,
            outcome=int(Outcome.UNSERVED),
            rounds_done=0,
            initial_utility=0,
            last_utility=0,
            model_digest=NO_DIGEST,
            credit_root=NO_DIGEST,
            credit_sum=0,
            final_block=BlockNumber(0),
        ),
        JobSettled(
            job=JOB,
            buyer=cast.buyer.signer.address,
            price_wei=PRICE_WEI,
            cone_pool_wei=Wei(0),
            seller_pool_wei=Wei(0),
            refund_wei=PRICE_WEI,
            rounds_done=0,
            initial_utility=0,
            last_utility=0,
            model_digest=NO_DIGEST,
        ),
    )


async def test_what_was_settled_while_a_node_was_down_is_recorded_at_its_start(
    nursery: trio.Nursery,
) -> None:
    cast = Cast()
    cast.start()
    settle(cast)
    job = cast.market.state.jobs[JOB]
    priced = replace(job, price_wei=Wei(2**256 - 1))  # no amount is too large
    cast.market.state = replace(cast.market.state, jobs={JOB: priced})
    member, stranger = cast.cones[0], cast.buyer
    await member.store.journal.remember(TICKET_KIND, str(JOB), bytes(32))
    for node in (member, stranger):
        nursery.start_soon(
            run_cone, node.post("cone", nursery), ConePolicy(stake_wei=Wei(0)), HonestExecutor()
        )
    await wait_idle()
    stored = await member.store.journal.recall(SETTLEMENT_KIND, str(JOB))
    assert stored is not None
    assert msgspec.json.decode(stored, type=SettledJob).price_wei == 2**256 - 1
    assert await stranger.store.journal.recall(SETTLEMENT_KIND, str(JOB)) is None
