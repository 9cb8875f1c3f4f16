"""The command line: what it prints, and with which code it ends."""

import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import trio

from d2m_node import cli
from d2m_node.cli import output
from d2m_node.errors import (
    ChainUnavailable,
    NodeError,
    StoreInUse,
    TransactionReverted,
    UserError,
)
from d2m_node.keys import open_signer
from d2m_node.settings import load_settings
from protocol.types import JobId
from tests.support.command import Ended
from tests.support.rpc import ACCOUNT, FakeNode, serve_fake_node

ROOT = Path(__file__).parents[2]
REQUEST = ROOT / "configs" / "requests" / "digits.toml"
MARKET = "0x" + "5f" * 20


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        code = cli.run_command(["--data-dir", str(tmp_path), *arguments])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
async def node(tmp_path: Path) -> AsyncGenerator[FakeNode, None]:
    node = FakeNode()
    async with serve_fake_node(node, tmp_path / "rpc.sock"):
        yield node


async def in_thread(command: Any, *arguments: str) -> Ended:
    ended: Ended = await trio.to_thread.run_sync(lambda: command(*arguments))
    return ended


def test_init_makes_a_node_that_only_lacks_its_market(command: Any, tmp_path: Path) -> None:
    ended = command("init", "--network", "devnet")
    assert ended.code == 0
    assert "write the Market contract's address" in ended.out
    settings = load_settings(tmp_path, flags={"chain.market": MARKET}, environment={})
    assert settings.chain.chain_id == 31337
    assert settings.chain.confirmations == 0
    signer = open_signer(settings.keys.account_file, settings.keys.password_file)
    assert "0x" + signer.address.hex() in ended.out
    check = command("config", "check")
    assert (check.code, check.err.startswith("d2m-node: chain.market: not set")) == (3, True)


def test_init_takes_a_password_file_and_says_where_things_are(command: Any, tmp_path: Path) -> None:
    password = tmp_path / 'my "password"'
    password.touch(mode=0o600)
    password.write_text("open sesame\n")
    ended = command(
        "init", "--network", "devnet", "--market", MARKET,
        "--chain-id", "7", "--rpc-url", "http://chain", "--password-file", str(password), "--json",
    )  # fmt: skip
    assert ended.code == 0
    settings = load_settings(tmp_path, flags={}, environment={})
    assert settings.chain.rpc_urls == ("http://chain",)
    assert settings.chain.chain_id == 7
    assert settings.keys.password_file == password
    assert ended.json["config"] == str(tmp_path / "config.toml")
    assert command("config", "check").code == 0


def test_a_check_reads_the_data_set_of_a_seller(command: Any, tmp_path: Path) -> None:
    command("init", "--network", "devnet", "--market", MARKET)
    seller = ("--set", "roles.seller.enabled=true", "--set", "roles.seller.dataset=d.toml")
    missing = command("config", "check", *seller)
    assert (missing.code, "d.toml" in missing.err) == (3, True)
    (tmp_path / "d.toml").write_text('format = "digits"\ntags = ["digits"]\n')
    assert command("config", "check", *seller).code == 0


def test_the_password_that_init_makes_is_the_owners_alone(command: Any, tmp_path: Path) -> None:
    command("init", "--network", "devnet")
    for name in ("password", "account.json"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0


def test_init_touches_no_node_that_is_set_up(command: Any, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    ended = command("init", "--network", "devnet")
    assert ended.code == 3
    assert "exists already" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["init"], 2, "--network devnet"),
        (["init", "--network", "devnet", "--market", "0x12"], 3, "is no address"),
        (["init", "--netwrk", "devnet"], 2, "No such option"),
        (["statsu"], 2, "No such command"),
        (["config", "check", "--set", "logs.level"], 2, "is not KEY=VALUE"),
        (["config", "check", "--set", "logs.levl=debug"], 3, "did you mean 'logs.level'?"),
        (["run"], 3, "chain.chain_id: not set"),
        (["status"], 5, "start it with d2m-node run"),
        (["job", "0"], 2, "x>=1"),
        (["rpc", "jobs.list", "{"], 2, "is no JSON"),
        (["request", "submit", "nowhere.toml"], 2, "does not exist"),
    ],
)
def test_a_mistake_gives_its_code_and_no_trace(
    command: Any, arguments: Sequence[str], code: int, message: str
) -> None:
    ended = command(*arguments)
    assert ended.code == code
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (UserError("no such\nthing"), 3, "d2m-node: no such thing\n"),
        (StoreInUse("in use"), 4, "d2m-node: in use\n"),
        (ChainUnavailable("silent"), 5, "d2m-node: silent\n"),
        (NodeError("cone-1 ended"), 1, "d2m-node: cone-1 ended\n"),
        (ExceptionGroup("x", [ExceptionGroup("y", [UserError("deep")])]), 3, "d2m-node: deep\n"),
        (ExceptionGroup("x", [UserError("a"), StoreInUse("worse")]), 4, "d2m-node: worse\n"),
        (KeyboardInterrupt(), 130, "\n"),
        (BaseExceptionGroup("x", [KeyboardInterrupt()]), 130, ""),
    ],
)
def test_each_error_has_its_exit_code_and_one_line(
    command: Any, monkeypatch: pytest.MonkeyPatch, failure: BaseException, code: int, message: str
) -> None:
    break_command(monkeypatch, failure)
    ended = command("status")
    assert (ended.code, ended.err) == (code, message)


@pytest.mark.parametrize(
    "failure", [ZeroDivisionError("odd"), ExceptionGroup("x", [UserError("a"), KeyError("odd")])]
)
def test_a_bug_shows_its_trace(
    command: Any, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    break_command(monkeypatch, failure)
    ended = command("status")
    assert ended.code == 1
    assert "Traceback" in ended.err
    assert "d2m-node: bug: " in ended.err


def break_command(monkeypatch: pytest.MonkeyPatch, failure: BaseException) -> None:
    @click.command()
    def broken() -> None:
        raise failure

    def get_command(group: click.Group, ctx: click.Context, cmd_name: str) -> click.Command:
        return broken

    monkeypatch.setattr(cli.LazyGroup, "get_command", get_command)


def test_settings_are_shown_with_their_origin(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("init", "--network", "devnet")
    monkeypatch.setenv("D2M_LOGS_LEVEL", "debug")
    ended = command("config", "show", "--origin", "--set", "logs.format=json", "--json")
    assert ended.json["logs.level"] == {"value": "debug", "origin": "environment D2M_LOGS_LEVEL"}
    assert ended.json["logs.format"]["origin"] == "flag"
    assert ended.json["chain.chain_id"]["origin"] == "config.toml"
    assert ended.json["chain.market"] == {"value": None, "origin": "not set"}
    lines = command("config", "show", "--origin").out.splitlines()
    assert any(line.split() == ["chain.chain_id", "31337", "config.toml"] for line in lines)


def test_the_data_directory_may_come_after_the_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.run_command(["init", "--network", "devnet", "--data-dir", str(tmp_path / "n")]) == 0
    assert (tmp_path / "n" / "config.toml").is_file()


async def test_the_status_of_a_running_node(node: FakeNode, command: Any) -> None:
    ended = await in_thread(command, "status")
    assert ended.code == 0
    assert "0x" + ACCOUNT.hex() in ended.out
    assert "none (observer)" in ended.out
    assert (await in_thread(command, "status", "--json")).json["chain_id"] == 31337


@pytest.mark.parametrize("name", ["status", "peers", "jobs", "roles"])
async def test_every_list_prints_text_and_json(node: FakeNode, command: Any, name: str) -> None:
    text = await in_thread(command, name)
    assert (text.code, text.err) == (0, "")
    assert (await in_thread(command, name, "--json")).json is not None


def _states(ended: Ended) -> dict[str, str]:
    return {one["role"]: one["state"] for one in ended.json}


async def test_a_role_is_switched_on_with_its_stake(node: FakeNode, command: Any) -> None:
    ended = await in_thread(command, "role", "enable", "cone", "--stake", "5ether", "--json")
    assert _states(ended) == {"buyer": "off", "cone": "on", "seller": "off"}
    assert node.roles.on["cone"].stake_wei == 5 * 10**18
    ended = await in_thread(command, "role", "drain", "cone", "--json")
    assert _states(ended)["cone"] == "draining"
    assert "cone (draining)" in (await in_thread(command, "status")).out
    assert "off" in (await in_thread(command, "role", "disable", "cone")).out


async def test_a_role_that_stakes_is_switched_on_once_per_key(node: FakeNode, command: Any) -> None:
    enable = ("role", "enable", "cone", "--idempotency-key", "k1", "--stake")
    assert (await in_thread(command, *enable, "5ether")).code == 0
    assert node.roles.on.pop("cone").payment_key == "k1"
    assert (await in_thread(command, *enable, "5ether")).code == 0
    assert "cone" not in node.roles.on, "the answer came again, and nothing was done"
    other = await in_thread(command, *enable, "6ether")
    assert other.code == 3
    assert "idempotency_key: 'k1' was used for other params before" in other.err
    keys = set()
    for _ in range(2):
        await in_thread(command, "role", "enable", "cone", "--stake", "5ether")
        keys.add(node.roles.on.pop("cone").payment_key)
    assert len(keys) == 2
    await in_thread(command, "role", "enable", "buyer")
    assert node.roles.on["buyer"].payment_key is None, "it stakes nothing"


async def test_a_request_is_submitted_once_per_key(node: FakeNode, command: Any) -> None:
    await in_thread(command, "role", "enable", "buyer")
    submit = ("request", "submit", str(REQUEST), "--idempotency-key", "k1", "--json")
    assert (await in_thread(command, *submit)).json == {"job": 1, "idempotency_key": "k1"}
    assert list(node.desk.submitted) == ["k1"]
    first = await in_thread(command, "request", "submit", str(REQUEST), "--json")
    second = await in_thread(command, "request", "submit", str(REQUEST), "--json")
    assert first.json["idempotency_key"] != second.json["idempotency_key"]


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (UserError("no"), 3),
        (TransactionReverted("Market.commit_bid", "market: no"), 3),
        (ChainUnavailable("no"), 5),
    ],
)
async def test_a_refusal_by_the_node_has_the_code_of_its_cause(
    node: FakeNode, command: Any, failure: Exception, code: int
) -> None:
    await in_thread(command, "role", "enable", "buyer")
    node.desk.failure = failure
    ended = await in_thread(command, "request", "submit", str(REQUEST))
    assert ended.code == code
    assert ended.err.startswith("d2m-node: ")


async def test_a_bug_in_the_node_is_not_the_askers(node: FakeNode, command: Any) -> None:
    await in_thread(command, "role", "enable", "buyer")
    node.desk.failure = ZeroDivisionError("odd")
    ended = await in_thread(command, "request", "submit", str(REQUEST))
    assert (ended.code, ended.err) == (
        1,
        "d2m-node: the node failed inside; its log says where\n",
    )


async def test_a_model_is_saved(node: FakeNode, command: Any, tmp_path: Path) -> None:
    node.models.files[JobId(2)], node.models.at_peers[JobId(4)] = b"weights", b"other weights"
    path = tmp_path / "model.safetensors"
    ended = await in_thread(command, "job", "model", "2", "-o", str(path), "--json")
    saved = {"job": 2, "path": str(path), "size_bytes": 7, "is_delivered": True}
    assert (ended.json, path.read_bytes()) == (saved, b"weights")
    fetched = await in_thread(command, "job", "model", "4", "-o", str(path), "--json")
    assert fetched.json == {"job": 4, "path": str(path), "size_bytes": 13, "is_delivered": False}
    missing = await in_thread(command, "job", "model", "3", "-o", str(path))
    assert (missing.code, "it has no model" in missing.err) == (3, True)


async def test_a_bare_number_shows_a_job(node: FakeNode, command: Any) -> None:
    ended = await in_thread(command, "job", "9")
    assert (ended.code, "the market has no such job" in ended.err) == (3, True)


async def test_any_method_can_be_called(node: FakeNode, command: Any) -> None:
    assert (await in_thread(command, "rpc", "jobs.list")).json == []
    ended = await in_thread(command, "rpc", "jobs.get", '{"job": "x"}')
    assert (ended.code, "job: expected `int`" in ended.err) == (3, True)


def test_the_help_loads_nothing_heavy() -> None:
    script = """
import sys
from d2m_node.cli import run_command
assert run_command(["--help"]) == 0
heavy = {"torch", "libp2p", "trio", "numpy", "httpx", "msgspec", "structlog"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "cannot be reached" in ended.stdout


def test_output_that_nobody_reads_on_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "node.log").write_text('{"event": "x", "level": "info"}\n' * 20_000)
    arguments = ["--data-dir", str(tmp_path), "logs", "--lines", "20000"]
    with subprocess.Popen(
        [sys.executable, "-m", "d2m_node", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as ended:
        assert ended.stdout is not None
        assert ended.stderr is not None
        assert "x" in ended.stdout.readline()
        ended.stdout.close()
        assert ended.stderr.read() == ""
    assert ended.returncode == 0


def test_every_command_in_the_help_is_there() -> None:
    group = cli.cli
    assert isinstance(group, click.Group)
    with click.Context(group) as context:
        for name in group.list_commands(context):
            assert group.get_command(context, name) is not None


@pytest.mark.parametrize(
    ("amount_wei", "text"),
    [
        (0, "0 ether"),
        (5 * 10**18, "5 ether"),
        (15 * 10**17, "1.5 ether"),
        (10**9, "0.000000001 ether"),
        (10**18 + 1, "1000000000000000001 wei"),
    ],
)
def test_amounts_are_printed_exactly(amount_wei: int, text: str) -> None:
    assert output.format_wei(amount_wei) == text
