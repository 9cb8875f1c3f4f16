"""The whole market with real processes: a chain, nodes, libp2p, one job from bid to payout."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from d2m_node.client import NODE_STATUS, START, NoParams, RpcClient

pytestmark = pytest.mark.integration

LIMIT_SECONDS = 400
EXAMPLES = Path(__file__).parents[2] / "examples"
ONE_ETHER = 10**18


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run_devnet(folder: Path, *options: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "d2m_node", "devnet", "--json", "--dir", str(folder)]
    finished = subprocess.run(
        [*command, "--port", str(find_free_port()), *options],
        capture_output=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    logs = "".join(
        f"\n{log.parent.name}: {log.read_text(errors='replace')[-800:]}"
        for log in sorted(folder.glob("*/output.log"))
    )
    assert finished.returncode == 0, finished.stderr.decode() + finished.stdout.decode() + logs
    return [json.loads(line) for line in finished.stdout.splitlines()]


@contextmanager
def keep_devnet(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Iterator[Any]]]:
    """Start a devnet that stays up; yield it with its events, and end it if the test has not."""
    command = [sys.executable, "-m", "d2m_node", "devnet", "up", "--json", "--dir", str(folder)]
    errors = folder.with_suffix(".errors")
    with (
        errors.open("wb") as file,
        subprocess.Popen(
            [*command, "--port", str(find_free_port())], stdout=subprocess.PIPE, stderr=file
        ) as devnet,
    ):
        # Whatever happens, the output ends, and so does the test.
        alarm = threading.Timer(LIMIT_SECONDS, devnet.terminate)
        alarm.start()
        try:
            assert devnet.stdout is not None
            yield devnet, (json.loads(line) for line in devnet.stdout)
        finally:
            alarm.cancel()
            devnet.terminate()


def start_example(name: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish_example(example: subprocess.Popen[str]) -> str:
    with example:
        output, errors = example.communicate(timeout=LIMIT_SECONDS)
    assert example.returncode == 0, errors
    return output


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def list_commands() -> Iterator[str]:
    """Yield the command line of every process."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # A process may end while it is looked at.
        with suppress(FileNotFoundError, ProcessLookupError):
            yield path.read_bytes().decode(errors="replace")


def audit(folder: Path) -> list[dict[str, Any]]:
    """Recompute every decided ballot in a process that never met the market."""
    command = [sys.executable, "-m", "d2m_node", "--data-dir", str(folder), "audit", "1", "--json"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("D2M_")}
    finished = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr.decode()
    ballots: list[dict[str, Any]] = json.loads(finished.stdout)
    return ballots


def decisions(events: list[dict[str, Any]]) -> list[str]:
    kinds = ("round_decided", "final_decided")
    return [event["digest"] for event in events if event["event"] in kinds]


@pytest.mark.long
def test_a_job_whose_pool_neither_gossips_nor_listens_completes(tmp_path: Path) -> None:
    """Nobody else is of any audience, so that there is no gossip at all: pulls do everything."""
    events = run_devnet(
        tmp_path / "devnet", "--cones", "5", "--byzantine-cones", "5", "--attack", "silent"
    )
    assert decisions(events)
    assert events[-1]["event"] == "settled"


def test_a_devnet_that_is_terminated_leaves_nothing_running(tmp_path: Path) -> None:
    port = find_free_port()
    command = [sys.executable, "-m", "d2m_node", "devnet", "--json", "--port", str(port)]
    with subprocess.Popen(
        [*command, "--dir", str(tmp_path / "devnet")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as devnet:
        assert devnet.stdout is not None
        events = (json.loads(line)["event"] for line in devnet.stdout)
        assert "nodes_started" in events
        assert is_listening(port)
        devnet.terminate()
        _, errors = devnet.communicate(timeout=60)
    assert devnet.returncode == 130, errors.decode()
    assert errors == b""
    assert not is_listening(port)
    assert not any(str(tmp_path) in command for command in list_commands())


def test_one_job_goes_from_bid_to_payout_and_programs_follow_it(tmp_path: Path) -> None:
    folder, events = tmp_path / "devnet", []
    purchase: subprocess.Popen[str] | None = None
    with keep_devnet(folder) as (devnet, told):
        for event in told:
            events.append(event)
            if event.get("bidder") == "buyer-2" and purchase is None:
                purchase = buy_again(folder, tmp_path / "bought.safetensors")
            if event["event"] == "settled":
                break
        assert purchase is not None
        story = finish_example(purchase)
        switch_roles_of_a_node(folder / "buyer-1" / "rpc.sock")
        fetched = tmp_path / "fetched.safetensors"
        saved_here = json.loads(save_model(folder / "seller-1", fetched, code=0).stdout)
        assert (saved_here["job"], saved_here["is_delivered"]) == (1, False)
        refused = save_model(folder / "buyer-1", tmp_path / "refused", code=3)
        devnet.send_signal(signal.SIGINT)
        assert devnet.wait(timeout=60) == 0
    check_market(events)
    saved = next(event for event in events if event["event"] == "model_saved")
    assert (tmp_path / "bought.safetensors").read_bytes() == Path(saved["path"]).read_bytes()
    assert fetched.read_bytes() == Path(saved["path"]).read_bytes(), "a seller may have it too"
    assert b"its request gives the model to the job's buyer, sellers" in refused.stderr
    assert refused.stderr.count(b"\n") == 1
    assert not (tmp_path / "refused").exists()
    decided = [line for line in story.splitlines() if "round.decided" in line]
    assert len(decided) == len([one for one in events if one["event"] == "round_decided"])


def buy_again(folder: Path, output: Path) -> subprocess.Popen[str]:
    """Ask for the same under the same key: the example finds the job, and does not bid again."""
    buyer = folder / "buyer-2"
    places = (buyer / "rpc.sock", buyer / "request.toml", "--key", "devnet-1", "-o", output)
    return start_example("buy_model.py", *places)


def save_model(node: Path, output: Path, *, code: int) -> "subprocess.CompletedProcess[bytes]":
    """Ask a node for the model of the first job, as its operator does."""
    command = [sys.executable, "-m", "d2m_node", "--data-dir", str(node), "job", "model", "1"]
    finished = subprocess.run(
        [*command, "-o", str(output), "--json"], capture_output=True, timeout=60, check=False
    )
    assert finished.returncode == code, finished.stderr.decode()
    return finished


def switch_roles_of_a_node(socket: Path) -> None:
    stake = ("on", "cone", "--stake", "1ether", "--key", "stake")

    def switch(*arguments: str) -> str:
        return finish_example(start_example("switch_roles.py", socket, *arguments))

    assert "cone: off" in switch()
    for _ in range(2):
        assert "cone: on" in switch(*stake)
    assert "cone: draining" in switch("drain", "cone")
    with RpcClient(socket) as node, node.events(["stake.deposited"], after=START) as deposits:
        account = node.call(NODE_STATUS, NoParams()).account
        found = [next(deposits) for _ in range(6)]  # of five CONE nodes, and this one
    assert [one.facts["account"] for one in found].count(account) == 1
    assert found[-1].facts["amount_wei"] == ONE_ETHER


def check_market(events: list[dict[str, Any]]) -> None:
    settled = events[-1]

    assert settled["event"] == "settled"
    assert settled["price_wei"] == 11 * ONE_ETHER, "the higher bid wins"
    assert (
        sum(p["amount_wei"] for p in settled["payouts"]) + settled["refund_wei"]
        == (settled["price_wei"])
    )
    of_cones = ("cone", "batcher")  # the gas of batches is paid out of the nodes' pool
    cone_wei = sum(p["amount_wei"] for p in settled["payouts"] if p["role"] in of_cones)
    assert abs(cone_wei - settled["price_wei"] * 3 // 10) < len(settled["payouts"])
    assert settled["accuracy"] >= 0.80
    assert settled["slashed"] == []
    reclaimed = {e["bidder"]: e["amount_wei"] for e in events if e["event"] == "bid_reclaimed"}
    assert reclaimed["buyer-1"] == 15 * ONE_ETHER, "the loser gets all of its deposit back"
    returned = next(event for event in events if event["event"] == "deposits_returned")
    assert returned["sellers"] == 6, "nobody harmed the model or signed twice"
    saved = next(event for event in events if event["event"] == "model_saved")
    assert saved["digest"] == settled["model_digest"]
    assert Path(saved["path"]).stat().st_size > 0


def test_colluders_and_poisoners_change_nothing_and_are_not_paid(tmp_path: Path) -> None:
    folder = tmp_path / "devnet"
    events = run_devnet(
        folder, "--byzantine-cones", "2", "--attack", "collude", "--malicious-sellers", "2"
    )
    settled = events[-1]

    assert settled["event"] == "settled"
    assert settled["accuracy"] >= 0.80
    payouts = [one for one in settled["payouts"] if one["role"] != "batcher"]
    paid = {payout["to"] for payout in payouts if payout["amount_wei"] > 0}
    assert paid.isdisjoint({"cone-6", "cone-7", "seller-5", "seller-6"})
    assert {slash["node"] for slash in settled["slashed"]} <= {"cone-6", "cone-7"}

    ballots = audit(folder / "cone-1")
    assert [ballot["decided"] for ballot in ballots] == decisions(events)
    assert [ballot["computed"] for ballot in ballots] == decisions(events)
