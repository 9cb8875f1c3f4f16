"""`d2m-node explain payout`: every payout in words, from what the node has read of the chain."""

import json
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import trio

from d2m_node import cli
from protocol.market import MarketState
from protocol.payment_audit import SettledJob
from protocol.types import Address, Wei
from tests.support.rpc import FakeNode, serve_fake_node
from tests.support.settled_job import (
    BUYER,
    CONES,
    JOB,
    PRICE,
    SELLERS,
    make_job_state,
    make_settled_job,
)

JOB_BY_HAND = make_settled_job()
TOKEN = Address(b"\x70" * 20)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncGenerator[FakeNode, None]:
    node = FakeNode()
    async with serve_fake_node(node, tmp_path / "rpc.sock"):
        yield node


@pytest.fixture
def explain(node: FakeNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    async def run(
        settled: SettledJob, *arguments: str, currency: Address | None = None
    ) -> tuple[int, str, str]:
        state = make_job_state(settled)
        if currency is not None:
            state = replace(state, currency=currency)
        node.chain.state = MarketState(jobs={JOB: state})
        capsys.readouterr()
        command = ["explain", "payout", str(JOB), "--data-dir", str(tmp_path), *arguments]
        code = await trio.to_thread.run_sync(cli.run_command, command)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def lines(out: str, *starts: str) -> list[list[str]]:
    """The cells of the lines that begin so; two spaces divide them."""
    return [re.split(r"\s{2,}", line) for line in out.splitlines() if line.startswith(starts)]


async def test_each_payee_has_a_line_with_its_formula_and_its_events(explain: Any) -> None:
    code, out, err = await explain(JOB_BY_HAND)
    assert (code, err) == (0, "")
    payees = lines(out, "cone ", "seller ", "buyer ")
    assert len(payees) == len(CONES) + len(SELLERS) + 1
    role, account, weight, amount, formula, events, credited, by = payees[0]
    assert (role, account) == ("cone 0", "0x" + CONES[0].hex())
    assert (weight, amount, formula, credited) == ("3", "409", "1501 * 3 // 11", "the same")
    listed = {one[0]: one for one in lines(out, "e")}
    named = [listed[name] for name in (*events.split(), *by.split())]
    assert [one[1] for one in named] == [
        "ConeEnrolled",
        "RoundDecided",
        "RoundDecided",
        "FinalDecided",
        "PayoutCredited",
    ]
    assert all(re.fullmatch("0x[0-9a-f]{64}", one[4]) for one in named)


async def test_json_holds_the_same_and_formulas_that_give_the_amounts(explain: Any) -> None:
    code, out, _ = await explain(JOB_BY_HAND, "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["currency"], found["differences"]) == ("ether", [])
    amounts = [one["amount_wei"] for one in found["payouts"]]
    assert sum(amounts) == PRICE
    names = {"min": min, "max": max, "ceil": ceil}
    assert [eval(one["formula"], names) for one in found["payouts"]] == amounts
    assert {event["event"] for one in found["numbers"] for event in one["events"]} == {
        "AuctionClosed",
        "BidRevealed",
        "RoundDecided",
        "FinalDecided",
        "TrainingEnded",
        "CourseChanged",
    }


async def test_an_account_gets_its_own_lines(explain: Any) -> None:
    code, out, _ = await explain(JOB_BY_HAND, "--account", "0x" + BUYER.hex().upper())
    assert code == 0
    assert len(lines(out, "cone ", "seller ")) == 0
    assert lines(out, "buyer ")[0][4] == "10007 - 0 - 1499 - 3501"
    code, _, err = await explain(JOB_BY_HAND, "--account", "0x" + "99" * 20)
    assert code == 3
    assert "takes no part in job 7" in err


async def test_an_amount_that_was_credited_otherwise_ends_with_a_line_and_a_code(
    explain: Any,
) -> None:
    wrong = replace(JOB_BY_HAND.payouts[0], amount_wei=Wei(410))
    settled = replace(JOB_BY_HAND, payouts=(wrong, *JOB_BY_HAND.payouts[1:]))
    code, out, err = await explain(settled)
    assert code == 3
    assert "cone 0 was credited 410 wei, and 409 wei come out" in err
    assert len(err.splitlines()) == 1
    assert lines(out, "cone 0")[0][6] == "410"
    code, out, _ = await explain(settled, "--json")
    assert (code, len(json.loads(out)["differences"])) == (3, 2)


async def test_a_job_in_the_token_says_so(explain: Any) -> None:
    code, out, _ = await explain(JOB_BY_HAND, currency=TOKEN)
    assert code == 0
    assert lines(out, "currency") == [["currency", "0x" + TOKEN.hex()]]


async def test_a_job_that_is_unknown_or_not_settled_is_refused(
    explain: Any, node: FakeNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["explain", "payout", "--data-dir", str(tmp_path)]
    state = replace(make_job_state(JOB_BY_HAND), settled=None)
    node.chain.state = MarketState(jobs={JOB: state})
    for number, reason in ((7, "job 7 is not settled"), (8, "the market has no such job")):
        code = await trio.to_thread.run_sync(cli.run_command, [*command, str(number)])
        assert (code, reason in capsys.readouterr().err) == (3, True)
