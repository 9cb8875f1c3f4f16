"""`d2m-node doctor` where no chain is needed: files, disk, peers, limits, and how it ends."""

import json
import os
import resource
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from d2m_node import cli
from d2m_node.backup import note_backup
from d2m_node.client import PeerView, ReachName, ReachView
from d2m_node.clock import AHEAD_SECONDS
from d2m_node.doctor import files, machine
from d2m_node.doctor.chain import Answer, check_clock, check_endpoints, check_gas
from d2m_node.doctor.check import Check
from d2m_node.doctor.files import check_files
from d2m_node.doctor.gas import GAS, WANTED_ROUNDS, needed_gas
from d2m_node.doctor.machine import check_machine
from d2m_node.doctor.network import check_network
from d2m_node.keys import create_account
from d2m_node.settings import NetworkSettings, NodeSettings, load_settings
from tests.support.rpc import FakeNode, serve_fake_node

AT = datetime(2026, 11, 26, tzinfo=UTC)
MARKET = "0x" + "5f" * 20
ROOT = Path(__file__).parents[2]


def make_node(folder: Path, extra: str = "") -> NodeSettings:
    text = (
        f'[chain]\nchain_id = 7\nmarket = "{MARKET}"\nrpc_urls = ["http://127.0.0.1:9"]\n'
        '[keys]\npassword_file = "password"\n[network]\nlisten = "/ip4/127.0.0.1/tcp/0"\n'
    )
    (folder / "config.toml").write_text(text + extra)
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text("correct horse\n")
    create_account(folder / "account.json", "correct horse", light=True)
    return load_settings(folder, environment={})


def by_name(checks: list[Check]) -> Mapping[str, Check]:
    return {one.name: one for one in checks}


def look(settings: NodeSettings) -> Mapping[str, Check]:
    return by_name(list(check_files(settings, is_running=False)))


def test_a_sound_data_directory_lacks_only_its_backup(tmp_path: Path) -> None:
    settings = make_node(tmp_path)
    found = look(settings)
    assert {name for name, one in found.items() if one.status != "ok"} <= {
        "key backup",
        "disk space",  # of the machine that runs the tests
    }
    assert found["key backup"].status == "warn"
    assert "key export" in found["key backup"].fix
    account = bytes.fromhex(found["account key"].detail[2:42])
    note_backup(tmp_path, account, "confirmed", AT)
    assert look(settings)["key backup"].status == "ok"
    assert not list(tmp_path.glob(".doctor*"))
    (tmp_path / "backup.json").unlink()
    local = load_settings(tmp_path, flags={"chain.chain_id": "31337"}, environment={})
    assert look(local)["key backup"].status == "ok"


def test_a_key_that_others_may_read_comes_with_the_command_to_run(tmp_path: Path) -> None:
    settings = make_node(tmp_path)
    (tmp_path / "account.json").chmod(0o644)
    found = look(settings)["file modes"]
    assert (found.status, found.fix) == ("fail", f"run chmod 600 {tmp_path}/account.json")


def test_a_password_that_opens_nothing_is_found_before_the_start(tmp_path: Path) -> None:
    settings = make_node(tmp_path)
    (tmp_path / "password").write_text("battery staple\n")
    assert look(settings)["account key"].status == "fail"


def test_a_disk_that_the_blobs_may_outgrow_is_a_warning_and_a_full_one_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_node(tmp_path)
    status = {}
    for free in (2**50, 2**30, 2**20):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(files.shutil, "disk_usage", lambda _, usage=usage: usage)
        status[free] = look(settings)["disk space"].status
    assert list(status.values()) == ["ok", "warn", "fail"]


def test_a_folder_that_cannot_be_written_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_node(tmp_path)

    def refuse(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(files.os, "fsync", refuse)
    found = look(settings)["disk writes"]
    assert (found.status, "No space left" in found.detail) == ("fail", True)


def peer(*, connected: bool) -> PeerView:
    return PeerView(
        peer_id="0x01", multiaddr="/ip4/127.0.0.1/tcp/1", connected=connected,
        last_error=None if connected else "connection refused", accounts=[],
        failures=[], next_dial_seconds=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("connected", "others", "status"),
    [(0, 0, "warn"), (0, 2, "fail"), (1, 5, "warn"), (3, 5, "ok"), (1, 0, "ok")],
)
async def test_peers_of_a_running_node_are_counted(
    connected: int, others: int, status: str
) -> None:
    peers = [peer(connected=True)] * connected + [peer(connected=False)] * others
    checks = await check_network(NetworkSettings(listen="/ip4/10.0.0.1/tcp/9393"), peers)
    assert by_name(checks)["peers"].status == status


@pytest.mark.parametrize(
    ("state", "status", "word"),
    [
        ("unreachable", "warn", "open TCP port 9393"),
        ("relayed", "ok", ""),
        ("reachable", "ok", ""),
    ],
)
async def test_what_peers_found_who_connected_back_is_told_with_the_fix(
    state: ReachName, status: str, word: str
) -> None:
    reach = ReachView(state=state, advice=word or None)
    found = by_name(await check_network(NetworkSettings(), [], reach))["reachability"]
    assert (found.status, found.fix or "") == (status, word)


async def test_addresses_are_tried_before_the_start() -> None:
    (taken,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = taken.socket.getsockname()[1]
    settings = NetworkSettings(
        listen=f"/ip4/127.0.0.1/tcp/{port}",
        bootstrap=(f"/ip4/127.0.0.1/tcp/{port}/p2p/x", "/ip4/127.0.0.1/tcp/1/p2p/y", "/bogus"),
    )
    found = by_name(await check_network(settings, None))
    await taken.aclose()
    assert found["listening address"].status == "fail"
    assert found[f"peer /ip4/127.0.0.1/tcp/{port}"].status == "ok"
    assert found["peer /ip4/127.0.0.1/tcp/1"].status == "warn"
    assert found["peer /bogus"].status == "warn"


async def test_an_address_that_names_no_machine_must_be_announced() -> None:
    found = by_name(await check_network(NetworkSettings(), []))["announced address"]
    assert (found.status, "network.announce" in found.fix) == ("warn", True)
    settings = NetworkSettings(announce="/dns4/node.example/tcp/9393")
    assert by_name(await check_network(settings, None))["announced address"].status == "ok"


def test_a_clock_is_held_against_the_newest_block() -> None:
    def status(*ages: float) -> str:
        answers = [Answer(name="x", head=1, timestamp=1000, checked_at=1000 + age) for age in ages]
        return check_clock(answers).status

    assert status(2) == "ok"
    assert status(-60) == "fail"
    assert status(AHEAD_SECONDS) == "ok", "the same rule as in the log of the running node"
    assert status(3600) == "warn"
    assert status(3600, 5) == "ok"
    assert check_clock([]).status == "warn"


def test_an_endpoint_that_lags_or_fails_matters_less_beside_a_good_one(tmp_path: Path) -> None:
    chain = make_node(tmp_path).chain
    good = Answer(name="good", head=100)
    late = Answer(name="late", head=90)
    dead = Answer(name="dead", failure="HTTP status 502", fix="check it")
    statuses = [one.status for one in check_endpoints([good, late, dead], chain)]
    assert statuses == ["ok", "warn", "warn"]
    assert [one.status for one in check_endpoints([dead], chain)] == ["fail"]


def test_gas_is_counted_in_rounds_of_the_roles_that_are_on(tmp_path: Path) -> None:
    settings = make_node(tmp_path, '[roles.cone]\nenabled = true\nstake_wei = "5ether"\n')
    price = 10**9
    round_wei = needed_gas(["cone"]) * price // WANTED_ROUNDS
    statuses = [
        check_gas(balance, price, settings).status
        for balance in (round_wei - 1, round_wei * 5, round_wei * WANTED_ROUNDS)
    ]
    assert statuses == ["fail", "warn", "ok"]
    assert needed_gas([]) == 0


def test_gas_needs_are_those_that_were_measured() -> None:
    measured = json.loads((ROOT / "tests" / "bench" / "gas.json").read_text())
    for name, gas in GAS.items():
        assert abs(gas - measured[name]) <= measured[name] // 20, name


def test_too_few_open_files_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_node(tmp_path)
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (1024, 1024))
    found = by_name(list(check_machine(settings, None)))["open files"]
    assert (found.status, "LimitNOFILE" in found.fix) == ("warn", True)
    monkeypatch.setattr(machine.resource, "getrlimit", resource.getrlimit)
    own = by_name(list(check_machine(settings, os.getpid())))["open files"]
    assert str(os.getpid()) in own.detail
    assert by_name(list(check_machine(settings, 2**22 + 1)))["open files"].status == "warn"


def test_a_device_that_is_not_there_is_a_failure_for_a_role_that_computes(tmp_path: Path) -> None:
    idle = make_node(tmp_path, "")
    assert by_name(list(check_machine(idle, None)))["device"].status == "ok"
    (tmp_path / "config.toml").write_text(
        'device = "mps"\n'
        + (tmp_path / "config.toml").read_text()
        + '[roles.seller]\nenabled = true\ndataset = "d.toml"\n'
    )
    settings = load_settings(tmp_path, environment={})
    assert by_name(list(check_machine(settings, None)))["device"].status == "fail"


def run(folder: Path, capsys: Any, *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.run_command(["--data-dir", str(folder), "doctor", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_incomplete_settings_are_the_first_thing_to_mend(tmp_path: Path, capsys: Any) -> None:
    code, out, err = run(tmp_path, capsys)
    assert code == 3
    assert out.startswith("fail  settings: chain.chain_id: not set")
    assert err == "d2m-node: 1 of 1 checks failed: settings\n"


def test_a_dead_endpoint_ends_with_code_3_and_the_rest_is_checked(
    tmp_path: Path, capsys: Any
) -> None:
    make_node(tmp_path)
    code, out, _ = run(tmp_path, capsys, "--json")
    report = json.loads(out)
    statuses = {one["name"]: one["status"] for one in report["checks"]}
    assert (code, report["ok"]) == (3, False)
    assert statuses["endpoint http://127.0.0.1:9"] == "fail"
    assert statuses["account key"] == statuses["disk writes"] == statuses["settings"] == "ok"
    assert all(one["fix"] for one in report["checks"] if one["status"] != "ok")


async def test_a_running_node_is_asked(tmp_path: Path, capsys: Any) -> None:
    make_node(tmp_path)
    async with serve_fake_node(FakeNode(), tmp_path / "rpc.sock"):
        code, out, _ = await trio.to_thread.run_sync(lambda: run(tmp_path, capsys, "--json"))
    checks = {one["name"]: one for one in json.loads(out)["checks"]}
    assert checks["node"]["detail"] == "runs, and answers"
    assert checks["peers"]["status"] == "warn"
    assert "listening address" not in checks
    assert code == 3
