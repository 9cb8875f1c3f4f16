"""Payday: deposits come back by themselves."""

import pytest
import trio

from d2m_node.calls import ReclaimDeposit
from d2m_node.roles.payday import run_payday
from protocol.deposits import DepositStatus
from protocol.events import DepositForfeited, JobCancelled
from protocol.types import Wei
from tests.support.job import DEPOSIT_WEI, JOB, Cast

SELLER = 1


@pytest.fixture
def cast() -> Cast:
    started = Cast()
    started.start()
    return started


def status(cast: Cast) -> DepositStatus:
    account = cast.sellers[SELLER].signer.address
    return cast.market.state.jobs[JOB].deposits[account].status


async def test_a_deposit_is_pulled_back_once_its_job_is_over(
    cast: Cast, nursery: trio.Nursery
) -> None:
    nursery.start_soon(run_payday, cast.sellers[SELLER].ports)
    await cast.market.mine(3)
    assert cast.market.calls == []
    cast.market.apply(JobCancelled(job=JOB, refund_wei=Wei(30)))
    await cast.market.mine(5)
    assert cast.market.sent(ReclaimDeposit) == [ReclaimDeposit(job=JOB)]
    assert status(cast) is DepositStatus.RETURNED


async def test_a_deposit_that_was_burned_is_not_asked_for(
    cast: Cast, nursery: trio.Nursery
) -> None:
    account = cast.sellers[SELLER].signer.address
    cast.market.apply(
        DepositForfeited(job=JOB, seller=account, amount_wei=DEPOSIT_WEI),
        JobCancelled(job=JOB, refund_wei=Wei(30)),
    )
    nursery.start_soon(run_payday, cast.sellers[SELLER].ports)
    await cast.market.mine(5)
    assert cast.market.calls == []
    assert status(cast) is DepositStatus.FORFEITED
