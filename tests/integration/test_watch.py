"""A node in a process of its own, watched as systemd, Prometheus and an operator watch it."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families as parse_text

from d2m_node.chain.deployment import Deployment
from d2m_node.chain.json_rpc import to_hex
from d2m_node.keys import create_account
from tests.support.anvil import CHAIN_ID, ONE_ETHER, ask, open_market

pytestmark = pytest.mark.integration

PASSWORD = "a password of a test"
PATIENCE_SECONDS = 90.0


async def make_folder(folder: Path, url: str, deployment: Deployment) -> None:
    """Make a data directory of a node with some money, which is a CONE node from the start."""
    await trio.Path(folder).mkdir(mode=0o700)
    account = await trio.to_thread.run_sync(
        lambda: create_account(folder / "account.json", PASSWORD, light=True)
    )
    await ask(url, "anvil_setBalance", to_hex(account), hex(100 * ONE_ETHER))
    password = trio.Path(folder / "password")
    await password.touch(mode=0o600)
    await password.write_text(PASSWORD + "\n")
    lines = [
        "[chain]",
        f'rpc_urls = ["{url}"]',
        f"chain_id = {CHAIN_ID}",
        f'market = "{to_hex(deployment.market)}"',
        f"deployment_block = {deployment.deployment_block}",
        "confirmations = 0",
        "poll_seconds = 0.1",
        "[network]",
        'listen = "/ip4/127.0.0.1/tcp/0"',
        "[watch]",
        'listen = "127.0.0.1:0"',
        "[keys]",
        'password_file = "password"',
        "[roles.cone]",
        "enabled = true",
        'stake_wei = "5ether"',
    ]
    await trio.Path(folder / "config.toml").write_text("\n".join(lines) + "\n")


@asynccontextmanager
async def run_node(folder: Path, notify: Path) -> AsyncGenerator[trio.Process, None]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("D2M_")}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "d2m_node", "--data-dir", str(folder), "run"],
        stdin=subprocess.DEVNULL,
        env=environment | {"NOTIFY_SOCKET": str(notify), "WATCHDOG_USEC": "1000000"},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def hear(systemd: trio.socket.SocketType, wanted: str) -> list[str]:
    """Return what is heard up to a wanted word."""
    heard: list[str] = []
    while wanted not in heard:
        heard.append((await systemd.recv(4096)).decode())
    return heard


async def find_port(folder: Path) -> int:
    """Return the port that the node's log names."""
    text = await trio.Path(folder / "node.log").read_text()
    events = [json.loads(line) for line in text.splitlines()]
    (ready,) = [event for event in events if event["event"] == "watch_ready"]
    port: int = ready["port"]
    return port


async def test_a_node_says_how_it_is_to_all_that_watch_it(tmp_path: Path) -> None:
    folder, notify = tmp_path / "node", tmp_path / "notify"
    systemd = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM)
    await systemd.bind(str(notify))
    async with open_market() as (url, deployment):
        await make_folder(folder, url, deployment)
        with systemd, trio.fail_after(PATIENCE_SECONDS):
            async with run_node(folder, notify) as process:
                starting = await hear(systemd, "READY=1")
                assert any(one.startswith("STATUS=not ready; roles: starting") for one in starting)
                await hear(systemd, "WATCHDOG=1")
                await check_http(await find_port(folder))
                check_log(folder)
                process.send_signal(signal.SIGTERM)
                await hear(systemd, "STOPPING=1")
                assert await process.wait() == 0


async def check_http(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        ready = await client.get("/readyz")
        assert ready.status_code == 200, ready.text
        assert ready.json()["checks"]["roles"]["detail"] == "cone"
        assert ready.json()["checks"]["network"]["detail"] == "no other node is known yet"
        text = (await client.get("/metrics")).text
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }
    assert samples["d2m_stake_ether", "free"] == 5.0
    assert 94.0 < samples["d2m_balance_ether",] < 95.0
    assert samples["d2m_transactions_total", "StakePool.deposit", "confirmed"] == 1.0
    assert samples["d2m_gas_used_total", "StakePool.deposit"] > 21_000
    assert samples["d2m_fees_paid_ether_total", "StakePool.deposit"] > 0.0
    assert samples["d2m_disk_free_bytes",] > 0.0
    assert ("d2m_event_loop_lag_seconds_count",) in samples


def check_log(folder: Path) -> None:
    path = folder / "node.log"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert PASSWORD not in text
    events = [json.loads(line) for line in text.splitlines()]
    stake = [one for one in events if one["event"] == "transaction_mined" and "stake" in one["key"]]
    assert [one["role"] for one in stake] == ["cone"]
