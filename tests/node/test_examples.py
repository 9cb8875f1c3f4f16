"""The examples as their readers run them, against a node whose chain is made up.

With a real market they run in tests/integration/test_devnet.py.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from d2m_node.client import Scope
from protocol.events import AuctionClosed, JobSettled
from protocol.types import Address, BlockNumber, Digest, JobId, Wei
from tests.node.test_rpc_events import at
from tests.support.rpc import ACCOUNT, FakeNode, serve_fake_node

ROOT = Path(__file__).parents[2]
REQUEST = ROOT / "configs" / "requests" / "digits.toml"
ZERO = Digest(bytes(32))


async def run(name: str, *arguments: object) -> tuple[int, str, str]:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    with trio.fail_after(60):
        done: subprocess.CompletedProcess[bytes] = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False, cwd=ROOT
        )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def settled(rounds: int) -> JobSettled:
    return JobSettled(
        job=JobId(1), buyer=ACCOUNT, price_wei=Wei(1), cone_pool_wei=Wei(1),
        seller_pool_wei=Wei(1), refund_wei=Wei(0), rounds_done=rounds, initial_utility=0,
        last_utility=5, model_digest=ZERO,
    )  # fmt: skip


def closed(buyer: Address) -> AuctionClosed:
    return AuctionClosed(
        auction=JobId(1), buyer=buyer, price_wei=Wei(1), terms_hash=ZERO, request_hash=ZERO,
        body_hash=ZERO, enrolment_end=BlockNumber(9),
    )  # fmt: skip


async def test_a_model_is_bought_and_bought_once(tmp_path: Path) -> None:
    node, socket, output = FakeNode(), tmp_path / "rpc.sock", tmp_path / "model.safetensors"
    arguments = (socket, REQUEST, "--key", "k", "-o", output)
    node.chain.follow(at(3, closed(ACCOUNT)), at(5, settled(2)), block=5)
    node.models.files[JobId(1)] = b"model"
    async with serve_fake_node(node, socket):
        for _ in range(2):
            code, told, errors = await run("buy_model.py", *arguments)
            assert (code, errors) == (0, "")
            assert "block 5: job.settled" in told
            assert output.read_bytes() == b"model"
    assert len(node.desk.submitted) == 1


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (closed(Address(b"\x0c" * 20)), "outbid"),
        (settled(0), "without a round"),
    ],
)
async def test_a_purchase_that_brings_no_model_says_why(
    tmp_path: Path, event: JobSettled | AuctionClosed, reason: str
) -> None:
    node, socket = FakeNode(), tmp_path / "rpc.sock"
    node.chain.follow(at(3, event), block=3)
    async with serve_fake_node(node, socket):
        arguments = (socket, REQUEST, "--key", "k", "-o", tmp_path / "model")
        code, _, errors = await run("buy_model.py", *arguments)
    assert code == 1
    assert reason in errors


async def test_roles_are_switched_on_the_socket_and_over_tcp(tmp_path: Path) -> None:
    socket = tmp_path / "rpc.sock"
    stake = ("on", "cone", "--stake", "1ether", "--key", "k")
    async with serve_fake_node(FakeNode(), socket, tcp="127.0.0.1:0") as port:
        tcp = (f"http://127.0.0.1:{port}", "--token-file", tmp_path / "tokens" / Scope.ADMIN)
        for arguments, expected in (
            ((socket,), "cone: off"),
            ((socket, *stake), "cone: on"),
            ((*tcp, *stake), "cone: on"),
            ((*tcp, "off", "cone"), "cone: off"),
        ):
            code, told, errors = await run("switch_roles.py", *arguments)
            assert (code, errors) == (0, "")
            assert expected in told
        code, _, errors = await run("switch_roles.py", socket, "on", "cone")
    assert code == 1
    assert errors == ("idempotency_key: a CONE node stakes money; give a key, and never reuse it\n")
