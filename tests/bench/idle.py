"""An idle node as operators run it: a process, a chain that mines, a dozen peers."""

import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import trio
from libp2p.peer.id import ID

from d2m_node.chain.deployment import Deployment, deploy
from d2m_node.client import NODE_STATUS, AsyncRpcClient, NodeStatus, NoParams
from d2m_node.devnet.anvil import open_anvil
from d2m_node.errors import NodeError
from d2m_node.keys import write_keystore
from tests.support.anvil import CHAIN_ID, ONE_ETHER, PARAMS, cone, deployer, find_free_port
from tests.support.network import start_network

PEERS = 12
BLOCK_SECONDS = 1.0
JOIN_SECONDS = 120.0

_CONFIG = """\
device = "cpu"
[chain]
chain_id = {chain_id}
market = "{market}"
rpc_urls = ["{url}"]
confirmations = 0
poll_seconds = 0.5
deployment_block = {block}
[keys]
password_file = "password"
[network]
listen = "/ip4/127.0.0.1/tcp/0"
bootstrap = {peers}
"""


@dataclass(frozen=True, slots=True)
class IdleNode:
    """A node that has joined, and has nothing to do."""

    folder: Path
    process: psutil.Process


@dataclass(frozen=True, slots=True)
class IdleCost:
    """What a node took while nothing happened."""

    resident_bytes: int
    cpu_seconds: float
    wall_seconds: float
    blocks: int
    """Mined meanwhile."""

    @property
    def core_share(self) -> float:
        """Part of one core."""
        return self.cpu_seconds / self.wall_seconds


@asynccontextmanager
async def open_idle_node(
    folder: Path, *, peers: int = PEERS, block_seconds: float = BLOCK_SECONDS
) -> AsyncGenerator[IdleNode, None]:
    """Run a node, its chain and its peers while the context is open; yield when all are met."""
    balances = {signer.address: 1000 * ONE_ETHER for signer in (deployer, cone)}
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(
            open_anvil(
                port=find_free_port(),
                chain_id=CHAIN_ID,
                balances=balances,
                block_seconds=block_seconds,
            )
        )
        deployment = await deploy(url, deployer, PARAMS)
        addresses = []
        for number in range(peers):
            network = await stack.enter_async_context(start_network(folder / f"peer-{number}"))
            addresses.append(f"{network.listening[0]}/p2p/{ID(network.peer_id)}")
        home = folder / "node"
        _write_home(home, url, deployment, addresses)
        process = _start(home)
        try:
            await _wait_joined(home, process, peers)
            yield IdleNode(home, psutil.Process(process.pid))
        finally:
            process.kill()
            process.wait()


async def measure_idle(node: IdleNode, seconds: float) -> IdleCost:
    """Let time pass, and see what the node took of it."""
    before, first = node.process.cpu_times(), await read_status(node.folder)
    start = trio.current_time()
    await trio.sleep(seconds)
    after = node.process.cpu_times()
    wall_seconds = trio.current_time() - start
    return IdleCost(
        resident_bytes=node.process.memory_info().rss,
        cpu_seconds=after.user + after.system - before.user - before.system,
        wall_seconds=wall_seconds,
        blocks=(await read_status(node.folder)).block_number - first.block_number,
    )


async def read_status(folder: Path) -> NodeStatus:
    async with AsyncRpcClient(folder / "rpc.sock") as client:
        return await client.call(NODE_STATUS, NoParams())


def _write_home(home: Path, url: str, deployment: Deployment, peers: list[str]) -> None:
    home.mkdir(mode=0o700)
    password = home / "password"
    password.touch(mode=0o600)
    password.write_text("idle and alone\n")
    write_keystore(home / "account.json", b"\x02" * 32, "idle and alone", light=True)
    (home / "config.toml").write_text(
        _CONFIG.format(
            chain_id=CHAIN_ID,
            market="0x" + deployment.market.hex(),
            url=url,
            block=deployment.deployment_block,
            peers=json.dumps(peers),
        )
    )


def _start(home: Path) -> subprocess.Popen[bytes]:
    with (home / "out.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "d2m_node", "--data-dir", str(home), "run"],
            stdout=log,
            stderr=log,
        )


async def _wait_joined(home: Path, process: subprocess.Popen[bytes], peers: int) -> None:
    with trio.fail_after(JOIN_SECONDS):
        while True:
            if process.poll() is not None:
                raise NodeError((home / "out.log").read_text()[-2000:])
            if (home / "rpc.sock").exists() and (await read_status(home)).peers_connected >= peers:
                return
            await trio.sleep(0.2)
