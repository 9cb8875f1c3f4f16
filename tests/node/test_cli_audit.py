"""`d2m-node audit`: payments, from the record of a settlement alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from d2m_node import cli
from d2m_node.roles.records import SETTLEMENT_KIND
from d2m_node.storage.database import open_store
from protocol.payment_audit import SettledJob
from protocol.types import Wei
from tests.support.settled_job import JOB, make_settled_job


@pytest.fixture
def audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def run(job: SettledJob, *arguments: str) -> tuple[int, str, str]:
        async def record() -> None:
            async with open_store(tmp_path) as store:
                await store.journal.remember(SETTLEMENT_KIND, str(JOB), msgspec.json.encode(job))

        trio.run(record)
        capsys.readouterr()
        code = cli.run_command(["audit", str(JOB), "--data-dir", str(tmp_path), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_payments_that_come_out_are_listed_with_their_weights(audit: Any) -> None:
    code, out, err = audit(make_settled_job())
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines() if line.startswith(("cone", "seller"))]
    assert [row[2] for row in rows] == ["3", "3", "3", "2", "0", "2", "1", "1", "0"]
    assert all(row[-2:] == ["the", "same"] for row in rows)


def test_a_payment_that_does_not_come_out_is_named_with_both_numbers(audit: Any) -> None:
    job = make_settled_job()
    first = replace(job.payouts[0], amount_wei=Wei(410))
    code, out, err = audit(replace(job, payouts=(first, *job.payouts[1:])))
    assert code == 3
    assert "cone 0 was credited 410 wei, and 409 wei come out" in err
    assert "sum of all payments: 10008 is recorded, and 10007 comes out" in err
    assert "409 wei" in out


def test_json_fails_for_a_wrong_payment_too(audit: Any) -> None:
    job = make_settled_job()
    assert audit(replace(job, payouts=job.payouts[:-1]), "--json")[0] == 3


def test_a_folder_without_a_record_of_the_job_is_refused(tmp_path: Path, capsys: Any) -> None:
    async def touch() -> None:
        async with open_store(tmp_path):
            pass

    trio.run(touch)
    assert cli.run_command(["audit", "1", "--data-dir", str(tmp_path)]) == 3
    assert "holds no record of job 1" in capsys.readouterr().err


def test_a_folder_without_a_store_stays_as_it_was(tmp_path: Path, capsys: Any) -> None:
    assert cli.run_command(["audit", "1", "--data-dir", str(tmp_path)]) == 3
    assert f"{tmp_path} holds no node's store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
