"""A node's process on a real chain: told to stop, in order and by force; a role that is drained."""

import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from d2m_node import client as api
from d2m_node.chain.deployment import deploy
from d2m_node.client import AsyncRpcClient
from d2m_node.devnet.anvil import open_anvil
from d2m_node.keys import write_keystore
from protocol.types import Wei
from tests.support.anvil import CHAIN_ID, ONE_ETHER, PARAMS, ask, cone, deployer, find_free_port

pytestmark = pytest.mark.integration

CONE_KEY = b"\x02" * 32
NO_CHAIN = "http://127.0.0.1:9"
"""Nobody listens there."""


@dataclass
class Running:
    """A node's process and its log."""

    process: trio.Process
    folder: Path

    def events(self) -> list[dict[str, Any]]:
        path = self.folder / "node.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def names(self) -> list[str]:
        return [event["event"] for event in self.events()]

    async def wait_file(self, name: str) -> None:
        while not (self.folder / name).exists():
            assert self.process.returncode is None
            await trio.sleep(0.05)

    async def wait_event(self, name: str, *, count: int = 1) -> None:
        while self.names().count(name) < count:
            assert self.process.returncode is None, self.names()
            await trio.sleep(0.05)


def write_node(folder: Path, url: str, market: bytes, *, stake: str | None = None) -> None:
    folder.mkdir(mode=0o700)
    (folder / "password").touch(mode=0o600)
    (folder / "password").write_text("a password of a test\n")
    write_keystore(folder / "account.json", CONE_KEY, "a password of a test", light=True)
    lines = [
        "[chain]",
        f'rpc_urls = ["{url}"]',
        f"chain_id = {CHAIN_ID}",
        f'market = "0x{market.hex()}"',
        "confirmations = 0",
        "poll_seconds = 0.2",
        "[keys]",
        'password_file = "password"',
        "[network]",
        'listen = "/ip4/127.0.0.1/tcp/0"',
        "[watch]",
        'listen = ""',
        *([] if stake is None else ["[roles.cone]", "enabled = true", f'stake_wei = "{stake}"']),
    ]
    (folder / "config.toml").write_text("\n".join(lines) + "\n")


@asynccontextmanager
async def run_node(folder: Path) -> AsyncGenerator[Running, None]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("D2M_")}
    command = [sys.executable, "-m", "d2m_node", "--data-dir", str(folder), "run"]
    with (folder / "output").open("wb") as output:
        process = await trio.lowlevel.open_process(
            command, stdout=output, stderr=output, env=environment
        )
    try:
        yield Running(process, folder)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def open_market(block_seconds: float | None) -> AsyncGenerator[tuple[str, bytes], None]:
    balances = {one.address: Wei(1000 * ONE_ETHER) for one in (deployer, cone)}
    with trio.fail_after(120):
        async with open_anvil(
            port=find_free_port(),
            chain_id=CHAIN_ID,
            balances=balances,
            block_seconds=block_seconds,
        ) as url:
            deployment = await deploy(url, deployer, PARAMS)
            yield url, deployment.market


async def test_a_node_that_is_told_to_stop_ends_well_and_drains_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    async with open_market(0.5) as (url, market):
        write_node(folder, url, market, stake="1ether")
        for number in (signal.SIGTERM, signal.SIGINT):
            async with run_node(folder) as node:
                await node.wait_event("node_ready")
                await node.wait_event("role_enabled")
                node.process.send_signal(number)
                assert await node.process.wait() == 0, (folder / "output").read_text()[-2000:]
            assert node.names()[-1] == "node_stopped"
            (folder / "node.log").unlink()


async def test_a_second_interrupt_ends_a_node_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    async with open_market(None) as (url, market):
        write_node(folder, url, market)
        async with run_node(folder) as node:
            await node.wait_event("node_ready")
            # What is signed from now on stays open, and a node that stops waits for it.
            await ask(url, "evm_setAutomine", False)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stake, folder)
                await node.wait_event("transaction_sent", count=2)  # the first binds the peer
                node.process.send_signal(signal.SIGINT)
                await node.wait_event("node_stopping")
                node.process.send_signal(signal.SIGINT)
                assert await node.process.wait() == -signal.SIGINT


async def stake(folder: Path) -> None:
    params = api.EnableRoleParams(role="cone", stake_wei="1ether", idempotency_key="once")
    async with AsyncRpcClient(folder / "rpc.sock") as client:
        await client.call(api.ENABLE_ROLE, params)


async def test_a_node_that_finds_no_chain_can_be_stopped_before_it_has_started(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "node"
    write_node(folder, NO_CHAIN, bytes(20))
    with trio.fail_after(60):
        async with run_node(folder) as node:
            await node.wait_file("store.sqlite")
            node.process.send_signal(signal.SIGTERM)
            assert await node.process.wait() == 0


# --- draining


async def ask_state(folder: Path) -> str:
    async with AsyncRpcClient(folder / "rpc.sock") as client:
        return (await client.call(api.NODE_STATUS, api.NoParams())).roles["cone"]


async def test_a_cone_drains_on_a_real_chain_has_its_stake_back_and_stays_off(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "node"
    async with open_market(0.5) as (url, market):
        write_node(folder, url, market, stake="1ether")
        async with run_node(folder) as node:
            await node.wait_event("role_enabled")
            async with AsyncRpcClient(folder / "rpc.sock") as client:
                assert (await client.call(api.NODE_STATUS, api.NoParams())).stake.free_wei == 10**18
                await client.call(api.DRAIN_ROLE, api.RoleParams(role="cone"))
                await node.wait_event("role_drained")
                status = await client.call(api.NODE_STATUS, api.NoParams())
            assert status.roles["cone"] == "off"
            assert (status.stake.free_wei, status.stake.unbonding_wei) == (0, 10**18)
            node.process.kill()
            await node.process.wait()
        (folder / "node.log").unlink()
        # The settings want the role on; the command is the newer word.
        async with run_node(folder) as node:
            await node.wait_event("role_stays_off")
            assert await ask_state(folder) == "off"
            calls = {event["key"].split("/")[0] for event in node.events() if "key" in event}
            while "withdraw-stake" not in calls:
                await trio.sleep(0.1)
                calls = {event["key"].split("/")[0] for event in node.events() if "key" in event}
            assert "stake" not in calls


# --- a role that cannot start


async def test_a_node_whose_role_cannot_start_stays_up_and_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    async with open_market(0.5) as (url, market):
        write_node(folder, url, market, stake="5000ether")  # more than the account has
        with (folder / "config.toml").open("a") as config:
            config.write("[roles.buyer]\nenabled = true\n")
        async with run_node(folder) as node:
            await node.wait_event("role_failed")
            await node.wait_event("role_enabled")
            async with AsyncRpcClient(folder / "rpc.sock") as client:
                status = await client.call(api.NODE_STATUS, api.NoParams())
                assert (status.roles["cone"], status.roles["buyer"]) == ("failed", "on")
                assert "funds" in status.role_notes["cone"]
            await stake(folder)
            assert await ask_state(folder) == "on"
            assert node.names().count("role_failed") == 1
