"""`d2m-node earnings`, and the method behind it."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from d2m_node import cli
from d2m_node import client as api
from d2m_node.client import AsyncRpcClient
from d2m_node.measures import FeeTotal
from protocol.claims import Claim
from protocol.events import StakeLocked, StakeSlashed
from protocol.job import JobState
from protocol.market import MarketState
from protocol.types import NO_ACCOUNT, Address, BlockNumber, Wei
from tests.protocol.test_earnings import record
from tests.support.rpc import ACCOUNT, FakeChain, FakeFacts, FakeNode, serve_fake_node
from tests.support.settled_job import CONES, JOB, make_job_state, make_settled_job


def with_account_in_place_of(replaced: Address) -> JobState:
    """The settled job with the node's account as one of its members."""
    settled = make_settled_job()

    def swap(account: Address) -> Address:
        return ACCOUNT if account == replaced else account

    settled = replace(
        settled,
        cones=tuple(map(swap, settled.cones)),
        payouts=tuple(replace(one, payee=swap(one.payee)) for one in settled.payouts),
    )
    job = make_job_state(settled)
    cones = tuple(replace(one, account=swap(one.account)) for one in job.cones)
    return replace(job, cones=cones, cone_applications=cones, payouts=settled.payouts)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncGenerator[FakeNode, None]:
    job = with_account_in_place_of(CONES[3])
    stake = record(
        StakeLocked(job=JOB, account=ACCOUNT, amount_wei=Wei(10**18)),
        StakeSlashed(job=JOB, account=ACCOUNT, amount_wei=Wei(10**17), reason=2),
    )
    state = MarketState(
        block_number=BlockNumber(9),
        jobs={JOB: replace(job, trail=(*stake, *job.trail))},
        payouts={(NO_ACCOUNT, ACCOUNT): Claim(credited_wei=Wei(272))},
    )
    fees = (
        FeeTotal(job_id=None, call="StakePool.deposit", count=1, fees_wei=Wei(7)),
        FeeTotal(job_id=JOB, call="Enrolment.enrol_cone", count=1, fees_wei=Wei(2**70)),
    )
    node = FakeNode(chain=FakeChain(state), facts=FakeFacts(fees=fees))
    async with serve_fake_node(node, tmp_path / "rpc.sock"):
        yield node


async def command(tmp_path: Path, capsys: Any, *arguments: str) -> tuple[int, str]:
    def run() -> int:
        return cli.run_command(["--data-dir", str(tmp_path), *arguments])

    code = await trio.to_thread.run_sync(run)
    captured = capsys.readouterr()
    return code, captured.out + captured.err


async def test_earnings_come_with_sums_that_add_up(node: FakeNode, tmp_path: Path) -> None:
    async with AsyncRpcClient(tmp_path / "rpc.sock") as client:
        found = await client.call(api.LIST_EARNINGS, api.EarningsParams())
    (position,) = found.positions
    assert (position.role, position.earned_wei, position.spent_wei) == ("cone", 272, 10**17)
    assert position.held_wei == 10**18 - 10**17
    (total,) = found.sums
    assert (total.net_wei, total.unclaimed_wei) == (272 - 10**17, 272)
    payout = next(one for one in position.entries if one.kind == "CONE payout")
    assert payout.formula == "1501 * 2 // 11"
    assert payout.event.event == "PayoutCredited"
    (zero,) = position.zeros
    assert (zero.code, zero.round) == ("fewer_traces", 0)
    assert [one.fee_wei for one in found.gas] == [7, 2**70]


async def test_the_command_explains_amounts_and_zeros(
    node: FakeNode, tmp_path: Path, capsys: Any
) -> None:
    code, text = await command(tmp_path, capsys, "earnings", "--why")
    assert code == 0
    assert "spent: 0.1 ether  stake slashed  = 1000000000000000000 *" in text
    assert "1501 * 2 // 11" in text
    assert "0: round 0: voted for the decided digest with a trace that fewer had" in text
    assert "to be pulled: 272 wei" in text
    assert "2 transactions" in text
    assert "Enrolment.enrol_cone" in text


async def test_earnings_of_a_job_that_there_is_not_are_refused(
    node: FakeNode, tmp_path: Path, capsys: Any
) -> None:
    code, text = await command(tmp_path, capsys, "earnings", "--job", "99")
    assert (code, "has no such job" in text) == (3, True)


async def test_who_took_part_in_nothing_is_told_so(tmp_path: Path, capsys: Any) -> None:
    async with serve_fake_node(FakeNode(), tmp_path / "rpc.sock"):
        code, text = await command(tmp_path, capsys, "earnings", "--why")
    assert (code, "took part in no job" in text) == (0, True)
